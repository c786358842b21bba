from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from streampose.formats.calibration import read_calibration
from streampose.formats.openpose import read_openpose
from streampose.geometry.distortion import project
from streampose.geometry.refine import camera_centre, camera_slopes, refine_cameras
from streampose.geometry.triangulate import triangulate_robust
from streampose.structures import Camera


def camera_at(place, target=(0, 0, 1.0), focal=1100.0):
    forward = np.array(target) - place
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    K = np.array([[focal, 0, 540], [0, focal, 960], [0, 0, 1]])
    return Camera(K, R, -R @ place, (1080, 1920), np.array([-0.1, 0.02, 0.001, -0.001]))


def make_rig(views):
    turns = 0.3 + 2 * np.pi * np.arange(views) / views
    return [camera_at(np.array([4 * np.cos(a), 4 * np.sin(a), 1.5 + 0.3 * v])) for v, a in enumerate(turns)]


def walk(rng, moments=40, joints=9):
    """A body of fixed shape that turns and walks in a circle: (T, K, 3) metres."""
    body = rng.normal(0, 0.3, (joints, 3)) * [1, 1, 2]
    turns = 2 * np.pi * np.arange(moments) / moments
    R = Rotation.from_rotvec(np.stack([0.1 * np.sin(3 * turns), 0.1 * np.cos(2 * turns), turns], -1)).as_matrix()
    return body @ R.swapaxes(-1, -2) + np.stack([0.8 * np.cos(turns), 0.8 * np.sin(turns), 0 * turns + 1], -1)[:, None]


def disturb(camera, rng, degrees, metres, focal=0.0):
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    R = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix() @ camera.R
    K = camera.K * [[1 + focal], [1 + focal], [1]]
    K[:2, 2] = camera.K[:2, 2]
    return replace(camera, K=K, R=R, t=-R @ (camera_centre(camera) + metres * way))


def mistakes(cameras, truth):
    """Degrees and metres by which cameras are off, once the rigs as a whole lie on each other."""
    turn = Rotation.from_matrix([t.R.T @ c.R for c, t in zip(cameras, truth, strict=True)]).mean().as_matrix()
    now, then = (np.stack([camera_centre(c) for c in rig]) for rig in (cameras, truth))
    now, middle = (now - now.mean(0)) @ turn.T, then - then.mean(0)
    now *= np.linalg.norm(middle) / np.linalg.norm(now)
    R = [c.R @ turn.T @ t.R.T for c, t in zip(cameras, truth, strict=True)]
    return np.degrees(Rotation.from_matrix(R).magnitude()), np.linalg.norm(now - middle, axis=-1)


def film(truth, world, rng, sigma=2.0, strayed=0.05):
    seen = np.stack([project(world, camera) for camera in truth])
    seen += rng.normal(0, sigma, seen.shape)
    wrong = rng.random(seen.shape[:-1]) < strayed
    seen[wrong] += rng.normal(0, 100, (wrong.sum(), 2))
    return seen


@pytest.mark.parametrize(("views", "degrees", "metres"), [(2, 1, 0.05), (3, 2, 0.1), (4, 3, 0.2)])
def test_disturbed_cameras_find_back(views, degrees, metres):
    rng = np.random.default_rng(views)
    truth = make_rig(views)
    seen = film(truth, walk(rng), rng)
    given = [disturb(camera, rng, degrees, metres) for camera in truth]
    refined = refine_cameras(given, seen, hold_out=False)
    before, after = mistakes(given, truth), mistakes(refined.cameras, truth)
    assert after[0].max() < 0.2 * before[0].max() and after[1].max() < 0.2 * before[1].max()
    assert refined.after_px < 4 and refined.after_px < 0.5 * refined.before_px
    assert (refined.view_before_px > refined.view_after_px).all()
    assert refined.turned_degrees.max() > 0.2 * degrees and (refined.focal_change == 0).all()


def test_focal_lengths_are_found_where_they_are_asked_for():
    rng = np.random.default_rng(1)
    truth = make_rig(4)
    seen = film(truth, walk(rng), rng, sigma=1.0)
    given = [
        disturb(camera, rng, 0.5, 0.03, focal) for camera, focal in zip(truth, (0.04, -0.04, 0.02, 0), strict=True)
    ]
    refined = refine_cameras(given, seen, focal=True, hold_out=False)
    ratio = np.array([c.K[0, 0] / t.K[0, 0] for c, t in zip(refined.cameras, truth, strict=True)])
    assert np.abs(ratio / ratio.mean() - 1).max() < 0.016  # a common factor is hard to tell from the scale
    np.testing.assert_allclose(
        refined.focal_change, [c.K[0, 0] / g.K[0, 0] - 1 for c, g in zip(refined.cameras, given, strict=True)]
    )


