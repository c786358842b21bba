import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from streampose.config import load_skeleton
from streampose.geometry.distortion import project
from streampose.geometry.left_right import LeftRight, handedness, limbs
from streampose.geometry.match_views import extent, group, pair_costs
from streampose.structures import Camera

SKELETON = load_skeleton("human17")
FLIP = np.array(SKELETON.flip_index)
PAIRED = np.flatnonzero(np.arange(17) != FLIP)


def make_rig(views):
    cameras = []
    for turn in 0.4 + 2 * np.pi * np.arange(views) / views:
        place = np.array([4 * np.cos(turn), 4 * np.sin(turn), 1.6])
        forward = (np.array([0, 0, 0.9]) - place) / np.linalg.norm(np.array([0, 0, 0.9]) - place)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        cameras.append(Camera(np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]]), R, -R @ place, (640, 480)))
    return cameras


def walker(moments, at=(0.0, 0.0), rng=None):
    """(T, 17, 3) metres: the rest pose of the skeleton, 1.7 m tall, swinging its limbs and turning."""
    rng = rng or np.random.default_rng(0)
    phase = np.linspace(0, 6, moments)
    poses = np.zeros((moments, 17, 3))
    swing = {}
    for number, bone in enumerate(SKELETON.bones):
        way = np.array(bone.direction) / np.linalg.norm(bone.direction)
        swing[bone.child] = 0.1 if bone.constant else 0.4 * np.sin(phase + 2.1 * number)
        if bone.toward[2]:  # thighs swing forward, shins backward
            swing[bone.child] = np.sign(bone.toward[2]) * (0.4 + 0.3 * np.sin(phase + 2.1 * number))
        turned = Rotation.from_rotvec(
            np.stack([swing[bone.child] + 0 * phase, 0 * phase, 0.1 * np.sin(phase)], -1)
        ).apply(way)
        poses[:, bone.child] = poses[:, bone.parent] + 1.7 * bone.length * turned
    upright = poses[..., [0, 2, 1]] * [1, 1, -1]
    turned = np.einsum("tij,tkj->tki", Rotation.from_rotvec(np.outer(phase / 2, [0, 0, 1])).as_matrix(), upright)
    return turned + np.array((*at, 0.9))


def film(cameras, world, rng, sigma=2.0):
    seen = np.stack([project(world, camera) for camera in cameras])
    return seen + rng.normal(0, sigma, seen.shape)


def test_limbs_of_a_skeleton():
    names = [{SKELETON.joints[joint] for joint in limb} for limb in limbs(SKELETON)]
    arms = {f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "wrist")}
    legs = {f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle")}
    assert names == [legs, arms] or names == [arms, legs]


@pytest.mark.parametrize("views", [3, 6])
def test_confused_views_and_limbs_are_found(views):
    rng = np.random.default_rng(views)
    cameras, world = make_rig(views), walker(60)
    truth = film(cameras, world, rng)
    body = rng.random((views, 60)) < 0.3
    leg = rng.random((views, 60)) < 0.1
    wrong = np.repeat(body[..., None], 17, -1)
    wrong[..., limbs(SKELETON)[0]] ^= leg[..., None]
    wrong[..., np.arange(17) == FLIP] = False
    seen = np.where(wrong[..., None], truth[:, :, FLIP], truth)
    repair = LeftRight(cameras, SKELETON)
    parts = [repair.apply(seen[:, t : t + 20], np.ones((views, 20, 17))) for t in (0, 20, 40)]
    points, moved = (np.concatenate([part[n] for part in parts], 1) for n in (0, 2))
    assert (moved ^ wrong)[..., PAIRED].mean() < 0.03 < 0.2 < wrong[..., PAIRED].mean()
    np.testing.assert_allclose(points, np.where((moved ^ wrong)[..., None], truth[:, :, FLIP], truth))


def test_the_nose_and_the_knees_tell_left_from_right():
    world = walker(60)
    fits = handedness(world, SKELETON)
    assert fits.mean() > 0.1
    np.testing.assert_allclose(handedness(world[:, FLIP], SKELETON), -fits, atol=1e-9)
    np.testing.assert_allclose(handedness(world * [-1, 1, 1], SKELETON), -fits, atol=1e-9)  # in a mirror
    half = world.copy()
    half[:, [9, 10]] = np.nan  # no head: the knees still tell
    assert np.isfinite(handedness(half, SKELETON)).all()
    assert (handedness(np.full((2, 17, 3), np.nan), SKELETON) == 0).all()


def test_confidence_goes_with_its_joint_and_right_views_are_left_alone():
    rng = np.random.default_rng(1)
    cameras = make_rig(3)
    seen = film(cameras, walker(30), rng, sigma=1.0)
    sure = rng.uniform(0.5, 1, seen.shape[:-1])
    points, confidence, moved = LeftRight(cameras, SKELETON).apply(seen, sure)
    assert moved.mean() < 0.02
    seen[0] = seen[0][:, FLIP]
    again, confidence_again, moved = LeftRight(cameras, SKELETON).apply(
        seen, np.concatenate([sure[:1, :, FLIP], sure[1:]])
    )
    assert moved[0][:, PAIRED].mean() > 0.97
    same = np.isclose(points, again).all(-1)
    assert same.mean() > 0.97
    np.testing.assert_allclose(confidence_again[same], confidence[same])


def test_missing_views_and_nobody():
    cameras = make_rig(3)
    seen = film(cameras, walker(10), np.random.default_rng(2))
    seen[1] = np.nan
    points, _, moved = LeftRight(cameras, SKELETON).apply(seen, np.ones(seen.shape[:-1]))
    assert not moved.any() and np.array_equal(points, seen, equal_nan=True)
    nothing = np.full((3, 4, 17, 2), np.nan)
    assert not LeftRight(cameras, SKELETON).apply(nothing, np.zeros((3, 4, 17)))[2].any()


def test_people_of_all_views_are_matched():
    rng = np.random.default_rng(3)
    cameras = make_rig(4)
    people = [walker(1, at, rng)[0] for at in ((0.0, 0.0), (0.9, 0.2), (-0.5, -0.8))]
    xy, view, who = [], [], []
    for v, camera in enumerate(cameras):
        for number in rng.permutation(3):
            if (v, number) == (1, 2):
                continue  # one is not seen by one camera
            pose = project(people[number], camera) + rng.normal(0, 2, (17, 2))
            xy.append(pose[FLIP] if rng.random() < 0.5 else pose)
            view.append(v)
            who.append(number)
    xy.append(rng.uniform(0, 480, (17, 2)))  # and something that is nobody
    view, who = np.array([*view, 0]), np.array([*who, -1])
    costs = pair_costs(cameras, np.array(xy), np.ones((12, 17)), view, FLIP)
    groups = group(costs, view[:, None] == view[None])
    assert sorted(tuple(who[members]) for members in groups) == [(0,) * 4, (1,) * 4, (2,) * 3]
    assert (costs == costs.T).all() and costs.min() >= 0 and costs.max() <= 1
    np.testing.assert_allclose(extent(np.array([[[0, 1], [4, 3], [np.nan, 9]], [[np.nan] * 2] * 3])), [4, 0])
