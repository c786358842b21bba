"""Left and right over time."""

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.tracking.left_right import INSIST_SECONDS, LeftRight, find_limbs

SKELETON = load_skeleton("human17")
SIDE, FPS = 200.0, 25.0


def walking(seconds: float = 4.0) -> np.ndarray:
    """A person who walks on the spot, seen half from the front: legs and arms swing in turn, (T, K, 2)."""
    t = np.arange(0, seconds, 1 / FPS)
    xy = np.zeros((len(t), SKELETON.num_joints, 2))
    for k, name in enumerate(SKELETON.joints):
        side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
        low = 60 if "knee" in name else 120 if "ankle" in name else 0
        swing = 0.35 * SIDE * low / 120 if low else 0.2 * SIDE * ("wrist" in name)
        xy[:, k, 0] = 20 * side + side * swing * np.sin(2 * np.pi * t)
        xy[:, k, 1] = low or {"elbow": -60, "wrist": -30}.get(name.split("_")[-1], -100)
    return xy


def run(xy: np.ndarray) -> np.ndarray:
    sides = LeftRight(SKELETON)
    return np.array([frame[sides.apply(frame, 5 + n / FPS, SIDE)] for n, frame in enumerate(xy)])


def exchange(xy: np.ndarray, frames: slice, limb: np.ndarray) -> None:
    xy[frames, limb.ravel()] = xy[frames, limb[:, ::-1].ravel()].copy()


def test_limbs_of_a_person():
    names = [{SKELETON.joints[k].split("_")[1] for k in limb.ravel()} for limb in find_limbs(SKELETON)]
    assert {"hip", "knee", "ankle"} in names and {"shoulder", "elbow", "wrist"} in names


def test_legs_that_pass_each_other_are_not_exchanged():
    xy = walking()
    np.testing.assert_array_equal(run(xy), xy)


@pytest.mark.parametrize("which", [0, 1])
def test_a_limb_that_is_exchanged_for_some_frames_is_put_back(which):
    xy = walking()
    said = xy.copy()
    exchange(said, slice(31, 38), find_limbs(SKELETON)[which])
    exchange(said, slice(56, 59), find_limbs(SKELETON)[which])
    assert (said != xy).any()
    np.testing.assert_array_equal(run(said), xy)


def test_a_model_that_insists_is_believed():
    xy = walking()
    for limb in find_limbs(SKELETON):
        exchange(xy, slice(31, None), limb)
    out = run(xy)
    assert (out[31] != xy[31]).any()
    late = 31 + round((INSIST_SECONDS + 0.3) * FPS)
    assert (out[late:] == xy[late:]).all(axis=(1, 2)).mean() > 0.9


def test_one_joint_that_jumps_exchanges_nothing():
    xy = walking()
    knee = SKELETON.joints.index("left_knee")
    xy[40:43, knee] += (-90, 40)
    np.testing.assert_array_equal(run(xy), xy)


def test_flicker_is_mostly_taken_out():
    rng = np.random.default_rng(0)
    xy = walking(12.0)
    said = xy + rng.normal(size=xy.shape) * 0.01 * SIDE
    wrong = np.zeros(len(xy), bool)
    for start in range(20, len(xy) - 10, 17):
        length = int(rng.integers(1, 8))
        wrong[start : start + length] = True
        for limb in find_limbs(SKELETON):
            exchange(said, slice(start, start + length), limb)
    out = run(said)
    after = np.abs(out - xy).mean((1, 2)) > np.abs(out[:, SKELETON.flip_index] - xy).mean((1, 2))
    assert wrong.mean() > 0.15 and after.mean() < 0.03
