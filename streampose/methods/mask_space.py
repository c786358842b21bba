"""Triangulation of a batch's views and re-projection into them (Mask as Supervision, Eq. 10), for `methods/mask.py`.

Where we differ: the views may name left and right differently, and then the printed Eq. 10 triangulates nonsense. So
of all namings of the views the one is taken whose rays meet best, and of the two that remain the one in which the body
in space bends and faces as the skeleton file says (knees forward, nose in front). `naming: printed` leaves that out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from streampose.geometry.left_right import handedness, tells_sides
from streampose.geometry.triangulate_torch import triangulate_dlt
from streampose.structures import Skeleton

FARTHEST = 1.6  # a re-projected joint beyond this in [-1, 1] is none
NORMAL = 0.15  # distance between a view's joint and the re-projected one, in [-1, 1], at which it counts half
LEAST_CONFIDENCE = 0.02
F = TypeVar("F", bound=Callable[..., Any])
STEP = 1e-4  # of the difference quotients of a lens


class Cameras(NamedTuple):
    """Those of G instants of V views: rays (G, V, 2, 3), R (G, V, 3, 3), t (G, V, 3); see `mask_views.Instants`.

    `bend` is None where all lenses are ideal, else `(normalised (G, V, K, 2) array, inverse) -> the same shape`.
    """

    rays: Tensor
    R: Tensor
    t: Tensor
    bend: Callable[[np.ndarray, bool], np.ndarray] | None = None


class Anatomy:
    """What a skeleton file says about upright bodies, and whether their left and right are named as it says."""

    def __init__(self, skeleton: Skeleton):
        bones = skeleton.bones
        rest = np.array([b.direction for b in bones], float).reshape(-1, 3)
        rest /= np.linalg.norm(rest, axis=1, keepdims=True)
        steady = np.array([b.swing_degrees <= 25 and abs(d[2]) < 0.1 for b, d in zip(bones, rest, strict=True)], float)
        self.skeleton, self.flip, self.tells = skeleton, torch.tensor(skeleton.flip_index), tells_sides(skeleton)
        self.parent, self.child = torch.tensor([b.parent for b in bones]), torch.tensor([b.child for b in bones])
        self.rest = torch.from_numpy(rest * (steady * [b.length for b in bones])[:, None]).float()

    def turn(self, world: Tensor) -> Tensor:
        """The frame of the body: rotations from the skeleton file's rest pose, (..., K, 3) -> (..., 3, 3)."""
        flat = world.reshape(-1, *world.shape[-2:])
        vectors = flat[:, self.child.to(flat.device)] - flat[:, self.parent.to(flat.device)]
        covariance = torch.einsum("tni,nj->tij", vectors, self.rest.to(flat)).cpu()
        U, _, Vh = torch.linalg.svd(covariance)
        proper = torch.ones(len(U), 3)
        proper[:, 2] = torch.sign(torch.linalg.det(U @ Vh))
        return ((U * proper[:, None]) @ Vh).to(flat).reshape(*world.shape[:-2], 3, 3)

    def fits(self, world: Tensor) -> Tensor:
        """How well left and right fit the body, see `left_right.handedness`: (..., K, 3) -> (...), without a gradient.

        Its sign changes where left and right are exchanged.
        """
        flat = world.detach().reshape(-1, *world.shape[-2:])
        return (
            torch.from_numpy(handedness(flat.double().cpu().numpy(), self.skeleton)).to(world).reshape(world.shape[:-2])
        )


class Space(NamedTuple):
    """What the views of G instants say together.

    Attributes:
        keypoints: (G, V, K, 3) re-projected joints in crop coordinates, z about the root in the same unit.
        agreement: (G, V, K) in [0, 1]: 1 where the views meet in a point, 0 where a joint was not found.
        world: (G, K, 3).
    """

    keypoints: Tensor
    agreement: Tensor
    world: Tensor


