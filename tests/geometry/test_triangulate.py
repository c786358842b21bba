import cv2
import numpy as np
import pytest

from streampose.geometry.triangulate import reproject, reprojection_error, triangulate_dlt, triangulate_robust

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


def test_robust_leaves_out_the_view_that_is_wrong():
    P = make_P(4)
    seen = reproject(WORLD, P) + RNG.normal(0, 1, (6, 4, 9, 2))
    wrong = RNG.integers(0, 4, (6, 9))
    for t, k in np.ndindex(6, 9):
        seen[t, wrong[t, k], k] += [150, -90]
    points, used = triangulate_robust(seen, P)
    assert np.linalg.norm(points - WORLD, axis=-1).max() < 0.02
    assert not np.take_along_axis(used, wrong[:, None], 1).any() and used.sum(1).min() == 3
    assert np.median(np.linalg.norm(triangulate_dlt(seen, P) - WORLD, axis=-1)) > 0.1
    far = seen[:, :2] + np.array([[[0, 0]], [[0, 400]]])  # two views that contradict each other agree on nothing
    assert np.isnan(triangulate_robust(far, P[:2])[0]).all()


def test_points_behind_a_camera_are_not_seen_by_it():
    P = make_P(2)[:1]
    assert np.isnan(reproject(np.array([[0.0, 0.0, -9.0]]), P)).all()


def test_the_numbers_of_views_must_agree():
    with pytest.raises(ValueError, match="3 views of points, but 2"):
        triangulate_dlt(np.zeros((3, 5, 2)), make_P(2))
