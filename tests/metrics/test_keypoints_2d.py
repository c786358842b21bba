from __future__ import annotations

import numpy as np
import pytest

from streampose.metrics.keypoints_2d import distances, head_size_of_boxes, mse_percent, pck, segment_size

TRUTH = np.array([[[0.0, 0.0], [30.0, 40.0], [10.0, 10.0]]])  # joints 0 and 1 are 50 apart


def test_distances_by_hand():
    moved = TRUTH + np.array([[[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]])
    np.testing.assert_allclose(distances(moved, TRUTH), [[5, 0, 2]])
    np.testing.assert_allclose(distances(moved, TRUTH, np.array([[1, 2, 0]])), [[5, 0, np.nan]])


def test_unlike_shapes_are_an_error():
    with pytest.raises(ValueError, match="must be alike"):
        distances(TRUTH[:, :2], TRUTH)


def test_pck_by_hand():
    torso = segment_size(TRUTH, (0, 1))
    assert torso == pytest.approx([50])
    moved = TRUTH + np.array([[[10.0, 0.0], [10.1, 0.0], [0.0, 9.9]]])  # the limit is 0.2 * 50 = 10, and counts
    np.testing.assert_array_equal(pck(moved, TRUTH, torso, 0.2), [[1, 0, 1]])
    np.testing.assert_array_equal(pck(moved, TRUTH, torso, 0.2, visible=np.array([[2, 1, 0]])), [[1, 0, np.nan]])


def test_a_missing_prediction_is_a_miss_and_a_missing_truth_is_not_counted():
    moved, truth = TRUTH.copy(), TRUTH.copy()
    moved[0, 0] = np.nan
    truth[0, 2] = np.nan
    np.testing.assert_array_equal(pck(moved, truth, np.array([50.0]), 0.2), [[0, 1, np.nan]])


def test_a_sample_without_a_torso_is_left_out():
    two = np.concatenate([TRUTH, TRUTH])
    values = pck(two, two, np.array([np.nan, 0.0]), 0.2)
    assert np.isnan(values).all()


def test_pckh_by_hand():
    boxes = np.array([[0.0, 0.0, 30.0, 40.0]])
    assert head_size_of_boxes(boxes) == pytest.approx([30])  # 0.6 * 50
    moved = TRUTH + np.array([[[15.0, 0.0], [15.1, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(pck(moved, TRUTH, head_size_of_boxes(boxes), 0.5), [[1, 0, 1]])


def test_mse_percent_is_a_mean_distance_in_percent_of_the_side():
    moved = TRUTH + np.array([[[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]])
    np.testing.assert_allclose(mse_percent(moved, TRUTH, 200.0), [[2.5, 0, 1]])
    np.testing.assert_allclose(mse_percent(moved, TRUTH, np.array([100.0])), [[5, 0, 2]])
