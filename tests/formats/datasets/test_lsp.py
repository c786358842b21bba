from __future__ import annotations

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.datasets.lsp import read_lsp, read_lspet

from .tiny import joint, write_lsp, write_lspet


def test_the_test_part_begins_at_image_1001(tmp_path):
    xy = write_lsp(tmp_path)
    found = read_lsp(tmp_path)
    assert [picture.path.name for picture in found.pictures] == ["im1001.jpg", "im1002.jpg", "im1003.jpg"]
    assert found.counts.all() and list(found.groups) == ["im1001", "im1002", "im1003"]
    for name in ("right_ankle", "left_wrist", "left_hip"):
        np.testing.assert_allclose(found.xy[:, found.joints.index(name)], xy[:, joint(name)])
    np.testing.assert_allclose(found.xy[:, found.joints.index("head_top")], xy[:, joint("head")])


def test_pelvis_and_thorax_are_middles(tmp_path):
    xy = write_lsp(tmp_path)
    found = read_lsp(tmp_path)
    hips = (xy[:, joint("left_hip")] + xy[:, joint("right_hip")]) / 2
    np.testing.assert_allclose(found.xy[:, found.joints.index("pelvis")], hips)


def test_boxes_hold_the_joints_with_flesh(tmp_path):
    write_lsp(tmp_path)
    found = read_lsp(tmp_path)
    low, high = found.xy[:, :14].min(1), found.xy[:, :14].max(1)
    assert (found.boxes[:, :2] < low).all() and (found.boxes[:, 2:] > high).all()
    assert (found.boxes[:, 3] - found.boxes[:, 1] < 1.4 * (high - low)[:, 1]).all()


def test_invisible_joints_of_lspet_do_not_count(tmp_path):
    write_lspet(tmp_path)
    found = read_lspet(tmp_path)
    assert found.num_people == 2  # the third has no visible joint
    wrist = found.joints.index("left_wrist")
    assert not found.counts[0, wrist] and np.isnan(found.xy[0, wrist]).all() and found.counts[1].all()
    assert found.counts[0].sum() == 15


def test_errors_name_the_layout(tmp_path):
    with pytest.raises(ConfigError, match=r"joints\.mat: not there; the official layout of LSP"):
        read_lsp(tmp_path)
    write_lspet(tmp_path / "extended")
    with pytest.raises(ConfigError, match=r"expected \(3, 14, 2000\); see also lspet"):
        read_lsp(tmp_path / "extended")
    (tmp_path / "joints.mat").write_text("no")
    with pytest.raises(ConfigError, match=r"not the joints\.mat"):
        read_lsp(tmp_path)
