"""Left and right by several views: which views show a body, or a limb, the wrong way round.

A detector may take a person's left for the right in one view and not in another; then the joints of the two views do
not meet. What all views confuse alike, re-projection cannot see: there the shape of the body counts (the nose is in
front, knees bend backward), the labels of most views and moments, and that a body does not turn inside out from one
moment to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from streampose.geometry.match_views import JOINT_SHARE, extent
from streampose.geometry.triangulate import triangulate_robust
from streampose.structures import Camera, Skeleton

MOST_EXHAUSTIVE = 5  # views, of which every combination is tried; with more, one view after the other
LEAST_GAIN = 0.06  # of the possible score: swaps that gain less are not made
LABEL_SAY = 0.1  # how much the labels say at each moment, in units of the body's size that a jump would cost
BODY_SAY = 0.3  # how much the body's shape says (`handedness`), in the same units
LARGEST_JUMP = 1.0  # of the body's size; more is not worse


def limbs(skeleton: Skeleton) -> list[np.ndarray]:
    """The joints of each pair of limbs: what hangs together of the skeleton's left and right joints."""
    paired = {joint for pair in skeleton.flip_pairs for joint in pair}
    top = list(range(skeleton.num_joints))
    for bone in skeleton.bones:  # parents come first
        if bone.child in paired and bone.parent in paired:
            top[bone.child] = top[bone.parent]
    flip = skeleton.flip_index
    roots = sorted({min(top[joint], top[flip[joint]]) for joint in paired})
    return [np.array([j for j in sorted(paired) if min(top[j], top[flip[j]]) == root]) for root in roots]


