"""Write frames to an h264 mp4 that every player opens; nothing is left behind when writing fails."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from streampose.console import logger
from streampose.errors import VideoError

TIME_BASE = Fraction(1, 60_000)  # holds 24, 25, 29.97, 30, 50, 59.94, 60 and 250 frames a second exactly
ENCODERS = ("libx264", "h264_videotoolbox", "h264_mf", "libopenh264", "mpeg4")  # the first that this PyAV has


class VideoWriter:
    """Writes RGB frames to `path`; use it as a context manager.

    The file appears under its name only when complete (temporary name, then an atomic rename); an exception in the
    `with` block removes it.

    Args:
        path: the mp4 file; its folder is made.
        fps: frames a second, used where `write` is given no time.
        size: (width, height) of the frames; an odd side gets its last row or column repeated, because h264 needs even
            ones.
        crf: quality, 0 (no loss) to 51; 18 cannot be told from the original by eye.
        preset: speed of libx264, `ultrafast` to `veryslow`.
        gop: frames between key frames; smaller seeks faster.
        repeatable: the same frames give the same bytes, at some cost in speed. Several threads do not, nor does libx264
            by itself: with its AVX2 code for macroblock trees, equal frames now and then gave other bytes.

    Raises:
        VideoError: the file cannot be written (permission, full disk), or nothing was written to it.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        *,
        crf: int = 20,
        preset: str = "veryfast",
        gop: int | None = None,
        repeatable: bool = False,
    ):
        width, height = size
        if not (fps > 0 and width > 0 and height > 0):
            raise ValueError(f"{path}: needs a positive rate and size, got {fps} fps and {width} x {height}")
        self.path, self.fps, self.size = Path(path), float(fps), (width, height)
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.partial.mp4")
        self._count, self._last_pts = 0, -1
        self._container: av.container.OutputContainer | None = None
        codec = _first_encoder()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._partial), "w", container_options={"movflags": "+faststart"})
        except (av.error.FFmpegError, OSError) as error:
            raise self._cannot_write(error) from None
        options = {"crf": str(crf), "preset": preset} if codec == "libx264" else {}
        if repeatable and options:
            options["x264-params"] = "cpu-independent=1"
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = cast(VideoStream, self._container.add_stream(codec, rate=rate, options=options))
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE
        self._stream.codec_context.thread_count = 1 if repeatable else 0
        if gop is not None:
            self._stream.codec_context.gop_size = gop
        if codec != "libx264":
            self._stream.codec_context.bit_rate = int(width * height * fps * 0.15)

    def write(self, image: np.ndarray, pts_seconds: float | None = None) -> None:
        """Append one frame.

        Args:
            image: (H, W, 3) uint8 RGB of the writer's size.
            pts_seconds: when it is shown; must grow. None: one frame duration after the frame before.
        """
        width, height = self.size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(f"{self.path}: frame is {image.shape} {image.dtype}, expected {(height, width, 3)} uint8")
        if self._container is None:
            raise ValueError(f"{self.path}: the writer is closed")
        step = round(1 / self.fps / TIME_BASE)
        if pts_seconds is not None:
            pts = round(pts_seconds / TIME_BASE)
        else:
            pts = max(round(self._count / self.fps / TIME_BASE), self._last_pts + 1)
        if pts <= self._last_pts:
            raise ValueError(
                f"{self.path}: frame {self._count} at {pts_seconds} s is not after the one before "
                f"({float(self._last_pts * TIME_BASE):.6f} s)"
            )
        if width % 2 or height % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base, frame.duration = pts, TIME_BASE, step
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise self._cannot_write(error) from None
        self._count, self._last_pts = self._count + 1, pts

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._container is None:
            return
        if self._count == 0:
            self.abort()
            raise VideoError(f"{self.path}: no frames were given, so no video was written")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            os.replace(self._partial, self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise self._cannot_write(error) from None

    def abort(self) -> None:
        """Give up: close and remove the unfinished file; a file that was there before stays."""
        if self._container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):  # the disk may be full; the file goes anyway
                self._container.close()
            self._container = None
        with contextlib.suppress(OSError):  # it may never have been made
            self._partial.unlink()

    def _cannot_write(self, error: Exception) -> VideoError:
        self.abort()
        reason = getattr(error, "strerror", None) or error
        return VideoError(f"{self.path}: cannot be written ({reason}); check space and permissions")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def _first_encoder() -> str:
    for codec in ENCODERS:
        if codec in av.codecs_available:
            try:
                av.Codec(codec, "w")
            except ValueError:
                continue
            if codec != ENCODERS[0]:
                logger.warning("libx264 is missing from this PyAV: videos are written with %s", codec)
            return codec
    raise VideoError(f"this PyAV can write none of {', '.join(ENCODERS)}; reinstall it with `pip install av`")
