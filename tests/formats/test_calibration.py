import cv2
import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.calibration import read_calibration, write_calibration
from streampose.structures import Camera

R = cv2.Rodrigues(np.array([1.6, 1.0, -0.4]))[0]
K = np.array([[1681.2, 0, 532.9], [0, 1681.0, 948.1], [0, 0, 1]])
CAMERAS = {
    "cam_01": Camera(K, R, np.array([0.3, 0.9, 2.9]), (1088, 1920), np.array([-0.05, 0.15, 0.001, -0.0007])),
    "Cam B": Camera(
        K + np.eye(3) * [3, 2, 0], R.T, np.zeros(3), (640, 480), np.array([-0.02, 0.004, 0, 0]), fisheye=True
    ),
    "alone": Camera(K, np.eye(3), np.zeros(3), (640, 480), np.array([0.1, 0, 0, 0, 0.2]), posed=False),
}


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name in ours:
        a, b = ours[name], theirs[name]
        assert (a.size, a.fisheye, a.posed) == (b.size, b.fisheye, b.posed)
        for field in ("K", "R", "t", "distortion"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-12, err_msg=f"{name}.{field}")


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_round_trip(tmp_path, suffix):
    path = write_calibration(tmp_path / "deep" / f"calibration.{suffix}", CAMERAS, {"error": 0.21, "note": 'so "so"'})
    assert_same(read_calibration(path), CAMERAS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "0.21" in path.read_text(encoding="utf-8")
    again = write_calibration(tmp_path / "again.json", read_calibration(path))
    assert_same(read_calibration(again), CAMERAS)


def test_pose2sim_and_anipose_files_of_others(shared_data):
    people = read_calibration(shared_data / "people_four_cameras" / "calibration.toml")
    assert list(people) == ["cam_01", "cam_02", "cam_03", "cam_04"]
    assert people["cam_01"].size == (1088, 1920) and people["cam_01"].K[0, 0] == pytest.approx(1681.2448, abs=1e-3)
    np.testing.assert_allclose(people["cam_03"].R @ people["cam_03"].R.T, np.eye(3), atol=1e-12)
    fly = read_calibration(shared_data / "fly_three_cameras" / "calibration.toml", unit="mm")
    assert list(fly) == ["Cam-A", "Cam-B", "Cam-C"] and len(fly["Cam-A"].distortion) == 5
    assert fly["Cam-A"].t[2] == pytest.approx(0.054050719886)


def opencv_file(path, **values):
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in values.items():
        storage.write(name, value)
    storage.release()
    return path


@pytest.mark.parametrize("suffix", ["yml", "yaml", "xml"])
def test_one_camera_as_the_opencv_sample_writes_it(tmp_path, suffix):
    dist = np.array([[-0.05, 0.15, 0.001, -0.0007, 0.0]]).T
    path = opencv_file(
        tmp_path / f"left.{suffix}", image_width=640, image_height=480, camera_matrix=K, distortion_coefficients=dist
    )
    camera = read_calibration(path)["left"]
    assert camera.size == (640, 480) and not camera.posed
    np.testing.assert_array_equal(camera.K, K)
    np.testing.assert_array_equal(camera.distortion, dist.ravel())


def test_opencv_stereo_and_its_unit(tmp_path):
    dist, t = np.zeros((1, 5)), np.array([[-65.0], [1.0], [2.0]])
    path = opencv_file(tmp_path / "stereo.yml", M1=K, D1=dist, M2=K, D2=dist, R=R, T=t, R1=np.eye(3), R2=np.eye(3))
    cameras = read_calibration(path, unit="mm")
    np.testing.assert_array_equal(cameras["1"].R, np.eye(3))
    np.testing.assert_allclose(cameras["2"].R, R)
    np.testing.assert_allclose(cameras["2"].t, [-0.065, 0.001, 0.002])
    assert cameras["2"].posed and cameras["2"].size == (0, 0)


def test_opencv_cameras_by_name_in_two_files_or_in_maps(tmp_path):
    names, dist = ("left", "7"), np.zeros((1, 5))
    opencv_file(tmp_path / "intri.yml", **{f"{k}_{n}": v for n in names for k, v in (("K", K), ("dist", dist))})
    rotations = {f"Rot_{n}": R for n in names} | {f"R_{n}": cv2.Rodrigues(R)[0] for n in names}
    opencv_file(tmp_path / "extri.yml", **rotations, **{f"T_{n}": np.array([[0.1], [0.2], [3]]) for n in names})
    cameras = read_calibration(tmp_path / "intri.yml")
    assert list(cameras) == ["left", "7"]
    np.testing.assert_allclose(cameras["left"].R, R, atol=1e-12)
    np.testing.assert_allclose(cameras["7"].t, [0.1, 0.2, 3])
    storage = cv2.FileStorage(str(tmp_path / "maps.yml"), cv2.FILE_STORAGE_WRITE)
    storage.startWriteStruct("front", cv2.FileNode_MAP)
    storage.write("camera_matrix", K)
    storage.write("image_width", 320)
    storage.write("image_height", 240)
    storage.write("rvec", cv2.Rodrigues(R)[0])
    storage.write("tvec", np.array([0.0, 0, 2]))
    storage.endWriteStruct()
    storage.release()
    camera = read_calibration(tmp_path / "maps.yml")["front"]
    assert camera.size == (320, 240) and camera.posed
    np.testing.assert_allclose(camera.R, R, atol=1e-12)


def test_a_ros_camera_file(tmp_path):
    lines = [
        "%YAML:1.0", "image_width: 640", "image_height: 480", "camera_name: top",
        "camera_matrix:", "   rows: 3", "   cols: 3", "   data: [ 800., 0., 320., 0., 801., 240., 0., 0., 1. ]",
        "distortion_model: plumb_bob",
        "distortion_coefficients:", "   rows: 1", "   cols: 5", "   data: [ 0.1, -0.2, 0., 0., 0. ]",
    ]  # fmt: skip
    (tmp_path / "ros.yaml").write_text("\n".join(lines) + "\n")
    camera = read_calibration(tmp_path / "ros.yaml")["ros"]
    assert camera.K[1, 1] == 801 and camera.distortion.tolist() == [0.1, -0.2, 0, 0, 0] and not camera.fisheye


def qualisys(position="x='1460.2' y='-1909.1' z='1896.5'", head=""):
    axes = np.diag([1, -1, -1]) @ R
    turn = " ".join(f"r{i + 1}{j + 1}='{axes[i, j]:.17g}'" for i in range(3) for j in range(3))
    return f"""{head}<calibration type="regular"><cameras>
    <camera active="1" serial="21387" viewrotation="0"><fov_video left="0" top="0" right="1087" bottom="1919"/>
    <transform {turn} {position}/>
    <intrinsic focallength="9.3" sensorMinU="0" sensorMaxU="69568" sensorMinV="0" sensorMaxV="122816" skew="0"
     focalLengthU="107596.8" focalLengthV="107584" centerPointU="34105.6" centerPointV="60678.4"
     radialDistortion1="-0.046" radialDistortion2="0.14" radialDistortion3="0.01" tangentalDistortion1="0.0006"
     tangentalDistortion2="0.0007"/></camera>
    <camera active="0" serial="off"><intrinsic/></camera></cameras></calibration>"""


@pytest.mark.parametrize("name", ["rig.qca.txt", "rig.xml"])
def test_qualisys(tmp_path, name):
    (tmp_path / name).write_text(qualisys())
    cameras = read_calibration(tmp_path / name)
    camera = cameras["21387"]
    assert list(cameras) == ["21387"] and camera.size == (1088, 1920)
    np.testing.assert_allclose(camera.K, [[1681.2, 0, 532.9], [0, 1681, 948.1], [0, 0, 1]])
    np.testing.assert_allclose(camera.distortion, [-0.046, 0.14, 0.0006, 0.0007, 0.01])  # as they are, not in 1/64
    np.testing.assert_allclose(camera.R, R, atol=1e-12)
    np.testing.assert_allclose(-camera.R.T @ camera.t, [1.4602, -1.9091, 1.8965], atol=1e-9)  # where it stands, in m


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[cam\n", "not valid TOML"),
        ("a.toml", "[metadata]\nerror = 1.0\n", "no camera in it"),
        ("a.toml", "[c]\nmatrix = [[1.0]]\n", "K is missing"),
        ("a.toml", "[c]\nmatrix = [[-1.0,0.0,0.0],[0.0,1.0,0.0],[0.0,0.0,1.0]]\n", "focal lengths -1"),
        (
            "a.toml",
            "[c]\nmatrix = [[1.0,0.0,0.0],[0.0,1.0,0.0],[0.0,0.0,1.0]]\ndistortions = [1.0, 2.0, 3.0]\n",
            "3 distortion coefficients",
        ),
        ("a.json", "{}", "no list `cameras`"),
        ("a.json", "{", "not valid JSON"),
        (
            "a.json",
            '{"cameras": [{"K": [[1,0,0],[0,1,0],[0,0,1]], "R": [[1,0,0],[0,1,0],[0,0,2]], "t": [0,0,0]}]}',
            "not a rotation",
        ),
        ("a.yaml", "cameras: nothing\n", "not OpenCV's YAML"),
        ("a.xml", "<html></html>", "not OpenCV's YAML or XML"),
        ("a.qca.txt", "<calibration", "not valid XML"),
        ("a.qca.txt", qualisys(position="x='1'"), "transform has no number y"),
        ("a.qca.txt", qualisys(head='<!DOCTYPE a [<!ENTITY b "c">]>'), "document type"),
        ("a.npz", "", "not a calibration"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_calibration(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_files_units_and_suffixes(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_calibration(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="unit 'feet'"):
        read_calibration(tmp_path / "a.toml", unit="feet")
    with pytest.raises(ConfigError, match=r"written as \.json or \.toml"):
        write_calibration(tmp_path / "a.yaml", CAMERAS)
