"""Read Biovision hierarchy files (.bvh): a skeleton with offsets, and joint angles over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError


@dataclass(frozen=True)
class BvhMotion:
    """One clip; J joints (end sites are left out), T frames. Axes and unit of length are the file's own.

    Attributes:
        names: J joint names, parents before children.
        parents: (J,) index of each joint's parent, -1 for the root.
        offsets: (J, 3) place in the parent's frame in the rest pose.
        translations: (T, J, 3) place in the parent's frame in each frame.
        rotations: (T, J, 3, 3) rotation in the parent's frame.
        frame_seconds: time from frame to frame.
    """

    names: tuple[str, ...]
    parents: np.ndarray
    offsets: np.ndarray
    translations: np.ndarray
    rotations: np.ndarray
    frame_seconds: float

    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (T, J, 3, 3) and places (T, J, 3) of the joints in the world."""
        rotations, places = np.empty_like(self.rotations), np.empty_like(self.translations)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                rotations[:, joint], places[:, joint] = self.rotations[:, joint], self.translations[:, joint]
            else:
                rotations[:, joint] = rotations[:, parent] @ self.rotations[:, joint]
                turned = np.einsum("tij,tj->ti", rotations[:, parent], self.translations[:, joint])
                places[:, joint] = places[:, parent] + turned
        return rotations, places


def read_bvh(path: str | Path) -> BvhMotion:
    """Read a .bvh file.

    Raises:
        ConfigError: no such file, or not a complete BVH; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    lines = iter(enumerate(text.splitlines(), 1))
    try:
        joints = _read_hierarchy(lines)
        count, frame_seconds, first = _read_motion_header(lines)
    except (ValueError, IndexError, StopIteration) as error:
        reason = str(error) or "it ends too early"
        raise ConfigError(f"{path}: not a BVH file ({reason}); export the motion again") from None
    width = sum(len(joint.channels) for joint in joints)
    rows = [line.split() for _, line in lines if line.strip()]
    wrong = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if wrong is not None:
        found = len(rows[wrong])
        raise ConfigError(f"{path}: line {first + 1 + wrong} has {found} values, but the skeleton has {width} channels")
    if len(rows) != count or not rows:
        raise ConfigError(f"{path}: {len(rows)} frames found, {count} announced; the file is cut off or damaged")
    try:
        values = np.array(rows, float)
    except ValueError as error:
        raise ConfigError(f"{path}: a motion value is not a number ({error})") from None
    return _assemble(joints, values, frame_seconds)


@dataclass
class _Joint:
    name: str
    parent: int
    offset: tuple[float, ...] = ()
    channels: tuple[str, ...] = ()


def _read_hierarchy(lines: Iterator[tuple[int, str]]) -> list[_Joint]:
    """The joints; leaves `lines` behind the line MOTION."""
    joints: list[_Joint] = []
    open_joints: list[int] = []  # -1 stands for an end site
    for number, line in lines:
        words = line.split()
        if not words or words[0] in ("HIERARCHY", "{"):
            continue
        if words[0] in ("ROOT", "JOINT"):
            joints.append(_Joint(" ".join(words[1:]), open_joints[-1] if open_joints else -1))
            open_joints.append(len(joints) - 1)
        elif words[0] == "End":
            open_joints.append(-1)
        elif words[0] == "}":
            open_joints.pop()
        elif words[0] == "OFFSET":
            if open_joints[-1] >= 0:
                joints[open_joints[-1]].offset = tuple(float(word) for word in words[1:4])
        elif words[0] == "CHANNELS":
            channels = tuple(words[2 : 2 + int(words[1])])
            unknown = [name for name in channels if name[:1] not in "XYZ" or name[1:] not in ("position", "rotation")]
            if unknown or len(channels) != int(words[1]):
                raise ValueError(f"line {number}: unknown or missing channels: {line.strip()}")
            joints[open_joints[-1]].channels = channels
        elif words[0] == "MOTION":
            if not joints or any(len(joint.offset) != 3 for joint in joints):
                raise ValueError(f"line {number}: a joint before it has no OFFSET")
            return joints
        else:
            raise ValueError(f"line {number}: {line.strip()[:40]!r} is not part of a hierarchy")
    raise ValueError("there is no line MOTION")


def _read_motion_header(lines: Iterator[tuple[int, str]]) -> tuple[int, float, int]:
    """Number of frames, seconds from frame to frame, and the number of the last header line."""
    values: dict[str, float] = {}
    for number, line in lines:
        key, _, value = line.partition(":")
        if key.strip():
            values[key.strip()] = float(value)
        if "Frame Time" in values:
            if values["Frame Time"] <= 0 or "Frames" not in values:
                raise ValueError(f"line {number}: needs Frames and a positive Frame Time")
            return int(values["Frames"]), values["Frame Time"], number
    raise ValueError("there is no Frame Time")


def _assemble(joints: list[_Joint], values: np.ndarray, frame_seconds: float) -> BvhMotion:
    T, J = len(values), len(joints)
    offsets = np.array([joint.offset for joint in joints])
    translations = np.broadcast_to(offsets, (T, J, 3)).copy()
    rotations = np.broadcast_to(np.eye(3), (T, J, 3, 3)).copy()
    column = 0
    for j, joint in enumerate(joints):
        for channel in joint.channels:
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                translations[:, j, axis] = values[:, column]
            else:
                rotations[:, j] = rotations[:, j] @ _turn(axis, np.radians(values[:, column]))
            column += 1
    parents = np.array([joint.parent for joint in joints])
    return BvhMotion(tuple(j.name for j in joints), parents, offsets, translations, rotations, frame_seconds)


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations about one axis: (T,) radians -> (T, 3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    rotation[:, axis, axis] = 1
    rotation[:, a, a] = rotation[:, b, b] = c
    rotation[:, a, b], rotation[:, b, a] = -s, s
    return rotation
