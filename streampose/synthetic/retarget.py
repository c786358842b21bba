"""Recorded motions (BVH, DeepMimic) on synthetic people: joints by a table of names, rest poses by bone directions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from streampose.errors import ConfigError
from streampose.formats.bvh import read_bvh
from streampose.formats.deepmimic import LEG_METRES, read_deepmimic
from streampose.synthetic.motion import Region, stand_on_ground
from streampose.synthetic.rig import BONES, PARENTS, Motion, Rig

# What the bones are called: in the usual conversions of the CMU recordings (Poser/DAZ and MotionBuilder), by Mixamo and
# in files whose joints are named after anatomy. {s} is l / r, {S} Left / Right; the first name that a file has counts.
BVH_NAMES: dict[str, tuple[str, ...]] = {
    "pelvis": ("hip", "Hips", "Pelvis"), "spine": ("abdomen", "LowerBack", "Spine", "Chest"),
    "chest": ("chest", "Spine2", "Spine1", "Chest2", "Chest", "Spine"),
    "neck": ("neck", "Neck", "Neck1"), "head": ("head", "Head"),
    "collar": ("{s}Collar", "{S}Collar", "{S}Shoulder"), "upper_arm": ("{s}Shldr", "{S}Arm", "{S}Shoulder"),
    "forearm": ("{s}ForeArm", "{S}ForeArm", "{S}Elbow"), "hand": ("{s}Hand", "{S}Hand", "{S}Wrist"),
    "thigh": ("{s}Thigh", "{S}UpLeg", "{S}Hip"), "shin": ("{s}Shin", "{S}Leg", "{S}Knee"),
    "foot": ("{s}Foot", "{S}Foot", "{S}Ankle"),
}  # fmt: skip
PREFIX = re.compile(r"^.*:|^mixamorig\d*_?")  # Mixamo's, and those of a scene's parts
NEEDED = ("pelvis", "upper_arm", "forearm", "thigh", "shin", "foot", "hand")
DEEPMIMIC_NAMES = {
    "pelvis": "root", "spine": "root", "chest": "chest", "neck": "neck", "head": "neck", "collar": "chest",
    "upper_arm": "{side}_shoulder", "forearm": "{side}_elbow", "hand": "{side}_elbow",
    "thigh": "{side}_hip", "shin": "{side}_knee", "foot": "{side}_ankle",
}  # fmt: skip
HANGING = {"upper_arm": "forearm", "forearm": "hand", "thigh": "shin", "shin": "foot"}  # bone -> the bone at its end
OURS_FROM_BVH = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float)  # file: x left, y up, z forward
OURS_FROM_DEEPMIMIC = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float)  # file: x forward, y up, z right
SUFFIXES = (".bvh", ".txt")


class Recording:
    """A recorded motion in our axes, free of a body's size.

    Attributes:
        rotations: (T, B, 3, 3) world rotation of each bone away from our rest pose.
        root: (T, 3) place of the pelvis in units of the leg's length, hip to ankle.
        times_seconds: (T,).
    """

    def __init__(self, rotations: np.ndarray, root: np.ndarray, times_seconds: np.ndarray):
        self.rotations, self.root, self.times_seconds = rotations, root, times_seconds

    def resample(self, times_seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotations and root at other times; after the end it plays backwards, then forwards again."""
        length = self.times_seconds[-1]
        times = length - np.abs(length - times_seconds % (2 * length))
        rotations = np.empty((len(times), len(BONES), 3, 3))
        for bone in range(len(BONES)):
            turns = Slerp(self.times_seconds, Rotation.from_matrix(self.rotations[:, bone]))
            rotations[:, bone] = turns(times).as_matrix()
        return rotations, np.stack([np.interp(times, self.times_seconds, self.root[:, i]) for i in range(3)], -1)


