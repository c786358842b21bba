"""What a source is, and when it has changed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from streampose.errors import VideoError
from streampose.video.samples import sample_pictures
from streampose.video.sources import content_hash

from .drawing import numbered_picture, read_number


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(30):
        Image.fromarray(numbered_picture(i)).save(folder / f"{i}.png")
    return folder


def test_hash_of_a_file(clip):
    assert content_hash(clip) == hashlib.sha256(clip.read_bytes()).hexdigest()


def test_hash_of_a_folder_tells_changes(frames):
    before = content_hash(frames)
    assert content_hash(frames) == before
    (frames / "3.png").rename(frames / "30.png")
    renamed = content_hash(frames)
    (frames / "30.png").write_bytes(b"x")
    assert len({before, renamed, content_hash(frames)}) == 3


def test_hash_of_nothing(tmp_path):
    with pytest.raises(VideoError, match=r"nothing\.mp4: no such file"):
        content_hash(tmp_path / "nothing.mp4")


def test_samples_of_a_folder(frames):
    found = list(sample_pictures(frames, (160, 120), 0.2, start_seconds=0.1, end_seconds=1.0))
    assert [read_number(picture) for _, picture in found] == [3, 8, 13, 18, 23]
    np.testing.assert_allclose([seconds for seconds, _ in found], np.array([3, 8, 13, 18, 23]) / 25)
