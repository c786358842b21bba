import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.geometry.bones import with_bones
from streampose.priors.retarget import AXES, about_root, bone_lengths_of
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


def lengths(poses, skeleton=HUMAN):
    a, b = ([getattr(bone, end) for bone in skeleton.bones] for end in ("parent", "child"))
    return np.linalg.norm(poses[:, b] - poses[:, a], axis=-1)


def directions(poses):
    a, b = ([getattr(bone, end) for bone in HUMAN.bones] for end in ("parent", "child"))
    ways = poses[:, b] - poses[:, a]
    return ways / np.linalg.norm(ways, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def poses():
    return built_in_prior(HUMAN, 200, seed=5).poses.astype(float)


def test_bones_get_one_length_and_keep_their_directions(poses):
    wanted = bone_lengths_of(HUMAN, poses)
    assert wanted.shape == (16,) and 0.3 < wanted[1] < 0.5
    for scale in (1.0, 1000.0):  # metres or millimetres: lengths are ours
        found = with_bones(poses * scale, HUMAN, wanted)
        np.testing.assert_allclose(lengths(found), np.broadcast_to(wanted, (200, 16)), atol=1e-9)
        np.testing.assert_allclose(directions(found), directions(poses), atol=1e-9)
    np.testing.assert_allclose(with_bones(found, HUMAN, wanted), found, atol=1e-9)


def test_missing_joints_stay_missing_and_carry_nobody_away(poses):
    wanted = bone_lengths_of(HUMAN, poses)
    whole = with_bones(poses, HUMAN, wanted)
    gap = poses.copy()
    elbow, wrist = HUMAN.joints.index("left_elbow"), HUMAN.joints.index("left_wrist")
    gap[:, elbow] = np.nan
    found = with_bones(gap, HUMAN, wanted)
    others = [k for k in range(17) if k not in (elbow, wrist)]
    np.testing.assert_allclose(found[:, others], whole[:, others], atol=1e-9)
    assert np.isnan(found[:, elbow]).all()
    assert np.abs(found[:, wrist] - whole[:, wrist]).max() < 0.08  # its way from the shoulder, scaled
    gap = poses.copy()
    gap[:, HUMAN.root] = np.nan
    found = with_bones(gap, HUMAN, wanted)
    assert np.isnan(found[:, HUMAN.root]).all() and np.isfinite(found[:, 1:]).all()
    assert np.isnan(with_bones(np.full((2, 17, 3), np.nan), HUMAN, wanted)).all()


def test_animals_keep_their_size():
    mouse = load_skeleton("mouse")
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.03, (50, mouse.num_joints, 3))
    wanted = bone_lengths_of(mouse, poses)
    skeleton = np.array([bone.length for bone in mouse.bones])
    np.testing.assert_allclose(wanted / wanted[0], skeleton / skeleton[0])
    assert 0.5 < np.median(lengths(poses, mouse)) / np.median(wanted) < 2


def test_axes_are_rotations_that_turn_up_upwards():
    for name, theirs_up in (("-y", (0, -1, 0)), ("y", (0, 1, 0)), ("z", (0, 0, 1))):
        assert np.linalg.det(AXES[name]) == pytest.approx(1)
        np.testing.assert_array_equal(AXES[name] @ theirs_up, (0, -1, 0))


def test_about_the_root(poses):
    moved = poses + np.array([3.0, 4, 5])
    np.testing.assert_allclose(about_root(moved, HUMAN), poses, atol=1e-9)
    moved[:, HUMAN.root] = np.nan
    assert np.abs(np.nanmean(about_root(moved, HUMAN), 1)).max() < 1e-9
