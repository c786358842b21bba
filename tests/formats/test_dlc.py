import numpy as np
import pytest

from streampose.errors import StreamposeError
from streampose.formats.calibration import read_calibration
from streampose.formats.dlc import read_dlc_csv
from streampose.geometry.distortion import project, undistort_pixels
from streampose.geometry.triangulate import triangulate_dlt, triangulate_robust

SINGLE = """scorer,net,net,net,net,net,net
bodyparts,nose,nose,nose,tail,tail,tail
coords,x,y,likelihood,x,y,likelihood
0,1.5,2.5,0.9,10,20,0.8
1,3.0,4.0,0.7,,,
"""
SEVERAL = """scorer,,,net,net,net,net
individuals,,,one,one,two,two
bodyparts,,,nose,nose,nose,nose
coords,,,x,y,x,y
labeled-data,video,img07.png,1,2,3,4
"""


def write(tmp_path, text):
    path = tmp_path / "keypoints.csv"
    path.write_text(text)
    return path


def test_one_animal(tmp_path):
    table = read_dlc_csv(write(tmp_path, SINGLE))
    assert table.joints == ("nose", "tail") and table.individuals == ("",)
    assert table.frame_index.tolist() == [0, 1]
    np.testing.assert_array_equal(table.xy[0, 0], [[1.5, 2.5], [10, 20]])
    np.testing.assert_array_equal(table.likelihood[:, 0, 0], [0.9, 0.7])
    assert np.isnan(table.xy[1, 0, 1]).all() and np.isnan(table.likelihood[1, 0, 1])


def test_several_animals_in_labelled_images(tmp_path):
    table = read_dlc_csv(write(tmp_path, SEVERAL))
    assert table.individuals == ("one", "two") and table.xy.shape == (1, 2, 1, 2)
    np.testing.assert_array_equal(table.xy[0, :, 0], [[1, 2], [3, 4]])
    assert (table.likelihood == 1).all() and table.frame_index.tolist() == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,x,y\n0,1,2\n", "not a DeepLabCut csv"),
        (SINGLE.replace("0,1.5", "0,wide"), "row 0: 'wide' is not a number"),
        (SINGLE + "2,1\n", "row 2 has 2 values, the header 7"),
        (SINGLE.replace("tail,tail,tail", "tail"), "different lengths"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    with pytest.raises(StreamposeError, match=message):
        read_dlc_csv(write(tmp_path, text))
    with pytest.raises(StreamposeError, match="cannot be read"):
        read_dlc_csv(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def fly(shared_data):
    folder = shared_data / "fly_three_cameras"
    cameras = list(read_calibration(folder / "calibration.toml").values())
    tables = [read_dlc_csv(folder / f"cam_{name}_keypoints.csv") for name in "ABC"]
    xy = np.stack([table.xy[:, 0].reshape(-1, 2) for table in tables])
    return cameras, xy, np.stack([table.likelihood[:, 0].ravel() for table in tables])


def plain(cameras, xy, likelihood):
    ideal = np.stack([undistort_pixels(points, camera) for points, camera in zip(xy, cameras, strict=True)])
    return triangulate_dlt(ideal, np.stack([camera.P for camera in cameras]), likelihood)


def errors_px(cameras, xy, points):
    return np.stack([np.linalg.norm(project(points, c) - seen, axis=-1) for c, seen in zip(cameras, xy, strict=True)])


def jerkiness(points, joints=12):
    return np.linalg.norm(np.diff(points.reshape(-1, joints, 3), n=2, axis=0), axis=-1)


def test_the_fly_reprojects_better_and_moves_smoother_than_by_plain_dlt(fly):
    cameras, xy, likelihood = fly
    dlt = plain(cameras, xy, likelihood)
    robust = triangulate_robust(cameras, xy, likelihood)
    before, after = errors_px(cameras, xy, dlt), robust.error_px
    assert np.median(after) < 1.5 and np.percentile(after, 95) < 0.8 * np.percentile(before, 95)  # 3.3 and 4.6 px
    assert robust.inliers.mean() > 0.99 and np.isfinite(robust.points).all()
    assert jerkiness(robust.points).mean() < 0.9 * jerkiness(dlt).mean()


def test_the_fly_with_strayed_keypoints(fly):
    cameras, xy, likelihood = fly
    clean = triangulate_robust(cameras, xy, likelihood).points
    rng = np.random.default_rng(0)
    strayed = rng.random(xy.shape[:2]) < 0.05
    strayed &= strayed.cumsum(0) == 1  # one view of a point at most: of three views, two that stray are the majority
    wrong = xy + np.where(strayed[..., None], rng.normal(0, 60, xy.shape), 0)
    robust = triangulate_robust(cameras, wrong, likelihood)
    hit = strayed.any(0)
    off = np.linalg.norm(robust.points - clean, axis=-1)[hit]
    off_dlt = np.linalg.norm(plain(cameras, wrong, likelihood) - clean, axis=-1)[hit]
    assert np.median(off) < 0.2 * np.median(off_dlt)
    moved = np.linalg.norm(wrong - xy, axis=-1) > 40
    assert robust.inliers[moved].mean() < 0.25  # some lie on the line on which a third view cannot tell
