import cv2
import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.geometry.board import Board, Detection, bend, find_board
from streampose.geometry.distortion import project
from streampose.structures import Camera
from streampose.synthetic.board import board_picture, render_board

CHECKERBOARD = Board("checkerboard", 7, 4, 0.06)
CHARUCO = Board("charuco", 7, 5, 0.06, 0.045)
K = np.array([[560.0, 0, 236], [0, 562, 183], [0, 0, 1]])


def camera_at(R, t, distortion=(-0.15, 0.05, 0, 0)):
    return Camera(K, R, np.asarray(t), (480, 360), np.array(distortion))


def turn(*degrees):
    return cv2.Rodrigues(np.radians(np.array(degrees, float)))[0]


@pytest.mark.parametrize("board", [CHECKERBOARD, CHARUCO], ids=["checkerboard", "charuco"])
@pytest.mark.parametrize("angles", [(20, -15, 10), (-10, 25, 170), (15, 10, -95)])
def test_corners_are_found_where_they_are_and_counted_from_the_same_end(board, angles):
    R = turn(0, 0, angles[2]) @ turn(angles[0], angles[1], 0)
    centre = board.points.mean(0)
    camera = camera_at(R, np.array([0.01, -0.02, 0.95]) - R @ centre)
    image = render_board(board, camera, camera.R, camera.t)
    detection = find_board(image, board)
    truth = project(board.points[detection.ids], camera)
    miss = np.linalg.norm(detection.xy - truth, axis=-1)
    assert miss.max() < 0.3 and np.sqrt(np.mean(miss**2)) < 0.08
    assert len(detection.ids) == len(board.points) and bend(detection, board) < 0.02
    again = find_board(np.repeat(image[..., None], 3, -1), board)
    np.testing.assert_allclose(again.xy, detection.xy, atol=1.0)


def test_a_charuco_board_may_be_cut_off_and_a_checkerboard_may_not():
    cut = np.array([-0.42, -0.12, 0.6])
    camera = camera_at(np.eye(3), cut)
    detection = find_board(render_board(CHARUCO, camera, camera.R, camera.t), CHARUCO)
    assert 6 <= len(detection.ids) < 35
    assert np.linalg.norm(detection.xy - project(CHARUCO.points[detection.ids], camera), axis=-1).max() < 0.3
    assert find_board(render_board(CHECKERBOARD, camera, camera.R, camera.t), CHECKERBOARD) is None


def test_pictures_without_a_board():
    rng = np.random.default_rng(0)
    for image in (np.full((200, 300), 128, np.uint8), rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)):
        assert find_board(image, CHECKERBOARD) is None and find_board(image, CHARUCO) is None


def test_corners_that_were_counted_wrongly_bend():
    xy = CHECKERBOARD.points[:, :2] * 500 + 50
    right = Detection(np.arange(28), xy)
    assert bend(right, CHECKERBOARD) < 1e-6
    swapped = xy.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert bend(Detection(np.arange(28), swapped), CHECKERBOARD) > 0.2


def test_the_printed_board():
    picture = board_picture(CHECKERBOARD, square_px=10)
    assert picture.shape == (60, 90) and picture[0, 0] == 255 and picture[8, 8] == 0 and picture[8, 18] == 255
    assert find_board(board_picture(CHARUCO, 40), CHARUCO) is not None


def test_boards_that_cannot_be(tmp_path):
    for arguments, message in [
        (("paper", 7, 4, 0.06), "--board paper"),
        (("checkerboard", 1, 4, 0.06), "--corners 1x4"),
        (("checkerboard", 7, 4, 0.0), "--square-mm 0"),
        (("charuco", 7, 4, 0.06, 0.07), "--marker-mm 70"),
        (("charuco", 7, 4, 0.06, 0.04, "DICT_9"), "--dictionary DICT_9"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Board(*arguments)
    assert Board("checkerboard", 7, 4, 1.0).one_way_up and not Board("checkerboard", 7, 5, 1.0).one_way_up
