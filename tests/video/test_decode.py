"""Decoding: every frame, in order, at its own time, upright, in all the formats that people have."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.geometry.crop import crop_resize
from streampose.video.decode import Frame, find_videos, open_video

from .conftest import numbered_picture, read_number, write_video


def read_all(path: Path, **kwargs) -> tuple[list[int], list[float]]:
    with open_video(path, **kwargs) as video:
        frames = list(video.frames())
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert video.verdict.verdict == "ok", video.verdict
        return [read_number(frame.image) for frame in frames], [frame.pts_seconds for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "size", "options"),
    [
        ("b-frames.mp4", "libx264", "yuv420p", (160, 96), {"bf": "3"}),
        ("no-b-frames.mov", "libx264", "yuv420p", (160, 96), {"bf": "0"}),
        ("full-chroma.mkv", "libx264", "yuv444p", (160, 96), {}),
        ("ten-bit.mkv", "libx264", "yuv420p10le", (160, 96), {}),
        ("grey.mkv", "ffv1", "gray", (161, 97), {}),
        ("odd.mkv", "ffv1", "yuv420p", (161, 97), {}),
        ("alpha.mov", "png", "rgba", (160, 96), {}),
        ("alpha-yuv.mkv", "ffv1", "yuva420p", (161, 97), {}),
        ("camera.avi", "mjpeg", "yuvj422p", (160, 96), {}),
        ("old.avi", "mpeg4", "yuv420p", (160, 96), {"b": "2000000"}),
        ("disc.mpg", "mpeg2video", "yuv420p", (160, 96), {"b": "2000000"}),
        ("broadcast.ts", "libx264", "yuv420p", (160, 96), {}),
        ("web.webm", "libvpx-vp9", "yuv420p", (160, 96), {"deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_all_frames_in_order(tmp_path, name, codec, pixel_format, size, options):
    path = write_video(tmp_path / name, 30, codec=codec, pixel_format=pixel_format, size=size, options=options)
    numbers, times = read_all(path)
    assert numbers == list(range(30))
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=2e-3)


def test_probe(clip):
    with open_video(clip) as video:
        probe = video.probe
    assert (probe.width, probe.height, probe.fps, probe.frames_estimate) == (160, 96, 25.0, 60)
    assert probe.duration_seconds == pytest.approx(60 / 25, abs=0.01)
    assert (probe.codec, probe.pixel_format, probe.rotation_degrees) == ("h264", "yuv420p", 0)


def test_colours_survive(clip):
    with open_video(clip) as video:
        frame = next(video.frames())
    difference = np.abs(frame.image.astype(int) - numbered_picture(0, (160, 96)))[16:]
    assert difference.mean() < 4


def test_colours_of_hd_video_use_its_own_matrix(tmp_path):
    """BT.709 differs from BT.601 by tens of grey levels in saturated greens."""
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.colorspace = 1  # BT.709
        frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), (30, 200, 60), np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_video(path) as video:
        colour = next(video.frames()).image.mean((0, 1))
    np.testing.assert_allclose(colour, (30, 200, 60), atol=5)


def test_variable_frame_rate_keeps_true_times(tmp_path):
    times = np.cumsum(np.random.default_rng(3).integers(10, 90, 40)) / 1000
    _, read = read_all(write_video(tmp_path / "vfr.mp4", 40, times=times, options={"bf": "2"}))
    np.testing.assert_allclose(read, times, atol=1e-4)


def test_times_that_do_not_start_at_zero(tmp_path):
    times = 5 + np.arange(20) / 25
    _, read = read_all(write_video(tmp_path / "late.mkv", 20, times=times))
    np.testing.assert_allclose(read, times, atol=1e-3)


def test_missing_timestamps_are_estimated(tmp_path):
    numbers, times = read_all(write_video(tmp_path / "bare.h264", 30, options={"bf": "2"}))
    assert numbers == list(range(30))
    np.testing.assert_allclose(np.diff(times), np.diff(times)[0], atol=1e-6)
    assert np.diff(times)[0] > 0


def test_edit_list_is_obeyed(tmp_path, clip):
    """A clip that was cut without encoding anew still contains the frames before the cut; they must not be shown."""
    path = tmp_path / "cut.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w", container_options={"avoid_negative_ts": "0"}) as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        shift = int(Fraction(10, 25) / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, out
                target.mux(packet)
    numbers, times = read_all(path)
    assert numbers == list(range(10, 60))
    assert times[0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("counterclockwise", "shown"), [(0, 0), (90, 270), (180, 180), (-90, 90)])
def test_rotation_is_applied(tmp_path, counterclockwise, shown):
    def quadrants(number, size):
        image = np.zeros((size[1], size[0], 3), np.uint8)
        image[: size[1] // 2, : size[0] // 2] = (200, 40, 40)
        image[: size[1] // 2, size[0] // 2 :] = (40, 200, 40)
        image[size[1] // 2 :, : size[0] // 2] = (40, 40, 200)
        return image

    path = write_video(tmp_path / "phone.mp4", 3, rotation=counterclockwise or None, draw=quadrants)
    expected = np.rot90(quadrants(0, (160, 96)), counterclockwise // 90)
    with open_video(path) as video:
        assert video.probe.rotation_degrees == shown
        assert (video.probe.height, video.probe.width) == expected.shape[:2]
        for frame in video.frames():
            assert np.abs(frame.image.astype(int) - expected).mean() < 8
            small = frame.small((expected.shape[1] // 4, expected.shape[0] // 4))
            assert np.abs(small.astype(int) - expected[2::4, 2::4]).mean() < 20
            box = np.array([5, 5, 45, 45])
            assert np.abs(frame.crop(box, 40).astype(int) - expected[5:45, 5:45]).mean() < 8


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts", "clip.mpg", "clip.h264"])
def test_start_anywhere_gives_the_same_frames(tmp_path, name):
    codec = {".avi": "mpeg4", ".mpg": "mpeg2video"}.get(Path(name).suffix, "libx264")
    options = {"b": "1000000"} if codec != "libx264" else {"bf": "2"}
    path = write_video(tmp_path / name, 80, codec=codec, options=options)
    with open_video(path) as video:
        whole = [(f.index, f.pts_seconds, read_number(f.image)) for f in video.frames()]
        assert [number for *_, number in whole] == list(range(80))
        first = whole[0][1]
        for start in (first + 0.01, first + 0.5, first + 1.7, first + 2.37, first + 3.16):
            part = [(f.index, f.pts_seconds, read_number(f.image)) for f in video.frames(start_seconds=start)]
            assert part == [frame for frame in whole if frame[1] >= start]
            assert video.verdict.verdict == "ok", video.verdict
        assert list(video.frames(start_seconds=100.0)) == []
        again = [(f.index, f.pts_seconds, read_number(f.image)) for f in video.frames()]
    assert again == whole


def test_frames_outlive_the_video(clip):
    with open_video(clip) as video:
        frames = list(video.frames())
    assert [read_number(frame.image) for frame in frames] == list(range(60))


def test_size_asked_for(clip):
    with open_video(clip, size=(80, 48)) as video:
        frame = next(video.frames())
    assert frame.size == (80, 48)
    assert frame.image.shape == (48, 80, 3)


def test_small_and_grey(clip):
    with open_video(clip) as video:
        frame = next(video.frames())
    small, grey = frame.small((80, 48)), frame.small((80, 48), gray=True)
    whole = frame.image.reshape(48, 2, 80, 2, 3).mean((1, 3))
    assert small.shape == (48, 80, 3) and grey.shape == (48, 80)
    assert np.abs(small - whole).mean() < 3
    assert np.abs(grey - whole @ (0.299, 0.587, 0.114)).mean() < 4
    held = Frame(frame.image, 0.0, 0)
    assert np.abs(held.small((80, 48)).astype(int) - small).mean() < 3
    assert np.abs(held.small((80, 48), gray=True).astype(int) - grey).mean() < 4


@pytest.mark.parametrize("size", [(400, 302), (401, 301)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "rgb24"])
def test_crop_is_the_crop_of_the_image(tmp_path, pixel_format, size):
    noise = np.random.default_rng(0)

    def texture(number, size):
        return noise.integers(0, 255, (size[1], size[0], 3), np.uint8)

    codec, name = ("png", "v.mov") if pixel_format == "rgb24" else ("ffv1", "v.mkv")
    path = write_video(tmp_path / name, 2, codec=codec, pixel_format=pixel_format, size=size, draw=texture)
    boxes = ([100.3, 80.2, 180.9, 160.8], [-30, -20, 50, 60], [350, 250, 430, 330], [390, 5, 402, 17], [0, 0, 120, 120])
    for box in np.array(boxes):
        with open_video(path) as video:
            frame = next(video.frames())
            crop = frame.crop(box, 64)
            np.testing.assert_array_equal(crop, crop_resize(frame.image, box, 64))


@pytest.mark.parametrize("size", [(400, 302), (402, 298), (401, 301)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gray"])
def test_crop_that_shrinks_is_about_the_crop_of_the_image(tmp_path, pixel_format, size):
    coarse = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)

    def blots(number, size):
        return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)

    path = write_video(tmp_path / "v.mkv", 2, codec="ffv1", pixel_format=pixel_format, size=size, draw=blots)
    for box in np.array([[10, 20, 150, 160], [-40, -30, 200, 210], [150, 60, 410, 320], [100, 40, 700, 640.0]]):
        with open_video(path) as video:
            frame = next(video.frames())
            crop = frame.crop(box, 32).astype(int)
            expected = crop_resize(frame.image, box, 32)
            difference = np.abs(crop - expected)
            assert difference.mean() < 2.5
            assert np.percentile(difference, 99) < 20


def test_find_videos(tmp_path):
    for name in ("b.mp4", "a.MOV", "notes.txt", ".hidden.mp4", "deep/er/c.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    named = tmp_path / "notes.txt"
    found = find_videos([tmp_path, named, tmp_path / "b.mp4", tmp_path / "missing.mp4"])
    assert found == sorted(tmp_path / n for n in ("b.mp4", "a.MOV", "deep/er/c.avi", "notes.txt", "missing.mp4"))


def test_real_videos(shared_data):
    expected = {
        "people/park_two_people.mp4": (1768, 994, 230),
        "animals/mirror_mouse.mp4": (396, 406, 994),
        "people_four_cameras/videos/cam01.mp4": (1088, 1920, 11),
    }
    for name, (width, height, count) in expected.items():
        with open_video(shared_data / name) as video:
            frames = [frame.index for frame in video.frames()]
            assert (video.probe.width, video.probe.height, len(frames)) == (width, height, count), name
            assert video.verdict.verdict == "ok", (name, video.verdict)


def test_no_such_file(tmp_path):
    with pytest.raises(VideoError, match=r"nothing.mp4: no such file; skipped"):
        open_video(tmp_path / "nothing.mp4")


def test_ffmpeg_agrees_on_rotation(tmp_path):
    """The sign of the display matrix, against the reference implementation."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg command")
    path = write_video(tmp_path / "phone.mp4", 1, rotation=90)
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True,
        capture_output=True,
    ).stdout
    with open_video(path) as video:
        image = next(video.frames()).image
    assert np.abs(np.frombuffer(raw, np.uint8).reshape(image.shape).astype(int) - image).mean() < 3
