from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.synthetic.synthpose import SPLITS, make_synthpose
from streampose.synthetic.truth import read_truth


def test_splits_are_fixed_and_apart(tmp_path):
    made = {name: make_synthpose(tmp_path / name, split, videos=1, seconds=0.4) for name, split in
            (("a", "train"), ("b", "train"), ("c", "test"))}  # fmt: skip
    truths = {name: read_truth(Path(videos[0]["truth"])) for name, videos in made.items()}
    assert np.array_equal(truths["a"].joints_3d, truths["b"].joints_3d)
    assert np.array_equal(truths["a"].masks, truths["b"].masks)
    assert not np.allclose(truths["a"].K, truths["c"].K) and not np.allclose(
        truths["a"].joints_3d, truths["c"].joints_3d
    )
    assert truths["a"].num_subjects == 1 and SPLITS["train"]["seed"] != SPLITS["test"]["seed"]


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no split 'val'"):
        make_synthpose(tmp_path, "val")
