"""A subject that stands still: when it is looked for, in which views, and where its masks lie."""

import numpy as np
import pytest

from streampose.structures import Camera
from streampose.tracking import still_subject as module
from streampose.tracking.across_views import Subject
from streampose.tracking.still_subject import TRIES, StillSubject, in_picture

SIZE = (96, 72)


def make_cameras(count=3):
    K = np.array([[90.0, 0, 47.5], [0, 90, 35.5], [0, 0, 1]])
    return [Camera(K, np.eye(3), np.array([0.1 * n, 0, 4.0]), SIZE) for n in range(count)]


class Volume:
    """Stands for `SubjectVolume`: an empty mask of each view."""

    def __init__(self, cameras, head, foot):
        self.count = len(cameras)

    def segment(self, images):
        assert len(images) == self.count
        return [(np.zeros((8, 8), np.uint8), np.eye(2, 3)) for _ in images]


@pytest.fixture
def agree(monkeypatch):
    """Views agree from the third moment on, and the second one does not show the subject."""
    seen = []
    subject = Subject(np.array([0, -0.8, 0.0]), np.array([0, 0.8, 0.0]), np.array([True, False, True]), 1.0)
    monkeypatch.setattr(module, "find_candidates", lambda *_: [])
    monkeypatch.setattr(
        module, "choose_subject", lambda c, _: seen.append(len(c)) or (len(seen) > 2 and subject) or None
    )
    cameras = make_cameras()
    monkeypatch.setattr(module, "in_view", lambda _, camera: camera is not cameras[1])
    monkeypatch.setattr(module, "SubjectVolume", Volume)
    return cameras, seen


def test_it_is_looked_for_until_it_is_found(agree):
    cameras, seen = agree
    images = [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * 3
    still = StillSubject(cameras)
    assert still.look(images) == {} and still.look(images) == {} and still.subject is None
    assert "nobody" in still.said()
    assert set(still.look(images)) == {0, 2} == set(still.views)
    assert set(still.look(images)) == {0, 2} and seen == [3, 3, 3]  # followed, and looked for no more
    assert "2 of 3 views" in still.said() and "(HOG)" in still.said() and not still.given_up


def test_it_is_given_up(monkeypatch):
    looks = []
    monkeypatch.setattr(module, "find_candidates", lambda *_: looks.append(1) or [])
    still = StillSubject(make_cameras(2))
    for number in range(TRIES + 5):
        assert still.given_up == (number >= TRIES)
        assert still.look([np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * 2) == {}
    assert len(looks) == 2 * TRIES


def test_masks_in_the_views_own_picture():
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 12:20] = 255
    whole, box = in_picture(mask, np.array([[0.5, 0, -10], [0, 0.5, -5]]), SIZE)
    assert whole.shape == (SIZE[1], SIZE[0])
    np.testing.assert_allclose(box, [44, 26, 60, 58], atol=1.5)
    _, nothing = in_picture(mask, np.array([[0.5, 0, 200], [0, 0.5, -5]]), SIZE)
    assert nothing is None
