"""Find the cuts of a video while it is read.

Each frame is compared with the one before at thumbnail size. Blocks of the new frame are searched for in the old one,
so motion explains itself: after a cut most blocks are found nowhere, while a pan or a fast subject leaves most of them
findable. Matching is blind to brightness and contrast, so changing light is no cut. A frame that says nothing (blown
out by a flash, black between two fades) is not judged but waited through. Cuts are hard changes; a slow dissolve is not
found.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from streampose.geometry.crop import shrink

THUMBNAIL = 64  # pixels of the longer side
BLOCK, STEP, SEARCH = 16, 8, 10  # pixels of the thumbnail; the search covers a pan of a sixth of the picture a frame
STILL = 0.12  # 1 - correlation of two frames below which nothing else is looked at
ALIKE = 0.1  # mean difference, as a share of the contrast, below which two frames are certainly still
SURELY_ALIKE = 0.05  # the same, told from few pixels, so that a frame later is still alike
CUT = 0.25  # share of the middle block that is found nowhere, from which on it is a cut
CUT_OTHER_COLOURS = 0.21  # the same where the colours are others too
OTHER_COLOURS = 0.2  # Hellinger distance of colour histograms that speaks for another scene
STANDS_OUT = 1.5  # a cut is so much greater than what has been usual lately
FLAT_BLOCK, FLAT_FRAME = 2.0, 4.0  # grey levels of contrast below which a block or a frame shows nothing
BLOWN_OUT, BLOWN_OUT_SHARE = 245, 0.15  # a flash makes so much more of the picture so bright
FLASH_SECONDS = 0.2  # no flash lasts longer
MEMORY_SECONDS = 0.5  # what counts as lately


class ShotDetector:
    """Says where a new shot begins; keeps a thumbnail and half a second of scores.

    Args:
        fps: frame rate of the video.
    """

    def __init__(self, fps: float):
        memory = max(5, round(MEMORY_SECONDS * fps))
        self._recent: deque[float] = deque([0.0] * memory, maxlen=memory)
        self._patience = max(2, round(FLASH_SECONDS * fps))  # frames
        self._held = 0
        self._before: _Thumbnail | None = None  # the last frame that showed something
        self._skimmed: np.ndarray | None = None  # few pixels of it
        self._skimming: np.ndarray | None = None

    def skim(self, few: np.ndarray | None) -> bool:
        """Whether a frame is certainly still, so that `update` need not see it; else `update` must be called next.

        It is compared with the last frame that `update` saw, so that slow changes are not lost.

        Args:
            few: (h, w) uint8, always of one size, the frame's brightness from a few of its pixels; None for want of it.
        """
        before, self._skimming = self._skimmed, few
        if few is None or before is None or self._held or few.shape != before.shape:
            return False
        contrast = float(cv2.meanStdDev(before)[1][0, 0])
        if cv2.norm(few, before, cv2.NORM_L1) > SURELY_ALIKE * contrast * few.size:
            return False
        self._recent.append(0.0)
        return True

    def update(self, image: np.ndarray) -> bool:
        """True if a cut lies before this frame.

        Args:
            image: (H, W, 3) uint8 RGB or (H, W) grey, any size; about 64 pixels wide is enough and fastest.
        """
        now, before = _Thumbnail(image), self._before
        if now.contrast < FLAT_FRAME:
            return False
        if before is None or before.grey.shape != now.grey.shape:
            self._before, self._skimmed = now, self._skimming
            return before is not None
        score, other_colours = _unlikeness(before, now)
        cut = score > (CUT_OTHER_COLOURS if other_colours else CUT)
        cut = cut and score > STANDS_OUT * float(np.quantile(self._recent, 0.8))
        if cut and now.blown_out - before.blown_out > BLOWN_OUT_SHARE and self._held < self._patience:
            self._held += 1  # a flash: judge by what comes after it
            return False
        self._recent.append(score)
        self._before, self._skimmed, self._held = now, self._skimming, 0
        return cut


class _Thumbnail:
    def __init__(self, image: np.ndarray):
        self._image = shrink(image, thumbnail_size(image.shape[1], image.shape[0]))
        grey = self._image if image.ndim == 2 else cv2.cvtColor(self._image, cv2.COLOR_RGB2GRAY)
        self.grey = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
        self.contrast = float(cv2.meanStdDev(self.grey)[1][0, 0])
        self.blown_out = np.count_nonzero(grey >= BLOWN_OUT) / grey.size

    @property
    def colours(self) -> np.ndarray | None:
        """Smoothed histograms of the two chroma channels: (64, 2)."""
        if self._image.ndim == 2:
            return None
        _, *chroma = cv2.split(cv2.cvtColor(self._image, cv2.COLOR_RGB2YCrCb))
        counts = np.concatenate([cv2.calcHist([c], [0], None, [64], [0, 256]) for c in chroma], 1)
        return cv2.blur(counts, (1, 5)) / self.grey.size


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) at which frames of that size are compared."""
    scale = THUMBNAIL / max(height, width)
    return max(2 * BLOCK, round(width * scale)), max(2 * BLOCK, round(height * scale))


def _unlikeness(before: _Thumbnail, now: _Thumbnail) -> tuple[float, bool]:
    """How much of the middle block cannot be found again, 0 to 1, and whether the colours are others."""
    if cv2.norm(now.grey, before.grey, cv2.NORM_L1) < ALIKE * now.contrast * now.grey.size:
        return 0.0, False  # the usual case, at a tenth of the time
    if 1 - cv2.matchTemplate(now.grey, before.grey, cv2.TM_CCOEFF_NORMED)[0, 0] < STILL:
        return 0.0, False
    height, width = now.grey.shape
    around = cv2.copyMakeBorder(before.grey, SEARCH, SEARCH, SEARCH, SEARCH, cv2.BORDER_REFLECT)
    lost = []
    for y in range(0, height - BLOCK + 1, STEP):
        for x in range(0, width - BLOCK + 1, STEP):
            block, old = (grey[y : y + BLOCK, x : x + BLOCK] for grey in (now.grey, before.grey))
            if block.std() < FLAT_BLOCK:
                if old.std() > 2 * FLAT_BLOCK:
                    lost.append(1.0)
                continue
            window = around[y : y + BLOCK + 2 * SEARCH, x : x + BLOCK + 2 * SEARCH]
            lost.append(1 - float(cv2.matchTemplate(window, block, cv2.TM_CCOEFF_NORMED).max()))
    other_colours = False
    old_colours, new_colours = before.colours, now.colours
    if old_colours is not None and new_colours is not None:
        alike = np.sqrt(old_colours * new_colours).sum(0).mean()
        other_colours = bool(np.sqrt(max(0.0, 1 - alike)) > OTHER_COLOURS)
    return (float(np.median(lost)) if lost else 0.0), other_colours
