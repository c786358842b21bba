"""Leeds Sports Pose and its extended training set.

    PATH/joints.mat, PATH/images/im0001.jpg ...    (LSPET: im00001.jpg ...)

LSP: `joints` is (3, 14, 2000); images 1001 to 2000 are the test part, all joints count, occluded ones too. LSPET:
`joints` is (14, 3, 10000) with 1 in the third column where a joint is visible, and only these count. Matlab counts
pixels from one.

Source: Johnson & Everingham, Clustered pose and nonlinear appearance models, BMVC 2010; Learning effective human pose
estimation from inaccurate annotation, CVPR 2011. Pelvis and thorax are the middles of hips and shoulders, as in
MirrorNet (`mirrornet`), Sec. 5.1.1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.datasets.labelled import Labelled, Picture, boxes_of_joints, read_mat, required

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "upper_neck", "head_top",
)  # fmt: skip
FIRST_TEST_IMAGE = 1000  # counted from zero


def read_lsp(folder: Path) -> Labelled:
    """The test part of LSP.

    Raises:
        ConfigError: another layout.
    """
    joints = _read_joints(folder, "LSP")
    if joints.ndim != 3 or joints.shape[:2] != (3, 14):
        raise ConfigError(f"{folder / 'joints.mat'}: joints is {joints.shape}, expected (3, 14, 2000); see also lspet:")
    numbers = np.arange(FIRST_TEST_IMAGE, joints.shape[2])
    xy = joints[:2].transpose(2, 1, 0)[numbers] - 1.0
    pictures = [Picture(folder / "images" / f"im{number + 1:04d}.jpg") for number in numbers]
    return _labelled("LSP", pictures, xy, np.ones(xy.shape[:2], bool))


def read_lspet(folder: Path) -> Labelled:
    """All of LSPET (it has no test part).

    Raises:
        ConfigError: another layout.
    """
    joints = _read_joints(folder, "LSPET")
    if joints.ndim != 3 or joints.shape[:2] != (14, 3):
        raise ConfigError(f"{folder / 'joints.mat'}: joints is {joints.shape}, expected (14, 3, 10000); see also lsp:")
    xy, counts = joints[:, :2].transpose(2, 0, 1) - 1.0, joints[:, 2].T > 0
    pictures = [Picture(folder / "images" / f"im{number + 1:05d}.jpg") for number in range(len(xy))]
    kept = np.flatnonzero(counts.any(1))
    xy = np.where(counts[..., None], xy, np.nan)
    return _labelled("LSPET", [pictures[i] for i in kept], xy[kept], counts[kept])


def _read_joints(folder: Path, dataset: str) -> np.ndarray:
    path = required(Path(folder) / "joints.mat", dataset, "joints.mat and images/")
    try:
        return np.asarray(read_mat(path, f"the joints.mat of {dataset}")["joints"], float)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not the joints.mat of {dataset} ({error!r})") from None


def _labelled(name: str, pictures: list[Picture], xy: np.ndarray, counts: np.ndarray) -> Labelled:
    boxes = boxes_of_joints(xy, counts)
    column = {joint: number for number, joint in enumerate(JOINTS)}
    middles = [
        (joint, column[f"left_{pair}"], column[f"right_{pair}"])
        for joint, pair in (("pelvis", "hip"), ("thorax", "shoulder"))
    ]
    xy = np.concatenate([xy, *((xy[:, [left]] + xy[:, [right]]) / 2 for _, left, right in middles)], 1)
    counts = np.concatenate([counts, *((counts[:, [left]] & counts[:, [right]]) for _, left, right in middles)], 1)
    names = np.array([picture.path.stem for picture in pictures])
    nothing = np.full(len(names), "")
    return Labelled(
        name=name, joints=(*JOINTS, *(joint for joint, _, _ in middles)), pictures=pictures, xy=xy, counts=counts,
        boxes=boxes, groups=names, activities=nothing, moments=nothing,
    )  # fmt: skip
