"""Remove the combs of interlaced pictures, each from itself alone, so that random access gives the same pixels."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

PLANAR = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "gray"))
COMB = 6  # grey levels by which a line must lie beyond both its neighbours


def deinterlace(picture: av.VideoFrame) -> av.VideoFrame:
    """A copy in which the lines of the second field that stick out are replaced by the mean of their neighbours.

    Still parts keep their full height; formats of more than 8 bits become 8 bits.

    Args:
        picture: with two fields of different times woven together; either may be the earlier one.
    """
    if picture.format.name not in PLANAR:
        chroma = "yuv422p" if "422" in picture.format.name else "yuv420p"
        reduced = VideoReformatter().reformat(picture, format=chroma, interpolation="POINT", threads=1)
    else:
        reduced = picture
    smooth = av.VideoFrame(picture.width, picture.height, reduced.format.name)
    smooth.colorspace, smooth.color_range = picture.colorspace, picture.color_range
    for source, target in zip(reduced.planes, smooth.planes, strict=True):
        lines = _lines(source)[:, : source.width]
        _lines(target)[:, : source.width] = _without_combs(lines)
    return smooth


def _without_combs(lines: np.ndarray) -> np.ndarray:
    """(H, W) uint8 in which odd lines are mended where they lie beyond both neighbours on the same side."""
    out = lines.copy()
    even, odd = lines[0::2], lines[1::2]
    above, below = even[: len(odd)], np.concatenate([even[1:], even[-1:]])[: len(odd)]
    high = cv2.max(above, below)
    low = cv2.min(above, below)
    beyond = cv2.max(cv2.subtract(odd, high), cv2.subtract(low, odd))  # saturated: 0 where it lies between them
    combed = cv2.boxFilter(beyond, -1, (5, 1)) > COMB
    mean = cv2.addWeighted(above, 0.5, below, 0.5, 0)
    out[1::2] = np.where(combed, mean, odd)
    return out


def _lines(plane: av.video.plane.VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
