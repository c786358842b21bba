"""Poses in the template's frame: turned and scaled ones come out alike, for people and for a mouse."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.geometry.template import align_to_template, bone_lengths, rest_pose, template_joints


@pytest.mark.parametrize("name", ["human17", "coco17", "mouse"])
def test_turned_and_scaled_poses_come_out_as_they_were(name):
    skeleton, rng = load_skeleton(name), np.random.default_rng(0)
    rest = rest_pose(skeleton)
    turns = Rotation.random(6, random_state=1).as_matrix()
    poses = 1.8 * (rest @ np.swapaxes(turns, 1, 2)) + rng.normal(0, 1, (6, 1, 3))
    aligned, size = align_to_template(poses, skeleton)
    np.testing.assert_allclose(aligned, np.broadcast_to(rest, aligned.shape), atol=1e-6)
    np.testing.assert_allclose(size, 1.8)


def test_the_size_is_that_of_all_bones_however_they_bend():
    skeleton, rng = load_skeleton("human17"), np.random.default_rng(0)
    poses = rest_pose(skeleton) + rng.normal(0, 0.1, (4, 17, 3))
    aligned, _ = align_to_template(poses, skeleton)
    total = sum(bone.length for bone in skeleton.bones)
    np.testing.assert_allclose(bone_lengths(aligned, skeleton).sum(-1), total)
    assert np.abs(aligned[:, skeleton.root]).max() == 0


def test_people_are_aligned_by_hips_and_shoulders():
    human = load_skeleton("human17")
    assert [human.joints[k] for k in template_joints(human)] == [
        "right_hip", "left_hip", "left_shoulder", "right_shoulder",
    ]  # fmt: skip
    mouse = load_skeleton("mouse")
    assert template_joints(mouse) == list(range(mouse.num_joints))


def test_a_pose_without_extent_is_refused():
    with pytest.raises(ConfigError, match="no extent"):
        align_to_template(np.zeros((1, 17, 3)), load_skeleton("human17"))
