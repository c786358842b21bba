"""MPI-INF-3DHP as it is handed out: the test set, or subjects 7 and 8 of the training set (`mask`, Sec. 4.1).

    PATH/TS1/annot_data.mat, PATH/TS1/imageSequence/img_000001.jpg ...      TS1 to TS6 (also in mpi_inf_3dhp_test_set/)
    PATH/S7/Seq1/annot.mat, PATH/S7/Seq1/imageSequence/video_0.avi ...      where there is no test set

The test set's frames count where `valid_frame` says so. Of the training set, every 64th frame counts where all joints
are inside the picture. Poses are those of the universal skeleton (`univ_annot3`), as in the official evaluation; 3DPCK
and AUC are over its 14 joints, without pelvis, spine and the middle of the head.

Source: Mehta et al., Monocular 3D human pose estimation in the wild using improved CNN supervision, 3DV 2017. The
test set's files need h5py (`pip install streampose[datasets]`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.datasets.labelled import (
    Labelled,
    Picture,
    boxes_of_joints,
    focal_lengths,
    join,
    read_mat,
    required,
)

TEST = tuple(f"TS{number}" for number in range(1, 7))
TRAINING, EVERY = ("S7", "S8"), 64
SIDE_PX = 2048  # of the training set's videos
# Head and neck are where Human3.6M has its head (the top) and its thorax.
JOINTS = (
    "head", "thorax", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head_middle",
)  # fmt: skip
TRAINING_NUMBERS = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)  # of these among the 28
NOT_COUNTED = ("pelvis", "spine", "head_middle")
LEFT_OUT = dict.fromkeys(("pck3d@150mm", "auc3d"), NOT_COUNTED)
ACTIVITIES = (
    "Standing/Walking", "Exercising", "Sitting", "Reaching/Crouching", "On The Floor", "Sports", "Miscellaneous",
)  # fmt: skip


def read_mpi_inf_3dhp(folder: Path, *, every: int | None = None) -> Labelled:
    """The test set where it is there, else subjects 7 and 8.

    Args:
        every: take every N-th frame; None for all of the test set and every 64th of the training set.

    Raises:
        ConfigError: another layout, or h5py is not installed.
    """
    folder = Path(folder)
    inner = folder / "mpi_inf_3dhp_test_set"
    folder = inner if inner.is_dir() else folder
    sequences = [folder / name for name in TEST if (folder / name).is_dir()]
    if sequences:
        return join([_read_test(sequence, every or 1) for sequence in sequences])
    parts = [
        part
        for subject in TRAINING
        for sequence in sorted((folder / subject).glob("Seq*"))
        for part in _read_training(sequence, every or EVERY)
    ]
    if not parts:
        required(folder / TEST[0], "MPI-INF-3DHP", "TS1 to TS6, or S7/Seq1 and so on")
        raise ConfigError(f"{folder}: no sequence of {' or '.join(TRAINING)} in it")
    return join(parts)


def _read_test(folder: Path, every: int) -> Labelled:
    path = required(folder / "annot_data.mat", "MPI-INF-3DHP", "annot_data.mat in each of TS1 to TS6")
    try:
        import h5py
    except ImportError:
        raise ConfigError(f"{path}: needs h5py; `pip install h5py` or `pip install streampose[datasets]`") from None
    try:
        with h5py.File(path, "r") as file:
            valid = np.asarray(file["valid_frame"]).reshape(-1) > 0
            xy = np.asarray(file["annot2"], float).reshape(-1, 17, 2)
            xyz = np.asarray(file["univ_annot3"], float).reshape(-1, 17, 3)
            kind = np.asarray(file["activity_annotation"]).reshape(-1).astype(int)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{path}: not the labels of a test sequence ({' '.join(str(error).split())})") from None
    frames = np.flatnonzero(valid)[::every]
    pictures = [Picture(folder / "imageSequence" / f"img_{frame + 1:06d}.jpg") for frame in frames]
    activities = np.array([ACTIVITIES[k - 1] if 1 <= k <= len(ACTIVITIES) else "" for k in kind[frames]])
    return _labelled(pictures, xy[frames], xyz[frames], focal_lengths(xy, xyz)[frames], folder.name, activities, None)


def _read_training(folder: Path, every: int) -> list[Labelled]:
    """One part for each camera whose video is there."""
    path = required(folder / "annot.mat", "MPI-INF-3DHP", "annot.mat in each S7/Seq1")
    try:
        labels = read_mat(path, "the labels of a sequence")
        by_camera = list(zip(labels["annot2"].reshape(-1), labels["univ_annot3"].reshape(-1), strict=True))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: not the labels of a sequence ({error!r})") from None
    parts, name = [], f"{folder.parent.name} {folder.name}"
    for camera, (pixels, space) in enumerate(by_camera):
        video = folder / "imageSequence" / f"video_{camera}.avi"
        if not video.is_file():
            continue
        xy = np.asarray(pixels, float).reshape(-1, 28, 2)[:, TRAINING_NUMBERS]
        xyz = np.asarray(space, float).reshape(-1, 28, 3)[:, TRAINING_NUMBERS]
        frames = np.arange(0, len(xy), every)
        frames = frames[((xy[frames] >= 0) & (xy[frames] < SIDE_PX)).all((1, 2))]
        if not len(frames):
            continue
        pictures = [Picture(video, int(frame)) for frame in frames]
        moments = np.array([f"{name} {frame}" for frame in frames])
        nothing = np.full(len(frames), "")
        focal = focal_lengths(xy, xyz)[frames]
        parts.append(_labelled(pictures, xy[frames], xyz[frames], focal, name, nothing, moments))
    return parts


def _labelled(
    pictures: list[Picture],
    xy: np.ndarray,
    xyz: np.ndarray,
    focal: np.ndarray,
    group: str,
    activities: np.ndarray,
    moments: np.ndarray | None,
) -> Labelled:
    counts = np.isfinite(xy).all(-1)
    return Labelled(
        name="MPI-INF-3DHP", joints=JOINTS, pictures=pictures, xy=xy, counts=counts, boxes=boxes_of_joints(xy, counts),
        groups=np.full(len(pictures), group), activities=activities,
        moments=np.full(len(pictures), "") if moments is None else moments, xyz_mm=xyz, focal_px=focal,
        left_out=LEFT_OUT,
    )  # fmt: skip
