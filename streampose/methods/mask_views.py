"""Which frames of a store show one subject at one moment in several calibrated cameras, for `methods/mask.py`.

A session's views are brought to one clock by their offsets. Clips of different views show the same subject where the
rays through the middles of their boxes meet; a frame of each, as near in time as a crop is to the next, is an instant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from streampose.console import logger
from streampose.geometry.camera import resize_camera
from streampose.geometry.distortion import distort, undistort
from streampose.methods.mask_data import Frames
from streampose.store.reader import StoreReader
from streampose.store.sessions import StoredSession, read_sessions
from streampose.structures import Camera

LARGEST_GAP_SECONDS = 0.045  # between the frames of an instant
MEETING = 0.25  # of a box's side: how far apart the rays of one subject pass each other at most (median)
SAMPLES = 40  # moments at which two clips are compared


@dataclass(frozen=True)
class Instants:
    """M moments of the sessions' subjects, seen by up to V cameras; N frames as in `Frames`.

    Attributes:
        frames: (M, V) numbers of frames, -1 for a view that misses the moment; each row has at least two.
        subject: (M,) number of the subject (of all sessions), seconds: (M,) time of its session.
        rays: (N, 2, 3) from crop coordinates [-1, 1] to what K makes of them: normalised image coordinates.
        R, t: (N, 3, 3), (N, 3) cam_from_world of each frame's camera; the origin lies amid the session's cameras.
        lens: (N,) number of the frame's lens in `lenses`, -1 for an ideal one.
        lenses: cameras whose lens distorts.
    """

    frames: np.ndarray
    subject: np.ndarray
    seconds: np.ndarray
    rays: np.ndarray
    R: np.ndarray
    t: np.ndarray
    lens: np.ndarray
    lenses: tuple[Camera, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def largest(self) -> int:
        """Number of views V."""
        return self.frames.shape[1]

    def bend(self, normalised: np.ndarray, index: np.ndarray, inverse: bool = False) -> np.ndarray:
        """What lenses make of ideal normalised coordinates, or the inverse: (n, K, 2), (n,) frames -> (n, K, 2)."""
        bent = np.array(normalised, float)
        for number in np.unique(self.lens[index]):
            if number >= 0:
                camera, of = self.lenses[number], self.lens[index] == number
                bent[of] = (undistort if inverse else distort)(bent[of], camera.distortion, camera.fisheye)
        return bent

    def cameras_of(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Of (G, V) frames: rays (G, V, 2, 3), R (G, V, 3, 3), t (G, V, 3), float32."""
        return {name: getattr(self, name)[frames].astype(np.float32) for name in ("rays", "R", "t")}

    def lens_of(self, frames: np.ndarray) -> Callable[[np.ndarray, bool], np.ndarray] | None:
        """What bends rays of (G, V) frames: (normalised (G, V, K, 2), inverse) -> the same; None if nothing does."""
        index = frames.ravel()
        if (self.lens[index] < 0).all():
            return None
        return lambda xy, inverse: self.bend(xy.reshape(-1, *xy.shape[2:]), index, inverse).reshape(xy.shape)


def no_instants(count: int) -> Instants:
    """Those of N frames that no session holds."""
    none = np.zeros(0, np.int64)
    rays, R, t = np.zeros((count, 2, 3), np.float32), np.zeros((count, 3, 3)), np.zeros((count, 3))
    return Instants(np.zeros((0, 2), np.int64), none, np.zeros(0), rays, R, t, np.full(count, -1))