def full_precision(function: F) -> F:
    """The function without autocast, which would solve small systems of equations in bf16."""

    @wraps(function)
    def exact(xy: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(xy.device.type, enabled=False):
            return function(xy, *args, **kwargs)

    return cast(F, exact)


@full_precision
def triangulate_views(
    xy: Tensor,
    confidence: Tensor,
    seen: Tensor,
    cameras: Cameras,
    root: int,
    anatomy: Anatomy | None,
    reweigh: int = 0,
) -> Space:
    """Triangulate what the views say and look at it from each view (Eq. 10); differentiable in xy.

    Args:
        xy: (G, V, K, 2) in crop coordinates.
        confidence: (G, V, K) in [0, 1]; constants to the gradient.
        seen: (G, V) bool; other views do not count (with fewer than two there is no point in space).
        root: joint about which z is measured.
        anatomy: to settle the views' namings of left and right by; None takes them as they are.
        reweigh: how often views are weighed anew by how near they are to what all say.
    """
    rays = to_rays(xy.float(), cameras)
    weight = confidence.detach().float().clamp_min(LEAST_CONFIDENCE) * seen[..., None]
    if anatomy is not None and anatomy.tells:
        swap = choose_namings(rays.detach(), weight, cameras, anatomy)
        flip = anatomy.flip.to(xy.device)
        rays = torch.where(swap[..., None, None], rays[:, :, flip], rays)
        weight = torch.where(swap[..., None], weight[:, :, flip], weight)
        xy = torch.where(swap[..., None, None], xy[:, :, flip], xy)
    for left in range(reweigh, -1, -1):
        world = triangulate_dlt(rays, _matrices(cameras), weight)
        keypoints = look(world, cameras, root)
        with torch.no_grad():
            found = keypoints.isfinite().all(-1) & (keypoints[..., :2].abs() < FARTHEST).all(-1)
            miss = torch.where(found & seen[..., None], ((keypoints[..., :2] - xy) ** 2).sum(-1), 0)
            mean = (miss * weight).sum(1) / weight.sum(1).clamp_min(1e-6)  # (G, K)
            agreement = (found & seen[..., None]).float() / (1 + mean / NORMAL**2)[:, None]
            if left:
                weight = weight / (1 + miss / NORMAL**2)
    return Space(keypoints, agreement, world)


def choose_namings(rays: Tensor, weight: Tensor, cameras: Cameras, anatomy: Anatomy) -> Tensor:
    """Which views to rename so that all agree, and the body faces as its anatomy says: (G, V) bool.

    Args:
        rays: (G, V, K, 2) ideal normalised coordinates; weight: (G, V, K).
    """
    G, V = rays.shape[:2]
    flip = anatomy.flip.to(rays.device)
    codes = torch.arange(2 ** (V - 1), device=rays.device)
    swaps = (codes[:, None] >> torch.arange(V, device=rays.device)) % 2 == 1  # (S, V), the last view keeps its own
    named = torch.where(swaps[:, None, :, None, None], rays[:, :, flip], rays)  # (S, G, V, K, 2)
    weighed = torch.where(swaps[:, None, :, None], weight[:, :, flip], weight)
    world = _meeting_points(named, weighed, cameras)  # (S, G, K, 3)
    seen_from = camera_coordinates(world, cameras)
    front = seen_from[..., 2:] > 1e-3
    ideal = seen_from[..., :2] / torch.where(front, seen_from[..., 2:], 1.0)
    scale = cameras.rays[..., 0, 0][..., None]  # (G, V, 1) normalised units in one of the crop
    miss = (torch.where(front, ideal - named, 10.0) ** 2).sum(-1) / scale**2
    cost = (weighed * torch.nan_to_num(miss, nan=100.0).clamp(max=1.0)).sum((2, 3))  # (S, G)
    best = cost.argmin(0)
    chosen = swaps[best]  # (G, V)
    body = torch.nan_to_num(world[best, torch.arange(G, device=rays.device)])
    return chosen ^ (anatomy.fits(body) < 0)[:, None]


def _meeting_points(rays: Tensor, weight: Tensor, cameras: Cameras) -> Tensor:
    """DLT with the last coordinate at one, by 3 x 3 equations: several times faster where no gradient is needed.

    Args:
        rays: (..., G, V, K, 2); weight: (..., G, V, K).

    Returns:
        (..., G, K, 3); far off where the rays are nearly parallel.
    """
    R, t = cameras.R[:, :, None], cameras.t[:, :, None]
    rows = rays[..., None] * R[..., 2:, :] - R[..., :2, :]  # (..., G, V, K, 2, 3)
    right = t[..., :2] - rays * t[..., 2:]  # (..., G, V, K, 2)
    weighed = rows * weight[..., None, None]
    matrix = torch.einsum("...vkij,...vkil->...kjl", weighed, rows) + 1e-6 * torch.eye(3, device=rays.device)
    vector = torch.einsum("...vkij,...vki->...kj", weighed, right)
    a, b, c = matrix.unbind(-1)
    cofactors = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)
    determinant = (a * cofactors[..., 0, :]).sum(-1)
    return (cofactors @ vector[..., None])[..., 0] / determinant.clamp_min(1e-9)[..., None]


