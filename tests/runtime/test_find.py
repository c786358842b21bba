from types import SimpleNamespace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.runtime.find import Finder, Follower
from streampose.structures import Keypoints
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

SIZE, FPS = (240, 160), 25.0
PREDICTOR = SimpleNamespace(skeleton=load_skeleton("human17"), padding=0.1)


def ground(seed, width=SIZE[0]):
    """A still, textured background of grey and coloured tiles."""
    tiles = np.random.default_rng(seed).integers(30, 120, (SIZE[1] // 8, width // 8, 3), np.uint8)
    return tiles.repeat(8, 0).repeat(8, 1)


def paint(image, centre, color, half=(10, 16)):
    x, y = np.rint(centre).astype(int)
    image[max(y - half[1], 0) : y + half[1], max(x - half[0], 0) : x + half[0]] = color
    return image


def write(path, images):
    with VideoWriter(path, FPS, SIZE, crf=12) as writer:
        for image in images:
            writer.write(image)
    return path


def find(path, **kwargs):
    finder = Finder(path, PREDICTOR, **kwargs)
    with open_video(path) as video:
        found = list(finder.find(video.frames(), video.probe))
    return found, finder.note


def red(t):
    return np.array([30.0 + 2.2 * t, 45.0])


def blue(t):
    return np.array([205.0 - 2.2 * t, 115.0])


def test_two_subjects_keep_their_numbers_and_boxes_hold_them(tmp_path):
    images = [paint(paint(ground(0), red(t), (230, 40, 40)), blue(t), (40, 60, 240)) for t in range(75)]
    found, note = find(write(tmp_path / "two.mp4", images))
    assert [item.frame.index for item in found] == list(range(75)) and note == ""
    numbers = {"red": set(), "blue": set()}
    for t, item in enumerate(found):
        for name, centre in (("red", red(t)), ("blue", blue(t))):
            half = np.array([10, 16])
            low, high = centre - half, centre + half
            inside = [
                number for number, box in zip(item.ids, item.boxes, strict=True)
                if (box[:2] <= low + 2).all() and (box[2:] >= high - 2).all()
            ]  # fmt: skip
            assert len(inside) == 1 or t < 3 or t > 71, (t, name, item.boxes)
            numbers[name] |= set(inside)
    assert len(numbers["red"]) == len(numbers["blue"]) == 1 and numbers["red"] != numbers["blue"]
    boxes = np.stack([item.boxes[0] for item in found[5:-5]])
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1], rtol=1e-4)  # square
    assert np.median(boxes[:, 2] - boxes[:, 0]) < 2.0 * 32  # and not much larger than the subject
    assert np.abs(np.diff(boxes, axis=0)).max() < 8  # and steady


def test_max_subjects(tmp_path):
    images = [paint(paint(ground(0), red(t), (230, 40, 40)), blue(t), (40, 60, 240)) for t in range(50)]
    found, _ = find(write(tmp_path / "two.mp4", images), max_subjects=1)
    assert max(len(item.ids) for item in found) == 1


def test_a_cut_ends_the_tracks_to_the_frame(tmp_path):
    first = [paint(ground(0), red(t), (230, 40, 40)) for t in range(41)]
    second = [paint(ground(7), blue(t), (240, 240, 60)) for t in range(40)]
    found, note = find(write(tmp_path / "cut.mp4", first + second))
    assert note == "" and len(found) == 81
    before, after = found[40], found[41]
    assert set(before.ids).isdisjoint(after.ids)
    for item, centre in ((before, red(40)), (after, blue(0))):
        for box in item.boxes:
            assert (box[:2] < centre).all() and (box[2:] > centre).all()
    assert sum(len(item.ids) for item in found[41:]) >= 35
    assert not {n for item in found[:41] for n in item.ids} & {n for item in found[41:] for n in item.ids}


def test_an_empty_scene_has_nobody(tmp_path):
    noise = np.random.default_rng(1)
    images = [np.clip(ground(0) + noise.normal(0, 3, (*SIZE[::-1], 3)), 0, 255).astype(np.uint8) for _ in range(40)]
    found, _ = find(write(tmp_path / "empty.mp4", images))
    assert sum(len(item.ids) for item in found) == 0 and len(found) == 40


def test_a_moving_camera_is_said_and_the_whole_frame_is_looked_at(tmp_path):
    wide = ground(3, width=SIZE[0] + 8 * 60)
    images = [paint(wide[:, 5 * t : 5 * t + SIZE[0]].copy(), (120, 80), (230, 40, 40)) for t in range(80)]
    found, note = find(write(tmp_path / "pan.mp4", images))
    assert len(found) == 80 and "the camera moves" in note
    assert all(item.follower is not None and item.ids == [0] for item in found)
    np.testing.assert_allclose(found[0].boxes, [[0, -40, 240, 200]])


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_very_short_videos(tmp_path, frames):
    found, _ = find(write(tmp_path / "short.mp4", [paint(ground(0), red(t), (230, 40, 40)) for t in range(frames)]))
    assert [item.frame.index for item in found] == list(range(frames))


def standing(x, y):
    return np.array([x, y]) + np.stack([np.linspace(-10, 10, 17), np.linspace(-40, 40, 17)], -1)


def test_what_wanders_is_proven_and_what_flickers_is_not(tmp_path):
    images = []
    for t in range(75):
        image = paint(ground(0), red(t), (230, 40, 40))
        images.append(paint(image, (205, 120), (250, 250, 240), half=(6, 6)) if t % 25 > 12 else image)  # a lamp
    found, _ = find(write(tmp_path / "lamp.mp4", images))
    lamp, person = set(), set()
    for item in found:
        for number, box in zip(item.ids, item.boxes, strict=True):
            (lamp if box[1] > 90 else person).add(number)
    assert lamp and len(person) == 1
    proven = [item.proven for item in found]
    assert frozenset.union(*proven) == person
    first = next(t for t, known in enumerate(proven) if known)
    assert first < 25 and all(known == person for known in proven[first:72])  # once a subject, always one


def test_a_follower_is_proven_when_it_was_seen_often_enough():
    follower, sure = Follower((240, 160), PREDICTOR, 0, least_frames=3), np.full((1, 17), 0.9)
    for _ in range(2):
        follower.update(Keypoints(standing(100, 80)[None], sure))
        assert not follower.proven
    follower.update(Keypoints(standing(100, 80)[None], sure))
    assert follower.proven
    for _ in range(6):
        follower.update(Keypoints(standing(0, 0)[None], sure * 0.01))
    assert not follower.proven  # the next one begins anew


def test_follower_follows_loses_and_looks_again():
    follower = Follower((240, 160), PREDICTOR, 5)
    sure, unsure = np.full((1, 17), 0.9), np.full((1, 17), 0.01)
    assert follower.track == 5 and follower.box[2] - follower.box[0] == 240
    for t in range(20):
        assert follower.update(Keypoints(standing(100 + 2 * t, 80)[None], sure))
    centre = (follower.box[:2] + follower.box[2:]) / 2
    assert np.abs(centre - (138, 80)).max() < 6 and 80 < follower.box[2] - follower.box[0] < 150
    for _ in range(6):
        assert not follower.update(Keypoints(standing(0, 0)[None], unsure))
    assert follower.track == 6 and follower.box[2] - follower.box[0] == 240
