from __future__ import annotations

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.datasets.coco import read_coco_keypoints

from .tiny import joint, write_coco


def test_people_with_joints_count_and_crowds_do_not(tmp_path):
    xy = write_coco(tmp_path)
    found = read_coco_keypoints(tmp_path)
    assert [picture.path.name for picture in found.pictures] == ["000000000070.jpg", "000000000071.jpg"]
    np.testing.assert_allclose(found.xy[:, found.joints.index("left_knee")], xy[:, joint("left_knee")])
    np.testing.assert_allclose(found.boxes[0], [30.5, 10, 120.5, 150])


def test_occluded_joints_count_and_unlabelled_ones_do_not(tmp_path):
    write_coco(tmp_path)
    found = read_coco_keypoints(tmp_path)
    assert found.counts[0, found.joints.index("nose")]
    ear = found.joints.index("left_ear")
    assert not found.counts[0, ear] and np.isnan(found.xy[0, ear]).all() and found.counts[1, ear]


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="official layout of COCO"):
        read_coco_keypoints(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text('{"images": []}')
    with pytest.raises(ConfigError, match="not the keypoints of COCO"):
        read_coco_keypoints(tmp_path)
