import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from streampose.calibrate import MOST_VIEWS, _spread, calibrate, find_pictures
from streampose.errors import ConfigError
from streampose.formats.calibration import read_calibration
from streampose.geometry.board import Board, Detection
from streampose.geometry.distortion import project
from streampose.structures import Camera
from streampose.synthetic.board import render_board
from streampose.video.encode import VideoWriter

SIZE = (480, 360)
BOARD = Board("checkerboard", 7, 4, 0.06, 0.045)
CHARUCO = Board("charuco", 7, 4, 0.06, 0.045)


def turn(*degrees):
    return cv2.Rodrigues(np.radians(np.array(degrees, float)))[0]


def rig_of(count):
    """Cameras two metres from where the board is held up, 40 degrees apart."""
    cameras = {}
    for number in range(count):
        K = np.array([[700.0 + 20 * number, 0, 244 - 6 * number], [0, 702 + 20 * number, 176 + 5 * number], [0, 0, 1]])
        distortion = np.array([-0.12, 0.08, 0, 0])
        cameras[f"cam{number + 1}"] = Camera(K, turn(4, 40 * (number - 1), 3), np.array([0, 0, 1.6]), SIZE, distortion)
    return cameras


def fits(board, camera, R, t):
    edge = board.points.min(0) - board.square, board.points.max(0) + board.square
    corners = np.array([[x, y, 0] for x in (edge[0][0], edge[1][0]) for y in (edge[0][1], edge[1][1])])
    xy = project(corners @ R.T + t, camera)
    return np.isfinite(xy).all() and (xy > 2).all() and (xy < np.array(SIZE) - 3).all()


def near_poses(board, camera, count, rng):
    """Close to one camera, all over its picture; world_from_board."""
    poses = []
    while len(poses) < count:
        R = turn(*rng.uniform([-40, -40, -25], [40, 40, 25]))
        t = np.array(
            [rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.25), rng.uniform(0.75, 1.3)]
        ) - R @ board.points.mean(0)
        pose = camera.R.T @ R, camera.R.T @ (t - camera.t)
        if fits(board, camera, *pose):
            poses.append(pose)
    return poses


def shared_poses(board, cameras, count, rng):
    """In the middle, seen by two cameras at least."""
    poses = []
    while len(poses) < count:
        R = turn(*rng.uniform([-30, -40, -30], [30, 40, 30]))
        t = rng.uniform(-0.2, 0.2, 3) - R @ board.points.mean(0)
        if sum(fits(board, camera, R, t) for camera in cameras.values()) > 1:
            poses.append((R, t))
    return poses


def photograph(board, camera, pose, path, seed=0):
    R, t = pose
    image = render_board(board, camera, camera.R @ R, camera.R @ t + camera.t, seed=seed, square_px=48)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return image


def make_rig_photos(folder, board, cameras, alone, shared, seed=0):
    rng = np.random.default_rng(seed)
    poses = shared_poses(board, cameras, shared, rng)
    for name, camera in cameras.items():  # camera by camera: its rays are kept
        for number, pose in enumerate(near_poses(board, camera, alone, rng)):
            photograph(board, camera, pose, folder / "intrinsics" / name / f"{name}_{number:02d}.png", number)
        for number, pose in enumerate(poses):
            photograph(board, camera, pose, folder / "extrinsics" / name / f"{name}_{number:02d}.png", 50 + number)


def assert_right(found, truth, degrees, millimetres, focal):
    first = next(iter(truth))
    for name, camera in truth.items():
        ours = found[name]
        np.testing.assert_allclose(ours.K[[0, 1], [0, 1]], camera.K[[0, 1], [0, 1]], rtol=focal)
        R = [c[name].R @ c[first].R.T for c in (found, truth)]
        angle = np.degrees(np.arccos(np.clip((np.trace(R[0] @ R[1].T) - 1) / 2, -1, 1)))
        centres = [c[first].R @ (-c[name].R.T @ c[name].t) + c[first].t for c in (found, truth)]
        assert angle < degrees and 1000 * np.linalg.norm(centres[0] - centres[1]) < millimetres, name


