"""Procedural people: tapered limbs, a torso, hands, feet, hair and clothes as one skinned triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streampose.synthetic.paint import cloth_tile, face_tile, hair_tile, random_colour, random_skin, skin_tile
from streampose.synthetic.rig import BONE, BONES, Landmark, Rig

SEGMENTS = 12


@dataclass(frozen=True)
class Body:
    """A skinned mesh: V vertices, F triangles, P texture tiles.

    Attributes:
        rig: its proportions.
        vertices, normals: (V, 3) in the rest pose, metres, unit.
        weights: (V, B) how much each bone carries each vertex; rows sum to one.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        uv: (V, 2) place in the tile, which is [0, 1] and repeats beyond.
        face_tiles: (F,) tile of each triangle.
        atlas: (P, S, S, 3) float32 albedo in [0, 1].
        rest_from_bind: (B, 3, 4) where each bone brings the vertices if they are modelled in another pose than the rest
            pose; None where they are in it.
    """

    rig: Rig
    vertices: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    face_tiles: np.ndarray
    atlas: np.ndarray
    rest_from_bind: np.ndarray | None = None


def skin_body(body: Body, transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning of one frame.

    Args:
        transforms: (B, 3, 4) world from rest.

    Returns:
        (V, 3) world vertices and (V, 3) normals (not normalised).
    """
    if body.rest_from_bind is not None:
        transforms = compose(transforms, body.rest_from_bind)
    blended = (body.weights @ transforms.reshape(len(transforms), 12).astype(np.float32)).reshape(-1, 3, 4)
    x, y, z, offset = (blended[..., i] for i in range(4))  # (V, 3) each: the matrices' columns
    v, n = body.vertices, body.normals
    return v[:, :1] * x + v[:, 1:2] * y + v[:, 2:] * z + offset, n[:, :1] * x + n[:, 1:2] * y + n[:, 2:] * z


def compose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """First b, then a: rigid transforms (..., 3, 4) -> (..., 3, 4)."""
    moved = np.einsum("...ij,...j->...i", a[..., :3], b[..., 3]) + a[..., 3]
    return np.concatenate([a[..., :3] @ b[..., :3], moved[..., None]], -1)


def landmarks_of(heads: dict[str, np.ndarray], nose: np.ndarray, top: np.ndarray, girth: float) -> dict[str, Landmark]:
    """The named joints of the shipped human skeletons from the bones' heads and two points of the head.

    Args:
        heads: bone name -> (3,) rest position; nose, top: (3,) rest positions on the head; girth: flesh in metres that
            covers a joint of a limb.
    """
    centre = (nose + top) / 2 * (0.5, 0.0, 1.0)
    points: dict[str, Landmark] = {}

    def add(name: str, anchors: dict[str, np.ndarray], depth: float) -> None:
        points[name] = Landmark(tuple(anchors), np.stack(list(anchors.values())), depth * girth)

    for side, sign in (("left", 1.0), ("right", -1.0)):
        for joint, bone, depth in (
            ("hip", "thigh", 2.8), ("knee", "shin", 1.9), ("ankle", "foot", 1.7),
            ("shoulder", "upper_arm", 2.2), ("elbow", "forearm", 1.6), ("wrist", "hand", 1.5),
        ):  # fmt: skip
            add(f"{side}_{joint}", {f"{side}_{bone}": heads[f"{side}_{bone}"]}, depth)
        size = np.linalg.norm(top - nose)
        add(f"{side}_eye", {"head": nose + size * np.array([-0.15, sign * 0.28, 0.3])}, 0.8)
        add(f"{side}_ear", {"head": centre * (0.4, 0, 1) + size * np.array([0, sign * 0.68, -0.22])}, 0.8)
    hips = {f"{side}_thigh": heads[f"{side}_thigh"] for side in ("left", "right")}
    shoulders = {f"{side}_upper_arm": heads[f"{side}_upper_arm"] for side in ("left", "right")}
    add("pelvis", hips, 3.6)
    add("thorax", shoulders, 3.2)
    add("spine", {"chest": heads["chest"]}, 3.2)
    add("neck", {"neck": heads["neck"]}, 2.0)
    add("upper_neck", {"head": heads["head"]}, 2.0)
    add("nose", {"head": nose}, 0.9)
    add("head", {"head": top}, 1.3)
    points["head_top"] = points["head"]
    return points


