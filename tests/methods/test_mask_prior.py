"""Random figures from a skeleton file: lengths, swings, naming of sides, silhouettes and dolls."""

import numpy as np
import pytest

from streampose.config import load_skeleton, skeleton_from_dict
from streampose.methods.mask_prior import dolls, face_camera, facing_sign, random_figures, silhouettes


@pytest.fixture(scope="module")
def human():
    return load_skeleton("human17")


def lengths_of(skeleton, joints):
    return np.stack([np.linalg.norm(joints[:, b.child] - joints[:, b.parent], axis=-1) for b in skeleton.bones], 1)


def test_bones_have_about_their_lengths_and_sides_are_equal(human):
    joints = random_figures(human, 200, np.random.default_rng(0)).joints
    lengths = lengths_of(human, joints)
    expected = np.array([bone.length for bone in human.bones])
    assert np.all(lengths > 0.79 * expected) and np.all(lengths < 1.21 * expected)
    np.testing.assert_allclose(lengths.mean(0), expected, rtol=0.03)
    children = [human.joints[bone.child] for bone in human.bones]
    left, right = children.index("left_elbow"), children.index("right_elbow")
    np.testing.assert_allclose(lengths[:, left], lengths[:, right])


def test_swings_stay_within_their_degrees():
    values = {
        "name": "two", "root": "a", "joints": ["a", "b", "c"], "torso": ["a", "c"], "turn_degrees": [0, 0, 0],
        "bones": [
            {"joints": ["a", "b"], "length": 0.5, "radius": 0.05, "direction": [0, 1, 0], "swing_degrees": 0},
            {"joints": ["b", "c"], "length": 0.5, "radius": 0.05, "direction": [0, 1, 0], "swing_degrees": 60,
             "toward": [0, 0, 1]},
        ],
    }  # fmt: skip
    joints = random_figures(skeleton_from_dict(values), 500, np.random.default_rng(0)).joints
    first, second = joints[:, 1] - joints[:, 0], joints[:, 2] - joints[:, 1]
    np.testing.assert_allclose(first[:, [0, 2]], 0, atol=1e-9)
    angle = np.degrees(np.arccos((second[:, 1] / np.linalg.norm(second, axis=-1)).clip(-1, 1)))
    assert 40 < angle.max() <= 60.001
    assert (second[:, 2] > -1e-6).mean() > 0.95  # it bends toward +z


def test_whole_body_turns_are_those_of_the_skeleton(human):
    mouse = load_skeleton("mouse")
    joints = random_figures(mouse, 300, np.random.default_rng(0)).joints
    nose, tail = (joints[:, mouse.joints.index(name)] for name in ("nose", "tail_base"))
    heading = np.degrees(np.arctan2(*(nose - tail)[:, [1, 0]].T))
    assert heading.min() < -150 and heading.max() > 150  # turns every way in the picture
    assert np.abs((nose - tail)[:, 2]).mean() < 0.2 * np.linalg.norm(nose - tail, axis=-1).mean()  # seen from above


def test_of_mirror_images_in_depth_the_one_that_faces_the_camera_is_taught(human):
    joints = random_figures(human, 100, np.random.default_rng(1)).joints
    signs = facing_sign(human, joints)
    assert 0.3 < (signs > 0).mean() < 0.7
    faced = face_camera(human, joints)
    assert np.all(facing_sign(human, faced) > 0)
    np.testing.assert_allclose(np.sort(faced[..., 0], 1), np.sort(joints[..., 0], 1))  # the same points in the picture
    np.testing.assert_allclose(lengths_of(human, faced), lengths_of(human, joints))
    mouse = load_skeleton("mouse")  # never seen from below: its sides can be told
    joints = random_figures(mouse, 10, np.random.default_rng(0)).joints
    np.testing.assert_array_equal(face_camera(mouse, joints), joints)


@pytest.mark.parametrize("name", ["human17", "mouse"])
def test_silhouettes_cover_their_joints_and_repeat(name):
    skeleton = load_skeleton(name)
    masks, joints = silhouettes(skeleton, 24, 64, np.random.default_rng(3))
    again, _ = silhouettes(skeleton, 24, 64, np.random.default_rng(3))
    np.testing.assert_array_equal(masks, again)
    assert masks.shape == (24, 64, 64) and joints.shape == (24, skeleton.num_joints, 3)
    root = np.round((joints[:, skeleton.root, :2] + 1) * 32 - 0.5).astype(int).clip(0, 63)
    covered = masks[np.arange(24), root[:, 1], root[:, 0]] > 127
    assert covered.mean() > 0.8
    assert 0.01 < (masks > 127).mean() < 0.5


def test_dolls_leave_the_background_and_name_sides_like_silhouettes(human):
    backgrounds = np.full((16, 64, 64, 3), 90, np.uint8)
    images, joints = dolls(human, backgrounds, np.random.default_rng(0))
    assert images.shape == backgrounds.shape and images.dtype == np.uint8
    changed = (np.abs(images.astype(int) - 90) > 8).any(-1)
    assert 0.02 < changed.mean() < 0.5
    assert np.all(facing_sign(human, joints) > 0)
