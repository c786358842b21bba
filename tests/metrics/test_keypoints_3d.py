from __future__ import annotations

import numpy as np
import pytest

from streampose.metrics.keypoints_3d import auc3d, metric_from_pixels, mpjpe, n_mpjpe, pa_mpjpe, pck3d

POSES = np.random.default_rng(0).normal(size=(4, 17, 3)) * 300


def test_mpjpe_is_relative_to_the_root_and_counts_it():
    truth = np.array([[[0.0, 0, 0], [0, 100, 0], [0, 0, 200]]])
    predicted = truth + np.array([500.0, 0, 0])
    predicted[0, 1, 0] += 30
    np.testing.assert_allclose(mpjpe(predicted, truth, 0), [[0, 30, 0]], atol=1e-9)
    np.testing.assert_allclose(mpjpe(predicted, truth, 1), [[30, 0, 30]], atol=1e-9)  # another root, another number


def test_n_mpjpe_forgives_scale_only():
    np.testing.assert_allclose(n_mpjpe(0.3 * POSES + 40, POSES, 0), 0, atol=1e-9)
    turned = POSES @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert np.nanmean(n_mpjpe(turned, POSES, 0)) > 100


def test_n_mpjpe_by_hand():
    truth = np.array([[[0.0, 0, 0], [100, 0, 0], [0, 100, 0]]])
    predicted = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0]]])  # best scale (100 + 200) / (1 + 4) = 60
    np.testing.assert_allclose(n_mpjpe(predicted, truth, 0), [[0, 40, 20]])


def test_pa_mpjpe_forgives_similarities():
    turned = 0.01 * POSES @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) + 7
    np.testing.assert_allclose(pa_mpjpe(turned, POSES), 0, atol=1e-8)


def test_pa_mpjpe_does_not_forgive_a_mirrored_depth():
    assert np.nanmean(pa_mpjpe(POSES * [1, 1, -1], POSES)) > 50


def test_pck3d_and_auc_by_hand():
    truth = np.zeros((1, 4, 3))
    predicted = truth.copy()
    predicted[0, 1:, 2] = [75, 150, 151]
    np.testing.assert_array_equal(pck3d(predicted, truth, 0), [[1, 1, 1, 0]])
    # Of the thresholds 0, 5, .. 150 an error of 75 passes 75, 80, .. 150: 16 of 31; 150 passes one.
    np.testing.assert_allclose(auc3d(predicted, truth, 0), [[1, 16 / 31, 1 / 31, 0]])


def test_missing_truth_is_left_out():
    truth = POSES.copy()
    truth[1, 3] = np.nan
    for values in (mpjpe(POSES, truth, 0), n_mpjpe(POSES, truth, 0), pa_mpjpe(POSES, truth), pck3d(POSES, truth, 0)):
        assert np.isnan(values[1, 3]) and np.isfinite(values).sum() == values.size - 1
    assert np.isnan(auc3d(POSES, truth, 0)[1, 3])


def test_metric_from_pixels_scales_about_the_root():
    keypoints = np.array([[[10.0, 20.0, 0.0], [12.0, 20.0, 3.0]]])
    np.testing.assert_allclose(metric_from_pixels(keypoints, 0, np.array([25.0])), [[[0, 0, 0], [50, 0, 75]]])


def test_a_weak_perspective_camera_gives_back_the_pose():
    """A far subject, projected: the box scale with the true root depth restores millimetres."""
    rng = np.random.default_rng(1)
    pose = rng.normal(size=(17, 3)) * 0.3  # metres
    pose -= pose[0]
    depth, focal, box_side, crop = 60.0, 9000.0, 300.0, 128
    at = pose + np.array([0, 0, depth])
    source = focal * at[:, :2] / at[:, 2:]
    crop_xy = source * crop / box_side
    crop_z = pose[:, 2] * focal / depth * crop / box_side
    keypoints = np.concatenate([crop_xy, crop_z[:, None]], -1)[None]
    mm = metric_from_pixels(keypoints, 0, np.array([1000 * depth / focal * box_side / crop]))
    assert np.nanmax(mpjpe(mm, 1000 * pose[None], 0)) < 15
    assert mpjpe(mm, 1000 * pose[None], 0).mean() == pytest.approx(0, abs=5)
