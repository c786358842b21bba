"""Pseudo-labels of a store's frames for `methods/mask.py`: read from masks or images, made consistent along clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from streampose.losses import bone_maps, heatmaps
from streampose.methods.mask_bones import BoneTables
from streampose.methods.mask_data import Frames, resize_images
from streampose.methods.mask_space import Anatomy, Cameras, triangulate_views
from streampose.methods.mask_views import Instants
from streampose.models.detector import DetectorOutput
from streampose.structures import Skeleton

VIEWS = ((1.0, 0.0, False), (1.0, 0.0, True), (0.88, 10.0, False), (0.88, -10.0, True))  # scale, degrees, flipped
BATCH = 128
SMOOTHING_SECONDS = 0.06
FACING = 0.2  # metres that a joint moves, against a body that does not fit its left and right at all
KNOWN = 100.0  # sides of the crop that joints would have to move before a frame is flipped whose naming is known
AGREEMENT = 0.12  # spread of the views, in [-1, 1] coordinates, at which confidence falls to a third

Naming = Literal["given", "closer", "facing"]


@dataclass(frozen=True)
class Labels:
    """(N, K, 3) joints in crop coordinates and (N, K) confidence in [0, 1]."""

    keypoints: np.ndarray
    confidence: np.ndarray


class LabelMemory(nn.Module):
    """The pseudo-labels as buffers, so that checkpoints keep them.

    `named` are those whose left and right are known, `made` counts how often they were made.
    """

    keypoints: Tensor
    confidence: Tensor
    named: Tensor
    made: Tensor

    def __init__(self, frames: int, joints: int):
        super().__init__()
        self.register_buffer("keypoints", torch.zeros(frames, joints, 3))
        self.register_buffer("confidence", torch.zeros(frames, joints))
        self.register_buffer("named", torch.zeros(frames, dtype=torch.bool))
        self.register_buffer("made", torch.zeros((), dtype=torch.long))


@torch.no_grad()
def predict_labels(
    network: Callable[[Tensor], tuple], images: np.ndarray, flip_index: list[int], device: torch.device
) -> Labels:
    """Read the joints of images in several views and merge them; views that disagree lower the confidence.

    Args:
        network: a `PoseDetector`, or anything that returns keypoints (B, K, 3) and confidence (B, K) first.
        images: (N, S, S) masks or (N, S, S, 3) crops, uint8.
    """
    keypoints, confidence = [], []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(images[start : start + BATCH]).to(device).float() / 255
        batch = batch[:, None] if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
        points, sure = zip(*(_predict_view(network, batch, view, flip_index) for view in VIEWS), strict=True)
        merged, merged_confidence = merge(torch.stack(points), torch.stack(sure), flip_index)
        keypoints.append(merged.cpu().numpy())
        confidence.append(merged_confidence.cpu().numpy())
    return Labels(np.concatenate(keypoints), np.concatenate(confidence))


def _predict_view(
    network: Callable[[Tensor], tuple], images: Tensor, view: tuple[float, float, bool], flip_index: list[int]
) -> tuple[Tensor, Tensor]:
    """Predict on a scaled, turned, mirrored view and map the joints back."""
    scale, degrees, flipped = view
    angle = np.radians(degrees)
    linear = torch.tensor(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32, device=images.device
    )
    linear = linear / scale  # view coordinates -> image coordinates
    if flipped:
        linear = torch.diag(torch.tensor([-1.0, 1.0], device=images.device)) @ linear
    theta = torch.cat([linear, torch.zeros(2, 1, device=images.device)], 1).expand(len(images), 2, 3)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    warped = nn.functional.grid_sample(
        images, grid, padding_mode="zeros" if images.shape[1] == 1 else "border", align_corners=False
    )
    keypoints, confidence = network(warped)[:2]
    xy = keypoints[..., :2] @ linear.T
    back = torch.cat([xy, keypoints[..., 2:] / scale], -1)
    return (back[:, flip_index], confidence[:, flip_index]) if flipped else (back, confidence)


def merge(
    points: Tensor, confidence: Tensor, flip_index: list[int], weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Average predictions of V views whose left and right may differ; what they disagree on loses confidence.

    Args:
        points: (V, N, K, 3); the first view decides what is left.
        confidence: (V, N, K).
        weights: (V, N, 1) or (V, N, K), beside the squared confidence.

    Returns:
        (N, K, 3) and (N, K).
    """
    reference = points[0]
    aligned, sure = [], []
    for view, certain in zip(points, confidence, strict=True):
        same = ((view - reference)[..., :2] ** 2).sum((1, 2))
        other = ((view[:, flip_index] - reference)[..., :2] ** 2).sum((1, 2))
        swap = (other < same)[:, None]
        aligned.append(torch.where(swap[..., None], view[:, flip_index], view))
        sure.append(torch.where(swap, certain[:, flip_index], certain))
    views, share = torch.stack(aligned), torch.stack(sure) ** 2 + 1e-4
    if weights is not None:
        share = share * weights
    mean = (views * share[..., None]).sum(0) / share.sum(0)[..., None]
    spread = ((views[..., :2] - mean[..., :2]) ** 2).sum(-1).mean(0).sqrt()
    return mean, torch.stack(sure).mean(0) * torch.exp(-spread / AGREEMENT)


