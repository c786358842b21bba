import numpy as np
import pytest

from streampose.synthetic.activities import ARMS, GOING, STAND, STAYING
from streampose.synthetic.body import procedural_body
from streampose.synthetic.motion import Region, procedural_motion, solve, two_bone
from streampose.synthetic.rig import BONE, bone_heads, bone_transforms, landmarks_3d

RIG = procedural_body(np.random.default_rng(0)).rig
REGION = Region(np.zeros(2), np.eye(2), np.array([1.2, 1.0]))


def test_two_bones_reach_a_target_and_bend_to_the_pole():
    rng = np.random.default_rng(1)
    end = rng.normal(size=(200, 3))
    end *= (rng.uniform(0.3, 0.95, 200) * 0.55 / np.linalg.norm(end, axis=1))[:, None]
    pole = np.broadcast_to([0.0, 1, 0], (200, 3))
    first, second = two_bone(np.zeros((200, 3)), end, 0.3, 0.25, pole, bend=1.0)
    middle = first @ [0, 0, -0.3]
    assert np.allclose(middle + second @ [0, 0, -0.25], end, atol=1e-9)
    beside = middle - end * ((middle * end).sum(1) / (end * end).sum(1))[:, None]
    assert (beside[:, 1] > -1e-9).all()
    for rotation in (first, second):
        assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3)) and np.allclose(
            np.linalg.det(rotation), 1
        )


def test_a_target_out_of_reach_stretches_the_limb_towards_it():
    end = np.array([[3.0, 0, 0]])
    first, second = two_bone(np.zeros((1, 3)), end, 0.3, 0.25, np.array([[0.0, 0, 1]]), bend=1.0)
    hand = (first @ [0, 0, -0.3] + second @ [0, 0, -0.25])[0]
    assert hand[0] == pytest.approx(0.55, abs=1e-3) and abs(hand[1]) < 1e-9 and abs(hand[2]) < 1e-9


@pytest.mark.parametrize(
    "activity", [*GOING, *STAYING, *(arm for arm in ARMS if arm)], ids=lambda activity: activity.__name__
)
def test_every_activity_gives_known_channels_and_finite_poses(activity):
    t = np.linspace(0, 3, 40)
    targets = activity(t, np.random.default_rng(3))
    assert set(targets) <= set(STAND)
    full = {name: np.broadcast_to(targets.get(name, value), t.shape) for name, value in STAND.items()}
    motion = solve(RIG, full, np.zeros((40, 2)), np.zeros(40))
    assert np.isfinite(motion.rotations).all()
    heads = bone_heads(RIG, motion)
    shin = heads[:, BONE["left_foot"]] - heads[:, BONE["left_shin"]]
    assert np.allclose(np.linalg.norm(shin, axis=1), RIG.leg[1])
    assert activity.__doc__


def test_standing_faces_forward_with_the_left_side_on_the_left():
    full = {name: np.full(1, value) for name, value in STAND.items()}
    motion = solve(RIG, full, np.zeros((1, 2)), np.zeros(1))
    names = ("nose", "pelvis", "left_wrist", "right_wrist", "left_knee", "head")
    nose, pelvis, left, right, knee, head = landmarks_3d(RIG, bone_transforms(RIG, motion), names)[0]
    assert nose[0] > pelvis[0] + 0.05 and left[1] > 0 > right[1] and head[2] > nose[2] > pelvis[2] > knee[2] > 0
    assert 1.4 < head[2] < 2.0


def test_procedural_motion_is_varied_smooth_above_ground_and_stays_in_its_region():
    fps, facing, heights = 25.0, [], []
    for seed in range(8):
        motion = procedural_motion(RIG, REGION, 250, fps, np.random.default_rng(seed))
        heads = bone_heads(RIG, motion)
        assert heads[..., 2].min() > 0.03
        assert np.linalg.norm(np.diff(heads, axis=0), axis=-1).max() * fps < 16  # a fast kick, no jumps
        assert np.linalg.norm(motion.root[:, :2] / REGION.half, axis=1).max() < 1.6
        forward = motion.rotations[:, BONE["pelvis"], :, 0]
        facing.append(np.arctan2(forward[:, 1], forward[:, 0]))
        heights.append(motion.root[:, 2] / sum(RIG.leg))
    turned = np.histogram(np.concatenate(facing), bins=8, range=(-np.pi, np.pi))[0]
    assert (turned > 40).all()  # every way
    heights = np.concatenate(heights)
    assert 0.03 < (heights < 0.75).mean() < 0.6  # sitting and crouching, but mostly on their feet


def test_motions_repeat_with_the_seed_only():
    a, b, c = (procedural_motion(RIG, REGION, 50, 25, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a.rotations, b.rotations) and np.array_equal(a.root, b.root)
    assert not np.allclose(a.root, c.root)
