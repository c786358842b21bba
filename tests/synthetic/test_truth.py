from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.synthetic.truth import Truth, read_truth, truth_path, write_truth


def make_truth(T=3, N=2, K=4) -> Truth:
    rng = np.random.default_rng(0)
    return Truth(
        joints=np.array(["a", "b", "c", "d"]), joints_3d=rng.normal(size=(T, N, K, 3)),
        joints_2d=rng.normal(size=(T, N, K, 2)), visibility=np.zeros((T, N, K), np.uint8),
        boxes=np.full((T, N, 4), np.nan), masks=rng.integers(0, 3, (T, 6, 8)).astype(np.uint8),
        pts_seconds=np.arange(T) / 25, K=np.tile(np.eye(3), (T, 1, 1)), R=np.tile(np.eye(3), (T, 1, 1)),
        t=np.zeros((T, 3)), size=np.array([8, 6]),
    )  # fmt: skip


def test_reads_what_was_written(tmp_path):
    truth = make_truth()
    path = write_truth(tmp_path / "a.truth.npz", truth)
    read = read_truth(path)
    for field in fields(Truth):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(truth, field.name))
    assert read.num_frames == 3 and read.num_subjects == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.truth.npz"]
    assert truth_path(Path("x/walk.mp4")) == Path("x/walk.truth.npz")


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="masks"):
        replace(make_truth(), masks=np.zeros((3, 8, 6), np.uint8))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_truth(tmp_path / "a.truth.npz")
    (tmp_path / "b.truth.npz").write_text("hello")
    with pytest.raises(ConfigError, match="not a truth file"):
        read_truth(tmp_path / "b.truth.npz")
    np.savez(tmp_path / "c.truth.npz", joints=np.array(["a"]))
    with pytest.raises(ConfigError, match="not a truth file"):
        read_truth(tmp_path / "c.truth.npz")
    np.savez(tmp_path / "d.truth.npz", joints=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(ConfigError, match="not a truth file"):
        read_truth(tmp_path / "d.truth.npz")
