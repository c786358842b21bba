"""People seen by several cameras at once: the tracks of all views joined, with one number for each person."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streampose.geometry.match_views import group, pair_costs
from streampose.geometry.triangulate import condition, triangulate_robust
from streampose.structures import Camera

MOST_LOOKS = 8  # moments of a window at which tracks are compared
FORGET_SECONDS = 3.0  # a person who is lost for longer gets a new number
NEAR = 0.25  # of the distance to the cameras: how far a lost person may have gone


@dataclass(frozen=True)
class Seen:
    """The subjects of one view in one frame.

    Attributes:
        seconds: time of the session.
        tracks: N track numbers of that view.
        xy: (N, K, 2) pixels; NaN where missing.
        confidence: (N, K).
    """

    seconds: float
    tracks: tuple[int, ...]
    xy: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Moment:
    """What the views saw at one time; None for a view that saw nobody."""

    seconds: float
    views: tuple[Seen | None, ...]


@dataclass(frozen=True)
class Person:
    """One person in the views over the T moments of a window.

    Attributes:
        id: the same in all windows.
        xy: (V, T, K, 2) pixels; NaN where missing.
        confidence: (V, T, K); 0 where missing.
    """

    id: int
    xy: np.ndarray
    confidence: np.ndarray


def join_moments(views: Sequence[Iterator[Seen]], tolerance_seconds: float) -> Iterator[Moment]:
    """Frames of several views as moments in order of time; those within the tolerance of the earliest are one moment.

    Args:
        views: frames of each view in order of time.
    """
    waiting = [(seen.seconds, v, seen) for v, view in enumerate(views) if (seen := next(view, None)) is not None]
    heapq.heapify(waiting)
    while waiting:
        first = waiting[0][0]
        found: list[Seen | None] = [None] * len(views)
        while waiting and waiting[0][0] - first <= tolerance_seconds and found[waiting[0][1]] is None:
            _, v, seen = heapq.heappop(waiting)
            found[v] = seen
            if (following := next(views[v], None)) is not None:
                heapq.heappush(waiting, (following.seconds, v, following))
        yield Moment(next(seen.seconds for seen in found if seen is not None), tuple(found))


class ViewMatcher:
    """Finds out window by window which tracks of the views are the same person.

    Args:
        cameras: V posed cameras.
        flip_index: permutation of the K joints that swaps left and right, see `Skeleton.flip_index`.
        same: numbers of views whose tracks are known to be one person.
    """

    def __init__(self, cameras: Sequence[Camera], flip_index: Sequence[int], same: Collection[int] = ()):
        self._cameras, self._flip_index, self._same = list(cameras), list(flip_index), sorted(same)
        self._owners: dict[tuple[int, int], int] = {}  # (view, track) -> person
        self._last: dict[int, tuple[float, np.ndarray]] = {}  # person -> when and where it was seen last
        self._near = NEAR * condition(np.stack([camera.P for camera in cameras]))[2]
        self._next_id = 0

    def match(self, window: Sequence[Moment]) -> list[Person]:
        """The people whom two views or more see, at these moments."""
        nodes = sorted({(v, track) for m in window for v, s in enumerate(m.views) if s for track in s.tracks})
        if not nodes:
            return []
        place = {node: n for n, node in enumerate(nodes)}
        present = np.zeros((len(window), len(nodes)), bool)
        for t, moment in enumerate(window):
            for v, seen in enumerate(moment.views):
                for track in seen.tracks if seen else ():
                    present[t, place[v, track]] = True
        together = present.T.astype(int) @ present.astype(int)
        view = np.array([v for v, _ in nodes])
        apart = (view[:, None] == view) & (together > 0)
        groups = group(self._costs(window, nodes, place, present), apart)
        people = [self._person(window, [nodes[n] for n in members]) for members in groups]
        return self._number(window, groups, nodes, present, people)

    def _costs(self, window, nodes, place, present: np.ndarray) -> np.ndarray:
        """(M, M) mean cost of every two tracks over the moments that are looked at; NaN where they never meet."""
        several = np.flatnonzero(present.sum(1) > 1)
        sums, counts = np.zeros((len(nodes),) * 2), np.zeros((len(nodes),) * 2)
        looks = set(
            several[np.linspace(0, len(several) - 1, min(MOST_LOOKS, len(several))).round().astype(int)].tolist()
        )
        for n in np.flatnonzero(present[several].any(0) & ~present[sorted(looks)].any(0)):  # a track between the looks
            looks.add(int(several[np.flatnonzero(present[several, n])[0]]))
        for t in sorted(looks):
            here = [(v, n, s) for v, s in enumerate(window[t].views) if s for n in range(len(s.tracks))]
            index = np.array([place[v, s.tracks[n]] for v, n, s in here])
            costs = pair_costs(
                self._cameras,
                np.stack([s.xy[n] for _, n, s in here]),
                np.stack([s.confidence[n] for _, n, s in here]),
                np.array([v for v, _, _ in here]),
                self._flip_index,
            )
            sums[np.ix_(index, index)] += costs
            counts[np.ix_(index, index)] += 1
        known = np.isin([v for v, _ in nodes], self._same)
        sums[known[:, None] & known] = 0.0
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def _person(self, window: Sequence[Moment], members: list[tuple[int, int]]) -> Person:
        V, T, K = len(self._cameras), len(window), len(self._flip_index)
        xy, confidence = np.full((V, T, K, 2), np.nan), np.zeros((V, T, K))
        for t, moment in enumerate(window):
            for v, track in members:
                seen = moment.views[v]
                if seen is not None and track in seen.tracks:
                    n = seen.tracks.index(track)
                    xy[v, t], confidence[v, t] = seen.xy[n], seen.confidence[n]
        return Person(-1, xy, confidence)

    def _number(self, window, groups, nodes, present: np.ndarray, people: list[Person]) -> list[Person]:
        """Give people the numbers that their tracks had before, else that of a person lost nearby, else new ones."""
        votes: list[tuple[int, int, int]] = []  # (frames, person, group)
        for g, members in enumerate(groups):
            for owner in {self._owners[nodes[n]] for n in members if nodes[n] in self._owners}:
                frames = sum(int(present[:, n].sum()) for n in members if self._owners.get(nodes[n]) == owner)
                votes.append((frames, owner, g))
        chosen: dict[int, int] = {}
        for _, owner, g in sorted(votes, reverse=True):
            if g not in chosen and owner not in chosen.values():
                chosen[g] = owner
        ends = [self._ends(window, person) for person in people]
        lost = []
        for g, (first, _) in enumerate(ends):
            for owner, (when, where) in self._last.items():
                if g not in chosen and first is not None and 0 <= first[0] - when <= FORGET_SECONDS:
                    lost.append((float(np.linalg.norm(first[1] - where)), owner, g))
        for far, owner, g in sorted(lost):
            if far < self._near and g not in chosen and owner not in chosen.values():
                chosen[g] = owner
        numbered = []
        for g, person in enumerate(people):
            if g not in chosen:
                chosen[g], self._next_id = self._next_id, self._next_id + 1
            self._owners |= dict.fromkeys((nodes[n] for n in groups[g]), chosen[g])
            if ends[g][1] is not None:
                self._last[chosen[g]] = ends[g][1]
            numbered.append(Person(chosen[g], person.xy, person.confidence))
        now = window[-1].seconds
        self._last = {owner: last for owner, last in self._last.items() if now - last[0] <= FORGET_SECONDS}
        current = set(nodes)
        self._owners = {n: o for n, o in self._owners.items() if n in current or o in self._last}
        return sorted(numbered, key=lambda person: person.id)

    def _ends(self, window, person: Person):
        """When and where the person's middle is in space, at the first and the last moment that shows it."""
        both = np.flatnonzero(((person.confidence > 0).any(-1)).sum(0) >= 2)
        ends = []
        for t in (both[0], both[-1]) if len(both) else ():
            points = triangulate_robust(self._cameras, person.xy[:, t], person.confidence[:, t]).points
            known = np.isfinite(points).all(-1)
            ends.append((window[t].seconds, np.median(points[known], 0)) if known.any() else None)
        return tuple(ends) if ends else (None, None)
