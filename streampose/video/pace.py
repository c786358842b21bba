"""Time of live pictures: pace a recording, mend the timestamps of a stream, and notice when reading falls behind it."""

from __future__ import annotations

import threading
import time

LATE_SECONDS = 1.0  # a player that is further behind gives up catching up
LONGEST_WAIT = 2.0  # seconds between two pictures of a recording; a longer gap in its timestamps is closed
JUMP_SECONDS = 2.0  # of a stream's timestamps against the clock of this machine, from which they are not believed
BACK_SECONDS = 0.5  # that they may go back before the stream counts as begun anew
MEMORY_SECONDS = 30.0  # over which the smallest delay of a stream is remembered, twice


class Pacer:
    """Holds the pictures of a recording back until their time has come.

    Args:
        closed: ends the waiting when it is set.
    """

    def __init__(self, closed: threading.Event):
        self._closed = closed
        self.zero: float | None = None  # monotonic time of pts 0

    def wait(self, pts_seconds: float) -> float:
        """Wait until a picture is due.

        Returns:
            When it was due, in `time.monotonic()` seconds.
        """
        now = time.monotonic()
        if self.zero is None or now - (self.zero + pts_seconds) > LATE_SECONDS:
            self.zero = now - pts_seconds
        elif self.zero + pts_seconds - now > LONGEST_WAIT:
            self.zero = now + LONGEST_WAIT - pts_seconds
        due = self.zero + pts_seconds
        self._closed.wait(max(0.0, due - now))
        return due


class Clock:
    """Makes the timestamps of a stream rise steadily: over jumps, wraps, losses of the stream and missing ones."""

    def __init__(self) -> None:
        self._shift = 0.0
        self._last: tuple[float, float] | None = None  # pts_seconds as they were given out, and when

    def tell(self, pts_seconds: float | None, now: float, behind: float = 0.0) -> float:
        """The time of the next picture in the stream's own seconds, which go on where they jumped.

        Pictures that come late are no jump: their time goes on as the stream says.

        Args:
            pts_seconds: what the stream says; None where it says nothing.
            now: `time.monotonic()` when the picture came.
            behind: seconds that reading is behind the stream, which it may catch up with at once.
        """
        if self._last is None:
            told = 0.0 if pts_seconds is None else pts_seconds
        else:
            before, at = self._last
            expected = before + max(now - at, 1e-3)
            told = expected if pts_seconds is None else pts_seconds + self._shift
            if told > expected + JUMP_SECONDS + behind or told < before - BACK_SECONDS:
                self._shift += expected - told
                told = expected
            told = max(told, before + 1e-3)
        self._last = (told, now)
        return told


class Backlog:
    """How far reading is behind a stream: what its pictures are late by, beyond the least of the last minute.

    Where a reader is too slow, the system's buffers fill and all that comes out of them is late, but not lost.
    """

    def __init__(self) -> None:
        self._least = [float("inf"), float("inf")]  # of the present stretch of time, and of the one before
        self._until: float | None = None
        self._last: tuple[float, float] | None = None

    def behind(self, dts_seconds: float, now: float) -> float:
        """Seconds that a packet is late, by its decoding timestamp and `now` (`time.monotonic()`)."""
        delay = now - dts_seconds
        if self._last is not None:
            before, late = self._last
            if dts_seconds < before or abs(delay - late) > JUMP_SECONDS:  # its clock was set
                self._least, self._until = [float("inf"), float("inf")], None
        self._last = (dts_seconds, delay)
        if self._until is None or now >= self._until:
            self._least = [delay, self._least[0]]
            self._until = now + MEMORY_SECONDS
        self._least[0] = min(self._least[0], delay)
        return delay - min(self._least)
