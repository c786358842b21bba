"""How good each frame of a clip is for training: its mask is steady, its subject is whole, its picture is sharp."""

from __future__ import annotations

from collections import deque
from statistics import median

import cv2
import numpy as np

MEMORY = 15  # frames by which the usual area and sharpness are known
JUMP = 0.35  # log ratio of areas at which the quality has fallen to exp(-1/2)
CUT_OFF = 0.05  # share of the mask's outline along the border of the picture that halves the quality
SHARP = 0.02  # of the normalised sharpness below; at it a crop counts as half sharp
USUAL_SHARE = 0.5  # a crop half as sharp as the clip's usual is blurred by motion

CURVATURES = (np.array([[1, -2, 1]], np.float32), np.array([[1], [-2], [1]], np.float32))


class Quality:
    """Rates the frames of one clip, one after the other.

    Each of three things gives a factor in [0, 1], and the quality is their product:

    - area: how much the mask's area jumps from its median over the last frames, in source pixels;
    - border: how much of the mask's outline runs along the border of the source picture, where the subject is cut off;
    - blur: the variance of the crop's Laplacian inside the mask, over the variance of its brightness there, against
      what is sharp at all and against the clip's own usual sharpness.

    Args:
        source_size: (width, height) of the video.
    """

    def __init__(self, source_size: tuple[int, int]):
        self._size = source_size
        self._areas: deque[float] = deque(maxlen=MEMORY)
        self._sharpness: deque[float] = deque(maxlen=MEMORY)

    def rate(self, crop: np.ndarray, mask: np.ndarray, square: np.ndarray) -> float:
        """Quality of the next frame in [0, 1]; 1 is best.

        Args:
            crop: (S, S, 3) uint8 RGB.
            mask: (S, S) uint8, non-zero where the subject is; an empty one (no masks are kept) counts as the whole
                crop, and then neither its area nor the border tells anything.
            square: (4,) what the crop shows, in source pixels.
        """
        S = mask.shape[0]
        area = float(np.count_nonzero(mask))
        inside = mask > 0 if area else None
        sharpness = crop_sharpness(crop, inside)
        usual = median(self._sharpness) if self._sharpness else sharpness
        self._sharpness.append(sharpness)
        quality = sharpness / (sharpness + SHARP) * min(1.0, sharpness / max(USUAL_SHARE * usual, 1e-6))
        if inside is not None:
            area *= (float(square[2] - square[0]) / S) ** 2
            jump = abs(np.log(area / median(self._areas))) if self._areas else 0.0
            self._areas.append(area)
            quality *= float(np.exp(-0.5 * (jump / JUMP) ** 2))
            quality *= 0.5 ** (border_share(inside, square, self._size) / CUT_OFF)
        return float(np.clip(quality, 0.0, 1.0))


def crop_sharpness(crop: np.ndarray, inside: np.ndarray | None) -> float:
    """Variance of the Laplacian over the variance of the brightness, inside a mask.

    Of the Laplacian's two parts, across and down, the smaller one counts twice: motion blurs one direction alone.

    Args:
        crop: (S, S, 3) uint8 RGB.
        inside: (S, S) bool, not empty; its outline counts too, because it blurs as well. None is the whole crop.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    around = None if inside is None else np.asarray(cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)))
    smooth = cv2.GaussianBlur(grey, (3, 3), 0.8)  # sensor noise is not sharpness
    curvature = [_variance(cv2.filter2D(smooth, cv2.CV_16S, kernel), around) for kernel in CURVATURES]
    return 2 * min(curvature) / (_variance(grey, around) + 25.0)


def _variance(image: np.ndarray, inside: np.ndarray | None) -> float:
    return float(cv2.meanStdDev(image, mask=inside)[1][0, 0]) ** 2


def border_share(inside: np.ndarray, square: np.ndarray, source_size: tuple[int, int]) -> float:
    """Share of a mask's outline that lies on the border of the source picture.

    Args:
        inside: (S, S) bool.
        square: (4,) what it shows, in source pixels.
        source_size: (width, height).
    """
    S = inside.shape[0]
    scale = (square[2:] - square[:2]) / S
    reach = np.maximum(1.5 * scale, 1.5)  # source pixels
    if (square[:2] > reach).all() and (square[2:] < np.array(source_size) - reach).all():
        return 0.0
    own = inside.astype(np.uint8)
    outline = cv2.subtract(
        own, cv2.erode(own, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    )
    places = (np.arange(S)[:, None] + 0.5) * scale + square[:2]
    columns, rows = ((places >= reach) & (places <= np.array(source_size) - reach)).T
    count = np.count_nonzero(outline)
    return 1.0 - np.count_nonzero(outline[rows][:, columns]) / count if count else 0.0
