import numpy as np
import pyarrow.parquet as pq
import pytest

from streampose.config import load_skeleton
from streampose.errors import StreamposeError
from streampose.formats import parquet
from streampose.formats.parquet import open_parquet, read_parquet
from streampose.structures import Keypoints

SKELETON = load_skeleton("human17")


def some(count, seed=0):
    random = np.random.default_rng(seed)
    xy, z = random.uniform(0, 100, (count, 17, 2)), random.normal(0, 10, (count, 17))
    return Keypoints(xy.astype(np.float32), random.uniform(0, 1, (count, 17)).astype(np.float32), z.astype(np.float32))


def test_round_trip_over_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 100)
    path, frames = tmp_path / "a.parquet", [some(n % 3, n) for n in range(20)]
    with open_parquet(path, SKELETON, source="videos/ä.mp4") as writer:
        for index, keypoints in enumerate(frames):
            writer.write(index, index * 0.04, keypoints, list(range(10, 10 + len(keypoints.xy))))
    assert pq.ParquetFile(path).num_row_groups > 3
    table = read_parquet(path)
    assert table.source == "videos/ä.mp4" and table.skeleton == SKELETON
    np.testing.assert_array_equal(table.xyz[..., :2], np.concatenate([f.xy for f in frames]))
    np.testing.assert_array_equal(table.xyz[..., 2], np.concatenate([f.z for f in frames]))
    np.testing.assert_array_equal(table.confidence, np.concatenate([f.confidence for f in frames]))
    assert table.frame_index.tolist() == [i for i, f in enumerate(frames) for _ in f.xy]
    assert set(table.track_id.tolist()) == {10, 11}


def test_one_row_for_each_joint_with_missing_values_as_null(tmp_path):
    keypoints = some(1)
    keypoints.xy[0, 2] = np.nan
    with open_parquet(tmp_path / "a.parquet", SKELETON, source="a.mp4") as writer:
        writer.write(3, 0.12, keypoints, [1])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["frame_index", "pts_seconds", "track_id", "joint", "x", "y", "z", "confidence"]
    assert table["joint"].to_pylist() == list(SKELETON.joints)
    assert table["x"].null_count == table["y"].null_count == 1


def test_2d_models_have_no_z(tmp_path):
    keypoints = some(1)
    with open_parquet(tmp_path / "a.parquet", SKELETON, source="a.mp4") as writer:
        writer.write(0, 0.0, Keypoints(keypoints.xy, keypoints.confidence), [1])
    assert np.isnan(read_parquet(tmp_path / "a.parquet").xyz[..., 2]).all()


def test_nobody_in_the_video(tmp_path):
    with open_parquet(tmp_path / "a.parquet", SKELETON, source="a.mp4"):
        pass
    assert read_parquet(tmp_path / "a.parquet").xyz.shape == (0, 17, 3)


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), open_parquet(tmp_path / "a.parquet", SKELETON, source="a.mp4") as writer:
        writer.write(0, 0.0, some(1), [0])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_not_a_table(tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(StreamposeError, match="not a table"):
        read_parquet(tmp_path / "a.parquet")
