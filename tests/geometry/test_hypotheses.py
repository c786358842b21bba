"""Many poses together: modes, farthest points, covariances and probabilities, against values known by hand."""

import numpy as np
import pytest
from scipy.stats import chi2

from streampose.geometry.hypotheses import (
    REGION,
    covariance,
    farthest_points,
    mean_shift,
    probability_within,
    squared_radius,
)

RNG = np.random.default_rng(0)


def test_mean_shift_finds_the_larger_cluster():
    large, small = RNG.normal(0, 0.02, (2, 30, 4, 3)), RNG.normal(1, 0.02, (2, 10, 4, 3))
    found = mean_shift(np.concatenate([small, large], 1), 0.1)
    assert np.abs(found - large.mean(1)).max() < 0.02
    begun = mean_shift(np.concatenate([small, large], 1), 0.1, small[:, 0])
    assert np.abs(begun - small.mean(1)).max() < 0.02


def test_mean_shift_of_equal_hypotheses_is_that_pose():
    pose = RNG.normal(0, 1, (3, 1, 5, 3))
    np.testing.assert_allclose(mean_shift(np.repeat(pose, 7, 1), 0.1), pose[:, 0], atol=1e-9)


def test_farthest_points_spread_and_begin_with_the_first():
    line = np.array([0.0, 0.1, 1.0, 0.9, 0.5]).reshape(1, 5, 1, 1)
    assert farthest_points(line, 3).tolist() == [[0, 2, 4]]
    assert sorted(farthest_points(line, 9)[0]) == [0, 1, 2, 3, 4]
    same = np.zeros((1, 4, 2, 3))
    assert len(set(farthest_points(same, 3)[0])) == 3  # none twice


def test_covariance_by_hand_has_a_floor():
    hypotheses = np.array([[[[1.0, 0, 0]], [[-1.0, 0, 0]]]])
    found = covariance(hypotheses, np.zeros((1, 1, 3)), 0.1)
    np.testing.assert_allclose(found[0, 0], np.diag([1.01, 0.01, 0.01]))


def test_the_region_holds_nine_in_ten_of_a_normal_distribution():
    assert pytest.approx(chi2.ppf(0.9, 3), abs=2e-3) == REGION
    C = np.array([[0.04, 0.01, 0], [0.01, 0.02, 0], [0, 0, 0.09]])
    points = RNG.multivariate_normal(np.zeros(3), C, (20000, 1))
    inside = squared_radius(points, np.zeros((20000, 1, 3)), np.broadcast_to(C, (20000, 1, 3, 3))) <= REGION
    assert inside.mean() == pytest.approx(0.9, abs=0.01)


def test_probability_within_a_distance():
    C = 0.1**2 * np.eye(3)
    drawn = np.linalg.norm(RNG.normal(0, 0.1, (50000, 3)), axis=1) < 0.15
    assert probability_within(C, 0.15) == pytest.approx(drawn.mean(), abs=0.01)
    assert probability_within(1e-9 * np.eye(3)) == pytest.approx(1)
    assert probability_within(100 * np.eye(3)) < 1e-3
