from __future__ import annotations

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.datasets.mpii import LABELS, read_mpii

from .tiny import joint, write_mpii


def test_labelled_people_of_the_training_images(tmp_path):
    xy = write_mpii(tmp_path)
    found = read_mpii(tmp_path)
    assert [picture.path.name for picture in found.pictures] == ["015601864.jpg"] * 2 + ["015599452.jpg"]
    np.testing.assert_allclose(found.xy[:, found.joints.index("left_elbow")], xy[:, joint("left_elbow")])
    assert list(found.activities) == ["sports"] * 3 and found.groups[0] == found.groups[1] != found.groups[2]


def test_a_joint_without_a_label_does_not_count(tmp_path):
    write_mpii(tmp_path)
    found = read_mpii(tmp_path)
    head = found.joints.index("head_top")
    assert found.counts[:2].all() and not found.counts[2, head] and found.counts[2].sum() == 15


def test_head_size_by_hand(tmp_path):
    write_mpii(tmp_path)
    np.testing.assert_allclose(read_mpii(tmp_path).head_px, 0.6 * 50)  # a head box of 30 x 40


def test_boxes_by_hand(tmp_path):
    """Scale 0.6: 120 px around (80 - 1, 71 - 1 + 9), the pixel's middle."""
    write_mpii(tmp_path)
    np.testing.assert_allclose(read_mpii(tmp_path).boxes[0], [19.5, 19.5, 139.5, 139.5])


def test_the_validation_part_is_chosen_by_image_and_place(tmp_path):
    xy = write_mpii(tmp_path, split=True)
    found = read_mpii(tmp_path)
    assert found.num_people == 1
    np.testing.assert_allclose(found.xy[0, found.joints.index("pelvis")], xy[1, joint("pelvis")])


def test_pelvis_and_thorax_are_left_out_of_the_mean(tmp_path):
    write_mpii(tmp_path)
    assert read_mpii(tmp_path).left_out == {"pckh@0.5": ("pelvis", "thorax")}


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="official layout of MPII"):
        read_mpii(tmp_path)
    (tmp_path / LABELS).write_text("no")
    with pytest.raises(ConfigError, match="not the labels of MPII"):
        read_mpii(tmp_path)
    write_mpii(tmp_path / "other", split=True)
    (tmp_path / "other" / "annot" / "valid.json").write_text('[{"image": 3}]')
    with pytest.raises(ConfigError, match="not a list of people"):
        read_mpii(tmp_path / "other")
