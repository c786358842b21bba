"""Joints that jump."""

import numpy as np
import pytest

from streampose.tracking.outliers import PATIENCE, OutlierGate

SIDE = 200.0


def walking(frames: int, joints: int = 17) -> np.ndarray:
    """A subject that walks to the right: (T, K, 2)."""
    pose = np.random.default_rng(0).uniform(0, SIDE, (joints, 2))
    return pose + np.stack([np.arange(frames) * 6.0, np.zeros(frames)], -1)[:, None]


def run(gate: OutlierGate, xy: np.ndarray) -> np.ndarray:
    return np.array([gate.apply(frame, 10 + n / 30, SIDE) for n, frame in enumerate(xy)])


def test_what_does_not_jump_is_left_alone():
    xy = walking(30)
    np.testing.assert_array_equal(run(OutlierGate(), xy), xy)


def test_a_joint_that_jumps_once_stays_where_it_was_going():
    xy, gate = walking(30), OutlierGate()
    jumped = xy.copy()
    jumped[20, 3] += (90, -120)
    out = run(gate, jumped)
    assert np.linalg.norm(out[20, 3] - xy[20, 3]) < 0.02 * SIDE
    np.testing.assert_array_equal(np.delete(out, 3, 1), np.delete(xy, 3, 1))
    np.testing.assert_array_equal(out[21:], xy[21:])


def test_a_joint_that_insists_is_believed():
    xy, gate = walking(30), OutlierGate()
    xy[15:, 3] += (90, -120)
    out = run(gate, xy)
    held = np.abs(out - xy).max(-1)[:, 3] > 1
    assert held.sum() == PATIENCE - 1 and held[15]


def test_a_subject_that_moves_as_a_whole_has_no_outliers():
    xy, gate = walking(30), OutlierGate()
    xy[15:] += 150  # the camera was pushed
    np.testing.assert_array_equal(run(gate, xy)[15], xy[15])
    assert not gate.rejected.any()


def test_after_a_pause_nothing_is_known():
    xy, gate = walking(3), OutlierGate()
    run(gate, xy)
    far = xy[2].copy()
    far[0] += 500
    np.testing.assert_array_equal(gate.apply(far, 20.0, SIDE), far)


def test_the_caller_may_change_what_it_gave():
    xy, gate, given = walking(12), OutlierGate(), np.zeros((17, 2))
    rng = np.random.default_rng(1)
    for n, frame in enumerate(xy):
        given[:] = frame
        if n:
            given[rng.integers(17)] += 150
        out = gate.apply(given, 10 + n / 30, SIDE)
        given[:] = -1e6
        if n > 2:
            assert np.linalg.norm(out - frame, axis=-1).max() < 0.1 * SIDE


@pytest.mark.parametrize("share", [0.03])
def test_noise_of_a_model_is_mostly_taken_out(share):
    rng = np.random.default_rng(0)
    xy = walking(300)
    bad = rng.random(xy.shape[:2]) < share
    noisy = xy + rng.normal(size=xy.shape) * 0.01 * SIDE
    noisy[bad] += rng.normal(size=(bad.sum(), 2)) * 0.5 * SIDE
    before, after = (np.linalg.norm(x - xy, axis=-1)[bad].mean() for x in (noisy, run(OutlierGate(), noisy)))
    assert after < 0.35 * before