def along_clips(
    labels: Labels,
    frames: Frames,
    flip_index: list[int],
    *,
    smoothing: float = SMOOTHING_SECONDS,
    fixed: np.ndarray | None = None,
    trust: np.ndarray | None = None,
) -> Labels:
    """Make left and right consistent along each clip, then smooth over time in source pixels.

    Of the two namings of a whole clip the one is kept that agrees with its fixed frames, else with most of its frames.

    Args:
        smoothing: standard deviation of the Gaussian window in seconds; 0 leaves the positions as they are.
        fixed: (N,) bool, frames whose naming and places are known: they stay as they are.
        trust: (N,) what speaks against renaming each frame, in sides of its crop; None where nothing does.
    """
    keypoints, confidence = labels.keypoints.copy(), labels.confidence.copy()
    for number in np.unique(frames.clip):
        index = np.flatnonzero(frames.clip == number)
        boxes, seconds = frames.boxes[index], frames.seconds[index]
        side = (boxes[:, 2] - boxes[:, 0])[:, None, None]
        corner = np.concatenate([boxes[:, :2], np.zeros((len(index), 1), boxes.dtype)], 1)[:, None]
        offset = np.array([1.0, 1.0, 0.0])
        source = corner + (keypoints[index] + offset) / 2 * side  # (T, K, 3) source pixels
        sure = confidence[index]
        known = np.zeros(len(index), bool) if fixed is None else fixed[index]
        gain = KNOWN * known + (0.0 if trust is None else trust[index])
        swap = flip_path(source[..., :2], sure, flip_index, gain * side[:, 0, 0] if gain.any() else None)
        source[swap] = source[swap][:, flip_index] * (1, 1, -1)  # the mirror image in depth
        sure[swap] = sure[swap][:, flip_index]
        if smoothing > 0:
            smooth, sure = _smooth(source, sure, seconds, smoothing)
            source = np.where(known[:, None, None], source, smooth)
        keypoints[index] = (source - corner) * 2 / side - offset
        confidence[index] = sure
    return Labels(keypoints.astype(np.float32), confidence.astype(np.float32))