def find_motions(path: str | Path) -> list[Path]:
    """Motion files under a folder (sorted), or the file itself.

    Raises:
        ConfigError: there are none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    found = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.stem.upper().startswith("LICENSE")
    )
    if not found:
        raise ConfigError(
            f"{path}: no motion files there; name a .bvh or DeepMimic .txt file, a folder of them, or `procedural`"
        )
    return found


def read_recording(path: Path) -> Recording:
    """Read a .bvh or a DeepMimic .txt file.

    Raises:
        ConfigError: it is neither, or its joints have names that the table does not know.
    """
    if path.suffix.lower() == ".bvh":
        return _from_bvh(path)
    return _from_deepmimic(path)


def recorded_motion(
    recording: Recording, rig: Rig, region: Region, frames: int, fps: float, rng: np.random.Generator
) -> Motion:
    """A stretch of a recording on a body: turned by a random angle, started at a random time, led into its region."""
    length = recording.times_seconds[-1]
    spare = max(0.0, length - frames / fps)
    rotations, root = recording.resample(rng.uniform(0, spare) + np.arange(frames) / fps)
    yaw = rng.uniform(-np.pi, np.pi)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    rotations, root = turn @ rotations, root @ turn.T * sum(rig.leg)
    along = (root[:, :2] - (root[:, :2].max(0) + root[:, :2].min(0)) / 2) @ region.axes.T
    along *= np.minimum(1.0, region.half / np.maximum(np.abs(along).max(0), 1e-6))
    root = np.concatenate([region.centre + along @ region.axes, root[:, 2:]], -1)
    return stand_on_ground(rig, Motion(rotations, root), fps)


def _from_bvh(path: Path) -> Recording:
    bvh = read_bvh(path)
    index = {PREFIX.sub("", name): i for i, name in enumerate(bvh.names)}
    joint: dict[str, int] = {}  # -1 where the file leaves a bone out
    for bone in BONES:
        side, _, part = bone.partition("_") if bone.startswith(("left_", "right_")) else ("", "", bone)
        names = [name.format(s=side[:1], S=side.capitalize()) for name in BVH_NAMES[part]]
        joint[bone] = next((index[name] for name in names if name in index), -1)
        if joint[bone] < 0 and part in NEEDED:
            raise ConfigError(f"{path}: no joint for {bone} (looked for {', '.join(names)}); rename the file's joints")
    world, places = bvh.world()
    world = OURS_FROM_BVH @ world @ OURS_FROM_BVH.T
    rest = np.zeros((len(bvh.names), 3))
    for child, parent in enumerate(bvh.parents):
        rest[child] = (rest[parent] if parent >= 0 else 0) + bvh.offsets[child]
    rest = rest @ OURS_FROM_BVH.T
    rotations = np.empty((len(world), len(BONES), 3, 3))
    aligned: dict[str, np.ndarray] = {}
    for b, bone in enumerate(BONES):
        j = joint[bone]
        if j < 0:  # it turns with its parent
            rotations[:, b] = rotations[:, PARENTS[b]]
            continue
        side, _, part = bone.partition("_") if bone.startswith(("left_", "right_")) else ("", "", bone)
        if part in HANGING:
            end = joint[f"{side}_{HANGING[part]}"]
            aligned[bone] = rotation_between(np.array([0.0, 0.0, -1.0]), rest[end] - rest[j])
        elif part == "hand":
            aligned[bone] = aligned[f"{side}_forearm"]
        rotations[:, b] = world[:, j] @ aligned.get(bone, np.eye(3))
    thigh, shin, foot = (joint[f"left_{part}"] for part in ("thigh", "shin", "foot"))
    leg = np.linalg.norm(rest[shin] - rest[thigh]) + np.linalg.norm(rest[foot] - rest[shin])
    hips = places[:, [joint["left_thigh"], joint["right_thigh"]]].mean(1) @ OURS_FROM_BVH.T
    return Recording(rotations, hips / leg, np.arange(len(hips)) * bvh.frame_seconds)


def _from_deepmimic(path: Path) -> Recording:
    motion = read_deepmimic(path)
    rotations = np.empty((len(motion.root), len(BONES), 3, 3))
    for b, bone in enumerate(BONES):
        side, _, part = bone.partition("_") if bone.startswith(("left_", "right_")) else ("", "", bone)
        j = motion.names.index(DEEPMIMIC_NAMES[part].format(side=side))
        rotations[:, b] = OURS_FROM_DEEPMIMIC @ motion.rotations[:, j] @ OURS_FROM_DEEPMIMIC.T
    return Recording(rotations, motion.root @ OURS_FROM_DEEPMIMIC.T / LEG_METRES, motion.times_seconds)


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that turns direction a into direction b: (3, 3).

    Raises:
        ValueError: they point opposite ways, so that there is no smallest one.
    """
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    c = float(a @ b)
    if c < -1 + 1e-9:
        raise ValueError("rotation_between: the directions are opposite")
    x, y, z = np.cross(a, b)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + c)
