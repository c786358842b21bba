"""Combs go, still detail stays, and a progressive picture is left as it is."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streampose.video.decode import open_video
from streampose.video.interlace import deinterlace

from .conftest import write_video
from .drawing import numbered_picture


def combs(image):
    """How far odd lines lie beyond both their neighbours, on average."""
    lines = image.astype(int)
    above, odd, below = lines[0:-2:2], lines[1:-1:2], lines[2::2]
    return np.maximum(0, np.maximum(odd - np.maximum(above, below), np.minimum(above, below) - odd)).mean()


def woven(number, size=(160, 96)):
    first, second = numbered_picture(2 * number, size), numbered_picture(2 * number + 1, size)
    first[1::2] = second[1::2]
    return first


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv422p10le", "gray"])
@pytest.mark.parametrize("size", [(160, 96), (161, 97)])
def test_combs_are_removed(pixel_format, size):
    picture = av.VideoFrame.from_ndarray(woven(3, size), format="rgb24").reformat(format=pixel_format)
    before = picture.reformat(format="gray").to_ndarray()
    after = deinterlace(picture).reformat(format="gray").to_ndarray()
    assert combs(before) > 0.5 and combs(after) < 0.2 * combs(before)
    assert after.shape == (size[1], size[0])


def test_a_progressive_picture_stays():
    picture = av.VideoFrame.from_ndarray(numbered_picture(3, (160, 96)), format="rgb24").reformat(format="yuv420p")
    before, after = picture.to_ndarray(), deinterlace(picture).to_ndarray()
    assert np.abs(before.astype(int) - after).mean() < 0.3


def test_interlaced_video_is_deinterlaced_and_said_to_be(tmp_path):
    path = write_video(
        tmp_path / "tv.mp4", 10, draw=woven, options={"x264-params": "tff=1", "preset": "veryfast", "crf": "5"}
    )
    with open_video(path) as video:
        assert video.interlaced
        assert max(combs(frame.image[20:]) for frame in video.frames()) < 0.3
        assert video.verdict.verdict == "ok" and video.verdict.reason == "10 interlaced frames were deinterlaced"
