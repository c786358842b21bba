"""Reject keypoints that jump: a joint that is suddenly elsewhere stays where it was going, until it insists. Causal."""

from __future__ import annotations

import numpy as np

FAR = 0.18  # of the box's side: a joint that is farther from where it was going has jumped
NEAR = 0.08  # of the box's side: new places so near to each other are one place, on which a joint insists
PATIENCE = 3  # frames that a joint must insist on its new place
MOST_JUMPS = 0.5  # share of the joints; if more jump at once, it is the subject that moved, or another one
FORGET_SECONDS = 0.3  # after a pause of that length nothing is known
SPEED_MEMORY = 0.5  # share of the old speed in the new one
DAMPING = 0.7  # of the speed of a joint that is held, each frame


class OutlierGate:
    """Holds back the jumps of one subject's joints.

    Attributes:
        rejected: (K,) bool, the joints that were held in the last frame.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, as when the subject changes."""
        self._xy: np.ndarray | None = None
        self._speed = np.zeros(0)
        self._claimed = np.zeros(0)
        self._insisted = np.zeros(0, int)
        self._at = 0.0
        self.rejected = np.zeros(0, bool)

    def apply(self, xy: np.ndarray, t_seconds: float, side: float) -> np.ndarray:
        """Replace the joints that jumped by where they were going.

        Args:
            xy: (K, 2) source pixels.
            t_seconds: the moment, later than the last one.
            side: of the subject's box, in source pixels.

        Returns:
            (K, 2)
        """
        xy = np.array(xy, float)  # a copy: it is remembered
        seconds = t_seconds - self._at
        self._at = t_seconds
        self.rejected = np.zeros(len(xy), bool)
        if self._xy is None or len(self._xy) != len(xy) or not 0 < seconds <= FORGET_SECONDS:
            self._begin(xy)
            return xy.copy()
        expected = self._xy + self._speed * seconds
        moved = xy - expected
        shift = np.median(moved, 0)  # of the whole subject, or of a camera that was pushed
        jumped = np.linalg.norm(moved - shift, axis=-1) > FAR * side
        if jumped.mean() > MOST_JUMPS:
            self._begin(xy)
            return xy.copy()
        same = np.linalg.norm(xy - self._claimed, axis=-1) <= NEAR * side
        self._insisted = np.where(jumped, np.where(same, self._insisted + 1, 1), 0)
        accepted = self._insisted >= PATIENCE
        self.rejected = jumped & ~accepted
        held = self.rejected[:, None]
        new_speed = SPEED_MEMORY * self._speed + (1 - SPEED_MEMORY) * (xy - self._xy) / seconds
        out = np.where(held, expected + shift, xy)
        self._speed = np.where(held, DAMPING * self._speed, np.where(accepted[:, None], 0.0, new_speed))
        self._xy, self._claimed = out, xy
        return out.copy()

    def _begin(self, xy: np.ndarray) -> None:
        self._xy, self._claimed = xy.copy(), xy.copy()
        self._speed = np.zeros_like(xy)
        self._insisted = np.zeros(len(xy), int)
