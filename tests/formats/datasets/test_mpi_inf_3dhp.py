from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("h5py", reason="h5py is not installed; pip install 'streampose[datasets]'")

from streampose.errors import ConfigError
from streampose.formats.datasets.mpi_inf_3dhp import read_mpi_inf_3dhp

from .tiny import FOCAL, joint, write_3dhp_test, write_3dhp_training


def test_valid_frames_of_the_test_set(tmp_path):
    xy, xyz = write_3dhp_test(tmp_path)
    found = read_mpi_inf_3dhp(tmp_path)
    assert [picture.path.name for picture in found.pictures] == [f"img_00000{n}.jpg" for n in (1, 3, 4)]
    np.testing.assert_allclose(found.xy[1, found.joints.index("left_knee")], xy[2, joint("left_knee")])
    np.testing.assert_allclose(found.xyz_mm[:, found.joints.index("head")], xyz[[0, 2, 3], joint("head")])
    assert list(found.activities) == ["Standing/Walking", "Miscellaneous", "Miscellaneous"]
    np.testing.assert_allclose(found.focal_px, FOCAL, rtol=1e-9)


def test_pck_is_over_fourteen_joints(tmp_path):
    write_3dhp_test(tmp_path / "mpi_inf_3dhp_test_set")
    found = read_mpi_inf_3dhp(tmp_path)
    assert len(set(found.joints) - set(found.left_out["pck3d@150mm"])) == 14
    assert found.left_out["auc3d"] == found.left_out["pck3d@150mm"]


def test_subjects_7_and_8_where_there_is_no_test_set(tmp_path):
    xy, xyz = write_3dhp_training(tmp_path)
    found = read_mpi_inf_3dhp(tmp_path)
    assert [(p.path.name, p.frame) for p in found.pictures] == [
        ("video_0.avi", 0), ("video_0.avi", 64), ("video_1.avi", 0), ("video_1.avi", 64),
    ]  # fmt: skip
    np.testing.assert_allclose(found.xy[1, found.joints.index("right_wrist")], xy[64 % 3, joint("right_wrist")])
    np.testing.assert_allclose(found.xyz_mm[0, found.joints.index("thorax")], xyz[0, joint("thorax")])
    assert list(found.moments) == ["S7 Seq1 0", "S7 Seq1 64"] * 2 and set(found.groups) == {"S7 Seq1"}


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="official layout of MPI-INF-3DHP"):
        read_mpi_inf_3dhp(tmp_path)
    (tmp_path / "TS1").mkdir()
    (tmp_path / "TS1" / "annot_data.mat").write_text("no")
    with pytest.raises(ConfigError, match="not the labels of a test sequence"):
        read_mpi_inf_3dhp(tmp_path)
