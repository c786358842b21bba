"""Who is who."""

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.structures import Keypoints
from streampose.tracking.identities import REMEMBER_SECONDS, Identities

SKELETON = load_skeleton("human17")
RED, GREEN, BLUE = (200, 40, 30), (40, 180, 50), (30, 50, 190)


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    return Clock()


def scene(*subjects: tuple[float, tuple[int, int, int]]) -> tuple[Keypoints, np.ndarray]:
    """People of one colour each, at these places: their keypoints and the picture."""
    image = np.full((240, 640, 3), 128, np.uint8)
    pose = np.zeros((SKELETON.num_joints, 3))
    for bone in SKELETON.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.array(bone.direction)
    xy = np.array([pose[:, :2] * 180 + (x, 110) for x, _ in subjects]).reshape(-1, SKELETON.num_joints, 2)
    for points, (_, colour) in zip(xy, subjects, strict=True):
        x0, y0 = np.maximum(points.min(0) - 5, 0).astype(int)
        x1, y1 = (points.max(0) + 5).astype(int)
        image[y0:y1, x0:x1] = colour
    return Keypoints(xy, np.full(xy.shape[:2], 0.9)), image


def test_who_comes_back_gets_the_old_number(clock):
    identities = Identities(SKELETON, clock)
    for _ in range(5):
        assert identities.name([0, 1], *scene((100, RED), (400, GREEN))) == [0, 1]
    identities.name([1], *scene((400, GREEN)))
    clock.now += 5
    assert identities.name([1, 2], *scene((400, GREEN), (150, RED))) == [1, 0]
    assert identities.name([1, 0], *scene((400, GREEN), (150, RED))) == [1, 0]


def test_a_stranger_gets_a_new_number(clock):
    identities = Identities(SKELETON, clock)
    identities.name([0], *scene((100, RED)))
    identities.name([], *scene())
    assert identities.name([1], *scene((100, BLUE))) == [1]


def test_who_was_away_for_long_is_forgotten(clock):
    identities = Identities(SKELETON, clock)
    identities.name([0], *scene((100, RED)))
    clock.now += REMEMBER_SECONDS + 1
    identities.name([], *scene())
    assert identities.name([1], *scene((100, RED))) == [1]


def test_of_two_who_look_alike_none_is_guessed(clock):
    identities = Identities(SKELETON, clock)
    identities.name([0, 1], *scene((100, RED), (400, RED)))
    identities.name([], *scene())
    assert identities.name([2], *scene((100, RED))) == [2]


def test_two_who_were_confused_while_passing_get_their_numbers_back(clock):
    identities = Identities(SKELETON, clock)
    for x in range(0, 140, 10):
        names = identities.name([0, 1], *scene((200 + x, RED), (480 - x, GREEN)))
    assert names == [0, 1]
    identities.name([0, 1], *scene((335, GREEN), (345, GREEN)))
    assert identities.name([0, 1], *scene((200, GREEN), (500, RED))) == [1, 0]


def test_two_who_pass_rightly_keep_their_numbers(clock):
    identities = Identities(SKELETON, clock)
    for x in range(0, 300, 10):
        assert identities.name([0, 1], *scene((180 + x, RED), (480 - x, GREEN))) == [0, 1]


def test_nobody(clock):
    assert Identities(SKELETON, clock).name([], *scene()) == []
