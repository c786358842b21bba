import time

import cv2
import numpy as np
import pytest

from streampose.geometry.distortion import project, undistort_pixels
from streampose.geometry.triangulate import (
    point_covariance,
    reproject,
    reprojection_error,
    triangulate_dlt,
    triangulate_robust,
)
from streampose.structures import Camera

RNG = np.random.default_rng(1)
WORLD = RNG.uniform(-0.8, 0.8, (6, 9, 3))  # 6 moments, 9 points


def make_P(views):
    K = np.array([[1100.0, 0, 540], [0, 1100, 960], [0, 0, 1]])
    P = []
    for v in range(views):
        R = cv2.Rodrigues(np.array([0.1 * v, 2 * np.pi * v / views, 0.05]))[0]
        P.append(K @ np.hstack([R, [[0.1], [0.2], [4.0]]]))
    return np.array(P)


@pytest.mark.parametrize("views", [2, 3, 5])
def test_projecting_then_triangulating_returns_the_points(views):
    P = make_P(views)
    seen = reproject(WORLD, P)
    assert seen.shape == (6, views, 9, 2)
    np.testing.assert_allclose(triangulate_dlt(seen, P), WORLD, atol=1e-9)
    np.testing.assert_allclose(triangulate_dlt(seen, P, RNG.uniform(0.1, 1, seen.shape[:-1])), WORLD, atol=1e-9)


def test_agrees_with_opencv_on_noisy_pixels():
    P = make_P(3)[[0, 1]]
    seen = reproject(WORLD[0], P) + RNG.normal(0, 5, (2, 9, 2))
    theirs = cv2.triangulatePoints(P[0], P[1], seen[0].T.copy(), seen[1].T.copy())
    theirs = (theirs[:3] / theirs[3]).T
    np.testing.assert_allclose(triangulate_dlt(seen, P), theirs, rtol=1e-6, atol=1e-9)


def test_a_point_seen_once_is_nan_and_the_others_stay():
    P = make_P(3)
    seen = reproject(WORLD[0], P)
    seen[1:, 0] = np.nan
    confidence = np.ones((3, 9))
    confidence[0, 1] = confidence[2, 1] = 0
    points = triangulate_dlt(seen, P, confidence)
    assert np.isnan(points[:2]).all()
    np.testing.assert_allclose(points[2:], WORLD[0, 2:], atol=1e-9)
    error = reprojection_error(points, seen, P)
    assert error.shape == (3, 9) and np.isnan(error[:, :2]).all() and error[:, 2:].max() < 1e-6


def test_a_view_of_no_confidence_changes_nothing_and_of_little_changes_little():
    P = make_P(3)
    seen = reproject(WORLD[0], P)
    seen[2] += 80
    weight = np.ones((3, 9))
    weight[2] = 0
    np.testing.assert_allclose(triangulate_dlt(seen, P, weight), WORLD[0], atol=1e-9)
    weight[2] = 0.05
    little = np.linalg.norm(triangulate_dlt(seen, P, weight) - WORLD[0], axis=-1)
    alike = np.linalg.norm(triangulate_dlt(seen, P) - WORLD[0], axis=-1)
    assert (little < 0.02 * alike).all()


def make_cameras(views, distortion=(-0.2, 0.05, 0.001, -0.002), fisheye=False):
    K = np.array([[1100.0, 0, 540], [0, 1100, 960], [0, 0, 1]])
    cameras = []
    for v in range(views):
        R = cv2.Rodrigues(np.array([0.1 * v, 2 * np.pi * v / views, 0.05]))[0]
        cameras.append(Camera(K, R, np.array([0.1, 0.2, 4.0]), (1080, 1920), np.array(distortion), fisheye))
    return cameras


def film(cameras, world, sigma):
    seen = np.stack([project(world, camera) for camera in cameras])
    return seen + RNG.normal(0, sigma, seen.shape)


@pytest.mark.parametrize("lens", [{}, {"distortion": (0.05, -0.01, 0.002, 0.001), "fisheye": True}])
def test_robust_sees_through_the_lens(lens):
    cameras, world = make_cameras(3, **lens), WORLD.reshape(-1, 3)
    points, error_px, uncertainty, inliers = triangulate_robust(cameras, film(cameras, world, 0))
    np.testing.assert_allclose(points, world, atol=1e-6)
    assert error_px.shape == inliers.shape == (3, len(world)) and error_px.max() < 1e-3
    assert inliers.all() and uncertainty.max() < 1e-5


