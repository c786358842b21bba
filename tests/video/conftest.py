"""Small videos made on the spot; every frame carries its number in its pixels, so that a decoder cannot cheat."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from .drawing import numbered_picture, read_number

__all__ = ["numbered_picture", "read_number", "write_video"]


def write_video(
    path: Path,
    count: int,
    *,
    size: tuple[int, int] = (160, 96),
    fps: int = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: float | None = None,
    gop: int = 12,
    draw: Callable[[int, tuple[int, int]], np.ndarray] = numbered_picture,
    first: int = 0,
) -> Path:
    """Encode pictures number `first`, `first + 1`, ... with PyAV alone; the writer under test is not involved."""
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.gop_size = gop
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90_000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(draw(first + i, size), format="rgb24").reformat(format=pixel_format)
            if times is not None:
                frame.pts, frame.time_base = round(times[i] * 90_000), Fraction(1, 90_000)
            else:
                frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """60 numbered frames at 25 fps, h264 with B-frames, 160 x 96, the index at the front."""
    return write_video(tmp_path / "clip.mp4", 60, options={"bf": "2"}, container_options={"movflags": "+faststart"})


@pytest.fixture
def shared_data() -> Path:
    folder = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the shared example videos: set STREAMPOSE_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def silent_ffmpeg(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing that FFmpeg thinks may reach the user's terminal."""
    yield
    assert capfd.readouterr().err == ""
