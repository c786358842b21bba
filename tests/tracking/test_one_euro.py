import numpy as np
import pytest

from streampose.tracking.one_euro import OneEuroFilter


def run(values, times, **settings):
    smoother = OneEuroFilter(**settings)
    return np.array([smoother.apply(x, t) for x, t in zip(values, times, strict=True)])


def test_causal():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(50, 3, 2)), np.arange(50) / 25
    changed = x.copy()
    changed[30:] += 100
    np.testing.assert_array_equal(run(x, t)[:30], run(changed, t)[:30])


def test_first_step_by_hand():
    # dt 0.1 s, step 1: speed = a_d * 10 with a_d = 0.2 pi / (0.2 pi + 1); cut-off = 1 + 0.5 speed
    a_d = 0.2 * np.pi / (0.2 * np.pi + 1)
    turn = 2 * np.pi * (1 + 0.5 * 10 * a_d) * 0.1
    out = run(np.array([[0.0], [1.0]]), [0.0, 0.1], min_cutoff=1.0, beta=0.5, d_cutoff=1.0)
    assert out[1, 0] == pytest.approx(turn / (turn + 1))


def test_smooths_noise_and_follows_speed():
    rng = np.random.default_rng(1)
    t = np.arange(200) / 30
    still = run(rng.normal(size=(200, 1)), t, min_cutoff=0.5, beta=0.0)
    assert still[50:].std() < 0.35
    ramp = (300 * t)[:, None]
    assert np.abs(run(ramp, t, beta=0.5) - ramp)[50:].max() < np.abs(run(ramp, t, beta=0.0) - ramp)[50:].max() / 5


def test_missing_stays_missing_and_disturbs_nothing():
    t = np.arange(20) / 20
    x = np.tile(np.array([[1.0, 5.0]]), (20, 1))
    x[5:8, 0] = np.nan
    out = run(x, t)
    assert np.isnan(out[5:8, 0]).all() and np.isfinite(out[:, 1]).all()
    np.testing.assert_allclose(out[8:], [[1.0, 5.0]] * 12)


def test_after_a_long_gap_it_starts_anew():
    smoother = OneEuroFilter(forget_seconds=0.5)
    smoother.apply(np.array([0.0]), 0.0)
    smoother.apply(np.array([np.nan]), 0.4)
    assert smoother.apply(np.array([100.0]), 1.0)[0] == 100.0


def test_unsure_values_move_the_estimate_less():
    moved = []
    for confidence in (1.0, 0.3, 0.0):
        smoother = OneEuroFilter()
        smoother.apply(np.zeros((1, 2)), 0.0)
        moved.append(smoother.apply(np.ones((1, 2)), 0.1, np.array([confidence]))[0, 0])
    assert moved[0] > moved[1] > moved[2] == 0.0


def test_times_that_do_not_advance_are_harmless():
    out = run(np.array([[1.0], [2.0], [3.0]]), [1.0, 1.0, 0.5])
    np.testing.assert_array_equal(out, 1.0)