def test_robust_leaves_out_the_view_that_is_wrong():
    cameras, world = make_cameras(4), RNG.uniform(-0.8, 0.8, (500, 3))
    seen = film(cameras, world, 1)
    wrong = RNG.integers(0, 4, 500)
    seen[wrong, np.arange(500)] += [150, -90]
    points, error_px, _, inliers = triangulate_robust(cameras, seen)
    far = np.linalg.norm(points - world, axis=-1)
    assert np.median(far) < 0.006 and np.mean(far > 0.02) < 0.02
    assert inliers[wrong, np.arange(500)].mean() < 0.02 and inliers.sum(0).mean() > 2.9
    assert np.median(error_px[wrong, np.arange(500)]) > 140  # outliers are listed with their error
    ideal = np.stack([undistort_pixels(xy, camera) for xy, camera in zip(seen, cameras, strict=True)])
    plain = triangulate_dlt(ideal, np.stack([camera.P for camera in cameras]))
    assert np.median(np.linalg.norm(plain - world, axis=-1)) > 0.1


def test_robust_gives_nan_where_two_views_contradict_each_other_or_one_sees():
    cameras = make_cameras(3)[:2]
    seen = film(cameras, WORLD[0], 0.5)
    seen[1, 0] += [0, 400]
    seen[1, 1] = np.nan
    confidence = np.ones((2, 9))
    confidence[0, 2] = 0
    result = triangulate_robust(cameras, seen, confidence)
    assert np.isnan(result.points[:3]).all() and np.isnan(result.uncertainty[:3]).all()
    assert not result.inliers[:, :3].any() and np.isfinite(result.points[3:]).all()
    nothing = triangulate_robust(cameras, np.full((2, 4, 2), np.nan))
    assert np.isnan(nothing.points).all() and nothing.points.shape == (4, 3)
    assert triangulate_robust(cameras, np.zeros((2, 0, 2))).points.shape == (0, 3)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_uncertainty_is_the_spread_of_the_errors(views):
    cameras = make_cameras(5)[:views]
    world = np.repeat(RNG.uniform(-0.5, 0.5, (1, 3)), 4000, 0)
    seen = film(cameras, world, 2.0)
    result = triangulate_robust(cameras, seen)
    made = result.inliers.all(0)
    assert made.mean() > 0.97
    rms = np.sqrt(np.mean(np.sum((result.points - world)[made] ** 2, -1)))
    assert np.median(result.uncertainty[made]) == pytest.approx(rms, rel=0.12)
    known = triangulate_robust(cameras, seen, sigma_px=2.0)
    assert np.median(known.uncertainty[made]) == pytest.approx(rms, rel=0.12)
    covariance = point_covariance(world[:1], cameras, np.ones((views, 1)), sigma_px=2.0)[0]
    np.testing.assert_allclose(covariance, np.cov((result.points - world)[made].T), atol=0.12 * np.trace(covariance))


def test_a_view_of_little_confidence_has_little_say():
    cameras = make_cameras(3)
    seen = film(cameras, np.repeat(WORLD[0, :1], 2000, 0), 1.0)
    seen[2] += RNG.normal(0, 5.0, seen[2].shape)
    alike = triangulate_robust(cameras, seen, max_px=40).points - WORLD[0, 0]
    weighed = triangulate_robust(cameras, seen, np.array([[1.0], [1.0], [1 / 26]]) * np.ones(2000), max_px=40)
    assert np.linalg.norm(weighed.points - WORLD[0, 0], axis=-1).mean() < 0.8 * np.linalg.norm(alike, axis=-1).mean()


def test_ten_thousand_points_of_four_views_take_a_second():
    cameras = make_cameras(4)
    seen = film(cameras, RNG.uniform(-0.8, 0.8, (10_000, 3)), 2)
    started = time.process_time()
    triangulate_robust(cameras, seen)
    assert time.process_time() - started < 4  # 0.25 s on a quiet core


def test_points_behind_a_camera_are_not_seen_by_it():
    P = make_P(2)[:1]
    assert np.isnan(reproject(np.array([[0.0, 0.0, -9.0]]), P)).all()


def test_the_numbers_of_views_must_agree():
    with pytest.raises(ValueError, match="3 views of points, but 2"):
        triangulate_dlt(np.zeros((3, 5, 2)), make_P(2))
