import cv2
import numpy as np
import pytest

from streampose.geometry.project import camera_from_world, project_points

K = np.array([[420.0, 0, 160], [0, 430.0, 120], [0, 0, 1]])
R = cv2.Rodrigues(np.array([0.3, -0.2, 0.1]))[0]
T = np.array([0.1, -0.2, 3.0])
POINTS = np.random.default_rng(0).uniform(-0.7, 0.7, (50, 3))


@pytest.mark.parametrize(
    "distortion",
    [[], [-0.2, 0.05, 0.001, -0.002], [-0.2, 0.05, 0.001, -0.002, 0.01], [0.1, 0.02, 0, 0, 0.01, 0.05, 0.01, 0.02]],
)
def test_projection_equals_opencv(distortion):
    expected, _ = cv2.projectPoints(POINTS, cv2.Rodrigues(R)[0], T, K, np.array(distortion, float))
    ours = project_points(POINTS, K, R, T, np.array(distortion))
    assert np.allclose(ours, expected[:, 0], atol=1e-6)


def test_one_camera_a_frame_projects_each_frame_with_its_own():
    Ks, Rs, ts = np.stack([K, 2 * K]), np.stack([R, np.eye(3)]), np.stack([T, T + 1])
    both = project_points(np.stack([POINTS, POINTS]), Ks, Rs, ts)
    assert np.allclose(both[1], project_points(POINTS, 2 * K, np.eye(3), T + 1))


def test_points_behind_the_camera_are_nan():
    behind = R.T @ (np.array([0, 0, -1.0]) - T)
    assert np.isnan(project_points(behind[None], K, R, T)).all()
    assert camera_from_world(behind[None], R, T)[0, 2] == pytest.approx(-1)


def test_a_wrong_number_of_coefficients_is_refused():
    with pytest.raises(ValueError, match="3 distortion coefficients"):
        project_points(POINTS, K, R, T, np.array([0.1, 0.2, 0.3]))
