import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.metrics.plausibility import bone_directions, judge, learn_limits
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")
AT = {name: k for k, name in enumerate(HUMAN.joints)}
CHILD = [HUMAN.joints[bone.child] for bone in HUMAN.bones]


@pytest.fixture(scope="module")
def limits():
    prior = built_in_prior(HUMAN, 1600, seed=0)
    return learn_limits(prior.poses, prior.groups, HUMAN)


@pytest.fixture(scope="module")
def unseen():
    return built_in_prior(HUMAN, 640, seed=99).poses.astype(float)


def standing():
    pose = np.zeros((17, 3))
    for bone in HUMAN.bones:
        pose[bone.child] = pose[bone.parent] + 1.7 * bone.length * np.asarray(bone.direction)
    return pose


def bent(joint, end, direction):
    """Standing, but the bone from `joint` to `end` points another way."""
    pose = standing()
    length = np.linalg.norm(pose[AT[end]] - pose[AT[joint]])
    pose[AT[end]] = pose[AT[joint]] + length * np.asarray(direction) / np.linalg.norm(direction)
    return pose


def test_bones_of_the_rest_pose_have_their_rest_directions_however_it_stands():
    rng = np.random.default_rng(0)
    for _ in range(5):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        turn = q * np.sign(np.linalg.det(q))
        found = bone_directions((3.7 * standing() @ turn.T + rng.normal(size=3))[None], HUMAN)[0]
        np.testing.assert_allclose(found, [bone.direction for bone in HUMAN.bones], atol=1e-6)


def test_people_who_were_not_seen_are_plausible(limits, unseen):
    found = judge(unseen, limits)
    assert found.plausible.mean() > 0.97
    assert np.nanmean(found.within_limits) > 0.995 and np.nanmean(found.within_ratios) > 0.995
    tall = judge(unseen * 1000 + 70, limits)  # millimetres, elsewhere
    np.testing.assert_allclose(tall.excess_degrees, found.excess_degrees, atol=1e-4)
    np.testing.assert_array_equal(tall.plausible, found.plausible)


@pytest.mark.parametrize(
    ("pose", "child"),
    [
        (bent("left_knee", "left_ankle", (0, 0, -1)), "left_ankle"),  # a knee bent forward (towards the camera)
        (bent("right_knee", "right_ankle", (0, -0.4, -1)), "right_ankle"),
        (bent("left_hip", "left_knee", (0, -0.6, 1)), "left_knee"),  # a leg far up behind the back
        (bent("thorax", "nose", (0, 0.7, 1)), "nose"),  # the head in the back
        (bent("spine", "thorax", (0, 1, 0.2)), "thorax"),  # a folded trunk
    ],
)
def test_impossible_joints_are_found(limits, pose, child):
    ok = judge(standing()[None], limits)
    assert ok.plausible.all(), dict(zip(CHILD, ok.excess_degrees[0].round(), strict=True))
    found = judge(pose[None], limits)
    assert not found.plausible[0] and found.excess_degrees[0, CHILD.index(child)] > 10


def test_a_knee_may_bend_backward(limits):
    for angle in (20, 60, 100):
        direction = (0, np.cos(np.radians(angle)), np.sin(np.radians(angle)))
        assert judge(bent("left_knee", "left_ankle", direction)[None], limits).plausible.all()


def test_mirror_images_and_exchanged_sides_are_found(limits, unseen):
    assert judge(unseen * (1, 1, -1), limits).plausible.mean() < 0.02  # depth reversed
    assert judge(unseen[:, HUMAN.flip_index], limits).plausible.mean() < 0.02
    mirrored = unseen[:, HUMAN.flip_index] * (-1, 1, 1)  # a true mirror image is another person's pose
    assert judge(mirrored, limits).plausible.mean() > 0.97


def test_impossible_bones_are_found(limits):
    pose = standing()
    pose[AT["left_ankle"]] += (0, 0.35, 0)
    found = judge(pose[None], limits)
    assert not found.plausible[0] and found.ratio_error[0].argmax() == CHILD.index("left_ankle")
    assert found.excess_degrees[0, CHILD.index("left_ankle")] == 0  # its direction is fine
    pose = standing()
    pose[AT["left_elbow"]] = pose[AT["left_shoulder"]]
    assert not judge(pose[None], limits).plausible[0]
    assert not judge(np.zeros((1, 17, 3)), limits).plausible[0]


def test_missing_joints_are_not_held_against_a_pose(limits, unseen):
    gap = unseen.copy()
    gap[:, [AT["left_ankle"], AT["head"]]] = np.nan
    found = judge(gap, limits)
    assert np.isnan(found.excess_degrees[:, CHILD.index("left_ankle")]).all()
    assert np.isnan(found.within_limits[:, CHILD.index("head")]).all()
    assert found.plausible.mean() > 0.95
    nothing = judge(np.full((2, 17, 3), np.nan), limits)
    assert not nothing.plausible.any() and np.isnan(nothing.within_ratios).all()
    assert judge(np.zeros((0, 17, 3)), limits).plausible.shape == (0,)


def test_other_skeletons_and_priors_without_groups():
    mouse = load_skeleton("mouse")
    rng = np.random.default_rng(0)
    rest = np.zeros((mouse.num_joints, 3))
    for bone in mouse.bones:
        rest[bone.child] = rest[bone.parent] + bone.length * np.asarray(bone.direction)
    poses = rest + rng.normal(0, 0.004, (400, mouse.num_joints, 3))
    limits = learn_limits(poses, np.array(["one"] * 400), mouse)
    assert judge(poses, limits).plausible.mean() > 0.95
    turned = rest.copy()
    turned[mouse.joints.index("nose")] = rest[mouse.joints.index("neck")] + (0, 0.14, 0)
    assert not judge(turned[None], limits).plausible[0]
    with pytest.raises(ValueError, match="no pose shows a bone"):
        learn_limits(np.full((4, 10, 3), np.nan), np.array(list("abcd")), mouse)


def test_held_out_dances(shared_data, tmp_path):
    from streampose.prior import import_prior
    from streampose.store.priors import read_prior

    folder = shared_data / "mocap" / "cmu_dance_martial"
    names = ("martial_03", "martial_05", "martial_06", "martial_08", "salsa_01", "salsa_03", "salsa_10", "salsa_11")
    import_prior([folder / f"{name}.bvh" for name in names], store=tmp_path / "s.zarr", name="p", rate=6)
    prior = read_prior(tmp_path / "s.zarr", "p")
    test = prior.takes == "salsa_11"
    limits = learn_limits(prior.poses[~test], prior.groups[~test], HUMAN)
    poses = prior.poses[test]
    assert judge(poses, limits).plausible.mean() > 0.97
    assert judge(poses * (1, 1, -1), limits).plausible.mean() < 0.02
    # The built-in prior's arms go everywhere; recorded ones do not.
    for pose, child in (
        (bent("right_elbow", "right_wrist", (0, 0, 1)), "right_wrist"),  # an elbow bent backward
        (bent("left_knee", "left_ankle", (0, 0, -1)), "left_ankle"),
        (bent("right_shoulder", "right_elbow", (1, -0.5, 1)), "right_elbow"),  # an arm through the neck, up the back
    ):
        assert judge(pose[None], limits).excess_degrees[0, CHILD.index(child)] > 10, child
