"""Boxes of what moves, on drawn scenes."""

import numpy as np
import pytest

from streampose.server.motion import LEARN_CALLS, MotionFinder
from streampose.video.walker import draw_walker, walker_joints


@pytest.fixture(scope="module")
def wall():
    return np.random.default_rng(0).integers(60, 190, (30, 40, 3), np.uint8).repeat(16, 0).repeat(16, 1)


def with_square(wall, x, y, side=60):
    image = wall.copy()
    image[y : y + side, x : x + side] = (250, 40, 40)
    return image


def test_nothing_is_said_before_the_background_is_learnt(wall):
    find = MotionFinder()
    assert [find(wall) for _ in range(LEARN_CALLS)] == [None] * LEARN_CALLS
    assert find(wall).shape == (0, 4)


def test_what_comes_into_the_scene_is_found_where_it_is(wall):
    find = MotionFinder()
    for _ in range(LEARN_CALLS + 1):
        find(wall)
    for x in (100, 140, 180):
        boxes = find(with_square(wall, x, 200))
        assert len(boxes) == 1
        np.testing.assert_allclose(boxes[0], [x, 200, x + 60, 260], atol=8)


def test_what_moves_now_comes_before_what_has_stopped(wall):
    find = MotionFinder()
    for _ in range(LEARN_CALLS + 1):
        find(wall)
    for n in range(4):
        image = with_square(with_square(wall, 60, 60, side=90), 300 + 20 * n, 300)
        boxes = find(image)
    assert len(boxes) == 2
    assert boxes[0][0] > 250


def test_a_moving_camera_is_noticed(wall):
    find = MotionFinder()
    for _ in range(LEARN_CALLS + 1):
        find(wall)
    assert [find(np.roll(wall, 9 * n, 1)) for n in range(1, 6)] == [None] * 5


def test_a_new_resolution_begins_anew(wall):
    find = MotionFinder()
    for _ in range(LEARN_CALLS + 1):
        find(wall)
    assert find(wall[:300]) is None


def test_the_walker_of_the_test_source_is_found():
    find = MotionFinder()
    overlaps = []
    for n in range(90):
        boxes = find(draw_walker(n / 10))
        if boxes is None or not len(boxes) or n < 40:
            continue
        joints = np.array(list(walker_joints(n / 10, (640, 480)).values()))
        x, y = joints.mean(0)
        overlaps.append(boxes[0][0] < x < boxes[0][2] and boxes[0][1] < y < boxes[0][3])
    assert len(overlaps) > 40 and np.mean(overlaps) > 0.9