def procedural_body(rng: np.random.Generator) -> Body:
    """A random person: proportions, girth, clothes, hair."""
    height, girth = rng.uniform(1.5, 1.95), rng.uniform(0.85, 1.25)
    rig = _random_rig(height, girth, rng)
    return _Tailor(rig, height, girth, rng).dress()


def random_rig(rng: np.random.Generator) -> Rig:
    """The proportions of a random person, without the mesh."""
    return _random_rig(rng.uniform(1.5, 1.95), rng.uniform(0.85, 1.25), rng)


def average_rig(height: float = 1.7) -> Rig:
    """The proportions of an average person of this height in metres."""
    return _rig(height, 1.0, 1.0, 1.0, 1.0, 1.0)


def _random_rig(height: float, girth: float, rng: np.random.Generator) -> Rig:
    legs, arms = rng.uniform(0.95, 1.06), rng.uniform(0.94, 1.07)
    shoulders, hips = rng.uniform(0.9, 1.12), rng.uniform(0.9, 1.12)
    return _rig(height, girth, legs, arms, shoulders, hips)


def _rig(height: float, girth: float, legs: float, arms: float, shoulders: float, hips: float) -> Rig:
    thigh, shin, ankle, trunk = 0.245 * legs, 0.245 * legs, 0.04, (1 - 0.53 * legs) / 0.47
    heads = {
        "pelvis": np.zeros(3), "spine": np.array([0, 0, 0.05 * trunk]), "chest": np.array([-0.005, 0, 0.14 * trunk]),
        "neck": np.array([-0.01, 0, 0.295 * trunk]), "head": np.array([0, 0, 0.34 * trunk]),
    }  # fmt: skip
    for side, sign in (("left", 1), ("right", -1)):
        shoulder = np.array([-0.005, sign * 0.105 * shoulders, 0.278 * trunk])
        hip = np.array([0, sign * 0.055 * hips, 0])
        heads |= {
            f"{side}_collar": np.array([0, sign * 0.02, 0.27 * trunk]), f"{side}_upper_arm": shoulder,
            f"{side}_forearm": shoulder - (0, 0, 0.168 * arms), f"{side}_hand": shoulder - (0, 0, 0.318 * arms),
            f"{side}_thigh": hip, f"{side}_shin": hip - (0, 0, thigh), f"{side}_foot": hip - (0, 0, thigh + shin),
        }  # fmt: skip
    scaled = {name: point * height for name, point in heads.items()}
    nose = np.array([0.066, 0, 0.387 * trunk]) * height
    top = np.array([0.002, 0, 0.468 * trunk]) * height
    landmarks = landmarks_of(scaled, nose, top, 0.032 * height * girth)
    return Rig(np.stack([scaled[name] for name in BONES]), ankle * height, landmarks)