def test_good_cameras_stay_and_the_held_out_joints_say_so():
    rng = np.random.default_rng(2)
    truth = make_rig(3)
    refined = refine_cameras(truth, film(truth, walk(rng), rng, strayed=0.0))
    assert refined.turned_degrees.max() < 0.15 and refined.moved_metres.max() < 0.01
    assert refined.after_px == pytest.approx(refined.before_px, rel=0.05)
    assert refined.held_out_px == pytest.approx(refined.after_px, rel=0.1)


def test_bones_of_constant_length_help_where_few_keypoints_are_seen():
    rng = np.random.default_rng(3)
    truth = make_rig(2)
    world = walk(rng, moments=30, joints=6)
    seen = film(truth, world, rng, sigma=6.0, strayed=0.0)
    given = [disturb(camera, rng, 2, 0.1) for camera in truth]
    free = refine_cameras(given, seen, hold_out=False)
    tied = refine_cameras(given, seen, bones=[(i, j) for i in range(6) for j in range(i)], hold_out=False)
    assert sum(mistakes(tied.cameras, truth)[0]) < sum(mistakes(free.cameras, truth)[0])


def test_the_gauge_keeps_the_first_camera_or_the_rig():
    rng = np.random.default_rng(4)
    truth = make_rig(4)
    seen = film(truth, walk(rng), rng)
    given = [disturb(camera, rng, 1, 0.05) for camera in truth]
    first = refine_cameras(given, seen, gauge="first", hold_out=False).cameras
    np.testing.assert_allclose(first[0].R, given[0].R, atol=1e-9)
    np.testing.assert_allclose(first[0].t, given[0].t, atol=1e-9)
    rig = refine_cameras(given, seen, gauge="rig", hold_out=False).cameras
    centre = np.mean([camera_centre(c) for c in rig], 0)
    np.testing.assert_allclose(centre, np.mean([camera_centre(c) for c in given], 0), atol=1e-9)
    np.testing.assert_allclose(*(np.array(mistakes(cameras, truth)) for cameras in (first, rig)), atol=1e-6)


def test_the_slopes_are_those_of_finite_differences():
    camera, places = make_rig(2)[1], np.random.default_rng(0).uniform(-0.5, 1.5, (5, 3))
    shown, by_camera, by_place = camera_slopes(places, camera, 7)
    np.testing.assert_allclose(shown, project(places, camera), atol=1e-9)
    for axis, step in enumerate(1e-5 * np.eye(3)):
        slope = (project(places + step, camera) - project(places - step, camera)) / 2e-5
        np.testing.assert_allclose(by_place[..., axis], slope, rtol=1e-4, atol=1e-3)
        R = [Rotation.from_rotvec(sign * step).as_matrix() @ camera.R for sign in (1, -1)]
        turned = [project(places, replace(camera, R=r)) for r in R]
        np.testing.assert_allclose(by_camera[..., axis], (turned[0] - turned[1]) / 2e-5, rtol=1e-4, atol=1e-3)
        shifted = [project(places, replace(camera, t=camera.t + sign * step)) for sign in (1, -1)]
        np.testing.assert_allclose(by_camera[..., 3 + axis], (shifted[0] - shifted[1]) / 2e-5, rtol=1e-4, atol=1e-3)


def test_wrong_calls():
    cameras = make_rig(2)
    with pytest.raises(ValueError, match="0 keypoints are seen by two views"):
        refine_cameras(cameras, np.full((2, 3, 9, 2), np.nan))
    with pytest.raises(ValueError, match="choose rig or first"):
        refine_cameras(cameras, np.zeros((2, 3, 9, 2)), gauge="last")
    with pytest.raises(ValueError, match="for 2 cameras"):
        refine_cameras(cameras, np.zeros((3, 3, 9, 2)))


def test_the_cameras_of_real_people_are_refined(shared_data):
    folder = shared_data / "people_four_cameras"
    cameras = list(read_calibration(folder / "calibration.toml").values())
    people = [read_openpose(folder / "openpose_2d" / f"cam0{c}_json", "BODY_25B") for c in (1, 2, 3, 4)]
    xy, confidence = np.stack([p.xy for p in people]), np.stack([p.confidence for p in people])
    refined = refine_cameras(cameras, xy, confidence)
    assert refined.before_px > 8 and refined.after_px < 1  # 9.2 and 0.1 px
    assert refined.held_out_px < 1 and refined.turned_degrees.max() < 1.5 and refined.moved_metres.max() < 0.1
    # The detections are not of the man in the videos; two markers on his heels, found by eye in the first frames, tell
    # whether the refined cameras are right for him too.
    left = [[404, 1204], [502, 1145], [508, 1170], [np.nan, np.nan]]
    right = [[501, 1185], [605, 1148], [np.nan, np.nan], [611, 1184]]
    heels = np.stack([left, right], 1)
    before, after = (triangulate_robust(rig, heels, max_px=100).error_px for rig in (cameras, refined.cameras))
    assert np.nanmedian(before) > 5 and np.nanmax(after) < 3  # 7 and 1.5 px
