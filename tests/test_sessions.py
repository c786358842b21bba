import json

import cv2
import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.calibration import write_calibration
from streampose.geometry.distortion import project
from streampose.sessions import check_session, load_session, load_sessions, match_cameras
from streampose.structures import Camera, Session, View
from streampose.synth import synth
from streampose.video.encode import VideoWriter

RNG = np.random.default_rng(3)


def make_cameras(names, size=(64, 48)):
    cameras = {}
    for v, name in enumerate(names):
        R = cv2.Rodrigues(np.array([0.05, 1.2 * v, 0.1]))[0]
        K = np.array([[60.0, 0, size[0] / 2], [0, 60, size[1] / 2], [0, 0, 1]])
        cameras[name] = Camera(K, R, np.array([0.0, 0.1, 4.0]), size, np.array([-0.05, 0.01, 0.0, 0.0]))
    return cameras


def make_video(path, size=(64, 48)):
    with VideoWriter(path, 25, size) as writer:
        for t in range(4):
            writer.write(np.full((size[1], size[0], 3), 40 * t, np.uint8))
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "jump"
    for name in ("cam01", "cam02", "cam03"):
        make_video(root / "videos" / f"{name}.mp4")
    write_calibration(root / "calibration.toml", make_cameras(["cam_3", "cam_1", "cam_2"]))
    return root


def test_a_folder_is_one_session(folder):
    session = load_session(folder)
    assert session.name == "jump" and [view.name for view in session.views] == ["cam01", "cam02", "cam03"]
    cameras = make_cameras(["cam_3", "cam_1", "cam_2"])
    np.testing.assert_allclose(session.views[0].camera.R, cameras["cam_1"].R, atol=1e-9)
    np.testing.assert_allclose(session.views[2].camera.R, cameras["cam_3"].R, atol=1e-9)
    assert session.calibrated and load_session(folder / "videos").calibrated  # found beside the folder of the videos
    (folder / "calibration.toml").unlink()
    assert not load_session(folder).calibrated


def test_a_folder_of_sessions(folder, tmp_path):
    for name in ("cam01", "cam02"):
        make_video(tmp_path / "walk" / f"{name}.mp4")
    assert [session.name for session in load_sessions(tmp_path)] == ["jump", "walk"]
    assert load_session(tmp_path, "walk").views[1].camera is None
    with pytest.raises(ConfigError, match="2 sessions"):
        load_session(tmp_path)


def test_sessions_yaml(folder, tmp_path):
    text = """
sessions:
  - name: first
    calibration: jump/calibration.toml
    views:
      - {video: jump/videos/cam01.mp4, name: front, camera: cam_2}
      - {video: jump/videos/cam03.mp4, offset_seconds: -0.5}
  - name: second
    views: [{video: jump/videos/cam02.mp4}]
"""
    file = tmp_path / "sessions.yaml"
    file.write_text(text)
    first, second = load_sessions(tmp_path)
    assert [view.name for view in first.views] == ["front", "cam03"]
    assert [view.offset_seconds for view in first.views] == [0.0, -0.5]
    cameras = make_cameras(["cam_3", "cam_1", "cam_2"])
    np.testing.assert_allclose(first.views[0].camera.R, cameras["cam_2"].R, atol=1e-9)
    np.testing.assert_allclose(first.views[1].camera.R, cameras["cam_3"].R, atol=1e-9)
    assert second.views[0].camera is None and load_session(file, "second").name == "second"
    for wrong, message in [
        (text.replace("offset_seconds", "offset"), "unknown key"),
        (text.replace("cam02.mp4", "cam09.mp4"), "no such video"),
        (text.replace("camera: cam_2", "camera: cam_9"), "no camera cam_9"),
        (text.replace("name: second", "name: first"), "a name of its own"),
        (text.replace("jump/calibration", "jump/lost"), "lost.toml: no such file"),
        ("sessions: []", "sessions"),
        (text.replace("views: [{", "synchronise: clap\n    views: [{"), "synchronise 'clap'"),
    ]:
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=message):
            load_sessions(tmp_path)


def test_the_session_of_synth_with_its_cameras(tmp_path):
    synth(out=tmp_path, videos=1, seconds=0.2, cameras=3, size=(96, 96), seed=5)
    session = load_session(tmp_path)
    assert session.name == "video_000" and len(session.views) == 3 and session.calibrated
    with np.load(tmp_path / "video_000_cam1.truth.npz") as truth:
        seen = project(truth["joints_3d"][0], session.views[1].camera)
        np.testing.assert_allclose(seen, truth["joints_2d"][0], atol=1e-3)
    (tmp_path / "session.json").write_text(json.dumps({"sessions": [{"name": "x", "views": [{"K": 1}]}]}))
    with pytest.raises(ConfigError, match="not what `streampose synth` writes"):
        load_session(tmp_path)


def test_a_calibration_is_resized_with_its_video_but_never_stretched(tmp_path):
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", (64, 48))
    write_calibration(tmp_path / "calibration.json", make_cameras("ab", (128, 96)))
    camera = load_session(tmp_path).views[0].camera
    assert camera.size == (64, 48) and camera.K[0, 0] == pytest.approx(30) and camera.K[0, 2] == pytest.approx(31.75)
    write_calibration(tmp_path / "calibration.json", make_cameras("ab", (72, 48)))  # as a codec pads it
    camera = load_session(tmp_path).views[0].camera
    assert camera.size == (64, 48) and camera.K[0, 2] == 36
    write_calibration(tmp_path / "calibration.json", make_cameras("ab", (48, 64)))
    with pytest.raises(ConfigError, match="needs a calibration of its own"):
        load_session(tmp_path)


