"""Subjects in space, from cameras whose places are known."""

import json
import time

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.formats.calibration import write_calibration
from streampose.geometry.distortion import project
from streampose.server.space import Space, read_cameras
from streampose.structures import Camera, Keypoints

SKELETON = load_skeleton("human17")
SIZE = (1280, 720)


def camera_at(degrees: float) -> Camera:
    """A camera four metres away that looks at the world's origin."""
    a = np.radians(degrees)
    place = np.array([4 * np.sin(a), -0.2, -4 * np.cos(a)])
    z = -place / np.linalg.norm(place)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    K = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]])
    return Camera(K, R, -R @ place, SIZE, np.array([-0.1, 0.02, 0, 0]))


def person(x: float, z: float) -> np.ndarray:
    pose = np.zeros((SKELETON.num_joints, 3))
    for bone in SKELETON.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.array(bone.direction)
    return pose * 1.7 + (x, 0, z)


CAMERAS = [camera_at(a) for a in (0, 70, 150)]
PEOPLE = [person(-0.7, 0.2), person(0.8, -0.3)]


def show(space: Space, people, order, at=10.0, noise=0.0, swap=(), size=SIZE, cameras=range(3)) -> None:
    """What the cameras see; `order` gives for each camera which person comes first."""
    rng = np.random.default_rng(0)
    for number in cameras:
        shown = [people[n] for n in order[number]]
        xy = np.array([project(points, CAMERAS[number]) for points in shown])
        xy = (xy + 0.5) * (size[0] / SIZE[0]) - 0.5 + rng.normal(size=xy.shape) * noise
        if number in swap:
            xy = xy[:, SKELETON.flip_index]
        ids = tuple(10 * number + n for n in order[number])
        keypoints = Keypoints(xy, np.full(xy.shape[:2], 0.9))
        space.see(number, ids, keypoints, np.full(xy.shape[:2], 2, np.uint8), size, at + 0.01 * number)


def test_people_are_found_in_space_and_keep_their_numbers():
    space = Space(CAMERAS, SKELETON)
    show(space, PEOPLE, [(0, 1), (1, 0), (0, 1)])
    scene = space.scene()
    assert len(scene.ids) == 2 and scene.skew_ms == pytest.approx(20)
    by_camera = {views[0]: points for views, points in zip(scene.views, scene.points, strict=True)}
    for n, points in enumerate(PEOPLE):
        np.testing.assert_allclose(by_camera[n], points, atol=1e-4)
    assert all(
        {c: s % 10 for c, s in views.items()} in ({0: 0, 1: 0, 2: 0}, {0: 1, 1: 1, 2: 1}) for views in scene.views
    )
    numbers = {views[0]: id_ for id_, views in zip(scene.ids, scene.views, strict=True)}
    show(space, PEOPLE, [(1, 0), (0, 1), (1, 0)], at=10.04)
    again = space.scene()
    assert {views[0]: id_ for id_, views in zip(again.ids, again.views, strict=True)} == numbers


def test_noise_and_sides_confused_by_one_camera():
    space = Space(CAMERAS, SKELETON)
    show(space, PEOPLE[:1], [(0,), (0,), (0,)], noise=1.5, swap=(1,))
    scene = space.scene()
    assert np.linalg.norm(scene.points[0] - PEOPLE[0], axis=-1).mean() < 0.015
    assert np.nanmean(scene.errors_px) < 4


def test_a_resolution_that_differs_from_the_calibration():
    space = Space(CAMERAS, SKELETON)
    show(space, PEOPLE[:1], [(0,), (0,), (0,)], size=(640, 360))
    np.testing.assert_allclose(space.scene().points[0], PEOPLE[0], atol=1e-3)


def test_frames_of_another_moment_do_not_count():
    space = Space(CAMERAS, SKELETON)
    show(space, PEOPLE[:1], [(0,), (0,), (0,)], at=10.0)
    show(space, PEOPLE[:1], [(0,), (0,), (0,)], at=15.0, cameras=[0])
    assert space.scene().ids == ()


def test_somebody_whom_one_camera_does_not_see():
    space = Space(CAMERAS, SKELETON)
    show(space, PEOPLE, [(0, 1), (0,), (1, 0)])
    scene = space.scene()
    assert sorted(len(views) for views in scene.views) == [2, 3]


def test_nobody():
    assert Space(CAMERAS, SKELETON).scene().points.shape == (0, 17, 3)


def test_cameras_are_matched_by_name_or_order(tmp_path):
    path = write_calibration(tmp_path / "c.json", dict(zip(("left", "right", "top"), CAMERAS, strict=True)))
    named = read_cameras(path, ["/videos/right.mp4", "left.mp4"])
    np.testing.assert_allclose(named[0].t, CAMERAS[1].t)
    ordered = read_cameras(path, [0, 1, 2])
    np.testing.assert_allclose(ordered[2].t, CAMERAS[2].t)
    with pytest.raises(ConfigError, match="holds 3 cameras"):
        read_cameras(path, [0, 1, 2, 3])
    with pytest.raises(ConfigError, match="name two or more"):
        read_cameras(path, [0])


def test_the_session_publishes_the_scene(make_session, fakes):
    """Two cameras see joints above each other: that at the dot lies where the two lines of sight meet."""
    cameras = [Camera(c.K, c.R, c.t, SIZE) for c in CAMERAS[:2]]
    sources = [fakes.Source(), fakes.Source()]
    predictor = fakes.Predictor()
    dots = predictor.predict

    def poles(image, boxes):
        found = dots(image, boxes)
        return Keypoints(found.xy + np.stack([np.zeros(17), 8.0 * (np.arange(17) - 8)], -1), found.confidence)

    predictor.predict = poles
    session = make_session.of([[source] for source in sources], predictor, space=Space(cameras, SKELETON))
    slot = session.subscribe()
    session.start()
    point = np.array([0.1, 0.05, 0.2])
    found, until = None, time.monotonic() + 20
    # a scene holds for some time: the first one saw one camera only
    while not (found and found.scene.ids and max(predictor.batches) == 2):
        assert time.monotonic() < until
        for camera, source in zip(cameras, sources, strict=True):
            x, y = project(point[None], camera)[0]
            source.push(fakes.dot(round(x), round(y), *SIZE))
        for _ in range(2):
            found = slot.take(timeout=5) or found
    assert found.scene.ids and len(found.scene.views[0]) == 2
    assert np.linalg.norm(found.scene.points[0, 8] - point) < 0.02
    message = json.loads(found.message())
    assert message["scene"]["subjects"][0]["views"].keys() == {"0", "1"}
    assert {camera.name for camera in session.stats().cameras} == {"fake"}
    assert max(predictor.batches) == 2  # both cameras' subjects in one batch
