import numpy as np
import pytest

from streampose.tracking.local_fit import smooth_points

RNG = np.random.default_rng(0)


def swing(seconds, joints=4):
    """(T, K, 3) metres: joints that swing at one to two hertz."""
    phase = 2 * np.pi * np.outer(seconds, np.linspace(1, 2, joints))
    return 0.2 * np.stack([np.sin(phase), np.cos(phase), np.sin(phase + 1)], -1)


@pytest.mark.parametrize("even", [True, False])
def test_noise_shrinks_and_motion_stays(even):
    seconds = np.arange(100) / 25 if even else np.sort(RNG.uniform(0, 4, 100))
    truth = swing(seconds)
    noisy = truth + RNG.normal(0, 0.02, truth.shape)
    smooth, uncertainty = smooth_points(noisy, np.full((100, 4), 0.02), seconds)
    before, after = (np.linalg.norm(x - truth, axis=-1)[5:-5] for x in (noisy, smooth))
    assert after.mean() < 0.7 * before.mean()
    assert uncertainty.max() <= 0.02 and uncertainty.mean() < 0.015
    exact, _ = smooth_points(truth, np.full((100, 4), 0.002), seconds)  # fast motion that is well known stays
    assert np.linalg.norm(exact - truth, axis=-1)[5:-5].mean() < 0.006  # of a swing of 0.35 m


def test_a_parabola_is_not_changed():
    seconds = np.array([0, 0.03, 0.1, 0.11, 0.2, 0.25, 0.33])
    points = np.stack([seconds**2, 3 - seconds, 0 * seconds], -1)[:, None]
    np.testing.assert_allclose(smooth_points(points, np.ones((7, 1)), seconds)[0], points, atol=1e-9)


def test_unsure_points_and_outliers_have_little_say():
    seconds = np.arange(50) / 25
    truth = swing(seconds)
    noisy, sigma = truth.copy(), np.full((50, 4), 0.005)
    noisy[20, 1] += 0.5
    sigma[20, 1] = 0.5
    noisy[30, 2] += 0.5  # an outlier that claims to be sure
    smooth, _ = smooth_points(noisy, sigma, seconds)
    off = np.linalg.norm(smooth - truth, axis=-1)
    assert off[20, 1] < 0.02 and off[30, 2] < 0.2 and off[:, 0].max() < 0.02


def test_short_gaps_are_bridged_and_long_ones_and_ends_stay_open():
    seconds = np.arange(60) / 25
    points = swing(seconds)
    points[10:13, 0] = np.nan
    points[20:40, 1] = np.nan
    points[:5, 2] = np.nan
    points[:, 3] = np.nan
    smooth, uncertainty = smooth_points(points, np.full((60, 4), 0.01), seconds)
    assert np.linalg.norm(smooth[10:13, 0] - swing(seconds)[10:13, 0], axis=-1).max() < 0.05
    missing = np.isnan(smooth).any(-1)
    assert missing[20:40, 1].all() and missing[:5, 2].all() and missing[:, 3].all() and missing.sum() == 20 + 5 + 60
    assert np.isnan(uncertainty[missing]).all() and np.isfinite(uncertainty[~missing]).all()


def test_nothing_to_do():
    points = swing(np.arange(5) / 25)
    same, _ = smooth_points(points, np.ones((5, 4)), np.arange(5) / 25, widths_seconds=())
    np.testing.assert_array_equal(same, points)
    assert smooth_points(np.zeros((0, 4, 3)), np.zeros((0, 4)), np.zeros(0))[0].shape == (0, 4, 3)
    alone, _ = smooth_points(points[:1], np.ones((1, 4)), np.zeros(1))
    np.testing.assert_array_equal(alone, points[:1])  # no parabola through one point
