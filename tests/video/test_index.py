"""Random access: the frames that sequential decoding gives, and clear errors for those that cannot be had."""

from __future__ import annotations

import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.video import access
from streampose.video.decode import open_video
from streampose.video.index import NO_PTS, TimestampIndex

from .conftest import read_number, write_video
from .drawing import overwrite, packets_of


def make_index(sound, step=0.04):
    count = len(sound)
    return TimestampIndex(np.arange(count) * step, np.array(sound, bool), np.arange(count) * 40, np.ones(count, bool))


def test_frame_on_the_screen_at_a_time():
    index = make_index([1, 1, 0, 0, 1])
    assert [index.at(seconds) for seconds in (-1.0, 0.0, 0.039, 0.04, 0.1, 0.16, 9.0)] == [0, 0, 0, 1, 1, 4, 4]
    with pytest.raises(IndexError):
        make_index([0, 0]).at(0.0)


def test_gaps():
    assert make_index([0, 1, 0, 0, 1, 0]).gaps() == [(0, 1), (2, 4), (5, 6)]
    assert make_index([1, 1]).gaps() == []


def test_only_distinct_timestamps_can_be_sought():
    assert make_index([1, 1, 1]).seekable
    assert not TimestampIndex(np.zeros(2), np.ones(2, bool), np.array([5, 5]), np.ones(2, bool)).seekable
    assert not TimestampIndex(np.zeros(2), np.ones(2, bool), np.array([NO_PTS] * 2), np.ones(2, bool)).seekable


def test_reading_the_whole_video_makes_the_index(clip, monkeypatch):
    with open_video(clip) as video:
        for _ in video.frames():
            pass
        monkeypatch.setattr("streampose.video.decode.Video.check", None)  # so that it cannot be made once more
        assert len(video.index) == 60 and video.index.sound.all()


def test_read_keeps_the_order_and_repeats(clip):
    with open_video(clip) as video:
        frames = video.read([41, 3, 41, 0, 59])
        assert [read_number(frame.image) for frame in frames] == [41, 3, 41, 0, 59]
        assert [frame.index for frame in frames] == [41, 3, 41, 0, 59]
        assert video.read([]) == []


def test_reading_disturbs_no_iteration(clip):
    with open_video(clip) as video:
        numbers = []
        for frame in video.frames():
            numbers.append(read_number(frame.image))
            if frame.index % 20 == 5:
                assert read_number(video.frame_at(index=50 - frame.index).image) == 50 - frame.index
    assert numbers == list(range(60))


def test_size_asked_for_holds_for_single_frames(clip):
    with open_video(clip, size=(80, 48)) as video:
        assert video.frame_at(1.0).image.shape == (48, 80, 3)


def test_frames_that_cannot_be_had(tmp_path):
    path = write_video(tmp_path / "v.mp4", 40, options={"bf": "0", "sc_threshold": "0"}, gop=10)
    overwrite(path, [packets_of(path)[10][:2]])
    with open_video(path) as video:
        assert video.index.gaps() == [(10, 20)]
        assert read_number(video.frame_at(0.5).image) == 9  # what is on the screen while frames are missing
        with pytest.raises(VideoError, match=r"frame 12 at 0.48 s is damaged or missing"):
            video.read([3, 12])
        with pytest.raises(VideoError, match="has no frame 40; it has 40 frames"):
            video.frame_at(index=40)
        with pytest.raises(VideoError, match="has no frame -1"):
            video.read([-1])
        with pytest.raises(ValueError, match="either seconds or index"):
            video.frame_at()


def test_far_frames_are_sought_and_near_ones_decoded_on(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", 300, options={"bf": "2", "preset": "ultrafast"}, gop=25)
    with open_video(path) as video:
        assert len(video.index) == 300
        seeks = []
        real = type(video._source).seek
        monkeypatch.setattr(type(video._source), "seek", lambda *a: seeks.append(a[1]) or real(*a))
        assert [read_number(f.image) for f in video.read([290, 100, 110, 120])] == [290, 100, 110, 120]
        assert len(seeks) == 2  # to 100 and to 290


def test_a_seek_that_goes_too_far_is_tried_again_from_earlier(clip, monkeypatch):
    with open_video(clip) as video:
        source = type(video._source)
        real, tried = source.seek, []

        def overshoot(self, seconds, back_off_seconds=0.0):
            tried.append(back_off_seconds)
            return real(self, seconds + 1.0, back_off_seconds)

        monkeypatch.setattr(source, "seek", overshoot)
        monkeypatch.setattr(access, "NEAR_FRAMES", 0)
        assert [read_number(f.image) for f in video.read([30, 45])] == [30, 45]
        assert 1.0 in tried and tried[0] == 0.0


def test_one_picture_at_a_time_is_held(clip):
    """Whoever reads many frames one after another does not gather them."""
    with open_video(clip) as video:
        cursor = access.Cursor(video._source, video.index)
        for number, picture in cursor.pictures(range(60)):
            assert picture is not None and number < 60
            assert cursor._entries is not None
        cursor.close()
