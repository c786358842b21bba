"""What a person is told about a video: sound, repaired or not to be used, and why."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """How a video came through decoding.

    Attributes:
        verdict: `ok`; `repaired` where something was lost or mended; `quarantined` where it should not be used.
        reason: what happened, for a person; empty where all is well. With `ok`: worth knowing, nothing is lost.
        lost_spans: (start, end) seconds in which frames are missing.
    """

    verdict: str
    reason: str = ""
    lost_spans: list[tuple[float, float]] = field(default_factory=list)


class Notes:
    """Collects what goes wrong while one video is read, and judges it."""

    def __init__(self, note: str = "") -> None:
        self.kept = 0
        self.first_error = ""
        self._note = note
        self._damaged = self._following = self._mended_times = 0
        self._interlaced = self._absent = 0
        self._read_error = ""
        self._missing_bytes = 0
        self._cut_short: tuple[float, float] | None = None
        self._size_change: tuple[float, int, int] | None = None
        self._spans: list[tuple[float, float]] = []
        self._gap_start: float | None = None
        self._last_seconds = 0.0

    def keep(self, pts_seconds: float) -> None:
        """A sound frame was given out."""
        if self._gap_start is not None and pts_seconds > self._gap_start:
            self._spans.append((self._gap_start, pts_seconds))
            self._gap_start = None
        self.kept += 1
        self._last_seconds = pts_seconds

    def lose(self, error: str, pts_seconds: float | None = None, follows: bool = False) -> None:
        """A frame is damaged or missing, or `follows` such a one and builds on it; it was left out."""
        self.first_error = self.first_error or error
        self._damaged += not follows
        self._following += follows
        if self._gap_start is None:
            self._gap_start = self._last_seconds if pts_seconds is None else pts_seconds

    def miss(self, pts_seconds: float) -> None:
        """The container holds no frame where there must have been one."""
        self._absent += 1
        if self._gap_start is None:
            self._gap_start = pts_seconds

    def stop(self, error: str) -> None:
        """The file cannot be read further."""
        self.first_error = self.first_error or error
        self._read_error = error

    def miss_bytes(self, count: int) -> None:
        """The file ends before its container does."""
        self._missing_bytes = count

    def mend_time(self) -> None:
        """A timestamp fell back."""
        self._mended_times += 1

    def see_interlaced(self) -> None:
        """A frame was woven of two fields and was deinterlaced."""
        self._interlaced += 1

    def change_size(self, pts_seconds: float, width: int, height: int) -> None:
        """The pictures have another size from here on."""
        self._size_change = self._size_change or (pts_seconds, width, height)

    def end(self, decoded_end: float, claimed_end: float | None, frame_seconds: float) -> None:
        """The last frame was read; the container claims to go on until `claimed_end`."""
        if claimed_end is not None and claimed_end - decoded_end > max(3 * frame_seconds, 0.1):
            self._cut_short = (decoded_end, claimed_end)
            decoded_end = claimed_end
            self._gap_start = self._cut_short[0] if self._gap_start is None else self._gap_start
        if self._gap_start is not None:
            self._spans.append((self._gap_start, max(decoded_end, self._gap_start)))
            self._gap_start = None

    def verdict(self) -> Verdict:
        reasons = []
        if self._damaged or self._following:
            reasons.append(self._tell_lost())
        if self._absent:
            reasons.append(f"{self._absent} frame{'s are' if self._absent > 1 else ' is'} missing")
        if self._cut_short:
            end, claimed = self._cut_short
            reasons.append(f"ends at {end:.2f} s although it claims {claimed:.2f} s (cut off?)")
        if self._missing_bytes:
            reasons.append(f"the last {self._missing_bytes:,} bytes of the file are missing (cut off)")
        if self._read_error:
            reasons.append(f"reading stopped early ({self._read_error})")
        if self._mended_times:
            reasons.append(f"{self._mended_times} timestamp{'s' if self._mended_times > 1 else ''} fell back; mended")
        if self._size_change:
            at, width, height = self._size_change
            reasons.append(f"the picture size changes to {width} x {height} at {at:.2f} s; scaled to the first size")
        verdict = "quarantined" if self._damaged + self._following > self.kept else "repaired" if reasons else "ok"
        if self._interlaced:
            reasons.append(f"{self._interlaced} interlaced frame{_s(self._interlaced)} deinterlaced")
        if self._note:
            reasons.append(self._note)
        return Verdict(verdict, "; ".join(reasons), list(self._spans))

    def _tell_lost(self) -> str:
        damaged, following = self._damaged, self._following
        if not damaged:
            return f"{following} frame{_s(following)} left out that build on a missing key frame"
        text = f"{damaged} damaged frame{_s(damaged)} left out"
        return f"{text}, and {following} that build on {'it' if damaged == 1 else 'them'}" if following else text


def _s(count: int) -> str:
    return "s were" if count > 1 else " was"
