"""Follow subjects from frame to frame by their masks, and never jump from one to another.

A subject keeps its identity as long as its parts of the mask overlap with where it is expected (constant velocity).
When two subjects grow together into one part, both pause: nobody can say what belongs to whom. When they part again
they get their identities back only if colours and places say clearly which is which; otherwise both end and two new
tracks begin.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from streampose.tracking.boxes import (
    Blob,
    blob_mask,
    colour_histogram,
    find_blobs,
    histogram_distance,
    join_fragments,
    merge_blobs,
)

FIRM_TRAVEL = 0.5  # times the subject's longer side
CLEARLY = 0.15  # how much better the best assignment after a crossing must be than the next


@dataclass
class Track:
    """One subject.

    Attributes:
        id: number, never used twice.
        box: (4,) tight box in the mask's pixels.
        mask: (h, w) bool, what of the foreground is its own; all False while paused or missed.
        side: its usual longer side in pixels.
        firm: whether it has travelled, as subjects do and flickering spots do not.
        seen: whether it was found in the last frame.
        paused_with: id of the group that it has grown together with, else None.
        paused: for how many frames already.
    """

    id: int
    box: np.ndarray
    mask: np.ndarray
    area: float
    colours: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
    began_at: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
    firm: bool = False
    side: float = 0.0
    age: int = 1
    missed: int = 0
    seen: bool = True
    paused_with: int | None = None
    paused: int = 0

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2


class Tracker:
    """Follows the subjects of one shot.

    Args:
        max_subjects: how many at a time; the smallest newcomers are left out.
        max_missed: frames that a subject may be out of sight.
        least_area: smallest newcomer, as a share of the picture.
        max_paused: frames after which subjects that have grown together are given up.
    """

    def __init__(self, max_subjects: int = 4, max_missed: int = 15, least_area: float = 0.002, max_paused: int = 75):
        self.tracks: list[Track] = []
        self._max_subjects, self._max_missed, self._least_area = max_subjects, max_missed, least_area
        self._max_paused = max_paused
        self._next_id, self._next_group = 0, 0
        self._last_masks: dict[int, np.ndarray] = {}

    def update(self, mask: np.ndarray, image: np.ndarray, steady: bool = True) -> list[Track]:
        """Take in the next frame.

        Args:
            mask: (h, w) uint8 foreground.
            image: (h, w, 3) uint8 RGB at the same size.
            steady: False where the mask is not to be trusted (a flash, a cloud): subjects then only coast.

        Returns:
            The tracks that are alive; those with `seen` have a box and a mask in this frame.
        """
        labels, blobs = find_blobs(mask)
        for track in self.tracks:
            track.seen, track.missed = False, track.missed + 1
        if not steady:
            self._forget()
            return self.tracks
        claims = self._claims(labels, blobs)
        free = set(range(len(blobs)))
        single, groups = self._sort_claims(claims, blobs)
        for members, parts in groups:
            free -= parts
            self._pause_or_part(members, [blobs[n] for n in sorted(parts)], labels, image)
        for track, parts in single:
            parts |= self._near_fragments(track, parts, free - parts, blobs, labels, image)
            free -= parts
            self._take(track, merge_blobs([blobs[n] for n in parts]), labels, image)
        free = self._catch_jumps(free, blobs, labels, image)
        self._forget()
        self._welcome([blobs[n] for n in sorted(free)], labels, image)
        return self.tracks

    def _claims(self, labels: np.ndarray, blobs: list[Blob]) -> np.ndarray:
        """Pixels of each blob that lie where each track is expected: (tracks, blobs)."""
        claims = np.zeros((len(self.tracks), len(blobs)))
        for n, track in enumerate(self.tracks):
            counts = np.bincount(self._labels_expected(track, labels), minlength=len(blobs) + 1)
            claims[n] = [counts[blob.labels[0]] for blob in blobs]
        return claims

    def _labels_expected(self, track: Track, labels: np.ndarray) -> np.ndarray:
        """The labels of the pixels where a track is expected: (P,)."""
        dx, dy = np.rint(track.velocity * track.missed).astype(int)
        last = self._last_masks[track.id]
        h, w = last.shape
        x, y, width, height = cv2.boundingRect(last.view(np.uint8))
        left, right = np.clip((x + dx, x + width + dx), 0, w)
        top, bottom = np.clip((y + dy, y + height + dy), 0, h)
        return labels[top:bottom, left:right][last[top - dy : bottom - dy, left - dx : right - dx]]

    def _sort_claims(
        self, claims: np.ndarray, blobs: list[Blob]
    ) -> tuple[list[tuple[Track, set[int]]], list[tuple[list[Track], set[int]]]]:
        """Tracks that have blobs of their own, and groups of tracks that share some."""
        owners: dict[int, set[int]] = {n: set() for n in range(len(self.tracks))}
        together = {n: n for n in range(len(self.tracks))}  # union-find

        def root(n: int) -> int:
            while together[n] != n:
                n = together[n]
            return n

        for first, track in enumerate(self.tracks):
            for second in range(first):
                if track.paused_with is not None and track.paused_with == self.tracks[second].paused_with:
                    together[root(first)] = root(second)
        for b, blob in enumerate(blobs):
            areas = np.array([track.area for track in self.tracks])
            strong = [n for n in range(len(areas)) if claims[n, b] > 0.3 * areas[n] or claims[n, b] > 0.6 * blob.area]
            weak = [n for n in range(len(areas)) if claims[n, b] > 0.15 * min(areas[n], blob.area)]
            if len(strong) > 1 and blob.area < 0.5 * areas[strong].sum():
                strong = [strong[int(np.argmax(claims[strong, b]))]]  # a fragment, not two bodies in one
            chosen = strong or ([weak[int(np.argmax(claims[weak, b]))]] if weak else [])
            for n in chosen:
                owners[n].add(b)
                together[root(n)] = root(chosen[0])

        single, groups = [], []
        for start in {root(n) for n in together}:
            members = [n for n in together if root(n) == start]
            parts = set().union(*(owners[n] for n in members))
            if not parts:
                continue
            if len(members) > 1:
                members = self._absorb(members)
            if len(members) == 1:
                single.append((self.tracks[members[0]], parts))
            else:
                groups.append(([self.tracks[n] for n in members], parts))
        return single, groups

    def _absorb(self, members: list[int]) -> list[int]:
        """Of tracks that share blobs keep the large firm ones, else the largest; the others were parts or noise."""
        largest = max(members, key=lambda n: self.tracks[n].area)
        bodies = [n for n in members if self.tracks[n].area > 0.4 * self.tracks[largest].area]
        kept = [n for n in bodies if self.tracks[n].firm] or [largest]
        for n in members:
            if n not in kept:
                self.tracks[n].missed = self._max_missed + 1
        return kept

    def _pause_or_part(self, members: list[Track], parts: list[Blob], labels: np.ndarray, image: np.ndarray) -> None:
        """Tracks that share blobs: pause them while they are fewer bodies than tracks, else tell who is who."""
        bodies = [blob for blob in join_fragments(parts, reach=0.15) if blob.area > 0.3 * min(t.area for t in members)]
        if len(bodies) < len(members):
            group = next((t.paused_with for t in members if t.paused_with is not None), None)
            if group is None:
                group = self._next_group = self._next_group + 1
            whole = blob_mask(labels, merge_blobs(parts))
            for track in members:
                track.paused_with, track.missed, track.velocity = group, 0, np.zeros(2, np.float32)
                self._last_masks[track.id] = whole
            return
        masks = [blob_mask(labels, body) for body in bodies]
        colours = [colour_histogram(image, mask) for mask in masks]
        cost = np.array([[histogram_distance(t.colours, c) for c in colours] for t in members])
        cost += np.array([[0.3 * abs(np.log(body.area / t.area)) for body in bodies] for t in members])
        if all(track.paused_with is None for track in members):  # they only touched: places still tell them apart
            side = max(float((t.box[2:] - t.box[:2]).max()) for t in members)
            far = [[np.linalg.norm((b.box[:2] + b.box[2:]) / 2 - t.centre) / side for b in bodies] for t in members]
            cost += np.minimum(far, 2.0)
        rows, columns = _assign(cost)
        best, next_best = cost[rows, columns].sum(), np.inf
        for row, column in zip(rows, columns, strict=True):
            other = cost.copy()
            other[row, column] = 1e6
            next_best = min(next_best, other[_assign(other)].sum())
        if next_best - best < CLEARLY:
            self.tracks = [track for track in self.tracks if track not in members]
            for body in bodies:
                self._begin(body, labels, image)
            return
        for row, column in zip(rows, columns, strict=True):
            members[row].paused_with = None
            members[row].velocity = np.zeros(2, np.float32)
            self._take(members[row], bodies[column], labels, image, jumped=True)

    def _near_fragments(
        self, track: Track, parts: set[int], free: set[int], blobs: list[Blob], labels: np.ndarray, image: np.ndarray
    ) -> set[int]:
        """Blobs that nobody claimed, beside the track: torn off parts of it.

        They must make up for what the track has lost of its usual area, or be small and of its colours.
        """
        reach = 0.15 * float((track.box[2:] - track.box[:2]).max())
        colours = track.colours * track.area
        area = sum(blobs[n].area for n in parts)
        near = set()
        for n in sorted(free, key=lambda n: -blobs[n].area):
            blob = blobs[n]
            gap = np.maximum(track.box[:2] - blob.box[2:], blob.box[:2] - track.box[2:]).max()
            if gap > reach:
                continue
            restores = area + blob.area < 1.3 * track.area
            if not restores and blob.area < 0.5 * track.area:
                grows = np.maximum(track.box[:2] - blob.box[:2], blob.box[2:] - track.box[2:]).max()
                theirs = colour_histogram(image, blob_mask(labels, blob)) * blob.area
                restores = grows < 2 * reach and np.minimum(colours, theirs).sum() > 0.5 * blob.area
            if restores:
                near.add(n)
                area += blob.area
        return near

    def _catch_jumps(self, free: set[int], blobs: list[Blob], labels: np.ndarray, image: np.ndarray) -> set[int]:
        """Give blobs that nobody claimed to tracks that were not seen and look alike (Hungarian)."""
        lost = [track for track in self.tracks if not track.seen and track.paused_with is None]
        bodies = join_fragments([blobs[n] for n in free])
        if not lost or not bodies:
            return free
        cost = np.full((len(lost), len(bodies)), 1e3)
        for r, track in enumerate(lost):
            expected = np.stack([track.centre, track.centre + track.velocity * track.missed])
            for c, body in enumerate(bodies):
                away = float(np.linalg.norm((body.box[:2] + body.box[2:]) / 2 - expected, axis=1).min()) / track.side
                ratio = body.area / track.area
                if away > 1.0 + 0.05 * track.missed or not 0.3 < ratio < 3.0:
                    continue
                unlike = histogram_distance(track.colours, colour_histogram(image, blob_mask(labels, body)))
                if unlike < 0.75 - 0.25 * away:  # the nearer, the less its colours must tell
                    cost[r, c] = away + unlike
        for r, c in zip(*_assign(cost), strict=True):
            if cost[r, c] < 1e3:
                self._take(lost[r], bodies[c], labels, image, jumped=True)
                free = {n for n in free if blobs[n].labels[0] not in bodies[c].labels}
        return free

    def _take(self, track: Track, blob: Blob, labels: np.ndarray, image: np.ndarray, jumped: bool = False) -> None:
        """The blob is where the track is now."""
        before, frames = track.centre, max(track.missed, 1)
        track.mask = blob_mask(labels, blob)
        track.box = blob.box
        side = float((blob.box[2:] - blob.box[:2]).max())
        track.side = 0.9 * track.side + 0.1 * side if track.age > 5 else max(track.side, side)
        travel = float(np.linalg.norm(track.centre - track.began_at))
        track.firm |= track.age >= 5 and travel > FIRM_TRAVEL * max(side, track.side)
        step = (track.centre - before) / frames
        track.velocity = np.zeros(2, np.float32) if jumped else 0.6 * track.velocity + 0.4 * step
        track.area = 0.9 * track.area + 0.1 * blob.area if track.age > 5 else float(blob.area)
        track.age, track.missed, track.seen = track.age + 1, 0, True
        if track.age % 5 == 0:
            track.colours = 0.9 * track.colours + 0.1 * colour_histogram(image, track.mask)
        self._last_masks[track.id] = track.mask

    def _forget(self) -> None:
        groups = [track.paused_with for track in self.tracks]
        for track in self.tracks:
            track.paused = track.paused + 1 if track.paused_with is not None else 0
            if track.paused_with is None:
                continue
            if groups.count(track.paused_with) == 1 or track.paused > self._max_paused:
                track.missed = self._max_missed + 1  # nobody can say any more who is left
        self.tracks = [track for track in self.tracks if track.missed <= self._max_missed]
        self._last_masks = {track.id: self._last_masks[track.id] for track in self.tracks}

    def _welcome(self, blobs: list[Blob], labels: np.ndarray, image: np.ndarray) -> None:
        """Begin tracks with blobs that belong to nobody."""
        for blob in join_fragments(blobs):
            if blob.area < self._least_area * labels.size:
                continue
            weak = [track for track in self.tracks if not track.firm and track.area < blob.area]
            if len(self.tracks) >= self._max_subjects and weak:
                self.tracks.remove(min(weak, key=lambda track: track.area))
            if len(self.tracks) < self._max_subjects:
                self._begin(blob, labels, image)

    def _begin(self, blob: Blob, labels: np.ndarray, image: np.ndarray) -> None:
        own = blob_mask(labels, blob)
        track = Track(self._next_id, blob.box, own, float(blob.area), colour_histogram(image, own))
        track.began_at = track.centre
        track.side = float((blob.box[2:] - blob.box[:2]).max())
        self._next_id += 1
        self._last_masks[track.id] = own
        self.tracks.append(track)


def _assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the assignment that costs least."""
    if 1 in cost.shape:
        row, column = np.unravel_index([int(cost.argmin())], cost.shape)
        return row, column
    from scipy.optimize import linear_sum_assignment  # here: importing it takes long, and few videos need it

    return linear_sum_assignment(cost)
