"""Realistic people: the rigged MakeHuman base mesh from a folder that the user names, shaped by targets and painted.

The folder holds base.obj, rig.cmu_mb.json, weights.cmu_mb.json and targets/*.target.gz. Nothing of it is shipped here.
Axes of the mesh: x left, y up, z forward, decimetres.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.synthetic.body import Body, landmarks_of, vertex_normals
from streampose.synthetic.paint import cloth_tile, hair_tile, random_colour, random_skin, skin_tile
from streampose.synthetic.retarget import rotation_between
from streampose.synthetic.rig import BONE, BONES, Rig

OURS_FROM_MESH = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float)
NOSE_VERTEX, TOP_VERTEX = 297, 881  # of the base mesh hm08: tip of the nose, top of the head
GROUPS = ("body", "helper-l-eye", "helper-r-eye", "helper-skirt", "helper-hair")
SIDED = {
    "collar": ("{S}Shoulder",), "upper_arm": ("{S}Arm",), "forearm": ("{S}ForeArm",),
    "hand": ("{S}Hand", "{S}FingerBase", "{S}HandFinger1", "{I}Thumb"),
    "thigh": ("{S}UpLeg",), "shin": ("{S}Leg",), "foot": ("{S}Foot", "{S}ToeBase"),
}  # fmt: skip
# Our bone -> the rig's bones that it stands for; it starts where the first of them starts.
RIG_BONES: dict[str, tuple[str, ...]] = {
    "pelvis": ("Hips", "LHipJoint", "RHipJoint"), "spine": ("LowerBack",), "chest": ("Spine", "Spine1"),
    "neck": ("Neck",), "head": ("Head", "Neck1"),
    **{
        f"{side}_{part}": tuple(name.format(S=side.capitalize(), I=side[0].upper()) for name in names)
        for side in ("left", "right") for part, names in SIDED.items()
    },
}  # fmt: skip
CHAINS = (("upper_arm", "forearm"), ("forearm", "hand"), ("thigh", "shin"), ("shin", "foot"))


@dataclass(frozen=True)
class MakeHuman:
    """The model of a folder.

    Attributes:
        vertices: (V, 3) base mesh in our axes, metres.
        faces: (F, 3) triangles of the groups that are drawn; groups: (F,) index into `GROUPS`.
        weights: (V, B) of our bones, rows sum to one where any bone carries the vertex.
        cubes: rig bone -> vertices whose mean is where it starts.
        targets: name -> ((n,) vertices, (n, 3) offsets in our axes, metres).
    """

    vertices: np.ndarray
    faces: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    cubes: dict[str, np.ndarray]
    targets: dict[str, tuple[np.ndarray, np.ndarray]]

    def person(self, rng: np.random.Generator) -> Body:
        """A random person: shape, size, clothes, hair."""
        vertices = self.shape(rng)
        drawn = vertices[np.unique(self.faces[self.groups == 0])]
        vertices = vertices * (rng.uniform(1.5, 1.95) / np.ptp(drawn[:, 2]))
        heads = {bone: vertices[self.cubes[names[0]]].mean(0) for bone, names in RIG_BONES.items()}
        origin = (heads["left_thigh"] + heads["right_thigh"]) / 2
        vertices, heads = vertices - origin, {bone: head - origin for bone, head in heads.items()}
        heads["pelvis"] = np.zeros(3)
        sole = vertices[self.faces[self.groups == 0], 2].min()
        rig, rest_from_bind = _rest_pose(heads, vertices[NOSE_VERTEX], vertices[TOP_VERTEX], sole)
        return self._paint(vertices, heads, rig, rest_from_bind, rng)

    def shape(self, rng: np.random.Generator) -> np.ndarray:
        """The base mesh with a random mixture of origins, ages, sexes, muscle and weight: (V, 3)."""
        vertices = self.vertices.copy()
        sex = rng.choice(["female", "male"])
        old = rng.uniform(0, 0.8) if rng.uniform() < 0.4 else 0.0
        origins = rng.dirichlet(np.full(3, 0.6))
        mixture: dict[str, float] = {}
        for origin, share in zip(("african", "asian", "caucasian"), origins, strict=True):
            mixture[f"{origin}-{sex}-young"] = share * (1 - old)
            mixture[f"{origin}-{sex}-old"] = share * old
        muscle, weight = rng.uniform(-1, 1, 2)
        mixture[f"universal-{sex}-young-{'max' if muscle > 0 else 'min'}muscle-averageweight"] = abs(muscle)
        mixture[f"universal-{sex}-young-averagemuscle-{'max' if weight > 0 else 'min'}weight"] = 0.8 * abs(weight)
        for name, amount in mixture.items():
            if name in self.targets:
                index, offsets = self.targets[name]
                vertices[index] += amount * offsets
        return vertices

    def _paint(self, vertices, heads, rig: Rig, rest_from_bind, rng) -> Body:
        """Clothes by region, a little away from the skin; the groups of skirt and hair are worn by some."""
        size = float(np.ptp(vertices[:, 2]))
        skin, hair = random_skin(rng), random_colour(rng, "hair")
        atlas = [
            skin_tile(skin, rng), cloth_tile(random_colour(rng, "cloth"), rng),
            cloth_tile(random_colour(rng, "trousers"), rng), cloth_tile(random_colour(rng, "shoes"), rng, plain=True),
            hair_tile(hair, rng), skin_tile(np.array([0.2, 0.16, 0.13]), rng),
        ]  # fmt: skip
        SKIN, SHIRT, TROUSERS, SHOES, HAIR, EYES = range(6)
        sleeve = rng.choice([0.1, 0.45, 0.8, 1.0], p=[0.1, 0.4, 0.1, 0.4])
        leg_end = rng.choice([0.5, 1.0], p=[0.25, 0.75])
        hem = heads["spine"][2] * rng.uniform(-0.3, 0.6)
        part = np.array(BONES)[self.weights.argmax(1)]
        kind = np.array([bone.split("_", 1)[-1] if bone.startswith(("left_", "right_")) else bone for bone in part])
        z, x = vertices[:, 2], vertices[:, 0]
        tile = np.full(len(vertices), SKIN)
        tile[np.isin(kind, ("pelvis", "spine", "chest", "collar")) & (z > hem)] = SHIRT
        tile[np.isin(kind, ("pelvis", "spine", "chest", "thigh")) & (z <= hem)] = TROUSERS
        tile[(kind == "neck") & (z < heads["neck"][2] + 0.01 * size)] = SHIRT
        for side in ("left", "right"):
            along = _along(vertices, heads[f"{side}_upper_arm"], heads[f"{side}_forearm"], heads[f"{side}_hand"])
            tile[np.isin(part, (f"{side}_upper_arm", f"{side}_forearm")) & (along < sleeve)] = SHIRT
            along = _along(vertices, heads[f"{side}_thigh"], heads[f"{side}_shin"], heads[f"{side}_foot"])
            tile[np.isin(part, (f"{side}_thigh", f"{side}_shin")) & (along < leg_end) & (z <= hem)] = TROUSERS
        tile[kind == "foot"] = SHOES
        nose, top = vertices[NOSE_VERTEX], vertices[TOP_VERTEX]
        face_height = top[2] - nose[2]
        if rng.uniform() < 0.88:
            hairline = nose[2] + 0.2 * face_height + 0.9 * (x - top[0])
            tile[np.isin(kind, ("head", "neck")) & (z > hairline) & (z > heads["head"][2])] = HAIR
        worn = self.groups <= 2
        worn |= (self.groups == 3) & (rng.uniform() < 0.2)
        worn |= (self.groups == 4) & (rng.uniform() < 0.25)
        faces, groups = self.faces[worn], self.groups[worn]
        face_tiles = tile[faces].max(1)
        for group, value in ((1, EYES), (2, EYES), (3, TROUSERS), (4, HAIR)):
            face_tiles[groups == group] = value
        loose = np.array(
            [0.0, 0.004 + rng.uniform(0, 0.012), 0.003 + rng.uniform(0, 0.01), 0.004, rng.uniform(0.004, 0.015), 0.0]
        )
        normals = vertex_normals(vertices, faces)
        dressed = vertices + normals * loose[tile][:, None]

        used, compact = np.unique(faces, return_inverse=True)
        uv = np.stack([vertices[:, 1] / 0.45, (top[2] - z) / 0.6], -1)
        return Body(
            rig=rig, vertices=dressed[used].astype(np.float32), normals=normals[used].astype(np.float32),
            weights=self.weights[used].astype(np.float32), faces=compact.reshape(faces.shape).astype(np.int32),
            uv=uv[used].astype(np.float32), face_tiles=face_tiles.astype(np.int32), atlas=np.stack(atlas),
            rest_from_bind=rest_from_bind,
        )  # fmt: skip


def read_makehuman(folder: str | Path) -> MakeHuman:
    """Read the model.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    folder = Path(folder)
    try:
        vertices, faces, groups = _read_obj(folder / "base.obj")
        rig = json.loads((folder / "rig.cmu_mb.json").read_text(encoding="utf-8"))
        weights = json.loads((folder / "weights.cmu_mb.json").read_text(encoding="utf-8"))["weights"]
        cubes, table = {}, np.zeros((len(vertices), len(BONES)))
        for bone, names in RIG_BONES.items():
            head = rig[names[0]]["head"]
            is_cube = head["strategy"] == "CUBE"
            cubes[names[0]] = groups[head["cube_name"]] if is_cube else np.array(head["vertex_indices"])
            for name in names:
                rows = np.array(weights[name], float).reshape(-1, 2)
                np.add.at(table[:, BONE[bone]], rows[:, 0].astype(int), rows[:, 1])
        targets = {
            path.name.removesuffix(".target.gz"): _read_target(path)
            for path in sorted(folder.glob("targets/*.target.gz"))
        }
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); `body` names a MakeHuman folder"
        ) from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"{folder}: not the MakeHuman model that was expected ({type(error).__name__}: {error})"
        ) from None
    if max(NOSE_VERTEX, TOP_VERTEX) >= len(vertices) or not len(faces[0]):
        raise ConfigError(f"{folder}/base.obj: not the base mesh hm08 ({len(vertices)} vertices)")
    table /= np.maximum(table.sum(1, keepdims=True), 1e-9)
    return MakeHuman(vertices, *faces, table, cubes, targets)


