"""A detector's errors on a store's crops of synthetic people, against exact truth, without the steps in between.

`evaluate` measures bundles on videos as users see them; this measures networks while a method is developed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from streampose.geometry.crop import crop_from_source
from streampose.geometry.project import camera_from_world
from streampose.methods.mask_data import Frames, read_frames
from streampose.methods.mask_views import Instants, find_instants
from streampose.metrics.flips import ambiguity_ratio
from streampose.metrics.keypoints_2d import mse_percent, pck, segment_size
from streampose.metrics.keypoints_3d import metric_from_pixels, mpjpe, pa_mpjpe
from streampose.metrics.post_processing import apply_linear, fit_linear
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synthetic.truth import read_truth

MEGABYTES = 4096  # of crops in memory


class Exact(NamedTuple):
    """Crops and truth: joints (N, K, 2) crop pixels, world (N, K, 3) mm about the root, mm_per_pixel (N,)."""

    frames: Frames
    joints: np.ndarray
    world: np.ndarray
    mm_per_pixel: np.ndarray
    instants: Instants


def read_exact(store: Path, folder: Path, skeleton: Skeleton, size: int) -> Exact:
    """The crops of a store, resized to `size`, and the truth of the one person in each of its videos (in `folder`)."""
    reader = StoreReader(store)
    frames = read_frames(reader, size, MEGABYTES)
    N, K = len(frames), skeleton.num_joints
    joints, world, scale = np.full((N, K, 2), np.nan), np.full((N, K, 3), np.nan), np.full(N, np.nan)
    for number, clip in enumerate(reader.clips()):
        truth = read_truth(folder / f"{Path(clip.source).stem}.truth.npz")
        columns = [list(truth.joints).index(name) for name in skeleton.joints]
        rows = np.flatnonzero(frames.clip == number)
        at = np.abs(truth.pts_seconds[None] - frames.seconds[rows, None]).argmin(1)
        pose = camera_from_world(truth.joints_3d[at, 0][:, columns], truth.R[at], truth.t[at])
        middle = (truth.boxes[at, 0, :2] + truth.boxes[at, 0, 2:]) / 2
        box = frames.boxes[rows]
        shown = ((middle > box[:, :2]) & (middle < box[:, 2:])).all(1)[:, None, None]  # else a shadow was followed
        joints[rows] = np.where(shown, crop_from_source(truth.joints_2d[at, 0][:, columns], box, size), np.nan)
        world[rows] = np.where(shown, 1000 * (pose - pose[:, [skeleton.root]]), np.nan)
        pixel = (box[:, 2] - box[:, 0]) / size
        scale[rows] = 1000 * pose[:, skeleton.root, 2] / truth.K[at, 0, 0] * pixel
    return Exact(frames, joints, world, scale, find_instants(reader, frames))


def measure(
    detector: torch.nn.Module, exact: Exact, skeleton: Skeleton, every: int = 1
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics of a detector on crops: of moments that all views of a session show; of all where there is none.

    Args:
        every: n-th moment or frame that is measured.

    Returns:
        metric -> its mean over all pictures, and metric -> its mean for each of the people.
    """
    size = exact.frames.size
    moments = len(exact.instants) > 0
    table = (exact.instants.frames if moments else np.arange(len(exact.frames))[:, None])[::every]
    person = (exact.instants.subject if moments else exact.frames.clip)[::every]
    table, person = table[(table >= 0).all(1)], person[(table >= 0).all(1)]
    index = table.ravel()
    pixels = predict_crops(detector, exact.frames.crops[index])
    joints, world = exact.joints[index], exact.world[index]
    swapped = pixels[:, skeleton.flip_index]
    own, other = (_mean_of_joints(mse_percent(p[..., :2], joints, size)) for p in (pixels, swapped))
    better = np.where((other < own)[:, None, None], swapped, pixels)
    torso = segment_size(joints, skeleton.torso)
    bodies = [metric_from_pixels(points, skeleton.root, exact.mm_per_pixel[index]) for points in (pixels, better)]
    each = {
        "mse_percent": own,
        "mse_percent/flips": np.minimum(own, other),
        "pck@0.2": pck(pixels[..., :2], joints, torso, 0.2),
        "pck@0.2/flips": pck(better[..., :2], joints, torso, 0.2),
        "mpjpe_mm": mpjpe(bodies[0], world, skeleton.root),
        "mpjpe_mm/flips": mpjpe(bodies[1], world, skeleton.root),
        "pa_mpjpe_mm": pa_mpjpe(bodies[0], world),
    }
    parts = [np.ones(len(table), bool), *(person == p for p in np.unique(person))]
    found = {}
    for name, values in each.items():
        by_moment = values.reshape(*table.shape, -1)
        found[name] = [float(np.nanmean(by_moment[part])) for part in parts]
    if table.shape[1] > 1:
        errors = own.reshape(table.shape), other.reshape(table.shape)
        found["ambiguity"] = [100 * float(ambiguity_ratio(errors[0][part], errors[1][part])) for part in parts]
    means = {name: values[0] for name, values in found.items()}
    means["mse_percent/spp"] = _after_spp(pixels[..., :2], joints, size)
    return means, {name: values[1:] for name, values in found.items()}


def _mean_of_joints(values: np.ndarray) -> np.ndarray:
    """(n, K) -> (n,), NaN where nothing is known."""
    known = np.isfinite(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0).sum(1) / np.maximum(count, 1), np.nan)


def predict_crops(detector: torch.nn.Module, crops: np.ndarray) -> np.ndarray:
    """(n, S, S, 3) uint8 -> (n, K, 3) in pixels of the crop, z in the same unit."""
    images, size = torch.from_numpy(crops).permute(0, 3, 1, 2), crops.shape[1]
    with torch.inference_mode():
        parts = [detector.eval()(part.float() / 255).keypoints for part in images.split(128)]
    keypoints = torch.cat(parts).numpy()
    return np.concatenate([(keypoints[..., :2] + 1) * size / 2 - 0.5, keypoints[..., 2:] * size / 2], -1)


def _after_spp(predicted: np.ndarray, truth: np.ndarray, size: int) -> float:
    """2D error after a linear map that is fitted on the first half of the pictures and measured on the second."""
    half = len(predicted) // 2
    features, targets = predicted.reshape(len(predicted), -1), truth.reshape(len(truth), -1)
    mapped = apply_linear(fit_linear(features[:half], targets[:half]), features[half:])
    return float(np.nanmean(mse_percent(mapped.reshape(predicted[half:].shape), truth[half:], size)))