def find_instants(reader: StoreReader, frames: Frames, *, say: bool = True) -> Instants:
    """Match the frames of a store's sessions; views without a calibrated, standing camera are left out.

    Args:
        say: tell the log how many moments there are.
    """
    found = no_instants(len(frames))
    clip_of = {clip.id: number for number, clip in enumerate(reader.clips())}
    sources = {source["id"]: source for source in reader.sources()}
    lenses: list[Camera] = []
    rows: list[np.ndarray] = []
    subject: list[int] = []
    seconds: list[float] = []
    for stored in read_sessions(reader.path):
        views = _views(stored, sources, clip_of)
        if len(views) < 2:
            continue
        origin = np.mean([-camera.R.T @ camera.t for camera, _, _ in views], 0)
        clips: list[tuple[int, np.ndarray, np.ndarray]] = []  # view, its frames, their times in the session
        for number, (camera, offset, its_clips) in enumerate(views):
            bends = camera.fisheye or bool(np.any(camera.distortion))
            if bends:
                lenses.append(camera)
            for clip in its_clips:
                index = np.flatnonzero(frames.clip == clip)
                if len(index):
                    found.rays[index] = _rays(frames.boxes[index], camera.K)
                    found.R[index], found.t[index] = camera.R, camera.t + camera.R @ origin
                    found.lens[index] = len(lenses) - 1 if bends else -1
                    clips.append((number, index, frames.seconds[index] + offset))
        found = replace(found, lenses=tuple(lenses))
        for group in _subjects(clips, found):
            moments, times = _moments([clips[n] for n in group], len(views))
            rows += list(moments)
            seconds += times
            subject += [max(subject, default=-1) + 1] * len(moments)
    if not rows:
        return found
    width = max(len(row) for row in rows)
    table = np.full((len(rows), width), -1, np.int64)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    if say:
        logger.info("%d moments of %d subjects are seen by up to %d cameras", len(table), len(set(subject)), width)
    return replace(found, frames=table, subject=np.array(subject), seconds=np.array(seconds))


def _views(stored: StoredSession, sources: dict, clip_of: dict[str, int]) -> list[tuple[Camera, float, list[int]]]:
    """Camera (of the pictures' size), clock offset and clips of each usable view."""
    usable = []
    for view, source in zip(stored.session.views, stored.source_ids, strict=True):
        if view.camera is None or not view.camera.posed or source not in sources:
            continue
        probe = sources[source].get("probe") or {}
        size = (int(probe.get("width") or 0), int(probe.get("height") or 0))
        camera = view.camera
        if min(size) > 0 and min(camera.size) > 0 and size != camera.size:
            camera = resize_camera(camera, size)
        usable.append((camera, view.offset_seconds, [clip_of[c] for c in sources[source]["clips"] if c in clip_of]))
    return usable


