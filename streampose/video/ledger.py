"""Keeps account of what became of every packet: a sound picture, a damaged one, or none.

A damaged picture spoils those that build on it, which no decoder tells: from it on, every picture is unsound up to the
next key frame, and after that also the ones that are shown before the key frame. So pictures are handed on only when
all that was decoded before them is known, which costs as many pictures of delay as the codec reorders.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av

NO_KEY, FOLLOWS = "no key frame before it", "builds on a damaged picture"
MAX_REORDER = 16  # no codec shows a picture later than this many others that follow it


@dataclass(slots=True, eq=False)
class Entry:
    """One packet and what became of it.

    Attributes:
        pts: time of its picture in units of `time_base`, None where the container does not say.
        duration: how long it is shown, 0 where nobody says.
        picture: None where it was lost or is unsound.
        problem: why there is no picture; empty where there is one.
        follows: it is unsound only because of a damaged picture before it.
        discard: it is decoded for others that build on it, and not to be shown (edit lists).
        passed_over: it is not decoded, since nobody asks for its picture and none builds on it.
    """

    number: int
    pts: int | None
    time_base: Fraction | None
    duration: int
    key: bool
    picture: av.VideoFrame | None = None
    problem: str = ""
    follows: bool = False
    discard: bool = False
    passed_over: bool = False
    shown: bool = False
    settled: bool = False


class Ledger:
    """Feed it packets before they are decoded and the pictures that come out; it gives entries in display order.

    Args:
        time_base: unit of all timestamps.
        at_start: decoding begins at the start of the file, where the decoder knows itself what it can show. Elsewhere
            pictures that are shown before the first key frame are unsound.
        decoder_tells: the decoder marks key frames, so that the container, which may be damaged, is not asked.
    """

    def __init__(self, time_base: Fraction | None, at_start: bool = True, decoder_tells: bool = False):
        self._time_base, self._at_start, self._decoder_tells = time_base, at_start, decoder_tells
        self._waiting: deque[Entry] = deque()  # in decoding order, not settled
        self._held: deque[Entry] = deque()  # shown, in display order
        self._missing: deque[Entry] = deque()  # settled without a picture, in decoding order
        self._count, self._latest_shown = 0, -1
        self._passed: tuple[int, int] | None = None  # pts and duration of the picture shown last
        self._last_released: tuple[int | None, int] = (None, 0)
        self._step = 0  # least time between two pictures so far, where the container gives no durations
        self._tainted, self._keys = True, 0
        self._leading_until: int | None = None
        self._errors: deque[str] = deque()

    def feed(self, packet: av.Packet, problem: str = "") -> Entry:
        """Note a packet that is about to be decoded; with a `problem`, whatever comes of it is unsound."""
        entry = Entry(
            self._count, packet.pts, self._time_base, packet.duration or 0, packet.is_keyframe, problem=problem
        )
        entry.discard = packet.is_discard
        packet.opaque = entry
        self._count += 1
        self._waiting.append(entry)
        return entry

    def pass_over(self, packet: av.Packet) -> None:
        """Note a packet that is not decoded, since nobody asks for its picture and none builds on it."""
        self.feed(packet).passed_over = True

    def fail(self, problem: str) -> None:
        """The decoder failed; which packet it failed at shows when a picture is found missing."""
        self._errors.append(problem)

    def take(self, picture: av.VideoFrame) -> list[Entry]:
        """A picture came out of the decoder: the entries that can be handed on now, in display order."""
        entry = picture.opaque
        picture.opaque = None  # the decoder's hold on the entry is none that Python's collector sees
        if not isinstance(entry, Entry) or entry.shown:  # a second picture of one packet
            key = entry is None and picture.key_frame
            entry = Entry(self._count, picture.pts, self._time_base, picture.duration or 0, bool(key))
            self._count += 1
            self._waiting.append(entry)
        entry.picture, entry.shown = picture, True
        if picture.pts is not None:
            entry.pts = picture.pts
        entry.duration = picture.duration or entry.duration
        entry.key = bool(picture.key_frame) or (entry.key and not self._decoder_tells)
        if picture.is_corrupt:
            entry.problem = entry.problem or "damaged picture"
        self._held.append(entry)
        self._settle()
        self._latest_shown = max(self._latest_shown, entry.number)
        if entry.pts is not None:
            self._passed = (entry.pts, entry.duration)
        return self._release()

    def finish(self) -> list[Entry]:
        """No more pictures will come: all that is left, in display order."""
        self._settle(final=True)
        return self._release(final=True)

    def _settle(self, final: bool = False) -> None:
        while self._waiting:
            entry = self._waiting[0]
            if not (entry.shown or final or self._is_passed(entry) or len(self._held) > MAX_REORDER):
                return
            self._waiting.popleft()
            self._judge(entry)

    def _is_passed(self, entry: Entry) -> bool:
        """Whether pictures that come later, in decoding and on the screen, were shown already."""
        if self._passed is None or entry.pts is None:
            return False
        return entry.number < self._latest_shown and entry.pts < self._passed[0]

    def _judge(self, entry: Entry) -> None:
        """Decide on the oldest packet that is not settled."""
        entry.settled = True
        if entry.discard and not entry.shown:
            self._tainted = self._tainted and not entry.key
            return
        if entry.passed_over:
            entry.passed_over, entry.follows = not self._tainted, self._tainted
            entry.problem = FOLLOWS if self._tainted else ""
            self._missing.append(entry)
            return
        if not entry.shown and not entry.problem and (self._errors or self._tainted or self._leaves_hole(entry)):
            entry.follows = self._tainted and not self._errors
            entry.problem = self._errors.popleft() if self._errors else "missing picture" if self._keys else NO_KEY
        if entry.problem:
            self._tainted = True
        elif not entry.shown:
            return  # it was never meant to be seen, such as a reference picture or the second field of one
        elif entry.key:
            if self._tainted:
                self._leading_until = None if self._at_start else entry.pts
            self._tainted = self._at_start = False
            self._keys += 1
        elif self._tainted or (self._leading_until is not None and (entry.pts or 0) < self._leading_until):
            entry.problem, entry.follows = FOLLOWS if self._keys else NO_KEY, True
        else:
            self._leading_until = self._leading_until if entry.pts is None else None
        if entry.problem:
            entry.picture = None
            self._at_start = self._at_start and entry.follows
        if not entry.shown:
            self._missing.append(entry)

    def _leaves_hole(self, entry: Entry) -> bool:
        """Whether nothing was shown at the time of a packet whose picture never came."""
        if self._passed is None or entry.pts is None:
            return False
        before = [e for e in self._held if e.pts is not None and e.pts < entry.pts]
        pts, duration = (before[-1].pts, before[-1].duration) if before else self._last_released
        return pts is not None and entry.pts >= pts + 0.75 * (duration or self._step or 1)

    def _release(self, final: bool = False) -> list[Entry]:
        released: list[Entry] = []
        while self._held and self._held[0].settled and not (self._is_early(self._held[0]) and not final):
            entry = self._held.popleft()
            before, last = entry.pts, self._last_released[0]
            if before is not None and last is not None and before < last:
                before = None  # a new time line begins: what is missing belongs to the one before
            self._place_missing(released, before)
            released.append(entry)
            if entry.pts is not None and last is not None and entry.pts > last:
                self._step = min(self._step or entry.pts - last, entry.pts - last)
            self._last_released = (entry.pts, entry.duration)
        if final:
            self._place_missing(released, None)
        return released

    def _is_early(self, entry: Entry) -> bool:
        """Whether a packet that is to be shown before this one may still be decoded, or turn out to be missing."""
        last = self._last_released[0]
        if last is None or entry.pts is None or len(self._held) > MAX_REORDER:
            return False
        return any(e.pts is not None and last < e.pts < entry.pts for e in self._waiting)

    def _place_missing(self, released: list[Entry], before: int | None) -> None:
        """Put the missing ones that belong before a time (None: all) among the released, in order of time."""
        now = [e for e in self._missing if before is None or e.pts is None or e.pts < before]
        if now:
            self._missing = deque(e for e in self._missing if e not in now)
            released.extend(sorted(now, key=lambda e: -1 if e.pts is None else e.pts))
