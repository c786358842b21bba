from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cdflib", reason="cdflib is not installed; pip install 'streampose[datasets]'")

from streampose.errors import ConfigError
from streampose.formats.datasets.human36m import read_human36m

from .tiny import FOCAL, HUMAN, write_h36m


def test_every_64th_frame_of_subjects_9_and_11(tmp_path):
    xy, xyz = write_h36m(tmp_path, {"S9": ["Directions 1"], "S11": ["Sitting"], "S1": ["Sitting"]})
    found = read_human36m(tmp_path)
    assert [p.frame for p in found.pictures] == [0, 64, 128] * 2
    assert sorted(set(found.groups)) == ["S11 Sitting", "S9 Directions 1"]
    assert sorted(set(found.activities)) == ["Directions", "Sitting"]
    assert found.joints == HUMAN.joints
    np.testing.assert_allclose(found.xy[1], xy[64 % 3])
    np.testing.assert_allclose(found.xyz_mm[2], xyz[128 % 3])
    assert found.pictures[0].path.is_file()


def test_the_focal_length_is_read_from_the_poses(tmp_path):
    write_h36m(tmp_path, {"S9": ["Posing"]})
    np.testing.assert_allclose(read_human36m(tmp_path).focal_px, FOCAL, rtol=1e-9)


def test_the_simplified_part_has_six_activities(tmp_path):
    names = ["Directions", "Discussion 2", "Posing", "Waiting 1", "Greeting", "Walking", "WalkDog", "SittingDown 2"]
    write_h36m(tmp_path, {"S9": names}, frames=2)
    found = read_human36m(tmp_path, simplified=True)
    assert sorted(set(found.activities)) == ["Directions", "Discussion", "Greeting", "Posing", "Waiting", "Walking"]
    assert len(set(read_human36m(tmp_path).activities)) == 8


def test_cameras_share_moments(tmp_path):
    write_h36m(tmp_path, {"S9": ["Posing"]}, frames=70, cameras=("54138969", "55011271"))
    found = read_human36m(tmp_path)
    assert sorted(found.moments) == ["S9 Posing 0", "S9 Posing 0", "S9 Posing 64", "S9 Posing 64"]
    assert len(set(found.groups)) == 1


def test_the_damaged_recording_is_left_out(tmp_path):
    write_h36m(tmp_path, {"S11": ["Directions 1", "Posing"]}, frames=2)
    assert set(read_human36m(tmp_path).activities) == {"Posing"}


def test_given_boxes_are_used(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_h36m(tmp_path, {"S9": ["Posing"]}, frames=65)
    folder = tmp_path / "S9" / "MySegmentsMat" / "ground_truth_bb"
    folder.mkdir(parents=True)
    with h5py.File(folder / "Posing.54138969.mat", "w") as file:
        references = np.empty((65, 1), h5py.ref_dtype)
        for frame in range(65):
            inside = np.zeros((160, 160), np.uint8)  # (W, H): Matlab writes columns first
            inside[30:90, 20 + (frame == 64) : 140] = 1
            references[frame, 0] = file.create_dataset(f"#refs#/{frame}", data=inside).ref
        file.create_dataset("Masks", data=references, dtype=h5py.ref_dtype)
    np.testing.assert_array_equal(read_human36m(tmp_path).boxes, [[30, 20, 90, 140], [30, 21, 90, 140]])


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"official layout of Human3\.6M"):
        read_human36m(tmp_path)
    (tmp_path / "S9" / "MyPoseFeatures" / "D2_Positions").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no recording of S9"):
        read_human36m(tmp_path)
    (tmp_path / "S9" / "MyPoseFeatures" / "D2_Positions" / "Posing.1.cdf").write_bytes(b"no")
    with pytest.raises(ConfigError, match="no poses in it"):
        read_human36m(tmp_path)
