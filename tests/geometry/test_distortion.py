import cv2
import numpy as np
import pytest

from streampose.geometry.distortion import distort, distort_pixels, project, undistort, undistort_pixels
from streampose.structures import Camera

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-0.45, 0.45, (200, 2))
PINHOLE = {
    4: [-0.2, 0.05, 0.001, -0.002],
    5: [-0.2, 0.05, 0.001, -0.002, 0.01],
    8: [0.3, -0.1, 0.001, -0.002, 0.02, 0.4, -0.05, 0.01],
    12: [-0.2, 0.05, 0.001, -0.002, 0.01, 0.02, 0.01, 0.003, 0.002, -0.001, 0.003, 0.001],
}
FISHEYE = np.array([-0.02, 0.004, -0.003, 0.0005])
K = np.array([[900.0, 0, 640], [0, 905, 360], [0, 0, 1]])
R = cv2.Rodrigues(np.array([0.1, -0.3, 0.2]))[0]
T = np.array([0.1, -0.2, 3.0])
WORLD = RNG.uniform(-1, 1, (50, 3))


@pytest.mark.parametrize("count", PINHOLE)
def test_pinhole_agrees_with_opencv_and_comes_back(count):
    coefficients = np.array(PINHOLE[count])
    ours = distort(POINTS, coefficients)
    rays = np.concatenate([POINTS, np.ones((200, 1))], 1)
    theirs = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), coefficients)[0][:, 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(undistort(ours, coefficients), POINTS, atol=1e-9)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 200, 1e-14)
    back = cv2.undistortPointsIter(ours[:, None], np.eye(3), coefficients, None, None, criteria)[:, 0]
    np.testing.assert_allclose(undistort(ours, coefficients), back, atol=1e-8)


def test_fisheye_agrees_with_opencv_and_comes_back():
    wide = RNG.uniform(-4, 4, (300, 2))  # rays up to 80 degrees from the axis
    ours = distort(wide, FISHEYE, fisheye=True)
    np.testing.assert_allclose(ours, cv2.fisheye.distortPoints(wide[:, None], np.eye(3), FISHEYE)[:, 0], atol=1e-12)
    np.testing.assert_allclose(undistort(ours, FISHEYE, fisheye=True), wide, atol=1e-6)
    assert np.array_equal(distort(np.zeros((1, 2)), FISHEYE, fisheye=True), np.zeros((1, 2)))
    assert np.array_equal(undistort(np.zeros((1, 2)), FISHEYE, fisheye=True), np.zeros((1, 2)))


def test_projection_agrees_with_opencv_for_both_lenses():
    pinhole = Camera(K, R, T, (1280, 720), np.array(PINHOLE[5]))
    theirs = cv2.projectPoints(WORLD, cv2.Rodrigues(R)[0], T, K, pinhole.distortion)[0][:, 0]
    np.testing.assert_allclose(project(WORLD, pinhole), theirs, atol=1e-9)
    fisheye = Camera(K, R, T, (1280, 720), FISHEYE, fisheye=True)
    theirs = cv2.fisheye.projectPoints(WORLD[:, None], cv2.Rodrigues(R)[0], T, K, FISHEYE)[0][:, 0]
    np.testing.assert_allclose(project(WORLD, fisheye), theirs, atol=1e-9)
    for camera in (pinhole, fisheye):
        ideal = undistort_pixels(project(WORLD, camera), camera)
        x = WORLD @ R.T + T
        np.testing.assert_allclose(ideal, (x / x[:, 2:] @ camera.K.T)[:, :2], atol=1e-6)
        np.testing.assert_allclose(distort_pixels(ideal, camera), project(WORLD, camera), atol=1e-6)


def test_points_behind_missing_or_beyond_the_lens_are_nan():
    camera = Camera(K, np.eye(3), np.zeros(3), (1280, 720), np.array(PINHOLE[4]))
    assert np.isnan(project(np.array([[0.0, 0, -1], [np.nan, 0, 1]]), camera)).all()
    seen = np.array([[[640.0, 360.0], [np.nan, np.nan]]])
    np.testing.assert_allclose(undistort_pixels(seen, camera), seen, atol=1e-9)
    # With k1 = -0.2 alone nothing is ever seen further out than r (1 - 0.2 r^2) at its peak, 0.8607.
    barrel = np.array([-0.2, 0, 0, 0])
    assert np.isnan(undistort(np.array([[0.9, 0.0]]), barrel)).all()
    assert np.isfinite(undistort(np.array([[0.8, 0.0]]), barrel)).all()
    assert np.isnan(undistort(np.array([[1.7, 0.0]]), np.zeros(4), fisheye=True)).all()  # beyond 90 degrees


def test_a_wrong_number_of_coefficients_is_named():
    with pytest.raises(ValueError, match="3 distortion coefficients"):
        distort(POINTS, np.ones(3))
    with pytest.raises(ValueError, match="tilted sensor"):
        distort(POINTS, np.ones(14))
    with pytest.raises(ValueError, match="fisheye lens has 4"):
        distort(POINTS, np.ones(5), fisheye=True)
    assert distort(POINTS, np.zeros(0)) is POINTS and undistort(POINTS, np.zeros(5)) is POINTS
