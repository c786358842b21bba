"""Where to look for somebody who stands still before several cameras."""

import numpy as np
import pytest

from streampose import session_still as module
from streampose.runtime.standing import Standing
from streampose.session_still import find_standing
from streampose.sessions import load_session
from streampose.structures import Camera, Session, View
from streampose.tracking.boxes import box_iou
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

FPS, SIZE = 10.0, (96, 72)
MAN = {  # where he is in people_four_cameras, in source pixels, measured by hand
    "cam01": (105, 347, 882, 1221),
    "cam02": (139, 383, 952, 1165),
    "cam03": (94, 405, 743, 1290),
    "cam04": (28, 427, 865, 1273),
}


@pytest.fixture
def session(tmp_path):
    """Three views of 30 frames; the second camera's clock is half a second behind."""
    views = []
    for n in range(3):
        with VideoWriter(tmp_path / f"cam{n}.mp4", FPS, SIZE) as video:
            for t in range(30):
                video.write(np.full((SIZE[1], SIZE[0], 3), 3 * t, np.uint8))
        camera = Camera(np.array([[90.0, 0, 47.5], [0, 90, 35.5], [0, 0, 1]]), np.eye(3), np.array([n, 0, 4.0]), SIZE)
        views.append(View(f"cam{n}", tmp_path / f"cam{n}.mp4", camera, 0.5 if n == 1 else 0.0))
    return Session("still", tuple(views))


class Found:
    """Stands for `StillSubject`, whose own tests look at pictures: two views see it from the third moment on."""

    looks = 0
    given_up = False
    views: list[int] = []

    def __init__(self, cameras):
        assert len(cameras) == 3

    def look(self, images):
        assert len(images) == 3
        self.looks += 1
        if self.looks < 3:
            return {}
        self.views = [0, 1]
        mask = np.zeros((32, 32), np.uint8)
        mask[8:24, 12:20] = 255
        # the crop shows the picture from (20, 10) on, at half its size; in the second view 8 pixels further right
        return {n: (mask, np.array([[0.5, 0, -10 - 4 * n], [0, 0.5, -5]])) for n in self.views}

    def said(self):
        return "somebody"


def test_squares_of_the_views_that_wait(session, monkeypatch):
    monkeypatch.setattr(module, "StillSubject", Found)
    found = find_standing(session, [session.views[1].video, session.views[2].video], padding=0.1)
    assert list(found) == [session.views[1].video]  # the third view does not show it, the first one does not wait
    standing = found[session.views[1].video]
    assert standing.note.endswith("somebody") and len(standing.seconds) == len(standing.squares) >= 5
    centre = (standing.squares[:, :2] + standing.squares[:, 2:]) / 2
    np.testing.assert_allclose(centre, np.tile([20 + 8 + 32, 10 + 32], (len(centre), 1)), atol=1.5)
    side = standing.squares[:, 2] - standing.squares[:, 0]
    np.testing.assert_allclose(side, 32 * 1.2, atol=3)
    with open_video(session.views[1].video) as video:
        places = list(standing.find(video.frames(), video.probe))
    assert len(places) == 30 and all(place.ids == [0] and place.proven == {0} for place in places)


def test_between_two_looks_the_square_moves_evenly(session):
    squares = np.array([[0, 0, 10, 10], [10, 0, 20, 10]], np.float32)
    standing = Standing(np.array([1.0, 2.0]), squares, "")
    with open_video(session.views[0].video) as video:
        left = [place.boxes[0, 0] for place in standing.find(video.frames(), video.probe)]
    np.testing.assert_allclose(left[:11], 0, atol=1e-4)  # before the first look it stands where it is found then
    np.testing.assert_allclose(left[10:21], np.arange(11), atol=1e-4)
    np.testing.assert_allclose(left[20:], 10, atol=1e-4)


def test_nobody_is_made_up(session, monkeypatch):
    class Nobody(Found):
        def look(self, images):
            self.given_up = True
            return {}

    monkeypatch.setattr(module, "StillSubject", Nobody)
    videos = [view.video for view in session.views]
    assert find_standing(session, videos, 0.1) == {}
    monkeypatch.setattr(module, "StillSubject", lambda cameras: pytest.fail("looked for without need"))
    assert find_standing(session, [], 0.1) == {}
    assert find_standing(Session("one", session.views[:1]), videos, 0.1) == {}


def test_a_view_that_cannot_be_read_ends_the_search(session, monkeypatch, caplog):
    monkeypatch.setattr(module, "StillSubject", Found)
    session.views[2].video.write_text("no video")
    assert find_standing(session, [session.views[0].video], 0.1) == {}
    assert "cannot be followed" in caplog.text


@pytest.mark.slow
def test_it_is_the_man_in_all_four_views(shared_data):
    folder = shared_data / "people_four_cameras"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    recording = load_session(folder)
    found = find_standing(recording, [view.video for view in recording.views], 0.0)
    assert {path.stem for path in found} == set(MAN)
    for path, standing in found.items():
        x0, y0, x1, y1 = MAN[path.stem]
        half = max(x1 - x0, y1 - y0) / 2
        square = np.array([[(x0 + x1) / 2 - half, (y0 + y1) / 2 - half, (x0 + x1) / 2 + half, (y0 + y1) / 2 + half]])
        assert box_iou(standing.squares, square.astype(np.float32)).min() > 0.7
