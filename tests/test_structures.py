import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.structures import Bone, Camera, Clip, Keypoints, Skeleton


def bone(parent, child):
    return Bone(parent, child, 1.0, 1.2, 0.1, (0.0, 1.0, 0.0), 30.0)


def skeleton(bones, **values):
    return Skeleton("test", ("a", "left", "right"), 0, bones, ((1, 2),), (0, 1), **values)


def test_skeleton_knows_parents_and_flips():
    tree = skeleton((bone(0, 1), bone(0, 2)))
    assert tree.parents == [0, 0, 0]
    assert tree.flip_index == [0, 2, 1]


@pytest.mark.parametrize(
    ("bones", "text"),
    [
        ((bone(0, 1),), "no bone reaches right"),
        ((bone(1, 2), bone(0, 1)), "does not grow"),
        ((bone(0, 1), bone(0, 2), bone(1, 2)), "does not grow"),
        ((bone(0, 1), bone(0, 3)), "names joint 3 of 3"),
    ],
)
def test_skeleton_must_be_a_tree(bones, text):
    with pytest.raises(ConfigError, match=text):
        skeleton(bones)


def test_camera_projects_by_its_matrix():
    camera = Camera(np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]]), np.eye(3), np.array([0.0, 0, 2]), (100, 80))
    point = camera.P @ [0.5, 0, 0, 1]
    assert np.allclose(point[:2] / point[2], [75, 40])


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"Keypoints.confidence has shape \(2, 3\)"):
        Keypoints(np.zeros((2, 4, 2)), np.zeros((2, 3)))
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"Clip.boxes has shape \(3, 4\), expected \(2, 4\)"):
        Clip("c", "s", frames, frames[..., 0], np.zeros((3, 4)), np.zeros(2), np.zeros(2))