def _rays(boxes: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(n, 4) crop boxes and (3, 3) intrinsics -> (n, 2, 3) from crop coordinates to normalised image coordinates."""
    boxes = np.asarray(boxes, float)
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    pixels = np.zeros((len(boxes), 3, 3))
    pixels[:, 0, 0], pixels[:, 1, 1], pixels[:, 2, 2] = half[:, 0], half[:, 1], 1
    pixels[:, :2, 2] = boxes[:, :2] + half - 0.5
    return (np.linalg.inv(K) @ pixels)[:, :2]


def _subjects(clips: Sequence[tuple[int, np.ndarray, np.ndarray]], found: Instants) -> list[list[int]]:
    """Clips of different views whose boxes' middles meet in space, each clip with its best partner of a view."""
    miss = np.full((len(clips), len(clips)), np.inf)
    for a, b in combinations(range(len(clips)), 2):
        if clips[a][0] != clips[b][0]:
            miss[a, b] = miss[b, a] = _miss(clips[a], clips[b], found)
    group = list(range(len(clips)))
    for a, b in combinations(range(len(clips)), 2):
        rivals_a = [n for n in range(len(clips)) if clips[n][0] == clips[b][0] and _overlap(clips[n], clips[b])]
        rivals_b = [n for n in range(len(clips)) if clips[n][0] == clips[a][0] and _overlap(clips[n], clips[a])]
        if miss[a, b] <= min(MEETING, miss[a, rivals_a].min(), miss[b, rivals_b].min()):
            group = [group[a] if g == group[b] else g for g in group]
    return [[n for n in range(len(clips)) if group[n] == g] for g in sorted(set(group)) if group.count(g) > 1]


def _overlap(a: tuple[int, np.ndarray, np.ndarray], b: tuple[int, np.ndarray, np.ndarray]) -> bool:
    return a[2][0] <= b[2][-1] and b[2][0] <= a[2][-1]


def _miss(a: tuple[int, np.ndarray, np.ndarray], b: tuple[int, np.ndarray, np.ndarray], found: Instants) -> float:
    """Median distance at which the rays through two clips' boxes pass each other, in sides of the nearer box."""
    nearest = np.abs(a[2][:, None] - b[2]).argmin(1)
    together = np.flatnonzero(np.abs(a[2] - b[2][nearest]) <= LARGEST_GAP_SECONDS)
    if not len(together):
        return np.inf
    together = together[np.linspace(0, len(together) - 1, min(SAMPLES, len(together))).astype(int)]
    (first, p), (second, q) = (_centre_rays(found, index) for index in (a[1][together], b[1][nearest[together]]))
    across = np.cross(p, q)
    square = np.maximum((across**2).sum(-1), 1e-9)
    apart = np.abs(((second - first) * across).sum(-1)) / np.sqrt(square)
    depth = [
        (np.cross(second - first, other) * across).sum(-1) / square * found.rays[index, 0, 0]
        for other, index in ((q, a[1][together]), (p, b[1][nearest[together]]))
    ]
    side = 2 * np.minimum(*depth)
    return float(np.median(np.where(side > 0, apart / np.maximum(side, 1e-9), np.inf)))


def _centre_rays(found: Instants, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the frames' cameras and unit-depth directions through the middles of their crops: (n, 3) twice."""
    middle = found.bend(found.rays[index, None, :, 2], index, inverse=True)[:, 0]
    direction = np.concatenate([middle, np.ones((len(index), 1))], -1)
    back = np.swapaxes(found.R[index], -1, -2)
    return -(back @ found.t[index][..., None])[..., 0], (back @ direction[..., None])[..., 0]


def _moments(clips: list[tuple[int, np.ndarray, np.ndarray]], views: int) -> tuple[np.ndarray, list[float]]:
    """The instants of one subject: at each time of the view that saw it most often, the nearest frame of each view."""
    by_view = {}
    for view in sorted({view for view, _, _ in clips}):
        index = np.concatenate([i for v, i, _ in clips if v == view])
        times = np.concatenate([t for v, _, t in clips if v == view])
        by_view[view] = (index[np.argsort(times)], np.sort(times))
    ticks = max((times for _, times in by_view.values()), key=len)
    table = np.full((len(ticks), views), -1, np.int64)
    for view, (index, times) in by_view.items():
        nearest = np.abs(ticks[:, None] - times).argmin(1)
        near = np.abs(ticks - times[nearest]) <= LARGEST_GAP_SECONDS
        table[near, view] = index[nearest[near]]
    enough = (table >= 0).sum(1) >= 2
    return table[enough], ticks[enough].tolist()


class Mixture:
    """Draws batches of instants and single frames in a fixed proportion, by (seed, step, rank) alone.

    Args:
        count: N frames in all.
        views: how many views of an instant a batch holds.
        share: part of a batch's frames that come from instants; None for as many as there are in the store.
    """

    def __init__(self, instants: Instants, count: int, views: int, share: float | None):
        self.instants = instants
        inside = np.zeros(count, bool)
        inside[instants.frames[instants.frames >= 0]] = True
        single = np.flatnonzero(~inside)
        own = 1.0 if not len(single) else inside.mean()
        self.share = float(own if share is None else share) if len(instants) else 0.0
        self.single = single if len(single) else np.arange(count)
        self.views = min(views, instants.largest)

    def groups(self, step: int, size: int) -> int:
        """How many instants the batch of a step holds: as many over the steps as the share says, as far as they fit."""
        each = min(self.share * size / self.views, size // self.views)
        return int(np.floor((step + 1) * each + 1e-9) - np.floor(step * each + 1e-9))

    def draw(self, step: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Frames of a batch: first those of G instants, view by view, then single ones.

        Returns:
            (size,) numbers of frames; (G, V) bool, False for a slot whose view misses the instant: it holds a single
            frame.
        """
        count = self.groups(step, size)
        index = rng.choice(self.single, size)
        seen = np.zeros((count, self.views), bool)
        for g, moment in enumerate(rng.integers(0, max(1, len(self.instants)), count)):
            there = self.instants.frames[moment]
            there = rng.permutation(there[there >= 0])[: self.views]
            index[g * self.views : g * self.views + len(there)] = there
            seen[g, : len(there)] = True
        return index, seen
