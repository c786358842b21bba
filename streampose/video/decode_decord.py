"""Batched random access with decord, for those files in which it gives the same frames as PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.video.media import MediaFile

if TYPE_CHECKING:
    from streampose.video.decode import Video

CHECKED_FRAMES = 9  # compared with PyAV's, spread over the file
CHECKED_WIDTH = 160
TIME_TOLERANCE = 0.25  # of the least time between two frames
MOST_DIFFERENCE, SLIGHT = 6.0, 0.02  # mean grey levels; conversions differ a little, neighbours may differ less
BATCH = 32


class DecordReader:
    """decord's view of the file of a video.

    Attributes:
        reason: why it is not to be trusted; empty where its frames were found to be those of PyAV.
    """

    def __init__(self, video: Video):
        decord = import_decord()
        try:
            self._reader = decord.VideoReader(str(video.path), ctx=decord.cpu(0), num_threads=1)
            self.reason = self._compare(video)
        except Exception as error:  # decord raises its own kinds, and plain RuntimeError from C++
            logger.debug("%s: decord: %s", video.path, error)
            self.reason = "decord cannot read it"

    def read(self, numbers: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
        """Frames of ascending numbers: list of (H, W, 3) uint8 RGB of size (width, height)."""
        images: list[np.ndarray] = []
        for start in range(0, len(numbers), BATCH):
            images.extend(self._reader.get_batch(list(numbers[start : start + BATCH])).asnumpy())
        return [_resize(image, size) for image in images]

    def _compare(self, video: Video) -> str:
        """Why it is not to be trusted; empty where it gives the same frames at the same times."""
        index = video.index
        if video.interlaced:
            return "it is interlaced, which decord leaves as it is"
        if not index.sound.all():
            return f"{int((~index.sound).sum())} frames of it are damaged or missing"
        if len(self._reader) != len(index):
            return f"decord finds {len(self._reader)} frames where there are {len(index)}"
        times = self._reader.get_frame_timestamp(np.arange(len(index)))[:, 0].astype(np.float64)
        steps = np.diff(index.pts_seconds)
        tolerance = max(TIME_TOLERANCE * float(steps.min()) if len(steps) else 1.0, 1e-3)
        shift = times - index.pts_seconds
        if np.abs(shift - np.median(shift)).max() > tolerance:
            return "decord gives its frames other times"
        return self._compare_pictures(video, len(index))

    def _compare_pictures(self, video: Video, count: int) -> str:
        numbers = sorted({int(n) for n in np.linspace(0, count - 1, CHECKED_FRAMES)})
        width, height = video.probe.width, video.probe.height
        small = (CHECKED_WIDTH, max(1, round(CHECKED_WIDTH * height / width)))
        around = sorted({m for n in numbers for m in (n - 1, n, n + 1) if 0 <= m < count})
        ours = {number: frame.small(small).astype(np.float32) for number, frame in video._fetch(around)}
        for number in numbers[::2] + numbers[1::2]:  # back and forth, as random access goes
            image = self._reader[number].asnumpy()
            if image.shape[:2] != (height, width):
                return f"decord gives frames of {image.shape[1]} x {image.shape[0]} instead of {width} x {height}"
            theirs = _resize(image, small)
            difference = {m: float(np.abs(theirs - ours[m]).mean()) for m in around if abs(m - number) <= 1}
            if difference[number] > min(MOST_DIFFERENCE, min(difference.values()) + SLIGHT):
                return f"decord gives another picture as frame {number}"
        return ""


def open_decord(video: Video, source: object) -> DecordReader | None:
    """decord for the source of a video, compared with PyAV; None, and a message, where it is not to be trusted.

    Raises:
        VideoError: decord is not installed.
    """
    reason = "decord reads files of videos only"
    if isinstance(source, MediaFile):
        reader = DecordReader(video)
        if not reader.reason:
            return reader
        reason = reader.reason
    logger.warning("%s: read with PyAV: %s", video.path, reason)
    return None


def import_decord() -> Any:
    """The decord module, quiet.

    Raises:
        VideoError: it is not installed.
    """
    try:
        import decord
    except ImportError as error:
        raise VideoError(
            f"--decoder decord: {error}; install it with `pip install 'streampose[decord]'`, or use --decoder pyav"
        ) from None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return image if (image.shape[1], image.shape[0]) == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
