import json

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StreamposeError
from streampose.formats.points import Points, iter_points, join_points, open_points, open_points_json, read_points
from streampose.formats.trc import read_trc, write_trc
from streampose.structures import Camera

SKELETON = load_skeleton("human17")
CAMERAS = {"left": Camera(np.diag([100.0, 100, 1]), np.eye(3), np.zeros(3), (64, 48))}
RNG = np.random.default_rng(0)


def make_points(rows=6):
    xyz = RNG.normal(0, 1, (rows, 17, 3))
    xyz[2, 5] = np.nan
    sigma, error = RNG.uniform(0, 0.1, (2, rows, 17))
    sigma[2, 5] = error[2, 5] = np.nan
    frames = np.arange(rows) // 2
    return Points(frames, frames / 25, np.arange(rows) % 2, xyz, sigma, error, RNG.integers(2, 5, (rows, 17)))


def test_a_table_is_read_as_it_was_written(tmp_path):
    points = make_points()
    with open_points(tmp_path / "points.parquet", SKELETON, "jump", CAMERAS) as table:
        table.write(points.pick(points.frame_index < 1))
        table.flush()
        table.write(points.pick(points.frame_index >= 1))
    read, skeleton = read_points(tmp_path / "points.parquet")
    assert skeleton == SKELETON
    for name in ("frame_index", "seconds", "subject_id", "views"):
        np.testing.assert_array_equal(getattr(read, name), getattr(points, name))
    for name in ("xyz", "uncertainty", "error_px"):
        np.testing.assert_allclose(getattr(read, name), getattr(points, name), rtol=1e-6)
    parts = list(iter_points(tmp_path / "points.parquet"))
    assert [len(part) for part in parts] == [2, 4]
    np.testing.assert_array_equal(join_points(parts).xyz, read.xyz)


def test_json_holds_the_same(tmp_path):
    points = make_points()
    with open_points_json(tmp_path / "points.json", SKELETON, "jump", CAMERAS) as text:
        text.write(points.pick(points.frame_index < 2))
        text.write(points.pick(points.frame_index >= 2))
    content = json.loads((tmp_path / "points.json").read_text())
    assert content["session"] == "jump" and content["unit"] == "m" and list(content["cameras"]) == ["left"]
    assert [moment["frame"] for moment in content["moments"]] == [0, 1, 2]
    subject = content["moments"][1]["subjects"][0]
    assert subject["id"] == 0 and subject["points"][5] == [None] * 3 and subject["uncertainty"][5] is None
    np.testing.assert_allclose(subject["points"][6], points.xyz[2, 6], atol=1e-5)


def test_nothing_is_left_of_a_table_that_failed_and_other_files_are_refused(tmp_path):
    with pytest.raises(RuntimeError), open_points(tmp_path / "points.parquet", SKELETON, "jump", CAMERAS) as table:
        table.write(make_points())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "other.parquet").write_bytes(b"nothing")
    for read in (read_points, lambda path: list(iter_points(path))):
        with pytest.raises(StreamposeError, match="not a table of points"):
            read(tmp_path / "other.parquet")


def test_markers_for_opensim(tmp_path):
    points = make_points().xyz
    write_trc(tmp_path / "a.trc", SKELETON.joints, 29.97, 6, ((t / 29.97, p) for t, p in enumerate(points)))
    lines = (tmp_path / "a.trc").read_text().split("\n")
    assert lines[0] == "PathFileType\t4\t(X/Y/Z)\ta.trc"
    assert lines[2].split("\t")[:5] == ["29.97", "29.97", "6", "17", "m"]
    assert lines[3].startswith("Frame#\tTime\tpelvis\t\t\tright_hip") and lines[4].startswith("\t\tX1\tY1\tZ1\tX2")
    assert {len(line.split("\t")) for line in lines[6:12]} == {2 + 3 * 17}
    joints, rate, seconds, read = read_trc(tmp_path / "a.trc")
    assert joints == SKELETON.joints and rate == 29.97
    np.testing.assert_allclose(seconds, np.arange(6) / 29.97, atol=1e-6)
    np.testing.assert_allclose(read, points, atol=1e-6)
    with pytest.raises(ValueError, match="5 rows, but 6"):
        write_trc(tmp_path / "b.trc", SKELETON.joints, 25, 6, ((0.0, p) for p in points[:5]))
    assert not (tmp_path / "b.trc").exists()
    (tmp_path / "c.trc").write_text("PathFileType\n")
    with pytest.raises(StreamposeError, match=r"not a \.trc file"):
        read_trc(tmp_path / "c.trc")


def test_markers_for_motion_capture(tmp_path):
    pytest.importorskip("ezc3d", reason="ezc3d is not installed; pip install 'streampose[c3d]'")
    from streampose.formats.c3d import read_c3d, write_c3d

    points = make_points()
    write_c3d(tmp_path / "a.c3d", SKELETON.joints, 25.0, points.xyz, points.uncertainty)
    joints, rate, read, residuals = read_c3d(tmp_path / "a.c3d")
    assert joints == SKELETON.joints and rate == 25.0 and [f.name for f in tmp_path.iterdir()] == ["a.c3d"]
    np.testing.assert_allclose(read, points.xyz, atol=1e-6)
    np.testing.assert_allclose(residuals - 0.0005, points.uncertainty, atol=0.000501)
    (tmp_path / "b.c3d").write_bytes(b"no markers")
    with pytest.raises(StreamposeError, match=r"not a \.c3d"):
        read_c3d(tmp_path / "b.c3d")