def _read_obj(path: Path) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Vertices in our axes and metres, (triangles, their group) of `GROUPS`, and the vertices of each other group."""
    vertices, triangles, owners = [], [], []
    members: dict[str, set[int]] = {}
    group = ""
    with path.open(encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append([float(word) for word in words[1:4]])
            elif words[0] == "g":
                group = words[1]
            elif words[0] == "f":
                corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
                if group in GROUPS:
                    for i in range(1, len(corners) - 1):
                        triangles.append((corners[0], corners[i], corners[i + 1]))
                        owners.append(GROUPS.index(group))
                else:
                    members.setdefault(group, set()).update(corners)
    points = np.array(vertices) @ OURS_FROM_MESH.T * 0.1
    return points, (np.array(triangles), np.array(owners)), {k: np.array(sorted(v)) for k, v in members.items()}


def _read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and their offsets in our axes, metres."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    table = np.array(rows, float).reshape(-1, 4)
    return table[:, 0].astype(int), table[:, 1:] @ OURS_FROM_MESH.T * 0.1


def _rest_pose(heads: dict[str, np.ndarray], nose: np.ndarray, top: np.ndarray, sole: float) -> tuple[Rig, np.ndarray]:
    """The rig in our rest pose, and the transforms (B, 3, 4) that bring the modelled pose, arms abduced, into it."""
    rest, turns = dict(heads), {bone: np.eye(3) for bone in BONES}
    for side in ("left", "right"):
        for upper, lower in CHAINS:
            upper, lower = f"{side}_{upper}", f"{side}_{lower}"
            direction = heads[lower] - heads[upper]
            turns[upper] = rotation_between(direction, np.array([0.0, 0.0, -1.0]))
            rest[lower] = rest[upper] - (0, 0, np.linalg.norm(direction))
        turns[f"{side}_hand"] = turns[f"{side}_forearm"]
    table = np.stack([rest[bone] for bone in BONES])
    offset = [rest[bone] - turns[bone] @ heads[bone] for bone in BONES]
    rest_from_bind = np.concatenate([np.stack([turns[bone] for bone in BONES]), np.stack(offset)[..., None]], -1)
    landmarks = landmarks_of(rest, nose, top, girth=0.03 * (top[2] - sole))
    return Rig(table, float(heads["left_foot"][2] - sole), landmarks), rest_from_bind


def _along(points: np.ndarray, start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How far along a limb each point lies: 0 at the start, 1 at the end: (V,)."""
    line = end - start
    return (points - start) @ line / (line @ line)
