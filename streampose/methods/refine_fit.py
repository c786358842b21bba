"""One body in space, fitted to what all views of a session show of it over time, for `methods/refine.py`.

Triangulated joints of a detector that has learnt from masks share its habits: hips too far out, arms that reach too
short. The masks of several views at once do not. So the joints in space are moved until the body that a skeleton file
describes, with one set of bone lengths and thicknesses for the whole recording, covers the masks of all views and
nothing else, stays near what the detector saw, and moves smoothly. Masks are compared at random points instead of
pixels, which is many times cheaper than drawing.

The terms, in sizes of the subject: overlap (1 - IoU) and cover (distance from uncovered points of the mask to the
body, which draws limbs to where they are missing); detections (Geman-McClure); constant bone lengths; accelerations;
middles between left and right; knees and the like bend only `toward` their side; steady bones keep near their rest
direction in the frame of the body; lengths and thicknesses near those of the skeleton file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from streampose.methods.mask_space import Anatomy, Cameras, camera_coordinates, look
from streampose.structures import Skeleton

POOL = 256  # points inside and outside each mask, of which each step takes some
POINTS = 48
DETECTION = 0.12  # distance in [-1, 1] at which a detection counts half
SOFTEST, SHARPEST = 0.08, 0.03  # edge of the drawn body, from the first step to the last, in [-1, 1]
RATE, SHAPE_RATE = 0.007, 0.01  # Adam's, in sizes of the subject and in logarithms
STRAIGHT, STEADY = 0.05, 30.0  # how far a knee may bend the wrong way; degrees of swing up to which a bone is steady
WEIGHTS = {
    "overlap": 3.0, "cover": 20.0, "detections": 0.7, "lengths": 200.0, "smooth": 2.0, "middles": 100.0, "hinges": 0.3,
    "rest": 1.0, "shape": 3.0, "thickness": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What does not change in a recording: metres per size of the skeleton file, and logarithms of (N,) factors."""

    scale: float
    lengths: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True)
class BodyTables:
    """A skeleton's bones as arrays, N bones; see `structures.Bone`."""

    parent: Tensor
    child: Tensor
    length: Tensor
    radius: Tensor
    reach: Tensor
    partner: Tensor
    rest: Tensor
    toward: Tensor
    steady: Tensor
    hinge: list[tuple[int, int]]  # bone, and the bone before it that bends to a side too (-1 for none)
    joined: list[tuple[int, int]]  # pairs of joints between which there is flesh as well
    into: dict[int, int]
    middles: list[tuple[int, int, int]]


def body_tables(skeleton: Skeleton) -> BodyTables:
    """The tables of a skeleton."""
    bones = skeleton.bones
    into = {bone.child: n for n, bone in enumerate(bones)}
    into[skeleton.root] = 0
    rest = torch.tensor([bone.direction for bone in bones])
    hinge = []
    for n, bone in enumerate(bones):
        if any(bone.toward):
            before = into[bone.parent] if bone.parent != skeleton.root else -1
            hinge.append((n, before if before >= 0 and any(bones[before].toward) else -1))
    return BodyTables(
        parent=torch.tensor([bone.parent for bone in bones]),
        child=torch.tensor([bone.child for bone in bones]),
        length=torch.tensor([bone.length for bone in bones]),
        radius=torch.tensor([bone.radius for bone in bones]),
        reach=torch.tensor([bone.reach for bone in bones]),
        partner=torch.tensor([into.get(skeleton.flip_index[bone.child], n) for n, bone in enumerate(bones)]),
        rest=F.normalize(rest, dim=-1),
        toward=torch.tensor([bone.toward for bone in bones]),
        steady=torch.tensor([bone.swing_degrees <= STEADY for bone in bones]),
        hinge=hinge,
        joined=list(skeleton.connections.get("medium", ())),
        into=into,
        middles=list(skeleton.midpoints),
    )


