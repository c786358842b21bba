"""Writing: what is read back is what was given, and no half file is left."""

from __future__ import annotations

import errno

import av
import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.video import encode
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

from .conftest import numbered_picture, read_number


def write(path, count=20, *, size=(160, 96), fps=25, times=None, **kwargs):
    with VideoWriter(path, fps, size, **kwargs) as writer:
        for i in range(count):
            writer.write(numbered_picture(i, size), None if times is None else times[i])
    return path


def read(path):
    with open_video(path) as video:
        frames = list(video.frames())
        assert video.verdict.verdict == "ok", video.verdict
        return video.probe, frames


@pytest.mark.parametrize("fps", [25, 29.97, 250, 7.5])
def test_constant_rate(tmp_path, fps):
    probe, frames = read(write(tmp_path / "v.mp4", fps=fps))
    assert [read_number(frame.image) for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.pts_seconds for frame in frames], np.arange(20) / fps, atol=1e-4)
    assert (probe.codec, probe.pixel_format) == ("h264", "yuv420p")
    assert probe.fps == pytest.approx(fps, rel=0.01)
    assert probe.duration_seconds == pytest.approx(20 / fps, rel=0.01)


def test_times_are_kept(tmp_path):
    times = 0.5 + np.cumsum(np.random.default_rng(0).integers(8, 70, 30)) / 1000
    _, frames = read(write(tmp_path / "v.mp4", 30, times=times))
    np.testing.assert_allclose([frame.pts_seconds for frame in frames], times, atol=2e-5)


@pytest.mark.parametrize("size", [(161, 97), (160, 97), (161, 96)])
def test_odd_sizes_repeat_their_last_line(tmp_path, size):
    probe, frames = read(write(tmp_path / "v.mp4", size=size))
    assert (probe.width, probe.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    shown = frames[5].image[: size[1], : size[0]]
    assert read_number(shown) == 5
    assert np.abs(shown.astype(int) - numbered_picture(5, size))[16:].mean() < 5


def test_better_quality_is_closer(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    errors = []
    for crf in (40, 10):
        with VideoWriter(tmp_path / "v.mp4", 25, (160, 96), crf=crf) as writer:
            writer.write(picture)
        _, frames = read(tmp_path / "v.mp4")
        errors.append(np.abs(frames[0].image.astype(int) - picture).mean())
    assert errors[1] < errors[0]


def test_index_stands_at_the_front(tmp_path):
    data = write(tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_nothing_is_left_after_an_error(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(KeyError), VideoWriter(path, 25, (160, 96)) as writer:
        writer.write(numbered_picture(0, (160, 96)))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = write(tmp_path / "v.mp4", 5)
    before = path.read_bytes()
    writer = VideoWriter(path, 25, (160, 96))
    writer.write(numbered_picture(0, (160, 96)))
    assert path.read_bytes() == before
    writer.abort()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_folder_is_made(tmp_path):
    assert write(tmp_path / "deep" / "er" / "v.mp4").is_file()


def test_no_frames(tmp_path):
    with pytest.raises(VideoError, match="no frames were given"), VideoWriter(tmp_path / "v.mp4", 25, (160, 96)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VideoError, match=r"v\.mp4: cannot be written"):
        VideoWriter(tmp_path / "file" / "v.mp4", 25, (160, 96))


def test_full_disk(tmp_path):
    class FullDisk:
        def mux(self, packets):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(VideoError, match=r"v\.mp4: cannot be written \(No space left on device\)"),
        VideoWriter(tmp_path / "v.mp4", 25, (160, 96)) as writer,
    ):
        writer._container.close()
        writer._container = FullDisk()
        writer.write(numbered_picture(0, (160, 96)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "image", [np.zeros((96, 160), np.uint8), np.zeros((96, 161, 3), np.uint8), np.zeros((96, 160, 3), np.float32)]
)
def test_wrong_frames_are_refused(tmp_path, image):
    with pytest.raises(ValueError, match="expected"), VideoWriter(tmp_path / "v.mp4", 25, (160, 96)) as writer:
        writer.write(image)


def test_time_must_grow(tmp_path):
    with pytest.raises(ValueError, match="is not after"):
        write(tmp_path / "v.mp4", 3, times=[0.0, 0.2, 0.1])


def test_another_encoder_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(encode, "ENCODERS", ("no_such_codec", "mpeg4"))
    monkeypatch.setattr(encode.logger, "propagate", True)
    write(tmp_path / "v.mp4")
    assert "mpeg4" in caplog.text
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_no_encoder_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "ENCODERS", ("no_such_codec",))
    with pytest.raises(VideoError, match="can write none of"):
        VideoWriter(tmp_path / "v.mp4", 25, (160, 96))
    assert list(tmp_path.iterdir()) == []


def test_repeatable_files_are_alike_whatever_is_in_memory(tmp_path):
    """Where it is left out, about one file in a hundred differs."""
    random = np.random.default_rng(0)
    images, files, memory = random.integers(0, 256, (8, 96, 96, 3), np.uint8), set(), []
    for size in random.integers(1, 300_000, 60):
        memory = [*memory[-20:], random.random(size)]
        with VideoWriter(tmp_path / "v.mp4", 25, (96, 96), repeatable=True) as writer:
            for image in images:
                writer.write(image)
        files.add((tmp_path / "v.mp4").read_bytes())
    assert len(files) == 1
