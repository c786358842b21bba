"""Notice frames that a container lost without a trace: a gap in times that are regular everywhere else."""

from __future__ import annotations

LEAST_STEPS, LEAST_REGULAR = 5, 0.95  # before a gap means anything
MOST_SECONDS = 5.0  # a longer gap is a pause of the recording


class Rhythm:
    """Counts how regular the times of frames are, in display order."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._duration = 0.0
        self._steps = self._regular = 0

    def missing_before(self, pts_seconds: float, duration_seconds: float) -> int:
        """How many frames must have been between the frame before and this one.

        A gap counts only where the container says how long the frame before lasts, and nearly all frames so far came
        when the one before ended; where frames come irregularly, a gap is no loss.

        Args:
            pts_seconds: of this frame.
            duration_seconds: what the container says that this frame lasts, 0 where it does not say.
        """
        missing = 0
        if self._last is not None and self._duration > 0:
            gap = pts_seconds - self._last
            steps = gap / self._duration
            if steps < 1.5:
                self._steps += 1
                self._regular += steps > 0.5
            elif self._steps >= LEAST_STEPS and self._regular >= LEAST_REGULAR * self._steps and gap <= MOST_SECONDS:
                missing = round(steps) - 1
            else:
                self._steps += 1
        self._last, self._duration = pts_seconds, duration_seconds
        return missing

    @property
    def begun(self) -> bool:
        return self._last is not None

    @property
    def last(self) -> tuple[float, float]:
        """Time and duration of the frame that was counted last."""
        assert self._last is not None
        return self._last, self._duration