def handedness(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Whether the labels left and right fit the body: where its left is, its front is known, and the nose and the way
    the knees bend tell the front too.

    Args:
        points: (T, K, 3) joints in space (a right-handed frame); NaN where missing.

    Returns:
        (T,) about -1 to 1: above 0 where they fit, below where they are exchanged, 0 where nothing tells.
    """
    left = np.array([pair[0] for pair in skeleton.flip_pairs], int)
    right = np.array([pair[1] for pair in skeleton.flip_pairs], int)
    trunk, ahead = _trunk(skeleton), _ahead(skeleton)
    if not tells_sides(skeleton):
        return np.zeros(len(points))
    parent, child = (np.array([getattr(bone, end) for bone in skeleton.bones]) for end in ("parent", "child"))
    vectors = _unit(points[:, child] - points[:, parent])  # (T, bones, 3)
    down = np.array([_unit(np.array(skeleton.bones[n].direction))[1] for n in trunk])
    sideways = _unit(_mean(points[:, left] - points[:, right], 1))
    front = np.cross(_unit(_mean(vectors[:, trunk] * down[:, None], 1)), sideways)  # (T, 3) down x left
    signs = []
    for n, before, sign in ahead:
        pointing = vectors[:, n] if before is None else vectors[:, n] - vectors[:, before]
        signs.append(sign * (pointing * front).sum(-1))
    return np.nan_to_num(_mean(np.stack(signs, -1), -1))


def tells_sides(skeleton: Skeleton) -> bool:
    """Whether `handedness` can tell anything of such bodies: there is a trunk, left and right, and a front."""
    return bool(skeleton.flip_pairs and _trunk(skeleton) and _ahead(skeleton))


def _trunk(skeleton: Skeleton) -> list[int]:
    """The bones along which a body stands upright."""
    upright = [abs(_unit(np.array(bone.direction))[1]) > 0.7 for bone in skeleton.bones]
    return [n for n, bone in enumerate(skeleton.bones) if bone.constant and upright[n]]


def _ahead(skeleton: Skeleton) -> list[tuple[int, int | None, float]]:
    """What tells the front: a bone, the one before it where the joint between bends one way, 1 for forward, -1 back."""
    found: list[tuple[int, int | None, float]] = []
    above = {bone.child: n for n, bone in enumerate(skeleton.bones)}
    middle = skeleton_middle(skeleton)
    for n, bone in enumerate(skeleton.bones):
        rest = -_unit(np.array(bone.direction))[2]  # the rest pose faces the camera, so its front is -z
        before = above.get(bone.parent)
        if bone.parent in middle and bone.child in middle and abs(rest) > 0.3:
            found.append((n, None, float(np.sign(rest))))
        elif before is not None and bone.toward[2] and skeleton.bones[before].toward[2]:
            found.append((n, before, -float(np.sign(bone.toward[2]))))
    return found


def skeleton_middle(skeleton: Skeleton) -> set[int]:
    """The joints that are neither left nor right."""
    return {joint for joint, other in enumerate(skeleton.flip_index) if joint == other}


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.full_like(vectors, np.nan, dtype=float), where=length > 0)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis) / np.maximum(count, 1), np.nan)


class LeftRight:
    """Straightens one subject's views, window by window.

    Args:
        cameras: V posed cameras.
        skeleton: whose flip pairs are meant.
    """

    def __init__(self, cameras: Sequence[Camera], skeleton: Skeleton):
        self._cameras, self._skeleton, self._flip = list(cameras), skeleton, np.array(skeleton.flip_index)
        self._paired = np.flatnonzero(self._flip != np.arange(skeleton.num_joints))
        parts = limbs(skeleton)
        self._parts = [self._paired, *(parts if len(parts) > 1 else [])]
        self._chains = [_Chain(self._flip, part) for part in self._parts]

    def apply(self, points: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The views of T moments with left and right exchanged where that makes them meet.

        Args:
            points: (V, T, K, 2) pixels as the lenses showed them; NaN where missing.
            confidence: (V, T, K).

        Returns:
            points and confidence with joints exchanged, and (V, T, K) bool, which joints were.
        """
        V, T, K = confidence.shape
        order = np.broadcast_to(np.arange(K), (V, T, K)).copy()
        if not len(self._paired):
            return points, confidence, np.zeros((V, T, K), bool)
        gate = JOINT_SHARE * float(np.median(e) if len(e := extent(points)[extent(points) > 0]) else 1.0)
        for number, (part, chain) in enumerate(zip(self._parts, self._chains, strict=True)):
            xy, sure = np.take_along_axis(points, order[..., None], 2), np.take_along_axis(confidence, order, 2)
            swapped, places, mass = relative_swaps(self._cameras, xy, sure, self._flip, part, gate)
            fits = self._handedness(xy, sure, places, gate) if number == 0 else np.zeros(T)
            swapped ^= chain.decide(places, mass, fits)[None]
            exchanged = order.copy()
            exchanged[..., part] = order[..., self._flip[part]]
            order = np.where(swapped[..., None], exchanged, order)
        moved = order != np.arange(K)
        return np.take_along_axis(points, order[..., None], 2), np.take_along_axis(confidence, order, 2), moved

    def _handedness(self, xy: np.ndarray, sure: np.ndarray, places: np.ndarray, gate: float) -> np.ndarray:
        """(T,) `handedness` of the body with its left and right joints at these places (T, P, 3)."""
        V, T, K = sure.shape
        body = np.full((T, K, 3), np.nan)
        body[:, self._paired] = places
        if len(middle := np.array(sorted(skeleton_middle(self._skeleton)), int)):
            seen, weight = xy[:, :, middle].reshape(V, -1, 2), sure[:, :, middle].reshape(V, -1)
            found = triangulate_robust(self._cameras, seen, weight, max_px=gate)
            body[:, middle] = found.points.reshape(T, -1, 3)
        return handedness(body, self._skeleton)


def relative_swaps(
    cameras: Sequence[Camera],
    points: np.ndarray,
    confidence: np.ndarray,
    flip: np.ndarray,
    part: np.ndarray,
    gate: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which views to exchange at each moment so that the joints of a part meet best; the fewest exchanges that do.

    Args:
        points, confidence: (V, T, K, 2), (V, T, K).
        flip: permutation that swaps left and right.
        part: the joints in question, left and right ones.
        gate: pixels within which a view agrees with a point.

    Returns:
        (V, T) bool; (T, P, 3) the part's joints in space then; (T,) share of the confidence that is exchanged.
    """
    V, T, _ = confidence.shape
    xy = np.stack([points[:, :, part], points[:, :, flip[part]]])  # (2, V, T, P, 2)
    say = np.nan_to_num(np.stack([confidence[:, :, part], confidence[:, :, flip[part]]]))
    say = np.where(np.isfinite(xy).all(-1), say, 0.0)
    weight = say[0].sum(-1)  # (V, T)
    possible = np.maximum(weight.sum(0), 1e-9)
    views = np.arange(V)[:, None]

    def score(swaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (T,) and places (T, P, 3) for (V, T) swaps; scores are what agrees, less a little for each swap."""
        chosen = swaps.astype(int), views, np.arange(T)[None]
        seen, sure = xy[chosen].reshape(V, -1, 2), say[chosen].reshape(V, -1)
        found = triangulate_robust(cameras, seen, sure, max_px=gate)
        close = np.where(found.inliers, 1 - np.nan_to_num(found.error_px / gate) ** 2, 0.0)
        agreed = (sure * np.maximum(close, 0)).reshape(V, T, -1).sum((0, 2)) / possible
        return agreed - LEAST_GAIN * (weight * swaps).sum(0) / possible, found.points.reshape(T, -1, 3)

    best = np.zeros((V, T), bool)
    highest, places = score(best)

    def improve(swaps: np.ndarray) -> None:
        nonlocal best, highest, places
        value, where = score(swaps)
        better = value > highest
        best, highest = np.where(better, swaps, best), np.where(better, value, highest)
        places = np.where(better[:, None, None], where, places)

    if V <= MOST_EXHAUSTIVE:
        for rest in product((False, True), repeat=V - 1):
            if any(rest):
                improve(np.broadcast_to(np.array([False, *rest])[:, None], (V, T)))
    else:
        for _ in range(2):
            for v in range(V):
                improve(best ^ (views == v))
    mass = (weight * best).sum(0) / possible
    turn = mass > 0.5  # the same relation between the views with fewer exchanges
    mirrored = np.array([int(np.flatnonzero(part == flip[joint])[0]) for joint in part])
    return best ^ turn, np.where(turn[:, None, None], places[:, mirrored], places), np.minimum(mass, 1 - mass)


class _Chain:
    """Decides for each moment whether a part is the wrong way round in all views, by its labels and by continuity."""

    def __init__(self, flip: np.ndarray, part: np.ndarray):
        self._mirrored = np.array([int(np.flatnonzero(part == flip[joint])[0]) for joint in part])
        self._costs, self._last = np.zeros(2), None

    def decide(self, places: np.ndarray, mass: np.ndarray, fits: np.ndarray) -> np.ndarray:
        """(T, P, 3) joints, (T,) share of confidence exchanged so far, (T,) how well the body's shape fits its labels
        -> (T,) bool; the cheapest path (Viterbi)."""
        came, costs = [], self._costs
        size = _size(places)
        for place, share, fit in zip(places, mass, fits, strict=True):
            stay, turn = 0.0, 0.0
            if self._last is not None and size > 0:
                stay, turn = _jump(place, self._last, size), _jump(place[self._mirrored], self._last, size)
            through = costs[:, None] + np.array([[stay, turn], [turn, stay]])  # from, to
            came.append(through.argmin(0))
            costs = through.min(0) + LABEL_SAY * np.array([share, 1 - share]) + BODY_SAY * np.array([-fit, fit])
            costs -= costs.min()
            known = np.isfinite(place).all(-1, keepdims=True)
            self._last = place if self._last is None else np.where(known, place, self._last)
        self._costs = costs
        states = np.zeros(len(came), int)
        state = int(costs.argmin())
        for t in range(len(came) - 1, -1, -1):
            states[t] = state
            state = int(came[t][state])
        return states.astype(bool)


def _size(places: np.ndarray) -> float:
    """Typical distance of joints from their middle."""
    with np.errstate(invalid="ignore"):
        known = places[np.isfinite(places).all((1, 2))]
    if not len(known):
        return 0.0
    return float(np.median(np.linalg.norm(known - known.mean(1, keepdims=True), axis=-1)))


def _jump(place: np.ndarray, last: np.ndarray, size: float) -> float:
    far = np.linalg.norm(place - last, axis=-1) / size
    far = far[np.isfinite(far)]
    return float(np.minimum(far, LARGEST_JUMP).mean()) if len(far) else 0.0
