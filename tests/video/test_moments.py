"""Frames of several videos at the same moments."""

import numpy as np
import pytest

from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter
from streampose.video.moments import moment_stride, moments

SIZE = (64, 48)


def make(path, fps, frames):
    with VideoWriter(path, fps, SIZE) as video:
        for n in range(frames):
            video.write(np.full((SIZE[1], SIZE[0], 3), 4 * n, np.uint8))
    return path


@pytest.mark.parametrize("stride", [1, 3])
def test_clocks_that_differ_and_a_camera_that_is_twice_as_fast(tmp_path, stride):
    files = [make(tmp_path / "a.mp4", 10, 20), make(tmp_path / "b.mp4", 10, 15), make(tmp_path / "c.mp4", 20, 40)]
    offsets = [0.0, 0.5, 0.0]  # the second one began half a second later
    with open_video(files[0]) as a, open_video(files[1]) as b, open_video(files[2]) as c:
        found = list(moments([a, b, c], offsets, stride))
    times = np.array([[frame.pts_seconds for frame in frames] for frames in found]) + offsets
    apart = np.ptp(times, axis=1)
    assert apart.max() < 0.1 + 1e-3 and apart[1:].max() < 1e-3  # up to one frame's time where a video begins
    first = [frames[0].index for frames in found]
    assert first[0] in (4, 6) and first == list(range(first[0], 20, stride))


def test_they_end_with_the_first_video_that_ends(tmp_path):
    with open_video(make(tmp_path / "a.mp4", 10, 20)) as a, open_video(make(tmp_path / "b.mp4", 10, 8)) as b:
        found = list(moments([a, b], [0.0, 0.0]))
    assert [frames[0].index for frames in found][:8] == list(range(8)) and len(found) <= 9


def test_a_short_video_is_looked_at_more_often(tmp_path):
    with open_video(make(tmp_path / "a.mp4", 10, 20)) as video:
        assert moment_stride(video, 2.0, 1) == 5  # as the rate asks
        assert moment_stride(video, 2.0, 10) == 2  # ten looks at twenty frames
        assert moment_stride(video, 2.0, 100) == 1
        assert moment_stride(video, 0, 4) == 1  # all of them
