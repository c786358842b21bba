"""How far 3D keypoints are from the truth: the MPJPE family, 3DPCK and its area under the curve.

All poses are (N, K, 3) in millimetres, in the camera's frame. All functions return one value a sample and joint, NaN
where either is missing: (N, K). Poses are compared relative to the root joint, which is part of the mean with its
error of zero, as is usual for Human3.6M; `pa_mpjpe` does without, because it finds the translation itself.
"""

from __future__ import annotations

import numpy as np

from streampose.geometry.align import align_similarity, best_scale
from streampose.metrics.keypoints_2d import distances

PCK_MM = 150.0
AUC_THRESHOLDS_MM = np.linspace(0, 150, 31)


def relative_to(points: np.ndarray, root: int) -> np.ndarray:
    """Poses with their root joint at the origin: (N, K, D) -> (N, K, D)."""
    return points - points[:, root : root + 1]


def mpjpe(predicted: np.ndarray, truth: np.ndarray, root: int) -> np.ndarray:
    """Distance of each joint, both poses relative to their root: `mpjpe_mm`.

    Source: Ionescu et al., Human3.6M, PAMI 2014.
    """
    return distances(relative_to(predicted, root), relative_to(truth, root))


def n_mpjpe(predicted: np.ndarray, truth: np.ndarray, root: int) -> np.ndarray:
    """As `mpjpe`, after the one scale (and nothing else) that brings the prediction closest: `n_mpjpe_mm`.

    Source: Rhodin et al., Unsupervised geometry-aware representation for 3D human pose estimation, ECCV 2018.
    """
    predicted, truth = relative_to(predicted, root), relative_to(truth, root)
    scale = best_scale(predicted, truth)
    return distances(scale[:, None, None] * predicted, truth)


def pa_mpjpe(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance after the best scale, rotation and translation, without reflections: `pa_mpjpe_mm`.

    Source: Ionescu et al., Human3.6M; "protocol 2" of later papers.
    """
    return distances(align_similarity(predicted, truth), truth)


def pck3d(predicted: np.ndarray, truth: np.ndarray, root: int, threshold_mm: float = PCK_MM) -> np.ndarray:
    """1 where a joint is within the threshold, relative to the root, else 0: `pck3d@150mm`.

    Source: Mehta et al., Monocular 3D human pose estimation in the wild, 3DV 2017.
    """
    found = mpjpe(predicted, truth, root)
    return np.where(np.isfinite(found), found <= threshold_mm, np.nan)


def auc3d(predicted: np.ndarray, truth: np.ndarray, root: int) -> np.ndarray:
    """Mean of `pck3d` over 31 thresholds from 0 to 150 mm: `auc3d`. See `pck3d`."""
    found = mpjpe(predicted, truth, root)
    hits = (found[..., None] <= AUC_THRESHOLDS_MM).mean(-1)
    return np.where(np.isfinite(found), hits, np.nan)


def metric_from_pixels(keypoints: np.ndarray, root: int, mm_per_pixel: np.ndarray) -> np.ndarray:
    """A weak-perspective prediction as a root-relative pose in millimetres.

    A single view does not tell how large a subject is. For `mpjpe_mm` the depth of the root joint is therefore taken
    from the truth; with the focal length it says how many millimetres a pixel covers there: `1000 * depth_m /
    focal_px` for source pixels. `n_mpjpe_mm` and `pa_mpjpe_mm` do not depend on it.

    Args:
        keypoints: (N, K, 3) x, y, z in pixels, z away from the camera.
        mm_per_pixel: (N,).

    Returns:
        (N, K, 3) millimetres, x right, y down, z forward, the root at the origin.
    """
    return relative_to(np.asarray(keypoints, float), root) * mm_per_pixel[:, None, None]
