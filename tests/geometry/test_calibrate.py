import cv2
import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.geometry.board import Board, Detection
from streampose.geometry.calibrate import board_pose, calibrate_lens, place_cameras, stand_on_board, view_error
from streampose.geometry.distortion import project
from streampose.structures import Camera

BOARD = Board("checkerboard", 7, 4, 0.06)
SIZE = (1280, 720)
K = np.array([[1100.0, 0, 652], [0, 1104, 349], [0, 0, 1]])
LENSES = {
    "none": np.zeros(0),
    "radial": np.array([-0.12, 0.06, 0, 0]),
    "radtan": np.array([-0.12, 0.06, 0.001, -0.0008, 0.02]),
    "fisheye": np.array([-0.03, 0.006, -0.004, 0.001]),
}


def turn(degrees):
    return cv2.Rodrigues(np.radians(np.asarray(degrees, float)))[0]


def camera_with(lens, K=K):
    return Camera(K, np.eye(3), np.zeros(3), SIZE, LENSES[lens], fisheye=lens == "fisheye")


def see(camera, R, t, rng, noise_px=0.05):
    """A detection of the board at world_from_board (R, t); None where a corner is out of the picture."""
    xy = project(BOARD.points @ R.T + t, camera)
    if not (np.isfinite(xy).all() and (xy > 3).all() and (xy < np.array(SIZE) - 3).all()):
        return None
    return Detection(np.arange(28), xy + rng.normal(0, noise_px, xy.shape))


def hand_held(camera, count, rng, distance=(0.45, 0.9)):
    detections = []
    while len(detections) < count:
        R = turn(rng.uniform([-40, -40, -30], [40, 40, 30]))
        centre = np.array([rng.uniform(-0.35, 0.35), rng.uniform(-0.2, 0.2), rng.uniform(*distance)])
        if (found := see(camera, R, centre - R @ BOARD.points.mean(0), rng)) is not None:
            detections.append(found)
    return detections


@pytest.mark.parametrize("lens", LENSES)
def test_a_known_lens_is_found(lens):
    rng = np.random.default_rng(2)
    camera = camera_with(lens)
    found = calibrate_lens(hand_held(camera, 15, rng), BOARD, SIZE, lens)
    np.testing.assert_allclose(found.camera.K[[0, 1], [0, 1]], K[[0, 1], [0, 1]], rtol=0.005)
    np.testing.assert_allclose(found.camera.K[:2, 2], K[:2, 2], atol=5)
    assert found.used.all() and found.error_px == pytest.approx(0.07, abs=0.015)  # 0.05 px on each axis
    assert not found.camera.posed and found.camera.fisheye == (lens == "fisheye")
    corners = np.stack([rng.uniform(-0.4, 0.4, 200), rng.uniform(-0.25, 0.25, 200), np.ones(200)], -1)
    assert np.linalg.norm(project(corners, found.camera) - project(corners, camera), axis=-1).max() < 8


def test_views_that_are_wrong_are_dropped_and_said():
    rng = np.random.default_rng(3)
    detections = hand_held(camera_with("radial"), 12, rng)
    detections[4] = Detection(detections[4].ids, detections[4].xy + rng.normal(0, 4, (28, 2)))
    shuffled = detections[9].xy.reshape(4, 7, 2)[:, [1, 0, 2, 3, 4, 5, 6]].reshape(28, 2)
    detections[9] = Detection(detections[9].ids, shuffled)
    found = calibrate_lens(detections, BOARD, SIZE)
    assert np.flatnonzero(~found.used).tolist() == [4, 9] and found.error_px < 0.2
    assert found.view_error_px[4] > 3 and found.view_error_px[[0, 1, 2, 3]].max() < 0.3
    np.testing.assert_allclose(found.camera.K[0, 0], K[0, 0], rtol=0.005)
    with pytest.raises(ConfigError, match="2 views of the board"):
        calibrate_lens(detections[:2], BOARD, SIZE)
    with pytest.raises(ConfigError, match="--lens wide"):
        calibrate_lens(detections, BOARD, SIZE, "wide")


def test_a_pose_is_found_and_its_error_is_the_noise():
    rng, camera = np.random.default_rng(4), camera_with("radtan")
    R, t = turn([25, -20, 40]), np.array([-0.1, -0.05, 0.8])
    found_R, found_t = board_pose(see(camera, R, t, rng, 0.05), BOARD, camera)
    assert np.abs(found_R - R).max() < 0.003 and np.abs(found_t - t).max() < 0.001
    assert view_error(see(camera, R, t, rng, 0.0), BOARD, camera) < 1e-4


def make_rig(rng, count=4, lenses=("radial",)):
    """Cameras on an arc around a space of a metre, and where the world's origin is for each."""
    cameras = {}
    for number in range(count):
        R = turn([12 * rng.uniform(-1, 1), 28 * (number - (count - 1) / 2), 8 * rng.uniform(-1, 1)])
        lens = lenses[number % len(lenses)]
        focal = rng.uniform(1000, 1200)
        mine = np.array([[focal, 0, 640 + rng.uniform(-15, 15)], [0, focal, 360 + rng.uniform(-15, 15)], [0, 0, 1]])
        cameras[f"c{number}"] = Camera(mine, R, np.array([0, 0, 1.9]), SIZE, LENSES[lens], fisheye=lens == "fisheye")
    return cameras


