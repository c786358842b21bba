"""Keypoints in OpenPose's JSON: a folder with one file a frame, `NAME_000000000012_keypoints.json` or alike."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import StreamposeError

_BODY_25 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist pelvis right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe left_small_toe "
    "left_heel right_big_toe right_small_toe right_heel"
)
_BODY_25B = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle neck head_top left_big_toe "
    "left_small_toe left_heel right_big_toe right_small_toe right_heel"
)
_COCO = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
)
MODELS = {name: tuple(text.split()) for name, text in (("BODY_25", _BODY_25), ("BODY_25B", _BODY_25B), ("COCO", _COCO))}


@dataclass(frozen=True)
class OpenPosePeople:
    """Detections of one video.

    Attributes:
        joints: K names.
        frame_index: (R,) number of the frame of each person, from the file's name.
        xy: (R, K, 2) pixels, NaN where missing.
        confidence: (R, K); 0 where missing.
        frames: the numbers of all frames there are files for, also of those that show nobody.
    """

    joints: tuple[str, ...]
    frame_index: np.ndarray
    xy: np.ndarray
    confidence: np.ndarray
    frames: np.ndarray


def read_openpose(folder: Path | str, model: str = "BODY_25") -> OpenPosePeople:
    """Read the detections of one video.

    Args:
        model: `BODY_25`, `BODY_25B` (the same number of joints in another order) or `COCO`.

    Raises:
        StreamposeError: no such model, no files, or one that is damaged or has another number of joints.
    """
    folder = Path(folder)
    if model not in MODELS:
        raise StreamposeError(f"OpenPose model {model}: choose {', '.join(MODELS)}")
    joints = MODELS[model]
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    numbered = [(int(found[-1]), file) for file in files if (found := re.findall(r"\d+", file.stem))]
    if not numbered:
        raise StreamposeError(f"{folder}: no OpenPose files, one numbered .json a frame")
    frame_index, poses = [], []
    for number, file in sorted(numbered):
        try:
            people = json.loads(file.read_text(encoding="utf-8"))["people"]
            found = [np.array(person["pose_keypoints_2d"], float).reshape(-1, 3) for person in people]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StreamposeError(f"{file}: not an OpenPose file ({type(error).__name__}: {error})") from None
        if wrong := [len(pose) for pose in found if len(pose) != len(joints)]:
            raise StreamposeError(f"{file}: {wrong[0]} joints, but {model} has {len(joints)}")
        frame_index += [number] * len(found)
        poses += found
    values = np.stack(poses) if poses else np.zeros((0, len(joints), 3))
    seen = (values[..., 2] > 0) & np.isfinite(values).all(-1)
    return OpenPosePeople(
        joints,
        np.array(frame_index, int),
        np.where(seen[..., None], values[..., :2], np.nan),
        np.where(seen, values[..., 2], 0.0),
        np.array([number for number, _ in sorted(numbered)], int),
    )