class _Tailor:
    """Collects the parts of one person's mesh. Lengths below are fractions of the height, z from the hips."""

    def __init__(self, rig: Rig, height: float, girth: float, rng: np.random.Generator):
        self.height, self.girth, self.rng = height, girth, rng
        self.at = {name: rig.heads[i] / height for i, name in enumerate(BONES)}
        self.rig = rig
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []  # vertices, faces, weights, uv
        self.tiles: list[np.ndarray] = []
        self.part_tiles: list[int] = []

    def dress(self) -> Body:
        rng = self.rng
        skin = random_skin(rng)
        hair = random_colour(rng, "hair")
        self.skin = self._tile(skin_tile(skin, rng))
        shirt = self._tile(cloth_tile(random_colour(rng, "cloth"), rng))
        trousers = self._tile(cloth_tile(random_colour(rng, "trousers"), rng))
        shoes = self._tile(cloth_tile(random_colour(rng, "shoes"), rng, plain=True))
        face, hair_tone = self._tile(face_tile(skin, hair, rng)), self._tile(hair_tile(hair, rng))
        loose = rng.uniform(0.002, 0.014)
        bottom = rng.choice(["trousers", "shorts", "skirt"], p=[0.6, 0.22, 0.18])
        sleeve = rng.choice([0.0, 0.42, 0.75, 1.0], p=[0.08, 0.4, 0.12, 0.4])
        hem = rng.uniform(-0.05, 0.03)
        for side in ("left", "right"):
            self._arm(side, self.skin, 0.0, 1.0)
            if sleeve:
                self._arm(side, shirt, 0.004 + loose, sleeve)
            self._hand(side)
            self._leg(side, self.skin, 0.0, 1.0)
            if bottom != "skirt":
                self._leg(side, trousers, 0.003 + 0.8 * loose, rng.uniform(0.38, 0.55) if bottom == "shorts" else 0.97)
            self._foot(side, shoes)
        self._hips(trousers, 0.004 + 0.5 * loose)
        if bottom == "skirt":
            self._skirt(trousers, rng.uniform(0.15, 0.36), rng.uniform(0.0, 0.05))
        self._torso(shirt, 0.003 + 0.8 * loose, hem)
        self._head(face, hair_tone)
        return self._body()

    def _tile(self, image: np.ndarray) -> int:
        self.tiles.append(image)
        return len(self.tiles) - 1

    def _tube(self, tile: int, centres: np.ndarray, radii: np.ndarray, weights: list[dict[str, float]], *,
              along: str = "z", squareness: float = 1.0) -> None:  # fmt: skip
        """Rings (radii across: forward x left, or left x up for `along` x) from the top (or the back) to the end."""
        R = len(centres)
        angle = np.linspace(0, 2 * np.pi, SEGMENTS + 1)
        c, s = np.cos(angle), np.sin(angle)
        c, s = np.sign(c) * np.abs(c) ** squareness, np.sign(s) * np.abs(s) ** squareness
        rings = np.zeros((R, SEGMENTS + 1, 3))
        first, second = (0, 1) if along == "z" else (1, 2)
        rings[..., first], rings[..., second] = radii[:, :1] * c, radii[:, 1:] * s
        rings += centres[:, None]
        i = np.arange(R - 1)[:, None] * (SEGMENTS + 1) + np.arange(SEGMENTS)
        a, b, d, e = i.ravel(), i.ravel() + 1, i.ravel() + SEGMENTS + 1, i.ravel() + SEGMENTS + 2
        faces = np.concatenate([np.stack([a, d, b], -1), np.stack([b, d, e], -1)])
        if along == "x":
            faces = faces[:, ::-1]
        table = np.zeros((R, len(BONES)))
        for row, carried in zip(table, weights, strict=True):
            for bone, weight in carried.items():
                row[BONE[bone]] = weight
        u = np.broadcast_to(np.linspace(0, 1, SEGMENTS + 1), (R, SEGMENTS + 1))
        v = np.broadcast_to(np.linspace(0, 1, R)[:, None], (R, SEGMENTS + 1))
        self.parts.append(
            (rings.reshape(-1, 3), faces, np.repeat(table, SEGMENTS + 1, 0), np.stack([u, v], -1).reshape(-1, 2))
        )
        self.part_tiles.append(tile)

    def _limb(self, tile: int, top: np.ndarray, middle: float, z: np.ndarray, radii: np.ndarray,
              bones: tuple[str, str, str], soft: float) -> None:  # fmt: skip
        """A hanging limb: `bones` carry its top, its upper and its lower part; `middle` is the height of its joint."""
        centres = np.stack([np.full(len(z), top[0]), np.full(len(z), top[1]), z], -1)
        weights = []
        for height in z:
            lower = float(_step((middle - height) / soft + 0.5))
            above = 0.7 * float(_step((height - top[2]) / 0.04 + 0.2))
            weights.append({bones[0]: above, bones[1]: (1 - above) * (1 - lower), bones[2]: (1 - above) * lower})
        self._tube(tile, centres, radii, weights)

    def _arm(self, side: str, tile: int, extra: float, until: float) -> None:
        top, elbow, wrist = (self.at[f"{side}_{bone}"] for bone in ("upper_arm", "forearm", "hand"))
        length = top[2] - wrist[2]
        f = np.array([-0.085, -0.08, -0.05, 0.0, 0.08, 0.2, 0.35, 0.46, 0.53, 0.6, 0.7, 0.85, 0.96, 1.0, 1.0])
        x = np.array(
            [0.0, 0.017, 0.028, 0.033, 0.032, 0.028, 0.025, 0.022, 0.021, 0.023, 0.023, 0.018, 0.014, 0.014, 0.0]
        )
        radii = np.stack([x, x * 0.95], -1) * self.girth + (x[:, None] > 0) * extra
        keep = (f <= until + 0.01) | (f < 0)
        keep[-1] = keep[-2] = until >= 1
        radii[0] = 0
        self._limb(tile, top, elbow[2], (top[2] - f * length)[keep], radii[keep],
                   (f"{side}_collar", f"{side}_upper_arm", f"{side}_forearm"), 0.05)  # fmt: skip

    def _hand(self, side: str) -> None:
        x, y, z = self.at[f"{side}_hand"]
        f = np.array([0.012, 0.0, -0.02, -0.05, -0.075, -0.092, -0.095])
        radii = np.array(
            [[0.0, 0.0], [0.015, 0.01], [0.024, 0.012], [0.025, 0.013], [0.02, 0.012], [0.01, 0.008], [0, 0]]
        )
        centres = np.stack([np.full(7, x), np.full(7, y), z + f], -1)
        self._tube(self.skin, centres, radii, [{f"{side}_hand": 1.0}] * 7)
        thumb = np.stack(
            [x + np.array([0.016, 0.026, 0.034, 0.036]), np.full(4, y), z + np.array([-0.015, -0.025, -0.045, -0.052])],
            -1,
        )
        self._tube(
            self.skin, thumb, np.array([[0.006] * 2, [0.008] * 2, [0.006] * 2, [0.0] * 2]), [{f"{side}_hand": 1.0}] * 4
        )

    def _leg(self, side: str, tile: int, extra: float, until: float) -> None:
        top, knee, ankle = (self.at[f"{side}_{bone}"] for bone in ("thigh", "shin", "foot"))
        length = top[2] - ankle[2]
        f = np.array([-0.1, -0.06, 0.0, 0.08, 0.18, 0.32, 0.44, 0.5, 0.56, 0.66, 0.78, 0.9, 0.97, 1.02, 1.04])
        x = np.array(
            [0.0, 0.042, 0.052, 0.055, 0.051, 0.043, 0.036, 0.033, 0.032, 0.034, 0.03, 0.022, 0.02, 0.021, 0.0]
        )
        radii = np.stack([x, x * 0.93], -1) * self.girth + (x[:, None] > 0) * extra
        keep = f <= until + 0.001
        self._limb(
            tile,
            top,
            knee[2],
            (top[2] - f * length)[keep],
            radii[keep],
            ("pelvis", f"{side}_thigh", f"{side}_shin"),
            0.06,
        )

    def _foot(self, side: str, tile: int) -> None:
        x, y, z = self.at[f"{side}_foot"]
        sole = -self.rig.ankle_height / self.height
        f = np.array([-0.036, -0.034, -0.015, 0.02, 0.06, 0.09, 0.106, 0.11])
        tall = np.array([0.0, 0.018, 0.026, 0.024, 0.016, 0.012, 0.008, 0.0])
        wide = np.array([0.0, 0.016, 0.02, 0.021, 0.025, 0.024, 0.014, 0.0]) * min(self.girth, 1.1)
        centres = np.stack([x + f, np.full(8, y), z + sole + np.maximum(tall, 0.01)], -1)
        self._tube(tile, centres, np.stack([wide, tall], -1), [{f"{side}_foot": 1.0}] * 8, along="x", squareness=0.8)

    def _hips(self, tile: int, extra: float) -> None:
        width = self.at["left_thigh"][1] + 0.036
        z = np.array([0.075, 0.07, 0.045, 0.0, -0.035, -0.055, -0.06])
        wide = np.array([0.0, 0.82, 0.95, 1.02, 0.95, 0.6, 0.0]) * width
        deep = np.array([0.0, 0.052, 0.06, 0.064, 0.06, 0.035, 0.0])
        radii = np.stack([deep, wide], -1) * self.girth**0.8 + (wide[:, None] > 0) * extra
        self._tube(tile, np.stack([0 * z - 0.004, 0 * z, z], -1), radii, [{"pelvis": 1.0}] * 7, squareness=0.85)

    def _skirt(self, tile: int, length: float, flare: float) -> None:
        z = np.linspace(0.04, -length, 8)
        down = np.clip(-z / length, 0, 1)
        radii = np.stack([0.062 + (0.02 + flare) * down, 0.098 + (0.0 + flare) * down], -1) * self.girth**0.8
        self._tube(tile, np.stack([0 * z, 0 * z, z], -1), radii, [{"pelvis": 1.0}] * len(z))
        vertices, _, weights, _ = self.parts[-1]
        down = np.repeat(down, SEGMENTS + 1) ** 0.7
        left = _step(vertices[:, 1] / radii[-1, 1] + 0.5)
        weights[:, BONE["pelvis"]] = 1 - 0.95 * down
        weights[:, BONE["left_thigh"]], weights[:, BONE["right_thigh"]] = 0.95 * down * left, 0.95 * down * (1 - left)

    def _torso(self, tile: int, extra: float, hem: float) -> None:
        shoulder, neck = self.at["left_upper_arm"], self.at["neck"][2]
        top, wide_hips = shoulder[2], self.at["left_thigh"][1] + 0.034
        chest = shoulder[1]
        z = np.array(
            [neck + 0.022, neck + 0.012, top + 0.022, top + 0.008, top - 0.03, top - 0.08, 0.14, 0.09, 0.045, hem, hem]
        )
        wide = np.array(
            [
                0.0,
                0.036,
                0.55 * chest,
                0.93 * chest,
                0.95 * chest,
                0.88 * chest,
                0.76 * chest,
                0.8 * wide_hips,
                wide_hips,
                wide_hips,
                0.0,
            ]
        )
        deep = np.array([0.0, 0.034, 0.046, 0.055, 0.068, 0.07, 0.06, 0.056, 0.06, 0.062, 0.0])
        radii = (
            np.stack([deep, wide], -1) * np.where(np.arange(11) < 3, 1, self.girth**0.8)[:, None]
            + (wide[:, None] > 0) * extra
        )
        weights = []
        for height in z:
            chest_part, spine_part = (
                float(_step((height - 0.14) / 0.1 + 0.5)),
                float(_step((height - 0.05) / 0.08 + 0.5)),
            )
            weights.append(
                {
                    "chest": chest_part,
                    "spine": (1 - chest_part) * spine_part,
                    "pelvis": (1 - chest_part) * (1 - spine_part),
                }
            )
        self._tube(tile, np.stack([0 * z - 0.004, 0 * z, z], -1), radii, weights, squareness=0.9)

    def _head(self, face: int, hair: int) -> None:
        rng, neck, top = self.rng, self.at["neck"], self.rig.landmarks["head"].points[0][2] / self.height
        z = np.linspace(neck[2] + 0.06, neck[2] - 0.01, 5)
        carried = [{"head": 1 - i / 4, "neck": i / 4} for i in range(5)]
        self._tube(
            self.skin, np.stack([0 * z + 0.0, 0 * z, z], -1), np.full((5, 2), 0.029) * (0.5 + 0.5 * self.girth), carried
        )
        chin = top - 0.13
        f = np.array([1.0, 0.985, 0.93, 0.8, 0.62, 0.45, 0.3, 0.15, 0.04, 0.0])
        wide = np.array([0.0, 0.014, 0.028, 0.042, 0.047, 0.045, 0.041, 0.033, 0.018, 0.0])
        deep = np.array([0.0, 0.016, 0.034, 0.05, 0.056, 0.055, 0.05, 0.042, 0.022, 0.0])
        forward = np.array([0.0, 0, 0, 0.002, 0.003, 0.006, 0.01, 0.016, 0.026, 0.03])
        centres = np.stack([forward, 0 * f, chin + 0.13 * f], -1)
        self._tube(face, centres, np.stack([deep, wide], -1), [{"head": 1.0}] * len(f))
        nose = self.rig.landmarks["nose"].points[0] / self.height
        bump = np.stack(
            [
                nose[0] + np.array([-0.012, -0.008, -0.004, -0.006]),
                np.zeros(4),
                nose[2] + np.array([0.025, 0.01, 0.0, -0.008]),
            ],
            -1,
        )
        self._tube(self.skin, bump, np.array([[0, 0], [0.006, 0.005], [0.009, 0.008], [0, 0]]), [{"head": 1.0}] * 4)
        style = rng.choice(["short", "long", "bun", "bald"], p=[0.5, 0.27, 0.1, 0.13])
        if style == "bald":
            return
        fringe = rng.uniform(0.004, 0.012)
        down = {"short": 0.42, "bun": 0.4, "long": rng.uniform(-0.5, 0.1)}[style]
        f = np.array([1.0, 0.985, 0.93, 0.8, 0.62, down])
        shift = -np.array([0.0, 0.002, 0.006, 0.014, 0.024, 0.026])
        deep = np.array([0.0, 0.018, 0.036, 0.046, 0.04, 0.034]) + fringe
        wide = np.array([0.0, 0.018, 0.032, 0.045, 0.048, 0.042]) + 0.7 * fringe
        deep[0] = wide[0] = 0
        centres = np.stack([shift, 0 * f, chin + 0.13 * f + fringe], -1)
        carried = [{"head": 1.0}] * 5 + [{"head": 0.7, "chest": 0.3} if down < 0 else {"head": 1.0}]
        self._tube(hair, centres, np.stack([deep, wide], -1), carried)
        if style == "bun":
            z = np.array([0.03, 0.02, 0.0, -0.02, -0.025]) + top - 0.03
            self._tube(
                hair,
                np.stack([0 * z - 0.065, 0 * z, z], -1),
                np.array([0, 0.018, 0.025, 0.017, 0])[:, None] * np.ones(2),
                [{"head": 1.0}] * 5,
            )

    def _body(self) -> Body:
        offsets = np.cumsum([0, *(len(part[0]) for part in self.parts)])
        vertices = np.concatenate([part[0] for part in self.parts]) * self.height
        faces = np.concatenate([part[1] + offset for part, offset in zip(self.parts, offsets, strict=False)])
        tiles = np.concatenate(
            [np.full(len(part[1]), tile) for part, tile in zip(self.parts, self.part_tiles, strict=True)]
        )
        return Body(
            rig=self.rig,
            vertices=vertices.astype(np.float32),
            normals=vertex_normals(vertices, faces).astype(np.float32),
            weights=np.concatenate([part[2] for part in self.parts]).astype(np.float32),
            faces=faces.astype(np.int32),
            uv=np.concatenate([part[3] for part in self.parts]).astype(np.float32),
            face_tiles=tiles.astype(np.int32),
            atlas=np.stack(self.tiles).astype(np.float32),
        )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals, averaged over the faces around each place (vertices at the same place share theirs): (V, 3)."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    _, place = np.unique(np.round(vertices, 5), axis=0, return_inverse=True)
    place = place.ravel()
    normals = np.zeros((place.max() + 1, 3))
    for corner in range(3):
        np.add.at(normals, place[faces[:, corner]], face_normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return normals[place]


def _step(x: float | np.ndarray) -> float | np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)