def test_three_cameras_from_photos(tmp_path):
    truth = rig_of(3)
    make_rig_photos(tmp_path / "rig", BOARD, truth, alone=6, shared=7)
    (tmp_path / "rig" / "intrinsics" / "cam1" / "cam1_98.png").write_bytes(
        cv2.imencode(".png", np.full((SIZE[1], SIZE[0]), 90, np.uint8))[1].tobytes()
    )
    result = calibrate([tmp_path / "rig"], out=tmp_path / "calibration.toml", corners="7x4", square_mm=60)
    found = read_calibration(tmp_path / "calibration.toml")
    assert list(found) == ["cam1", "cam2", "cam3"] and all(camera.posed for camera in found.values())
    assert_right(found, truth, degrees=0.2, millimetres=2, focal=0.005)
    assert json.loads(json.dumps(result)) == result
    assert result["rig"]["error_px"] < 0.1 and result["rig"]["moments"] >= 6 and not result["rig"]["dropped"]
    assert all(entry["error_px"] < 0.1 and entry["posed"] for entry in result["cameras"])
    assert result["cameras"][0]["dropped"] == [{"photo": "98", "reason": "no board found", "error_px": None}]
    assert any("cam1: no board found in 98" in text for text in result["warnings"])
    page = (tmp_path / "calibration_report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 1 + 3 * 3 and "cam3" in page and "Places" in page


def test_videos_of_the_same_moments_with_a_late_start(tmp_path):
    """A ChArUco board held still for a while, then moved on; the second camera started half a second later."""
    truth = dict(list(rig_of(2).items()))
    rng = np.random.default_rng(4)
    poses = shared_poses(CHARUCO, truth, 11, rng)
    for name, camera in truth.items():
        late = 5 if name == "cam2" else 0
        with VideoWriter(tmp_path / "rig" / f"{name}.mp4", 10, SIZE, crf=8) as writer:
            for number, (R, t) in enumerate(poses):
                image = render_board(CHARUCO, camera, camera.R @ R, camera.R @ t + camera.t, seed=number, square_px=48)
                for k in range(10):
                    if number * 10 + k >= late:
                        writer.write(np.repeat(image[..., None], 3, -1))
    result = calibrate(
        [tmp_path / "rig"], out=tmp_path / "c.json", board="charuco", corners="7x4", square_mm=60, together=True,
        synchronise="motion", every_seconds=0.5,
    )  # fmt: skip
    found = read_calibration(tmp_path / "c.json")
    assert_right(found, truth, degrees=0.6, millimetres=15, focal=0.02)  # compressed, and the board is far away
    assert result["rig"]["error_px"] < 0.3 and result["rig"]["moments"] > 8


def test_a_rig_of_lenses_only_and_the_command(tmp_path):
    camera = rig_of(1)["cam1"]
    rng = np.random.default_rng(3)
    for number, pose in enumerate(near_poses(BOARD, camera, 6, rng)):
        photograph(BOARD, camera, pose, tmp_path / "photos" / f"p{number}.png", number)
    line = [
        sys.executable, "-m", "streampose.cli", "calibrate", str(tmp_path / "photos"), "--square-mm", "60",
        "--out", str(tmp_path / "lens.json"), "--json",
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["rig"] is None and result["cameras"][0]["camera"] == "photos"
    found = read_calibration(tmp_path / "lens.json")["photos"]
    assert not found.posed and found.K[0, 0] == pytest.approx(camera.K[0, 0], rel=0.01)
    assert "15 or more" in done.stderr
    with pytest.raises(ConfigError, match="--floor x: needs cameras that see the board together"):
        calibrate([tmp_path / "photos"], square_mm=60, out=tmp_path / "a.json", floor="x")
    with pytest.raises(ConfigError, match="photos: no 9x6 checkerboard in any of its 6 pictures"):
        calibrate([tmp_path / "photos"], square_mm=60, corners="9x6", out=tmp_path / "a.json")


def test_wrong_calls_are_said_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    photo = tmp_path / "one" / "a.png"
    photo.parent.mkdir()
    cv2.imwrite(str(photo), np.zeros((20, 30), np.uint8))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    right = {"square_mm": 60.0, "out": tmp_path / "c.toml"}
    for paths, arguments, message in [
        (["lost"], {}, "lost: no such file or folder"),
        (["empty"], {}, "no photos or videos"),
        (["one", "empty"], {}, "empty: no photo or video in it"),
        (["bad"], {}, "a.png: not a picture"),
        (["one"], {}, "one: no 7x4 checkerboard"),
        (["one"], {"corners": "many"}, "--corners many: expected"),
        (["one"], {"out": tmp_path / "c.yaml"}, "written as .toml or .json"),
        (["one"], {"synchronise": "clap"}, "--synchronise clap"),
        (["one"], {"every_seconds": 0.0}, "must be above 0"),
        (["one"], {"square_mm": -1.0}, "--square-mm -1"),
    ]:
        with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
            calibrate([tmp_path / path for path in paths], **(right | arguments))
    assert not (tmp_path / "c.toml").exists()


def test_where_pictures_are_looked_for(tmp_path):
    for place in ("rig/intrinsics/a/1.jpg", "rig/intrinsics/b/1.jpg", "rig/intrinsics/c.mp4", "rig/extrinsics/a/1.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    alone, shared = find_pictures([tmp_path / "rig"], together=False)
    assert list(alone) == ["a", "b", "c"] and list(shared) == ["a"]
    alone, shared = find_pictures([tmp_path / "rig" / "intrinsics"], together=True)
    assert alone == shared and list(alone) == ["a", "b", "c"]
    alone, shared = find_pictures(
        [tmp_path / "rig" / "intrinsics" / "a", tmp_path / "rig" / "intrinsics" / "c.mp4"], False
    )
    assert list(alone) == ["a", "c"] and shared == {}
    (tmp_path / "rig" / "extrinsics" / "z.mp4").touch()
    with pytest.raises(ConfigError, match="z under extrinsics, but not under intrinsics"):
        find_pictures([tmp_path / "rig"], together=False)


def assert_focal_lengths(result, shipped):
    for entry in result["cameras"]:
        K = shipped[entry["camera"].replace("cam", "cam_")].K
        np.testing.assert_allclose(entry["focal_px"], [K[0, 0], K[1, 1]], rtol=0.01)
        assert entry["error_px"] < 0.5


def test_real_photos_of_one_camera(tmp_path, shared_data):
    people = shared_data / "people_four_cameras"
    result = calibrate([people / "intrinsics" / "cam02"], square_mm=60, out=tmp_path / "c.toml")
    assert_focal_lengths(result, read_calibration(people / "calibration.toml"))
    assert [dropped["photo"] for dropped in result["cameras"][0]["dropped"]] == ["06_int"]  # no board is in it


@pytest.mark.slow
def test_real_photos_of_four_cameras(tmp_path, shared_data):
    people = shared_data / "people_four_cameras"
    result = calibrate([people], square_mm=60, out=tmp_path / "c.toml")
    assert_focal_lengths(result, read_calibration(people / "calibration.toml"))
    assert len(result["cameras"]) == 4 and sum(entry["used"] for entry in result["cameras"]) >= 26


def test_long_videos_are_looked_at_less_often(tmp_path, monkeypatch):
    with VideoWriter(tmp_path / "cam.mp4", 10, (64, 48)) as writer:
        for _ in range(60):
            writer.write(np.full((48, 64, 3), 80, np.uint8))
    looked = []

    def look(image, board, *, thorough):
        looked.append(thorough)

    monkeypatch.setattr("streampose.calibrate.find_board", look)
    for most, expected in ((600, 12), (4, 4)):  # every half second of six; then every second and a half
        monkeypatch.setattr("streampose.calibrate.MOST_FRAMES", most)
        looked.clear()
        with pytest.raises(ConfigError, match=f"cam: no 7x4 checkerboard in any of its {expected} pictures"):
            calibrate([tmp_path / "cam.mp4"], square_mm=60, out=tmp_path / "c.toml")
        assert looked == [False] * expected


def test_many_views_are_thinned_to_those_that_differ():
    rng = np.random.default_rng(0)
    still = BOARD.points[:, :2] * 500 + 50
    views = {f"{k:03d}": Detection(np.arange(28), still + rng.normal(0, 0.1, (28, 2))) for k in range(100)}
    views |= {f"x{k}": Detection(np.arange(28), still * (0.5 + 0.1 * k) + 20 * k) for k in range(10)}
    kept = _spread(views)
    assert len(kept) == MOST_VIEWS and {f"x{k}" for k in range(10) if k != 5} <= set(kept) and kept == sorted(kept)