def label_distances(
    out: DetectorOutput,
    target: Tensor,
    weight: Tensor,
    naming: Naming,
    flip: list[int],
    given: Tensor | None = None,
    away: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted mean distance of heatmaps, x and y, and z to target joints.

    Args:
        target: (B, K, 3) in [-1, 1]; joints outside the image do not count.
        weight: (B, K).
        naming: of left and right: the target's own; whichever is closer, and likewise the sign of z; or that by
            which the subject faces the camera.
        flip: the permutation that swaps left and right.
        given: (B,) samples whose naming is the target's own in any case.
        away: (B,) for `facing`: targets that face away from the camera by their own naming.
    """
    xy = out.keypoints[..., :2].detach()
    near = (weight * ((xy - target[..., :2]) ** 2).sum(-1)).sum(1)
    far = (weight[:, flip] * ((xy - target[:, flip, :2]) ** 2).sum(-1)).sum(1)
    own = torch.full_like(near, naming == "given", dtype=torch.bool) if given is None else given
    swap = ((far < near if away is None else away) & ~own)[:, None]
    target = torch.where(swap[..., None], target[:, flip], target)
    weight = torch.where(swap, weight[:, flip], weight)
    weight = weight * (target[..., :2].abs() < 1).all(-1)
    total = weight.sum().clamp_min(1)
    maps = heatmaps.gaussian_targets(target[..., :2], out.heatmaps.shape[-1])
    target = target.clamp(-1, 1)
    z, known = out.keypoints[..., 2:], target[..., 2:]
    agrees = ((weight * (z * known)[..., 0]).sum(1).detach() >= 0) | own
    known = torch.where(agrees[:, None, None], known, -known)
    distances = {
        "label": heatmaps.heatmap_cross_entropy(out.heatmaps, maps),
        "label_xy": heatmaps.robust_distance(out.keypoints[..., :2], target[..., :2]),
        "label_z": heatmaps.robust_distance(z, known),
    }
    return {name: (distance * weight).sum() / total for name, distance in distances.items()}


@torch.no_grad()
def mask_fit(labels: Labels, frames: Frames, bones: BoneTables, size: int) -> Tensor:
    """Intersection over union of the drawn skeleton and the mask of every frame: (N,)."""
    fits = []
    drawn, radius = bones.to(torch.device("cpu")).drawn("tight", True)
    for start in range(0, len(frames), 256):
        part = slice(start, start + 256)
        height = torch.from_numpy(frames.height[part])
        points = bones.points(torch.from_numpy(labels.keypoints[part, :, :2]).float(), height)
        skeleton_mask = bone_maps.union(bone_maps.solid_bone_maps(points, drawn, radius * height[:, None], size))
        mask = torch.from_numpy(resize_images(frames.masks[part], size)).float() / 255
        shared = torch.minimum(mask, skeleton_mask).sum((1, 2))
        fits.append(shared / torch.maximum(mask, skeleton_mask).sum((1, 2)).clamp_min(1e-6))
    return torch.cat(fits)


@torch.no_grad()
def across_views(labels: Labels, instants: Instants, skeleton: Skeleton, anatomy: Anatomy) -> tuple[Labels, np.ndarray]:
    """Replace what single views say of an instant by what all say together, and settle left and right by anatomy.

    Returns:
        the labels, and (N,) bool: those whose left and right are known.
    """
    keypoints, confidence = labels.keypoints.copy(), labels.confidence.copy()
    named = np.zeros(len(keypoints), bool)
    flip = skeleton.flip_index
    parts = []
    for start in range(0, len(instants), BATCH):
        index = instants.frames[start : start + BATCH]
        seen = index >= 0
        safe = np.where(seen, index, index.max(1, keepdims=True))
        rays, R, t = (torch.from_numpy(values) for values in instants.cameras_of(safe).values())
        cameras = Cameras(rays, R, t, instants.lens_of(safe))
        xy, own = torch.from_numpy(keypoints[safe][..., :2]), torch.from_numpy(confidence[safe])
        space = triangulate_views(xy, own, torch.from_numpy(seen), cameras, skeleton.root, anatomy, reweigh=3)
        best = own.masked_fill(~torch.from_numpy(seen)[..., None], 0).amax(1, keepdim=True)
        parts.append((space.keypoints, space.agreement * torch.maximum(best, best[..., flip]), space.world))
    points, sure, world = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    for number in np.unique(instants.subject):
        rows = np.flatnonzero(instants.subject == number)
        rows = rows[np.argsort(instants.seconds[rows])]
        body = np.nan_to_num(world[rows])
        fits = anatomy.fits(torch.from_numpy(body)).numpy()
        swap = rows[flip_path(body, sure[rows].max(1), flip, FACING * fits)]
        points[swap], sure[swap] = points[swap][:, :, flip], sure[swap][:, :, flip]
    for column in range(instants.frames.shape[1]):
        rows = np.flatnonzero(instants.frames[:, column] >= 0)
        index = instants.frames[rows, column]
        keypoints[index], confidence[index] = np.nan_to_num(points[rows, column]), sure[rows, column]
        named[index] = True
    return Labels(keypoints, confidence), named


def flip_path(
    points: np.ndarray, confidence: np.ndarray, flip_index: list[int], gain: np.ndarray | None = None
) -> np.ndarray:
    """Which frames of a clip to flip, so that joints move least from frame to frame (Viterbi over two states).

    Args:
        points: (T, K, D) in one coordinate system.
        confidence: (T, K).
        gain: (T,) what speaks against flipping a frame, in the unit of the points; None where nothing does.

    Returns:
        (T,) bool; without a gain at most half of the frames are flipped.
    """
    T = len(points)
    flipped, flipped_confidence = points[:, flip_index], confidence[:, flip_index]
    stay, change = np.zeros(T), np.zeros(T)
    stay[1:] = _move(points[1:], points[:-1], confidence[1:] * confidence[:-1])
    change[1:] = _move(flipped[1:], points[:-1], flipped_confidence[1:] * confidence[:-1])
    came_from = np.zeros((T, 2), int)
    own = np.zeros((T, 2)) if gain is None else np.stack([np.maximum(-gain, 0), np.maximum(gain, 0)], 1)
    cost = own[0]
    for t in range(1, T):
        options = cost[None, :] + np.array([[stay[t], change[t]], [change[t], stay[t]]])
        came_from[t] = options.argmin(1)
        cost = options.min(1) + own[t]
    path = np.zeros(T, bool)
    state = int(cost.argmin())
    for t in range(T - 1, -1, -1):
        path[t] = bool(state)
        state = came_from[t, state]
    return ~path if gain is None and path.mean() > 0.5 else path


def _move(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean distance between poses: (T, K, 2) twice, (T, K) -> (T,)."""
    return (np.linalg.norm(a - b, axis=-1) * weight).sum(-1) / (weight.sum(-1) + 1e-6)


def _smooth(
    points: np.ndarray, confidence: np.ndarray, seconds: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence-weighted Gaussian window over time: (T, K, D), (T, K), (T,) -> the same shapes."""
    out, sure = points.copy(), confidence.copy()
    for t in range(len(points)):
        near = np.flatnonzero(np.abs(seconds - seconds[t]) <= 3 * width)
        window = np.exp(-((seconds[near] - seconds[t]) ** 2) / (2 * width**2))[:, None]
        weight = window * (confidence[near] ** 2 + 1e-4)  # (n, K)
        out[t] = (points[near] * weight[..., None]).sum(0) / weight.sum(0)[..., None]
        sure[t] = (confidence[near] * window).sum(0) / window.sum(0)
    return out, sure