def mask_points(masks: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random points inside and outside of (M, S, S) masks: (M, POOL, 2) twice in [-1, 1], and (M, 2) pixels of each.

    An empty mask, or a full one, has no pixels of either.
    """
    M, S = masks.shape[:2]
    points = np.zeros((2, M, POOL, 2), np.float32)
    areas = np.zeros((M, 2), np.float32)
    for m, mask in enumerate(masks > 127):
        parts = np.flatnonzero(mask), np.flatnonzero(~mask)
        if min(len(part) for part in parts) < S // 4:
            continue
        areas[m] = [len(part) for part in parts]
        for side, part in enumerate(parts):
            cells = part[rng.integers(0, len(part), POOL)]
            points[side, m] = (np.stack([cells % S, cells // S], -1) + rng.random((POOL, 2))) * (2 / S) - 1
    return torch.from_numpy(points[0]), torch.from_numpy(points[1]), torch.from_numpy(areas)


def depth_inside(points: Tensor, starts: Tensor, ends: Tensor, radii: Tensor) -> Tensor:
    """How deep points lie within the nearest of tapered capsules, negative outside.

    Which one is nearest is found first, without gradient; only it is then differentiated.

    Args:
        points: (M, P, 2); starts, ends: (M, N, 2); radii: (M, N, 2) at both ends.

    Returns:
        (M, P).
    """
    nearest = _nearest(points, starts, ends, radii)[..., None].expand(-1, -1, 2)
    start, end, radius = (values.gather(1, nearest) for values in (starts, ends, radii))
    along, relative = end - start, points - start
    r = ((relative * along).sum(-1) / (along**2).sum(-1).clamp_min(1e-6)).clamp(0, 1)
    distance = ((relative - r[..., None] * along) ** 2).sum(-1).add(1e-8).sqrt()
    return radius[..., 0] + r * (radius[..., 1] - radius[..., 0]) - distance


@torch.no_grad()
def _nearest(points: Tensor, starts: Tensor, ends: Tensor, radii: Tensor) -> Tensor:
    """(M, P) the capsule in which points lie deepest; squared distances are put together from products of matrices."""
    along = ends - starts
    square = (along**2).sum(-1).clamp_min(1e-6)[:, None]  # (M, 1, N)
    onto = points @ along.mT - (starts * along).sum(-1)[:, None]  # (M, P, N), all of these
    away = (starts**2).sum(-1)[:, None] - 2 * points @ starts.mT + (points**2).sum(-1)[..., None]
    r = (onto / square).clamp_(0, 1)
    distance = away.sub_(onto.mul_(2).sub_(r * square).mul_(r)).clamp_min_(0).sqrt_()
    return (radii[:, None, :, 0] + r * (radii[..., 1] - radii[..., 0])[:, None]).sub_(distance).argmax(-1)


def fit_body(
    skeleton: Skeleton,
    cameras: Cameras,
    seen: np.ndarray,
    masks: np.ndarray,
    detections: np.ndarray,
    confidence: np.ndarray,
    world: np.ndarray,
    seconds: np.ndarray,
    *,
    steps: int = 250,
    shape: Shape | None = None,
    weights: dict[str, float] | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, Shape]:
    """Fit a body to T moments of V views.

    Args:
        cameras: of (T, V) frames.
        seen: (T, V) bool, the views that show the moment.
        masks: (T, V, S, S) uint8 in the frames' crops.
        detections: (T, V, K, 2) in crop coordinates, left and right named alike in all views.
        confidence: (T, V, K).
        world: (T, K, 3) where the joints are at first, metres; NaN where that is not known.
        seconds: (T,).
        shape: what earlier moments of the same subject told.
        weights: of the terms, instead of those of `WEIGHTS`.

    Returns:
        (T, K, 3) joints in metres, and the shape.
    """
    T, V = seen.shape
    tables, weight = body_tables(skeleton), WEIGHTS | (weights or {})
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    first = _fill(world)
    if shape is None:
        scale = _scale(first, tables, skeleton)
        shape = Shape(scale, np.zeros(len(skeleton.bones)), np.zeros(len(skeleton.bones)))
    inside, outside, areas = mask_points(masks.reshape(T * V, *masks.shape[2:]), rng)
    there = torch.from_numpy(seen.reshape(-1)) & (areas.sum(1) > 0)
    share = there.float() / there.sum().clamp_min(1)
    target = torch.from_numpy(np.nan_to_num(detections)).float()
    sure = torch.from_numpy(confidence * seen[..., None] * np.isfinite(detections).all(-1)).float()
    sure = sure / sure.sum().clamp_min(1e-6)
    X = torch.from_numpy(first / shape.scale).float().requires_grad_()  # in sizes of the subject
    lengths = torch.from_numpy(shape.lengths).float().requires_grad_()
    radii = torch.from_numpy(shape.radii).float().requires_grad_()
    size = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam(
        [{"params": [X], "lr": RATE}, {"params": [lengths, radii, size], "lr": SHAPE_RATE}], betas=(0.9, 0.98)
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    pace = torch.from_numpy(_pace(seconds)).float()
    anatomy, turn = Anatomy(skeleton), torch.eye(3).expand(T, 3, 3)
    for step in range(steps):
        done = step / steps
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (1 - done) / 0.4 + 0.02)
        if step % 5 == 0:
            with torch.no_grad():
                turn = anatomy.turn(X)
        both = [(values + values[tables.partner]) / 2 for values in (lengths, radii)]
        length, radius = tables.length * both[0].exp() * size.exp(), tables.radius * both[1].exp() * size.exp()
        metres = X * shape.scale
        crop, starts, ends, thick = _project(metres, radius * shape.scale, cameras, tables, skeleton.root)
        pick = torch.randint(0, POOL, (POINTS,), generator=generator)
        points = torch.cat([inside[:, pick], outside[:, pick]], 1)
        deep = depth_inside(points, starts.flatten(0, 1), ends.flatten(0, 1), thick.flatten(0, 1))
        covered = torch.sigmoid(deep / (SOFTEST + done * (SHARPEST - SOFTEST)))
        common = covered[:, :POINTS].mean(1) * areas[:, 0]
        either = areas[:, 0] + covered[:, POINTS:].mean(1) * areas[:, 1]
        miss = ((crop[..., :2] - target) ** 2).sum(-1)
        bones = X[:, tables.child] - X[:, tables.parent]
        reached = bones.norm(dim=-1)
        terms = {
            "overlap": ((1 - common / either.clamp_min(1)) * share).sum(),
            "cover": (F.relu(-deep[:, :POINTS]).mean(1) * share).sum(),
            "detections": (1 - 0.6 * done) * (sure * miss / (miss + DETECTION**2)).nan_to_num().sum(),
            "lengths": ((reached - length) ** 2).mean(),
            "middles": _middles(X, tables),
            "shape": (both[0] ** 2).mean(),
            "thickness": (both[1] ** 2).mean(),
            **_posture(bones / (reached[..., None] + 1e-4), turn, tables, skeleton),
        }
        if T > 2:
            acceleration = (X[2:] - 2 * X[1:-1] + X[:-2]) * pace[:, None, None]
            terms["smooth"] = (acceleration**2).sum(-1).add(1e-6).sqrt().mean()
        loss = torch.stack([weight[name] * term for name, term in terms.items()]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        told = Shape(float(shape.scale * size.exp()), both[0].numpy(), both[1].numpy())
        return (X * shape.scale).numpy(), told


def _project(
    metres: Tensor, radius: Tensor, cameras: Cameras, tables: BodyTables, root: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Joints (T, V, K, 3) in crop coordinates; starts, ends (T, V, N, 2) and radii (T, V, N, 2) of what is drawn."""
    crop = torch.nan_to_num(look(metres, cameras, root), nan=3.0)
    depth = camera_coordinates(metres, cameras)[..., 2].clamp_min(0.1)  # (T, V, K)
    unit = cameras.rays[..., 0, 0][..., None] * depth  # metres in one of the crop
    starts, ends = crop[:, :, tables.parent, :2], crop[:, :, tables.child, :2]
    thick = torch.stack([radius / unit[:, :, tables.parent], radius / unit[:, :, tables.child]], -1)
    ends = ends + F.normalize(ends - starts, dim=-1, eps=1e-4) * ((tables.reach - 1) * thick[..., 1])[..., None]
    if tables.joined:
        a, b = (torch.tensor(joints) for joints in zip(*tables.joined, strict=True))
        into = [torch.tensor([tables.into[int(joint)] for joint in joints]) for joints in (a, b)]
        thin = 0.6 * torch.minimum(thick[:, :, into[0], 1], thick[:, :, into[1], 1])
        starts, ends = torch.cat([starts, crop[:, :, a, :2]], 2), torch.cat([ends, crop[:, :, b, :2]], 2)
        thick = torch.cat([thick, thin[..., None].expand(*thin.shape, 2)], 2)
    return crop, starts, ends, thick


def _posture(unit: Tensor, turn: Tensor, tables: BodyTables, skeleton: Skeleton) -> dict[str, Tensor]:
    """Bones that bend the wrong way, or leave their rest direction: (T, N, 3) directions, (T, 3, 3) body frames."""
    zero = unit.new_zeros(())
    hinges = zero
    for n, before in tables.hinge:
        side = turn @ tables.toward[n]
        bend = ((unit[:, n] - (unit[:, before] if before >= 0 else 0)) * side).sum(-1)
        hinges = hinges + F.relu(-bend - (STRAIGHT if before >= 0 else 0.5)).mean()
    rest = zero
    for n in torch.nonzero(tables.steady).flatten().tolist():
        near = np.cos(np.radians(1.2 * skeleton.bones[n].swing_degrees))
        rest = rest + F.relu(near - (unit[:, n] * (turn @ tables.rest[n])).sum(-1)).mean()
    return {"hinges": hinges, "rest": rest}


def _middles(X: Tensor, tables: BodyTables) -> Tensor:
    """Squared distance of middle joints from half way between left and right."""
    apart = [((X[:, m] - (X[:, a] + X[:, b]) / 2) ** 2).sum(-1).mean() for m, a, b in tables.middles]
    return torch.stack(apart).sum() if apart else X.new_zeros(())


def _fill(world: np.ndarray) -> np.ndarray:
    """Joints that are not known, between those before and after; at the body's middle where they never are."""
    filled = np.array(world, float)
    moments = np.arange(len(filled))
    every = filled.reshape(-1, 3)[np.isfinite(filled).all(-1).ravel()]
    middle = np.median(every, 0) if len(every) else np.zeros(3)
    for k in range(filled.shape[1]):
        known = np.isfinite(filled[:, k]).all(-1)
        for d in range(3):
            if known.any():
                filled[:, k, d] = np.interp(moments, moments[known], filled[known, k, d])
            else:
                filled[:, k, d] = middle[d]
    return filled


def _scale(world: np.ndarray, tables: BodyTables, skeleton: Skeleton) -> float:
    """Metres of one unit of the skeleton file: the median over bones that are no arms."""
    lengths = np.median(np.linalg.norm(world[:, tables.child] - world[:, tables.parent], axis=-1), 0)
    bones = [n for n, bone in enumerate(skeleton.bones) if not bone.arm] or list(range(len(lengths)))
    return float(np.median(lengths[bones] / tables.length.numpy()[bones]))


def _pace(seconds: np.ndarray) -> np.ndarray:
    """(T - 2,) factors that make second differences comparable between rates; 1 at ten moments a second."""
    if len(seconds) < 3:
        return np.zeros(0)
    between = np.maximum((seconds[2:] - seconds[:-2]) / 2, 1e-3)
    return np.minimum((0.1 / between) ** 2, 25.0) * (between < 0.5)
