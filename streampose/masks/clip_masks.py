"""Masks of one subject's clip by Segment Anything: a stage between the follower, who cuts crops, and the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from streampose.masks.sam import Prompt, Segmenter, make_prompt, move_logits

LEAST_AGREEMENT = 0.3  # IoU of SAM's mask with the coarse one; below it the coarse one is kept, and counted
LEAST_SCORE = 0.5  # SAM's estimate of its own IoU

Keep = Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], None]
FindJoints = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Waiting:
    crop: np.ndarray
    coarse: np.ndarray
    square: np.ndarray
    pts_seconds: float
    frame_index: int


class ClipMasks:
    """Replaces the coarse masks of a clip's frames by Segment Anything's, in order, a few frames late.

    SAM is asked about every `every`-th frame. Between two of them its correction of the coarse mask (the difference of
    their signed distances) is interpolated, so that the masks still follow the coarse ones' motion.

    Args:
        sam: an opened checkpoint (`masks.sam.open_sam`).
        keep: takes (crop, mask, square, pts_seconds, frame_index), as `Follower` hands them to a `ClipWriter`.
        every: frames from one question to the next; 1 asks about all.
        find_joints: a current model, crops (B, S, S, 3) -> keypoints (B, K, 2 or 3) in crop pixels, confidence (B, K);
            its sure joints are prompts then.
        advance: called with the number of frames that were done, for a progress bar.

    Attributes:
        asked: frames that SAM was asked about.
        rejected: those of them in which it found something else than the subject; they keep the coarse mask.
    """

    def __init__(
        self,
        sam: Segmenter,
        keep: Keep,
        *,
        every: int = 1,
        find_joints: FindJoints | None = None,
        advance: Callable[[float], None] | None = None,
        least_agreement: float = LEAST_AGREEMENT,
        least_score: float = LEAST_SCORE,
    ):
        self._sam, self._keep, self._every = sam, keep, max(1, every)
        self._find_joints, self._advance = find_joints, advance
        self._least_agreement, self._least_score = least_agreement, least_score
        self._waiting: list[_Waiting] = []
        self._first: np.ndarray | None = None  # correction of the first waiting frame where it is known already
        self._last: tuple[np.ndarray, np.ndarray] | None = None  # SAM's last answer and its square
        self.asked = self.rejected = 0

    def append(
        self, crop: np.ndarray, mask: np.ndarray, square: np.ndarray, pts_seconds: float, frame_index: int
    ) -> None:
        """One more frame: (S, S, 3) uint8 RGB with its coarse mask (S, S) uint8 and the square that it shows."""
        self._waiting.append(_Waiting(crop, mask, square, pts_seconds, frame_index))
        if len(self._waiting) > self._every * self._sam.batch:
            self._work(last=False)

    def finish(self) -> None:
        """Work off what still waits."""
        if self._waiting:
            self._work(last=True)
        self._first = self._last = None

    def _work(self, last: bool) -> None:
        """Ask about the key frames that wait; hand on all frames but the last one, from which it goes on."""
        frames = self._waiting
        keys = list(range(0, len(frames), self._every))
        if last and keys[-1] != len(frames) - 1:
            keys.append(len(frames) - 1)
        corrections: dict[int, np.ndarray] = {} if self._first is None else {0: self._first}
        corrections |= self._ask(frames, [n for n in keys if n not in corrections])
        done = len(frames) if last else keys[-1]
        for n, frame in enumerate(frames[:done]):
            mask = corrected(frame.coarse, _between(corrections, n))
            self._keep(frame.crop, mask, frame.square, frame.pts_seconds, frame.frame_index)
        if self._advance is not None:
            self._advance(done)
        self._waiting = frames[done:]
        self._first = None if last else corrections[keys[-1]]

    def _ask(self, frames: list[_Waiting], numbers: list[int]) -> dict[int, np.ndarray]:
        """SAM's corrections of these frames' coarse masks; zero where it is not to be believed."""
        corrections = {n: np.zeros(frames[n].coarse.shape, np.float32) for n in numbers}
        numbers = [n for n in numbers if frames[n].coarse.any()]
        if not numbers:
            return corrections
        crops = np.stack([frames[n].crop for n in numbers])
        coarse = np.stack([frames[n].coarse for n in numbers])
        squares = np.stack([frames[n].square for n in numbers])
        prompts = self._prompts(crops, coarse)
        if self._last is not None:
            logits, square = self._last
            prompts[0] = replace(prompts[0], logits=move_logits(logits, square, squares[0]))
        answers = self._sam.segment(crops, coarse, prompts, squares)
        self._last = (answers[-1].logits, squares[-1])
        for n, answer in zip(numbers, answers, strict=True):
            self.asked += 1
            if answer.agreement < self._least_agreement or answer.score < self._least_score or not answer.mask.any():
                self.rejected += 1
                continue
            corrections[n] = signed_distance(answer.mask) - signed_distance(frames[n].coarse)
        if corrections and self.rejected and answers[-1].agreement < self._least_agreement:
            self._last = None  # do not follow an answer that was refused
        return corrections

    def _prompts(self, crops: np.ndarray, coarse: np.ndarray) -> list[Prompt]:
        if self._find_joints is None:
            return [make_prompt(mask) for mask in coarse]
        keypoints, confidence = self._find_joints(crops)
        return [make_prompt(*item) for item in zip(coarse, keypoints[..., :2], confidence, strict=True)]


def _between(corrections: dict[int, np.ndarray], n: int) -> np.ndarray:
    """The correction of frame n, interpolated between those around it."""
    if n in corrections:
        return corrections[n]
    before = max(number for number in corrections if number < n)
    after = min(number for number in corrections if number > n)
    share = (n - before) / (after - before)
    return (1 - share) * corrections[before] + share * corrections[after]


def corrected(coarse: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """A coarse mask (S, S) uint8 with a correction of its signed distance (S, S): (S, S) uint8 0/255."""
    if not correction.any():
        return (coarse > 0).astype(np.uint8) * np.uint8(255)
    return (signed_distance(coarse) + correction > 0).astype(np.uint8) * np.uint8(255)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels from a mask's edge, positive inside: (H, W) uint8 -> (H, W) float32; an empty mask is far everywhere."""
    inside = (mask > 0).astype(np.uint8)
    far = float(max(mask.shape))
    if not inside.any() or inside.all():
        return np.full(mask.shape, far if inside.any() else -far, np.float32)
    within = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    without = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(inside > 0, within - 0.5, 0.5 - without).astype(np.float32)
