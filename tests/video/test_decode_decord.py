"""decord is used where it gives the frames that PyAV gives, and nowhere else."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.video import decode_decord
from streampose.video.decode import open_video

from .conftest import read_number, write_video
from .drawing import overwrite, packets_of


@pytest.fixture
def decord():
    return pytest.importorskip("decord", reason="needs decord: pip install 'streampose[decord]'")


def test_without_decord_the_extra_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(VideoError, match=r"streampose\[decord\]"):
        open_video(clip, decoder="decord")


def test_unknown_decoder(clip):
    with pytest.raises(VideoError, match="--decoder opencv: unknown; choose one of pyav, decord"):
        open_video(clip, decoder="opencv")


def test_decord_gives_the_frames_of_pyav(clip, decord):
    with open_video(clip) as ours, open_video(clip, decoder="decord") as theirs:
        numbers = [int(n) for n in np.random.default_rng(0).permutation(60)]
        for a, b in zip(ours.read(numbers), theirs.read(numbers), strict=True):
            assert (a.index, a.pts_seconds) == (b.index, b.pts_seconds)
            assert read_number(b.image) == a.index
            assert np.abs(a.image.astype(int) - b.image).mean() < 2
        assert theirs._decord is not None


def test_a_wrong_decord_is_found_out(tmp_path, decord, monkeypatch, caplog):
    """A reader that is one frame off: its pictures are nearly alike, but the neighbour fits better."""

    def slow(number, size):
        image = np.full((size[1], size[0], 3), 90, np.uint8)
        image[20:60, 2 * number : 2 * number + 20] = 160
        return image

    path = write_video(tmp_path / "slow.mp4", 40, draw=slow)

    class OneOff:
        def __init__(self, *args, **kwargs):
            self._real = real(*args, **kwargs)

        def __len__(self):
            return len(self._real)

        def __getitem__(self, number):
            return self._real[min(number + 1, len(self._real) - 1)]

        def get_frame_timestamp(self, numbers):
            return self._real.get_frame_timestamp(numbers)

    real = decord.VideoReader
    monkeypatch.setattr(decord, "VideoReader", OneOff)
    with caplog.at_level(logging.WARNING, "streampose"), open_video(path, decoder="decord") as video:
        assert [f.index for f in video.read([7, 30])] == [7, 30]
        assert video._decord is None
        assert "another picture as frame" in decode_decord.DecordReader(video).reason


def test_damaged_files_are_read_with_pyav(tmp_path, decord):
    path = write_video(tmp_path / "v.mp4", 40, options={"bf": "0", "sc_threshold": "0"}, gop=10)
    overwrite(path, [packets_of(path)[10][:2]])
    with open_video(path, decoder="decord") as video:
        assert [read_number(f.image) for f in video.read([25, 5])] == [25, 5]
        assert video._decord is None
        assert "10 frames of it are damaged" in decode_decord.DecordReader(video).reason
