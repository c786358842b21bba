"""Tables of lifted poses: what is written is read again, NaN as null."""

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from streampose.config import load_skeleton
from streampose.errors import StreamposeError
from streampose.formats.lifted import open_lifted, read_lifted

MOUSE = load_skeleton("mouse")
K = MOUSE.num_joints


def some_poses(count: int, rng: np.random.Generator) -> SimpleNamespace:
    spread = rng.normal(0, 1, (count, K, 3, 3))
    return SimpleNamespace(
        pose=rng.normal(0, 1, (count, K, 3)), covariance=spread @ spread.swapaxes(-1, -2),
        confidence=rng.random((count, K)), placement=rng.normal(100, 10, (count, 3)),
    )  # fmt: skip


def test_what_is_written_is_read_again(tmp_path):
    rng = np.random.default_rng(0)
    first, second = some_poses(2, rng), some_poses(1, rng)
    second.pose[:], second.covariance[:], second.placement[:], second.confidence[:] = np.nan, np.nan, np.nan, 0
    with open_lifted(tmp_path / "a.parquet", MOUSE, source="a.mp4") as writer:
        writer.write(0, 0.0, first, [3, 5])
        writer.write(1, 0.04, some_poses(0, rng), [])
        writer.write(2, 0.08, second, [3])
    table = read_lifted(tmp_path / "a.parquet")
    assert table.source == "a.mp4" and table.skeleton.joints == MOUSE.joints
    assert table.frame_index.tolist() == [0, 0, 2] and table.track_id.tolist() == [3, 5, 3]
    np.testing.assert_allclose(table.pose, np.concatenate([first.pose, second.pose]), rtol=1e-6)
    np.testing.assert_allclose(table.covariance[:2], first.covariance, rtol=1e-5)
    np.testing.assert_allclose(table.placement[:2], first.placement, rtol=1e-6)
    assert np.isnan(table.pose[2]).all() and (table.confidence[2] == 0).all()
    assert pq.read_table(tmp_path / "a.parquet")["x"].null_count == K


def test_other_files_are_refused(tmp_path):
    with pytest.raises(StreamposeError, match="not a table of lifted poses"):
        read_lifted(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(StreamposeError, match="not a table of lifted poses"):
        read_lifted(tmp_path / "text.parquet")
