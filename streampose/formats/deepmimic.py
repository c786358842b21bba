"""Read the motion files of DeepMimic's humanoid: quaternions and hinge angles over time, in JSON.

Axes: x forward, y up, z to the right; metres. The rest pose stands upright with the arms hanging down. Knees and elbows
are hinges about z.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError

# (name, parent, values a frame): 4 is a quaternion w x y z, 1 a hinge's angle in radians.
JOINTS = (
    ("root", -1, 4), ("chest", 0, 4), ("neck", 1, 4),
    ("right_hip", 0, 4), ("right_knee", 3, 1), ("right_ankle", 4, 4), ("right_shoulder", 1, 4), ("right_elbow", 6, 1),
    ("left_hip", 0, 4), ("left_knee", 8, 1), ("left_ankle", 9, 4), ("left_shoulder", 1, 4), ("left_elbow", 11, 1),
)  # fmt: skip
VALUES = 1 + 3 + sum(width for _, _, width in JOINTS)
LEG_METRES = 0.4215 + 0.4099  # of the humanoid, hip to ankle


@dataclass(frozen=True)
class DeepMimicMotion:
    """One clip of T frames.

    Attributes:
        names: the J joints of `JOINTS`.
        rotations: (T, J, 3, 3) world rotation of the body part that hangs on each joint, away from the rest pose.
        root: (T, 3) place of the pelvis in metres.
        times_seconds: (T,) when each frame is shown.
        loop: True where the motion is meant to be repeated.
    """

    names: tuple[str, ...]
    rotations: np.ndarray
    root: np.ndarray
    times_seconds: np.ndarray
    loop: bool


def read_deepmimic(path: str | Path) -> DeepMimicMotion:
    """Read one motion file.

    Raises:
        ConfigError: no such file, not JSON, or frames of another humanoid.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        frames = np.array(content["Frames"], float)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a DeepMimic motion (JSON with a list Frames expected; {error})") from None
    if frames.ndim != 2 or frames.shape[1] != VALUES or len(frames) < 2:
        raise ConfigError(f"{path}: frames of shape {frames.shape}, expected two or more of {VALUES} values")
    rotations = np.empty((len(frames), len(JOINTS), 3, 3))
    column = 4
    for joint, (_, parent, width) in enumerate(JOINTS):
        values = frames[:, column : column + width]
        local = matrices_from_quaternions(values) if width == 4 else _hinges(values[:, 0])
        rotations[:, joint] = local if parent < 0 else rotations[:, parent] @ local
        column += width
    times = np.concatenate([[0.0], np.cumsum(frames[:-1, 0])])
    loop = content.get("Loop") == "wrap"
    return DeepMimicMotion(tuple(name for name, _, _ in JOINTS), rotations, frames[:, 1:4], times, loop)


def matrices_from_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """(..., 4) quaternions w x y z, of any length but zero -> (..., 3, 3) rotations."""
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _hinges(angle: np.ndarray) -> np.ndarray:
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([np.stack([c, -s, zero], -1), np.stack([s, c, zero], -1), np.stack([zero, zero, one], -1)], -2)
