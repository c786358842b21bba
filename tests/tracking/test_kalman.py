"""The Kalman filter for keypoints."""

import numpy as np
import pytest

from streampose.tracking.kalman import KalmanFilter


def test_what_stands_still_is_calmed():
    rng = np.random.default_rng(0)
    noisy = 100 + rng.normal(size=(200, 17, 2))
    filter_ = KalmanFilter(noise=1.0, push=5.0)
    smooth = np.array([filter_.apply(x, n / 30) for n, x in enumerate(noisy)])
    assert smooth[50:].std() < 0.55 * noisy[50:].std()
    assert abs(smooth[50:].mean() - 100) < 0.1


def test_steady_movement_is_followed_without_lag():
    filter_ = KalmanFilter(noise=1.0, push=20.0)
    for n in range(60):
        out = filter_.apply(np.array([10.0 * n]), n / 30)
    assert out[0] == pytest.approx(590.0, abs=0.5)


def test_an_unsure_value_moves_the_estimate_less():
    moved = {}
    for confidence in (1.0, 0.1):
        filter_ = KalmanFilter(noise=1.0, push=5.0)
        for n in range(30):
            filter_.apply(np.zeros((1, 2)), n / 30, np.ones(1))
        moved[confidence] = filter_.apply(np.ones((1, 2)), 1.0, np.array([confidence]))[0, 0]
    assert 0 < moved[0.1] < 0.2 * moved[1.0]


def test_missing_values_stay_missing_and_disturb_nothing():
    filter_ = KalmanFilter()
    filter_.apply(np.array([1.0, 5.0]), 0.0)
    assert np.isnan(filter_.apply(np.array([np.nan, 5.0]), 0.1)[0])
    assert filter_.apply(np.array([1.0, 5.0]), 0.2) == pytest.approx([1.0, 5.0], abs=0.05)


def test_after_a_long_absence_it_starts_anew():
    filter_ = KalmanFilter(forget_seconds=0.5)
    filter_.apply(np.array([0.0]), 0.0)
    assert filter_.apply(np.array([100.0]), 1.0)[0] == 100.0


def test_time_that_stands_still_changes_nothing():
    filter_ = KalmanFilter()
    filter_.apply(np.array([1.0]), 1.0)
    assert filter_.apply(np.array([9.0]), 1.0)[0] == 1.0


@pytest.mark.parametrize("options", [{"noise": 0}, {"push": -1}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="must be positive"):
        KalmanFilter(**options)
