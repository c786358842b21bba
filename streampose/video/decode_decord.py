"""Batched random access with decord, for those files in which it gives the same frames as PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.video.media import MediaFile

if TYPE_CHECKING:
    from streampose.video.decode import Video

CHECKED_FRAMES = 5  # compared with PyAV's, spread over the file
CHECKED_WIDTH = 64
TIME_TOLERANCE = 0.25  # of the least time between two frames
MOST_DIFFERENCE = 6.0  # mean grey levels; conversions differ a little, neighbouring frames may too
BATCH = 32


class DecordReader:
    """decord's view of one file.

    Attributes:
        trusted: whether its frames were found to be those of PyAV.
        reason: why not.
    """

    def __init__(self, path: Path, video: Video):
        self.trusted, self.reason = False, ""
        self._reader: Any = None
        decord = import_decord()
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self.reason = self._compare(video)
        except Exception as error:  # decord raises its own kinds, and plain RuntimeError from C++
            self.reason = (
                f"decord cannot read it ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            )
        self.trusted = not self.reason

    def read(self, numbers: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
        """Frames of ascending numbers: list of (H, W, 3) uint8 RGB of size (width, height)."""
        images: list[np.ndarray] = []
        for start in range(0, len(numbers), BATCH):
            images.extend(self._reader.get_batch(list(numbers[start : start + BATCH])).asnumpy())
        return [_resize(image, size) for image in images]

    def _compare(self, video: Video) -> str:
        """Why it is not to be trusted; empty where it gives the same frames at the same times."""
        index = video.index
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
        numbers = sorted({int(n) for n in np.linspace(0, len(index) - 1, CHECKED_FRAMES)})
        width, height = video.probe.width, video.probe.height
        small = (CHECKED_WIDTH, max(1, round(CHECKED_WIDTH * height / width)))
        ours = dict(video._fetch(numbers))
        for number in numbers:
            image = self._reader[number].asnumpy()
            if image.shape[:2] != (height, width):
                return f"decord gives frames of {image.shape[1]} x {image.shape[0]} instead of {width} x {height}"
            difference = np.abs(_resize(image, small).astype(np.float32) - ours[number].small(small)).mean()
            if difference > MOST_DIFFERENCE:
                return f"decord gives another picture as frame {number}"
        return ""


def open_decord(video: Video, source: object) -> DecordReader:
    """decord for a video's file, compared with PyAV; a message says where it is not trusted.

    Raises:
        VideoError: decord is not installed.
    """
    if isinstance(source, MediaFile):
        reader = DecordReader(video.path, video)
    else:
        reader = DecordReader.__new__(DecordReader)
        reader.trusted, reader.reason = False, "decord reads no folders and no animated webp"
    if not reader.trusted:
        logger.warning("%s: read with PyAV: %s", video.path, reader.reason)
    return reader


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