def wave(cameras, moments, rng, noise_px=0.05):
    """The board held up in the middle, turned about: what each camera sees of it at each moment."""
    seen = {}
    for number in range(moments):
        R = turn(rng.uniform([-30, -30, -180], [30, 30, 180]))
        t = rng.uniform([-0.3, -0.2, -0.3], [0.3, 0.2, 0.3]) - R @ BOARD.points.mean(0)
        now = {name: see(camera, R, t, rng, noise_px) for name, camera in cameras.items()}
        seen[f"m{number:02d}"] = {name: detection for name, detection in now.items() if detection is not None}
    return seen


def apart(found, truth):
    """Largest error of the rotations (degrees) and of the places (mm) of cameras against the first."""
    first = next(iter(truth))
    angles, shifts = [], []
    for name in truth:
        R = [cameras[name].R @ cameras[first].R.T for cameras in (found, truth)]
        t = [c[name].t - r @ c[first].t for c, r in zip((found, truth), R, strict=True)]
        angles.append(np.degrees(np.arccos(np.clip((np.trace(R[0] @ R[1].T) - 1) / 2, -1, 1))))
        centres = [-r.T @ shift for r, shift in zip(R, t, strict=True)]
        shifts.append(1000 * np.linalg.norm(centres[0] - centres[1]))
    return max(angles), max(shifts)


@pytest.mark.parametrize("lenses", [("radial",), ("radtan", "fisheye")], ids=["radial", "mixed"])
def test_lenses_then_places_then_bundle_adjustment(lenses):
    rng = np.random.default_rng(6)
    truth = make_rig(rng, 4, lenses)
    alone, cameras = {}, {}
    for number, (name, camera) in enumerate(truth.items()):
        at_origin = Camera(camera.K, np.eye(3), np.zeros(3), SIZE, camera.distortion, camera.fisheye)
        alone[name] = hand_held(at_origin, 14, rng)
        cameras[name] = calibrate_lens(alone[name], BOARD, SIZE, lenses[number % len(lenses)]).camera
    moments = wave(truth, 20, rng)
    rig = place_cameras(cameras, moments, BOARD, alone=alone)
    degrees, millimetres = apart(rig.cameras, truth)
    assert degrees < 0.2 and millimetres < 2
    assert rig.error_px < min(rig.before_px, 0.08) and not rig.dropped
    for name, camera in truth.items():
        np.testing.assert_allclose(rig.cameras[name].K[[0, 1], [0, 1]], camera.K[[0, 1], [0, 1]], rtol=0.005)
    assert all(camera.posed for camera in rig.cameras.values())
    rough, _ = place_cameras(cameras, moments, BOARD, refine_lenses=False), None
    assert apart(rough.cameras, truth)[0] < 0.3


def test_a_photo_of_another_moment_is_found_out():
    rng = np.random.default_rng(7)
    truth = make_rig(rng, 3)
    moments = wave(truth, 20, rng)
    moments["m05"]["c2"] = next(m["c2"] for k, m in moments.items() if k != "m05" and "c2" in m)
    assert "c0" in moments["m05"] or "c1" in moments["m05"]
    rig = place_cameras(truth, moments, BOARD)
    assert ("m05", "c2") in rig.dropped and rig.error_px < 0.2
    assert apart(rig.cameras, truth)[0] < 0.2


def test_one_board_on_the_floor_is_enough_and_becomes_the_world():
    rng = np.random.default_rng(8)
    floor = Camera(K, turn([115, 0, 0]), np.array([-0.2, 0.3, 1.6]), SIZE, LENSES["radial"])  # looks down at z = 0
    truth = {
        "a": floor,
        "b": Camera(K, floor.R @ turn([0, 0, 35]), np.array([-0.1, 0.25, 1.9]), SIZE, LENSES["radial"]),
    }
    flat = np.diag([1.0, -1.0, -1.0])  # lies with its face up
    moments = {"floor": {name: see(camera, flat, np.zeros(3), rng, 0.03) for name, camera in truth.items()}}
    assert None not in moments["floor"].values()
    rig = stand_on_board(place_cameras(truth, moments, BOARD, refine_lenses=False), "floor")
    for name, camera in truth.items():
        assert np.abs(rig.cameras[name].R - camera.R).max() < 0.01
        assert np.linalg.norm(rig.cameras[name].R.T @ rig.cameras[name].t - camera.R.T @ camera.t) < 0.02
        assert (-rig.cameras[name].R.T @ rig.cameras[name].t)[2] > 0.3  # above the floor
    np.testing.assert_allclose(rig.boards["floor"][0], flat, atol=1e-6)
    with pytest.raises(ConfigError, match="--floor noon"):
        stand_on_board(rig, "noon")


def test_cameras_without_a_common_moment_and_boards_without_an_up_are_said():
    rng = np.random.default_rng(9)
    truth = make_rig(rng, 3)
    moments = {k: {n: d for n, d in seen.items() if n != "c1"} for k, seen in wave(truth, 8, rng).items()}
    with pytest.raises(ConfigError, match="c1: never sees the board together with c0, c2"):
        place_cameras(truth, moments, BOARD)
    with pytest.raises(ConfigError, match="7x5 corners looks the same turned by half"):
        place_cameras(truth, moments, Board("checkerboard", 7, 5, 0.06))
