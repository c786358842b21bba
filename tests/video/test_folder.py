"""Folders of numbered frames are one video; folders of photos are none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from streampose.errors import VideoError
from streampose.video.decode import find_videos, open_video
from streampose.video.folder import is_animated_webp, is_image_folder

from .drawing import numbered_picture, read_number


def fill(folder, names, size=(160, 96), **kwargs):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(numbered_picture(number, size)).save(folder / name, **kwargs)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.png" for i in range(12)],
        [f"cam1_frame{i:05d}.jpg" for i in range(3, 30)],
        [f"f{i * 5:03d}_left.png" for i in range(12)],
        [f"{i:03d}.png" for i in range(20) if i != 7],
    ],
)
def test_numbered_frames_are_one_video(tmp_path, names):
    folder = fill(tmp_path / "frames", names)
    assert is_image_folder(folder)
    assert find_videos([tmp_path]) == [folder] == find_videos([folder])


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([f"{i}.png" for i in range(9)], "9 images; at least 10"),
        ([f"{name}.png" for name in "abcdefghijkl"], "not named alike"),
        ([f"left_{i}.png" for i in range(10)] + [f"right_{i}.png" for i in range(10)], "not named alike"),
        ([f"IMG_{i}.png" for i in (1, 2, 5, 9, 11, 12, 17, 20, 24, 31, 40)], "29 of 40 numbers"),
        ([f"{i}.png" for i in range(10)] + ["10.jpg"], "not named alike"),
    ],
)
def test_other_pictures_are_none(tmp_path, names, why):
    folder = fill(tmp_path / "pictures", names)
    assert find_videos([tmp_path]) == []
    with pytest.raises(VideoError, match=why):
        open_video(folder)


def test_photos_of_a_camera_are_none(tmp_path):
    exif = Image.Exif()
    exif[271] = "Maker"
    folder = fill(tmp_path / "photos", [f"DSC_{i:04d}.jpg" for i in range(30)], exif=exif)
    assert find_videos([tmp_path]) == []
    with pytest.raises(VideoError, match="photos of a camera"):
        open_video(folder)


def test_pictures_of_different_sizes_are_none(tmp_path):
    folder = fill(tmp_path / "pictures", [f"{i}.png" for i in range(12)])
    Image.fromarray(numbered_picture(11, (200, 100))).save(folder / "11.png")
    assert not is_image_folder(folder)


def test_pictures_beside_videos_are_none(tmp_path):
    folder = fill(tmp_path / "videos", [f"thumb{i}.png" for i in range(12)])
    (folder / "a.mp4").touch()
    assert find_videos([tmp_path]) == [folder / "a.mp4"]


def test_frames_have_times_and_pixels(tmp_path):
    folder = fill(tmp_path / "frames", [f"{i}.png" for i in range(12)])
    (folder / "fps.txt").write_text("50\n")
    with open_video(folder) as video:
        frames = list(video.frames())
        assert [read_number(f.image) for f in frames] == list(range(12))
        np.testing.assert_allclose([f.pts_seconds for f in frames], np.arange(12) / 50, atol=1e-6)
        np.testing.assert_array_equal(frames[3].image, numbered_picture(3, (160, 96)))
        assert (video.probe.fps, video.probe.frames_estimate, video.probe.codec) == (50.0, 12, "png images")
        assert [f.index for f in video.frames(0.1)] == list(range(5, 12))
        assert video.verdict.verdict == "ok" and not video.verdict.reason


def test_rate_is_assumed_aloud_and_checked(tmp_path):
    folder = fill(tmp_path / "frames", [f"{i}.png" for i in range(12)])
    with open_video(folder) as video:
        assert "25 frames a second were assumed" in video.verdict.reason and video.verdict.verdict == "ok"
    (folder / "fps.txt").write_text("fast")
    with pytest.raises(VideoError, match="not a number of frames a second"):
        open_video(folder)


def test_sixteen_bits_and_grey(tmp_path):
    folder = tmp_path / "depth"
    folder.mkdir()
    for i in range(12):
        grey = numbered_picture(i, (160, 96))[..., 0]
        Image.fromarray(grey.astype(np.uint16) * 257).save(folder / f"{i}.png")
    with open_video(folder) as video:
        for i, frame in enumerate(video.frames()):
            np.testing.assert_array_equal(frame.image[..., 0], numbered_picture(i, (160, 96))[..., 0])


def test_still_and_animated_webp(tmp_path):
    images = [Image.fromarray(numbered_picture(i, (160, 96))) for i in range(5)]
    images[0].save(tmp_path / "still.webp")
    images[0].save(tmp_path / "moving.webp", save_all=True, append_images=images[1:], duration=[40, 80, 20, 40, 40])
    assert not is_animated_webp(tmp_path / "still.webp") and is_animated_webp(tmp_path / "moving.webp")
    assert find_videos([tmp_path]) == [tmp_path / "moving.webp"]
    with open_video(tmp_path / "moving.webp") as video:
        assert [round(f.pts_seconds, 3) for f in video.frames()] == [0, 0.04, 0.12, 0.14, 0.18]
    with pytest.raises(VideoError, match="a still picture"):
        open_video(tmp_path / "still.webp")
