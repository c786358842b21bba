import numpy as np

from streampose.config import load_skeleton
from streampose.runtime.draw import LEFT, RIGHT, draw_skeletons
from streampose.structures import Keypoints

SKELETON = load_skeleton("human17")


def grid(confidence):
    """17 joints on a grid, 20 px apart."""
    xy = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)[:17] * 20.0 + 20
    return Keypoints(xy[None].astype(np.float32), np.full((1, 17), confidence, np.float32))


def test_left_and_right_have_their_colours_and_the_input_stays():
    image = np.zeros((120, 140, 3), np.uint8)
    drawn = draw_skeletons(image, grid(1.0), SKELETON)
    assert not image.any() and drawn.any()
    for name, color in (("left_wrist", LEFT), ("right_wrist", RIGHT)):
        x, y = grid(1.0).xy[0, SKELETON.joints.index(name)].astype(int)
        assert tuple(drawn[y, x]) == color


def test_unsure_joints_are_fainter():
    image = np.zeros((120, 140, 3), np.uint8)
    sure, unsure = (draw_skeletons(image, grid(c), SKELETON).astype(int).sum() for c in (1.0, 0.2))
    assert 0.2 * sure < unsure < 0.5 * sure


def test_missing_and_far_joints_do_no_harm():
    keypoints = grid(1.0)
    keypoints.xy[0, 3] = np.nan
    keypoints.xy[0, 5] = (1e7, -1e7)
    drawn = draw_skeletons(
        np.zeros((120, 140, 3), np.uint8), keypoints, SKELETON, boxes=np.array([[0, 0, 50, 50]]), ids=[3]
    )
    assert drawn.any()
    gone = Keypoints(np.full((1, 17, 2), np.nan), np.zeros((1, 17)))
    assert not draw_skeletons(np.zeros((120, 140, 3), np.uint8), gone, SKELETON).any()
    outside = Keypoints(grid(1.0).xy - 500, np.ones((1, 17)))
    assert not draw_skeletons(np.zeros((120, 140, 3), np.uint8), outside, SKELETON).any()
