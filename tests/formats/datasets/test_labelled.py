from __future__ import annotations

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.datasets import DATASETS, read_dataset
from streampose.formats.datasets.labelled import boxes_of_joints, focal_lengths

from .tiny import write_lsp


def test_boxes_by_hand():
    xy = np.array([[[10.0, 20], [30, 60], [500, 500]], [[0, 0], [0, 0], [0, 0]]])
    counts = np.array([[True, True, False], [False] * 3])
    boxes = boxes_of_joints(xy, counts)
    np.testing.assert_allclose(boxes[0], [10 - 4, 20 - 4, 30 + 4 + 1, 60 + 4 + 1])
    assert np.isnan(boxes[1]).all()


def test_focal_length_without_enough_points_is_unknown():
    assert np.isnan(focal_lengths(np.zeros((2, 1, 2)), np.full((2, 1, 3), np.nan))).all()


def test_a_dataset_is_named_with_its_folder(tmp_path):
    write_lsp(tmp_path)
    assert read_dataset(f"lsp:{tmp_path}").num_people == 3
    for spec in ("lsp", "lsp:", f"faces:{tmp_path}", str(tmp_path)):
        with pytest.raises(ConfigError, match="expected NAME:FOLDER with one of h36m"):
            read_dataset(spec)
    with pytest.raises(ConfigError, match="no such folder"):
        read_dataset(f"lsp:{tmp_path / 'other'}")
    assert set(DATASETS) == {"h36m", "h36m-simplified", "3dhp", "mpii", "lsp", "lspet", "coco"}


def test_people_without_any_are_an_error(tmp_path):
    write_lsp(tmp_path, count=0)
    with pytest.raises(ConfigError, match="nothing labelled"):
        read_dataset(f"lsp:{tmp_path}")