def test_cameras_are_matched_by_name_then_by_order():
    def match(views, cameras):
        return match_cameras(views, cameras, "c.toml")

    assert match(["cam01", "cam02"], ["cam_2", "Cam-1"]) == {"cam01": "Cam-1", "cam02": "cam_2"}
    assert match(["jump_cam1_hd", "jump_cam10_hd"], ["cam10", "cam1"]) == {
        "jump_cam1_hd": "cam1",
        "jump_cam10_hd": "cam10",
    }
    assert match(["GX01", "GX02"], ["left", "right"]) == {"GX01": "left", "GX02": "right"}
    assert match(["b"], ["a", "b"]) == {"b": "b"}
    with pytest.raises(ConfigError, match="no camera for GX02"):
        match(["left", "GX02"], ["left", "right"])
    with pytest.raises(ConfigError, match="no camera for GX01"):
        match(["GX01"], ["left", "right"])


def test_what_is_not_a_session_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no session; put one video a camera"):
        load_session(tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder"):
        load_session(tmp_path / "none")
    make_video(tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match="two or more"):
        load_session(tmp_path)
    with pytest.raises(ConfigError, match="choose none, auto"):
        load_session(tmp_path, synchronise="clap")
    with pytest.raises(ConfigError, match="two views are called a"):
        Session("s", (View("a", tmp_path / "a.mp4"), View("a", tmp_path / "b.mp4")))


def seen_by(cameras, noise_px=0.5):
    world = RNG.uniform(-0.7, 0.7, (5, 12, 3))
    return {name: project(world, camera) + RNG.normal(0, noise_px, (5, 12, 2)) for name, camera in cameras.items()}


def make_session(cameras, tmp_path):
    return Session("s", tuple(View(name, tmp_path / name, camera) for name, camera in cameras.items()))


def test_check_passes_a_right_calibration_and_names_the_wrong_camera(tmp_path):
    cameras = make_cameras("abcd", (1280, 720))
    longer = np.array([[18, 1, 1], [1, 18, 1], [1, 1, 1]])
    cameras = {n: Camera(c.K * longer, c.R, c.t, c.size, c.distortion) for n, c in cameras.items()}
    keypoints = seen_by(cameras)
    result = check_session(make_session(cameras, tmp_path), keypoints)
    assert not result["wrong"] and 0.2 < result["error_px"] < 1.0 and result["views"]["a"]["points"] == 60
    turned = dict(cameras)
    c = cameras["c"]
    turn = cv2.Rodrigues(np.array([0, np.radians(3), 0]))[0]
    turned["c"] = Camera(c.K, turn @ c.R, turn @ c.t, c.size, c.distortion)
    result = check_session(make_session(turned, tmp_path), keypoints)
    assert result["wrong"] and "c most of all" in result["message"] and result["error_px"] > result["limit_px"]
    assert max(result["views"], key=lambda name: result["views"][name]["without_px"]) == "c"
    confidence = {name: np.full((5, 12), 0.0 if name == "c" else 0.9) for name in cameras}
    unseen = check_session(make_session(turned, tmp_path), keypoints, confidence)
    assert not unseen["wrong"] and unseen["views"]["c"]["error_px"] is None
    once = {name: np.full((5, 12, 2), np.nan) for name in cameras} | {"a": keypoints["a"]}
    result = check_session(make_session(cameras, tmp_path), once)
    assert result["error_px"] is None and not result["wrong"] and "not checked" in result["message"]


def test_check_of_synthetic_truth_and_of_a_time_offset_that_is_wrong(tmp_path):
    synth(out=tmp_path, videos=1, seconds=3, cameras=3, size=(160, 160), seed=7)
    session = load_session(tmp_path)
    keypoints, late = {}, {}
    for view in session.views:
        with np.load(view.video.with_name(f"{view.name}.truth.npz")) as truth:
            seen = np.where(truth["visibility"][:, 0, :, None] > 0, truth["joints_2d"][:, 0], np.nan)
        keypoints[view.name] = seen[:60]
        late[view.name] = seen[15:75] if view.name.endswith("cam1") else seen[:60]
    assert check_session(session, keypoints)["error_px"] < 1e-3
    result = check_session(session, late)  # 0.6 s too late
    assert (
        result["wrong"]
        and "cam1 most of all" in result["message"]
        and f"{result['error_px']:.1f} px" in result["message"]
    )


def test_a_calibration_in_millimetres_is_suspected(folder, caplog):
    cameras = make_cameras(["cam_3", "cam_1", "cam_2"])
    cameras = {n: Camera(c.K, c.R, c.t * 1000, c.size, c.distortion) for n, c in cameras.items()}
    write_calibration(folder / "calibration.toml", cameras)
    with caplog.at_level("WARNING", logger="streampose"):
        load_session(folder)
    assert "unit: mm" in caplog.text


def test_check_says_the_known_floor_of_a_shipped_calibration(shared_data):
    session = load_session(shared_data / "people_four_cameras")
    keypoints, confidence = {}, {}
    for view in session.views:
        folder = shared_data / "people_four_cameras" / "openpose_2d" / f"{view.name}_json"
        people = [
            json.loads(file.read_text())["people"][0]["pose_keypoints_2d"] for file in sorted(folder.glob("*.json"))
        ]
        values = np.array(people).reshape(len(people), -1, 3)
        keypoints[view.name], confidence[view.name] = values[..., :2], values[..., 2]
    result = check_session(session, keypoints, confidence)
    assert 8 < result["error_px"] < 17 and result["wrong"]
    assert all(6 < view["error_px"] < 17 for view in result["views"].values())
