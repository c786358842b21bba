"""One motion through many hypotheses a frame: the smoothest path that most hypotheses agree with, its bones constant.

One picture leaves open whether a limb points to the camera or away. Many hypotheses of a frame hold both; over time
only one of them moves like a body. Each limb is followed by itself, relative to the joint that it hangs from: ten
hypotheses of a whole body hold few of the combinations of its limbs, but each limb's two or three states many times.
A path costs

    in each frame   how few hypotheses are near it, and how far its bones are from the subject's usual lengths;
    between frames  how fast its joints move, up to a ceiling: a fast motion is no worse than a very fast one.

`smooth_path` finds the cheapest path of all (Viterbi's dynamic programming), `LivePath` the cheapest up to now, for
which it needs no frame that is still to come. Around the path the hypotheses that agree with it are averaged, so that
the poses are less restless than any single one; then the bones get the subject's lengths, mostly by a change of depth,
since x and y were seen.

On held-out dances (six takes, 16 hypotheses by a lifter trained for five minutes, joints seen to 1 px on a person of
85 px) the path has a PA-MPJPE of 40.8 mm and live 44.8, the mean-shift modes of single frames 48.8, and 43.2 where they
are smoothed by the same window; with exact joints 38.0, 41.2, 41.4 and 41.5. Simulated hypotheses in which limbs are
often turned to the wrong side for half a second: MPJPE 40.2 and 44.8, modes 49.6, smoothed 42.8. It does not mend 2D
joints: on six SynthPose videos, joints by the shipped detector, 109.1 and 110.6, modes 107.8 mm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampose.geometry.bones import bone_lengths, with_bones
from streampose.structures import Skeleton
from streampose.tracking.one_euro import OneEuroFilter

LIMB_DEGREES = 45.0  # a bone that swings further begins a limb
DEPTH, DEPTH_LIVE = 3.0, 2.0  # how many times less sure than x and y the depth of a joint is; live it shakes more
CUTOFF, BETA = 3.0, 5.0  # of the one-euro filter of live poses, in Hz and Hz per metre a second
AWAY_SECONDS = 2.0  # after which a subject's path is forgotten
MEMORY = 240  # frames whose bones say how long the subject's are, live


@dataclass(frozen=True)
class PathCosts:
    """What a path's parts cost.

    Attributes:
        agree_metres: hypotheses so near, a joint, agree (bandwidth of the kernel).
        bones: weight of the squared error of a bone's length, relative to a tenth of it.
        metres_a_second: joints that move so fast cost 1 a frame.
        ceiling: of what a joint's movement costs.
        motion: weight of what the movement costs.
        smooth_seconds: standard deviation of the window that a finished path is smoothed in; 0 leaves it.
        longest_seconds: a gap that is longer is not bridged: the path begins anew.
    """

    agree_metres: float = 0.16
    bones: float = 0.1
    metres_a_second: float = 1.0
    ceiling: float = 9.0
    motion: float = 3.0
    smooth_seconds: float = 0.05
    longest_seconds: float = 0.5


def limbs_of(skeleton: Skeleton) -> list[list[int]]:
    """The joints in parts that move by themselves: the trunk first, then a list a limb, parents before children."""
    part = {skeleton.root: 0}
    parts = [[skeleton.root]]
    for bone in skeleton.bones:
        if part[bone.parent] == 0 and bone.swing_degrees > LIMB_DEGREES:
            part[bone.child] = len(parts)
            parts.append([])
        else:
            part[bone.child] = part[bone.parent]
        parts[part[bone.child]].append(bone.child)
    return parts


def smooth_path(
    hypotheses: np.ndarray,
    pts_seconds: np.ndarray,
    skeleton: Skeleton,
    *,
    cost: np.ndarray | None = None,
    costs: PathCosts | None = None,
) -> np.ndarray:
    """The motion that the hypotheses of a whole clip tell together.

    Args:
        hypotheses: (T, H, K, 3) metres, about the root; NaN where there are none (or a joint is not known).
        pts_seconds: (T,) in order of time.
        cost: (T, H) what else speaks against each (a re-projection error, an implausible pose); None for nothing.

    Returns:
        (T, K, 3) with constant bones; NaN in frames without hypotheses.
    """
    costs = costs or PathCosts()
    T, H, K, _ = _shape(hypotheses, pts_seconds, skeleton)
    lengths = _usual_lengths(hypotheses.reshape(T * H, K, 3), skeleton)
    poses = np.full((T, K, 3), np.nan)
    ways = [_Limb(skeleton, part, lengths, costs) for part in limbs_of(skeleton)]
    for limb in ways:
        back: list[np.ndarray] = []
        frames = [t for t in range(T) if _present(hypotheses[t]).any()]
        for t in frames:
            back.append(limb.advance(hypotheses[t], float(pts_seconds[t]), None if cost is None else cost[t]))
        index = np.zeros(len(frames), int)
        for n in range(len(frames) - 1, -1, -1):
            last = n == len(frames) - 1
            begins_after = not last and back[n + 1][0] < 0  # a gap: the path before it ends for itself
            index[n] = limb.ends[n] if last or begins_after else back[n + 1][index[n + 1]]
        for n, t in enumerate(frames):
            limb.place(n, index[n], poses[t])
    poses = _smoothed(poses, pts_seconds, costs)
    return _constant(poses, skeleton, _usual_lengths(poses, skeleton))


class LivePath:
    """The same from frame to frame, without frames to come; one for each subject.

    A wrong turn is mended as soon as the other path has become cheaper; costs of frames long ago are forgotten. A
    one-euro filter stands for the window that a finished path is smoothed in.
    """

    def __init__(self, skeleton: Skeleton, costs: PathCosts | None = None, forget: float = 0.9):
        self._skeleton, self._costs, self._forget = skeleton, costs or PathCosts(), forget
        self._seen: deque[np.ndarray] = deque(maxlen=MEMORY)  # lengths of the bones of all hypotheses of a frame
        self._lengths: deque[np.ndarray] = deque(maxlen=MEMORY)  # and on the path
        self._limbs: list[_Limb] = []
        self._filter = OneEuroFilter(CUTOFF, BETA)

    def step(self, hypotheses: np.ndarray, pts_seconds: float, cost: np.ndarray | None = None) -> np.ndarray:
        """The pose of one more frame.

        Args:
            hypotheses: (H, K, 3) metres, about the root; as many in every frame.
            cost: (H,) as in `smooth_path`.

        Returns:
            (K, 3); NaN where there are no hypotheses.
        """
        _shape(hypotheses[None], np.array([pts_seconds]), self._skeleton)
        pose = np.full(hypotheses.shape[1:], np.nan)
        if not _present(hypotheses).any():
            return pose
        self._seen.append(_usual_lengths(hypotheses, self._skeleton))
        lengths = _median(np.stack(self._seen))
        if not self._limbs:
            parts = limbs_of(self._skeleton)
            self._limbs = [_Limb(self._skeleton, part, lengths, self._costs, self._forget) for part in parts]
        for limb in self._limbs:
            limb.learn(lengths)
            limb.advance(hypotheses, pts_seconds, cost)
            limb.place(-1, limb.ends[-1], pose)
            del limb.ends[:], limb.states[:]
        smooth = self._filter.apply(pose, pts_seconds)
        self._lengths.append(bone_lengths(smooth, self._skeleton))
        return _constant(smooth[None], self._skeleton, _median(np.stack(self._lengths)), DEPTH_LIVE)[0]


class LivePaths:
    """A path for each of several subjects, by their numbers; those that are away are remembered for a while."""

    def __init__(self, skeleton: Skeleton):
        self._skeleton = skeleton
        self._paths: dict[int, tuple[LivePath, float]] = {}

    def step(self, ids: Sequence[int], hypotheses: np.ndarray, pts_seconds: float) -> np.ndarray:
        """The poses of one more frame: N numbers, (N, H, K, 3) -> (N, K, 3), as `LivePath.step`."""
        poses = np.full((len(ids), *hypotheses.shape[2:]), np.nan)
        for n, number in enumerate(ids):
            path, _ = self._paths.get(number, (LivePath(self._skeleton), pts_seconds))
            poses[n] = path.step(hypotheses[n], pts_seconds)
            self._paths[number] = path, pts_seconds
        self._paths = {number: kept for number, kept in self._paths.items() if pts_seconds - kept[1] < AWAY_SECONDS}
        return poses


class _Limb:
    """The path of one limb (or the trunk): accumulated costs of ending in each hypothesis."""

    def __init__(self, skeleton: Skeleton, part: list[int], lengths: np.ndarray, costs: PathCosts, forget: float = 1.0):
        self._costs, self._forget, self._joints = costs, forget, np.array(part)
        self._anchor = skeleton.parents[part[0]]  # the root is its own
        self._bones = [b for b, bone in enumerate(skeleton.bones) if bone.child in part]
        self._skeleton = skeleton
        self._before: tuple[np.ndarray, float] | None = None
        self._total = np.zeros(0)
        self.ends: list[int] = []  # the cheapest hypothesis of each frame
        self.states: list[np.ndarray] = []  # the limb in each hypothesis of each frame, about its anchor
        self.learn(lengths)

    def learn(self, lengths: np.ndarray) -> None:
        """How long the subject's bones are: (B,) of the whole skeleton."""
        self._lengths = lengths[self._bones]

    def advance(self, hypotheses: np.ndarray, seconds: float, cost: np.ndarray | None) -> np.ndarray:
        """Add a frame: (H, K, 3). Returns (M,) where the cheapest path to each state came from, -1: it begins here."""
        states, own = self._states(hypotheses, cost)
        came = np.full(len(states), -1)
        if self._before is not None:
            before, then = self._before
            step = seconds - then
            if 0 < step <= self._costs.longest_seconds:
                reached = self._total[:, None] * self._forget + self._motion(before, states, step)
                came = reached.argmin(0)
                own = own + reached.min(0)
        self._total = own - own.min()
        self._before = (states, seconds)
        self.states.append(states)
        self.ends.append(int(own.argmin()))
        return came

    def place(self, frame: int, chosen: int, pose: np.ndarray) -> None:
        """Put the limb, as the hypotheses that agree with one have it, into a pose (K, 3) whose trunk is there."""
        is_trunk = self._anchor in self._joints
        pose[self._joints] = self.states[frame][chosen] + (0.0 if is_trunk else pose[self._anchor])

    def _states(self, hypotheses: np.ndarray, cost: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """What the hypotheses of a frame take the limb for: M states (M, J, 3) about its anchor, and their costs (M,).

        A state is the mean of the hypotheses near one of them; the fewer they are, the more it costs.
        """
        points = hypotheses[:, self._joints] - hypotheses[:, [self._anchor]]  # (H, J, 3)
        present = np.isfinite(points).any((1, 2))
        if not present.any():
            return np.full((1, *points.shape[1:]), np.nan), np.zeros(1)
        points, width = points[present], self._costs.agree_metres**2
        squared = ((points[:, None] - points[None]) ** 2).sum(-1)  # (H, H, J)
        near = np.exp(-0.5 * np.nan_to_num(_mean_known(squared), nan=np.inf) / width)  # (H, H)
        own = -np.log(near.mean(1)) + self._bone_costs(hypotheses[present])
        if cost is not None:
            own = own + near @ cost[present] / near.sum(1)
        weights = near[..., None] * np.isfinite(points).all(-1)  # (H, H, J)
        total = weights.sum(1)
        means = np.einsum("hij,ijd->hjd", weights, np.nan_to_num(points), optimize=True)
        means = means / np.where(total > 0, total, np.nan)[..., None]
        return means, own

    def _bone_costs(self, hypotheses: np.ndarray) -> np.ndarray:
        lengths = bone_lengths(hypotheses, self._skeleton)[:, self._bones]
        return self._costs.bones * np.nan_to_num((10 * (lengths / self._lengths - 1)) ** 2).sum(1)

    def _motion(self, before: np.ndarray, points: np.ndarray, seconds: float) -> np.ndarray:
        """What it costs to go from each to each: (H, J, 3), (H, J, 3) -> (H, H)."""
        squared = ((before[:, None] - points[None]) ** 2).sum(-1)
        speed = squared / (self._costs.metres_a_second * seconds) ** 2
        capped = speed / (1 + speed / self._costs.ceiling)
        known = np.isfinite(capped)
        return self._costs.motion * np.where(known, capped, 0).sum(-1)


def _shape(hypotheses: np.ndarray, pts_seconds: np.ndarray, skeleton: Skeleton) -> tuple[int, ...]:
    if hypotheses.ndim != 4 or hypotheses.shape[2:] != (skeleton.num_joints, 3) or not hypotheses.shape[1]:
        raise ValueError(f"hypotheses are {hypotheses.shape}, expected (T, H, {skeleton.num_joints}, 3)")
    if len(pts_seconds) != len(hypotheses):
        raise ValueError(f"{len(pts_seconds)} times for {len(hypotheses)} frames")
    return hypotheses.shape


def _present(hypotheses: np.ndarray) -> np.ndarray:
    """(H,) whether a hypothesis has any joint."""
    return np.isfinite(hypotheses).all(-1).any(-1)


def _usual_lengths(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    return _median(bone_lengths(poses, skeleton))


def _median(values: np.ndarray) -> np.ndarray:
    """Median of the known values of each column: (N, B) -> (B,), NaN where none is known."""
    finite = np.isfinite(values)
    if len(values) and finite.all():
        return np.median(values, 0)  # many times as fast
    known = finite.any(0)
    result = np.full(values.shape[1], np.nan)
    if known.any():
        result[known] = np.nanmedian(values[:, known], 0)
    return result


def _constant(poses: np.ndarray, skeleton: Skeleton, lengths: np.ndarray, depth: float = DEPTH) -> np.ndarray:
    return with_bones(poses, skeleton, lengths, scale_root=False, depth=depth)


def _smoothed(poses: np.ndarray, pts_seconds: np.ndarray, costs: PathCosts) -> np.ndarray:
    """Weighted means over the frames around each, none beyond a gap: (T, K, 3) -> (T, K, 3)."""
    if costs.smooth_seconds <= 0 or len(poses) < 3:
        return poses
    known = np.isfinite(poses).any((1, 2))
    stretch = np.zeros(len(poses), int)
    places = np.flatnonzero(known)
    stretch[places[1:]] = np.cumsum(np.diff(pts_seconds[places]) > costs.longest_seconds)
    result = poses.copy()
    for t in places.tolist():
        low, high = np.searchsorted(pts_seconds, pts_seconds[t] + np.array([-3, 3]) * costs.smooth_seconds)
        reach = min(t - low, high - 1 - t)  # as far both ways, or the ends of a motion would be pulled inward
        part = np.arange(t - reach, t + reach + 1)
        part = part[known[part] & (stretch[part] == stretch[t])]
        weights = np.exp(-0.5 * ((pts_seconds[part] - pts_seconds[t]) / costs.smooth_seconds) ** 2)[:, None, None]
        there = np.isfinite(poses[part])
        total = (weights * there).sum(0)
        result[t] = (weights * np.where(there, poses[part], 0)).sum(0) / np.where(total > 0, total, np.nan)
    return np.where(np.isfinite(poses), result, np.nan)


def _mean_known(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0).sum(-1) / np.maximum(count, 1), np.nan)
