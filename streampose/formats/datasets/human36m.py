"""Human3.6M as it is handed out.

    PATH/S9/MyPoseFeatures/D2_Positions/Directions 1.54138969.cdf          (1, T, 64) pixels
    PATH/S9/MyPoseFeatures/D3_Positions_mono/Directions 1.54138969.cdf     (1, T, 96) mm in the camera's frame
    PATH/S9/Videos/Directions 1.54138969.mp4
    PATH/S9/MySegmentsMat/ground_truth_bb/Directions 1.54138969.mat        optional: the boxes

Subjects 9 and 11 are the test part in all protocols. Protocol 1 is `mpjpe_mm` (root-relative), protocol 2 is
`pa_mpjpe_mm` (after a similarity), both on every 64th frame (`hypotheses`, Sec. 4). The simplified part is the six
mostly upright activities (Zhang et al. 2018; `landmarks` and `mask`). 17 of the 32 joints are compared, those that
move. Directions of subject 11 are left out: a video of them is damaged.

Source: Ionescu et al., Human3.6M, PAMI 2014. Reading the .cdf files needs cdflib (`pip install streampose[datasets]`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError
from streampose.formats.datasets.labelled import (
    Labelled,
    Picture,
    boxes_of_joints,
    focal_lengths,
    join,
    required,
)

SUBJECTS = ("S9", "S11")
EVERY = 64
SIMPLIFIED = ("Directions", "Discussion", "Posing", "Waiting", "Greeting", "Walking")
DAMAGED = {("S11", "Directions")}
JOINTS = {  # name: number among the 32
    "pelvis": 0, "right_hip": 1, "right_knee": 2, "right_ankle": 3, "left_hip": 6, "left_knee": 7, "left_ankle": 8,
    "spine": 12, "thorax": 13, "nose": 14, "head": 15, "left_shoulder": 17, "left_elbow": 18, "left_wrist": 19,
    "right_shoulder": 25, "right_elbow": 26, "right_wrist": 27,
}  # fmt: skip


def read_human36m(folder: Path, *, simplified: bool = False, every: int = EVERY) -> Labelled:
    """Subjects 9 and 11, all four cameras.

    Args:
        simplified: only the six activities of the simplified part.
        every: take every N-th frame.

    Raises:
        ConfigError: another layout, or cdflib is not installed.
    """
    folder = Path(folder)
    layout = "S9/MyPoseFeatures/{D2_Positions,D3_Positions_mono}/*.cdf and S9/Videos/*.mp4"
    subjects = [name for name in SUBJECTS if (folder / name).is_dir()]
    if not subjects:
        required(folder / SUBJECTS[0], "Human3.6M", layout)
    parts = []
    for subject in subjects:
        poses = required(folder / subject / "MyPoseFeatures" / "D2_Positions", "Human3.6M", layout)
        for path in sorted(poses.glob("*.cdf")):
            recording, camera = path.stem.rsplit(".", 1)
            activity = re.sub(r" \d+$", "", recording)
            if activity.startswith("_") or (simplified and activity not in SIMPLIFIED):
                continue
            if (subject, activity) in DAMAGED:
                logger.info("%s: left out, one of its videos is damaged", path)
                continue
            parts.append(_read_recording(folder / subject, recording, camera, activity, every))
    if not parts:
        raise ConfigError(f"{folder}: no recording of {', '.join(subjects)} in it; the layout is {layout}")
    return join(parts)


def _read_recording(folder: Path, recording: str, camera: str, activity: str, every: int) -> Labelled:
    """Every N-th frame of one recording by one camera."""
    name = f"{recording}.{camera}"
    features = folder / "MyPoseFeatures"
    numbers = list(JOINTS.values())
    xy = _read_cdf(features / "D2_Positions" / f"{name}.cdf").reshape(-1, 32, 2)[:, numbers]
    spatial = required(features / "D3_Positions_mono" / f"{name}.cdf", "Human3.6M", "D3_Positions_mono/")
    xyz = _read_cdf(spatial).reshape(-1, 32, 3)[:, numbers]
    count = min(len(xy), len(xyz))
    frames = np.arange(0, count, every)
    xy, xyz, focal = xy[frames], xyz[frames], focal_lengths(xy[:count], xyz[:count])[frames]
    counts = np.isfinite(xy).all(-1)
    boxes = boxes_of_joints(xy, counts)
    given = folder / "MySegmentsMat" / "ground_truth_bb" / f"{name}.mat"
    if given.is_file():
        boxes = _read_boxes(given, frames, boxes)
    subject = folder.name
    return Labelled(
        name="Human3.6M", joints=tuple(JOINTS), xy=xy, counts=counts, boxes=boxes, xyz_mm=xyz, focal_px=focal,
        pictures=[Picture(folder / "Videos" / f"{name}.mp4", int(frame)) for frame in frames],
        groups=np.full(len(frames), f"{subject} {recording}"), activities=np.full(len(frames), activity),
        moments=np.array([f"{subject} {recording} {frame}" for frame in frames]),
    )  # fmt: skip


def _read_cdf(path: Path) -> np.ndarray:
    """The variable `Pose` of a pose file: (T, values)."""
    try:
        import cdflib
    except ImportError:
        raise ConfigError(f"{path}: needs cdflib; `pip install cdflib` or `pip install streampose[datasets]`") from None
    try:
        poses = np.asarray(cdflib.CDF(str(path)).varget("Pose"), float)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: no poses in it ({' '.join(str(error).split())})") from None
    return poses.reshape(-1, poses.shape[-1])


def _read_boxes(path: Path, frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Boxes of the given frames: `Masks` refers to one image a frame, which is set inside the box (transposed)."""
    h5py = _h5py(path)
    boxes = others.copy()
    with h5py.File(path, "r") as file:
        references = file["Masks"][()].reshape(-1)
        for row, frame in enumerate(frames):
            if frame >= len(references):
                continue
            inside = np.asarray(file[references[frame]]).T > 0  # (H, W)
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            if len(rows):
                boxes[row] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _h5py(path: Path):
    try:
        import h5py
    except ImportError:
        raise ConfigError(f"{path}: needs h5py; `pip install h5py` or `pip install streampose[datasets]`") from None
    return h5py
