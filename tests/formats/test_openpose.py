import json

import numpy as np
import pytest

from streampose.errors import StreamposeError
from streampose.formats.openpose import MODELS, read_openpose


def write(folder, frames, joints=25):
    folder.mkdir(exist_ok=True)
    for number, people in frames.items():
        content = {"people": [{"pose_keypoints_2d": np.ravel(pose).tolist()} for pose in people]}
        (folder / f"cam_01_{number:012d}_keypoints.json").write_text(json.dumps(content))


def test_people_of_each_frame(tmp_path):
    pose = np.stack([np.arange(25.0), np.arange(25.0) + 100, np.full(25, 0.5)], -1)
    pose[3] = 0
    write(tmp_path / "cam", {7: [pose, 2 * pose], 8: []})
    people = read_openpose(tmp_path / "cam", "BODY_25B")
    assert people.frame_index.tolist() == [7, 7] and people.frames.tolist() == [7, 8]
    assert people.joints[17] == "neck" and people.xy.shape == (2, 25, 2)
    np.testing.assert_array_equal(people.xy[0, 1], [1, 101])
    assert np.isnan(people.xy[0, 3]).all() and people.confidence[0, 3] == 0


def test_every_model_names_its_joints_once():
    for joints in MODELS.values():
        assert len(set(joints)) == len(joints)
    assert set(MODELS["BODY_25"]) - set(MODELS["BODY_25B"]) == {"pelvis"}


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(StreamposeError, match="no OpenPose files"):
        read_openpose(tmp_path)
    write(tmp_path / "cam", {0: [np.zeros((18, 3))]})
    with pytest.raises(StreamposeError, match="18 joints, but BODY_25 has 25"):
        read_openpose(tmp_path / "cam")
    (tmp_path / "cam" / "cam_01_000000000000_keypoints.json").write_text("{")
    with pytest.raises(StreamposeError, match="not an OpenPose file"):
        read_openpose(tmp_path / "cam")
    with pytest.raises(StreamposeError, match="choose BODY_25"):
        read_openpose(tmp_path / "cam", "BODY_26")
