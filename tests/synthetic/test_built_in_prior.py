import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.synthetic.body import average_rig
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module")
def prior():
    return built_in_prior(HUMAN, 700, seed=1)


def test_it_is_what_its_seed_says(prior):
    again = built_in_prior(HUMAN, 700, seed=1)
    np.testing.assert_array_equal(prior.poses, again.poses)
    assert not np.array_equal(prior.poses, built_in_prior(HUMAN, 700, seed=2).poses)
    np.testing.assert_array_equal(prior.poses[:300], built_in_prior(HUMAN, 300, seed=1).poses)
    assert prior.poses.shape == (700, 17, 3) and prior.joints == HUMAN.joints and len(set(prior.groups)) == 22


def test_poses_are_people_in_our_axes(prior):
    assert np.isfinite(prior.poses).all() and not prior.poses[:, HUMAN.root].any()
    name = HUMAN.joints.index
    above = prior.poses[:, name("head"), 1] < prior.poses[:, name("pelvis"), 1]  # y points down
    assert above.mean() > 0.9
    length = np.linalg.norm(prior.poses[:, name("left_knee")] - prior.poses[:, name("left_hip")], axis=-1)
    assert (length > 0.33).all() and (length < 0.53).all()
    for person in np.unique(prior.groups):  # bones are rigid
        assert length[prior.groups == person].std() < 1e-5
    across = prior.poses[:, name("left_hip")] - prior.poses[:, name("right_hip")]
    yaw = np.arctan2(across[:, 2], across[:, 0])
    assert np.histogram(yaw, 8, (-np.pi, np.pi))[0].min() > 10  # they face every way


def test_left_is_left():
    poses = built_in_prior(HUMAN, 200, seed=3).poses
    name = HUMAN.joints.index
    left = poses[:, name("left_shoulder")] - poses[:, name("right_shoulder")]
    up = poses[:, name("thorax")] - poses[:, name("pelvis")]
    nose = poses[:, name("nose")] - (poses[:, name("thorax")] + poses[:, name("head")]) / 2
    # in a right-handed frame, forward = left x up
    assert ((np.cross(left, up) * nose).sum(-1) > 0).mean() > 0.97


def test_other_skeletons(prior):
    for name in ("coco17", "mpii16"):
        assert np.isfinite(built_in_prior(load_skeleton(name), 40).poses).all()
    with pytest.raises(ConfigError, match="people have no joint"):
        built_in_prior(load_skeleton("mouse"), 10)
    assert len(built_in_prior(HUMAN, 0)) == 0


def test_the_average_person_has_the_skeletons_lengths():
    rig = average_rig(1.0)
    points = {joint: rig.landmarks[joint].points.mean(0) for joint in HUMAN.joints}
    for bone in HUMAN.bones:
        a, b = HUMAN.joints[bone.parent], HUMAN.joints[bone.child]
        assert np.linalg.norm(points[a] - points[b]) == pytest.approx(bone.length, abs=0.035), (a, b)