def to_rays(xy: Tensor, cameras: Cameras) -> Tensor:
    """Crop coordinates -> ideal normalised image coordinates: (G, V, K, 2) -> (G, V, K, 2)."""
    seen = _multiply(cameras.rays[..., :2], xy) + cameras.rays[:, :, None, :, 2]
    return seen if cameras.bend is None else _through(seen, lambda x: cameras.bend(x, True))  # type: ignore[misc]


def look(world: Tensor, cameras: Cameras, root: int) -> Tensor:
    """World joints as the views' crops show them: (G, K, 3) -> (G, V, K, 3), z about the root in the unit of the crop.

    NaN where a joint is not in front of the camera.
    """
    local = camera_coordinates(world, cameras)  # (G, V, K, 3)
    z = local[..., 2:]
    front = z > 1e-3
    seen = local[..., :2] / torch.where(front, z, 1.0)
    if cameras.bend is not None:
        seen = _through(seen, lambda x: cameras.bend(x, False))  # type: ignore[misc]
    inverse = torch.linalg.inv(cameras.rays[..., :2])
    xy = _multiply(inverse, seen - cameras.rays[:, :, None, :, 2])
    middle = z[:, :, root : root + 1]
    depth = (z - middle) / (middle.clamp_min(1e-3) * cameras.rays[..., 0, 0][..., None, None])
    return torch.where(front, torch.cat([xy, depth], -1), torch.nan)


def _matrices(cameras: Cameras) -> Tensor:
    """(G, V, 3, 4) [R|t]."""
    return torch.cat([cameras.R, cameras.t[..., None]], -1)


def camera_coordinates(world: Tensor, cameras: Cameras) -> Tensor:
    """(..., G, K, 3) -> (..., G, V, K, 3)."""
    return (cameras.R[:, :, None] * world[..., None, :, None, :]).sum(-1) + cameras.t[:, :, None]


def _multiply(linear: Tensor, xy: Tensor) -> Tensor:
    """(G, V, 2, 2) times (G, V, K, 2), without a matrix product, which autocast would round."""
    return (linear[:, :, None] * xy[..., None, :]).sum(-1)


def _through(xy: Tensor, lens: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Apply a lens that is written in numpy: exact values, and slopes by difference quotients."""
    at = xy.detach().double().cpu().numpy()
    steps = [np.array([STEP, 0.0]), np.array([0.0, STEP])]
    slopes = np.stack([(lens(at + step) - lens(at - step)) / (2 * STEP) for step in steps], -1)  # (..., out, in)
    value, slope = (torch.from_numpy(np.nan_to_num(array)).to(xy) for array in (lens(at), slopes))
    return value + (slope * (xy - xy.detach())[..., None, :]).sum(-1)
