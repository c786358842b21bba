"""The tables of `disentangle`: cells can be configured, trained and measured; verdicts and page are right."""

import argparse
import json
import math

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.methods.disentangle_data import Known, plain_frames


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("reproduce/disentangle.py")


@pytest.fixture(scope="module")
def data(pipeline):
    rng, skeleton = np.random.default_rng(0), load_skeleton("human17")
    crops, masks = rng.integers(0, 255, (40, 32, 32, 3), np.uint8), np.zeros((40, 32, 32), np.uint8)
    masks[:, 6:26, 10:22] = 255
    frames = plain_frames(crops, masks, np.tile(np.float32([0, 0, 32, 32]), (40, 1)), np.repeat(np.arange(8), 5))
    pose = rng.normal(0, 0.4, (40, 17, 3)).astype(np.float32)
    known = Known(pose - pose[:, :1], pose[..., :2])
    return pipeline.Data(skeleton, frames, known, known.pose, frames, known)


def test_every_cell_has_settings(pipeline):
    for cell in pipeline.CELLS.values():
        config = pipeline.cell_config(cell, 3, 40)
        assert config.steps == 40 and config.seed == 3 and config.target == ("sketch" if cell.sketch else "pose")
        assert all(config.terms[name] == 0 for name in cell.without) and config.terms["sup"] == 1
    printed = pipeline.cell_config(pipeline.CELLS["bn-printed"], 0, 1)
    assert (printed.detector, printed.other_frames) == ("disentangle-mini-paper", False)
    for ordering in pipeline.ORDERINGS:
        assert {ordering.better, ordering.worse} <= pipeline.CELLS.keys()


def test_cells_of_a_seed_share_their_pairs(pipeline, data):
    paired = [pipeline.make_task(pipeline.CELLS[name], 1, 2, data).target.paired.tolist() for name in ("full", "sup")]
    other = pipeline.make_task(pipeline.CELLS["full"], 2, 2, data).target.paired.tolist()
    assert paired[0] == paired[1] != other and len(other) == 4


@pytest.mark.parametrize("name", ["full", "sup", "sketch"])
def test_a_cell_is_trained_and_measured(pipeline, data, tmp_path, name):
    torch.set_num_threads(1)
    result = pipeline.run_cell(name, 0, data, argparse.Namespace(folder=tmp_path, steps=2))
    assert result["pairs"] == 4 and all(math.isfinite(value) for value in result["metrics"].values())
    expected = {"full": {"poses", "swap", "between"}, "sup": {"poses"}, "sketch": {"sketches"}}[name]
    assert {path.stem.rpartition("-")[2] for path in (tmp_path / "pictures").glob("*.png")} == expected
    assert ("pose_follows_task" in result["metrics"]) == (name == "full")


def test_verdicts(pipeline):
    lower = pipeline.Ordering("", "a", "b", "m")

    def holds(a, b, ordering=lower):
        found = {name: {seed: {"m": v} for seed, v in enumerate(values)} for name, values in (("a", a), ("b", b))}
        return pipeline.judge(ordering, found)["holds"]

    assert holds([1.0, 1.1, 0.9], [3.0, 3.1, 2.9]) == "yes" and holds([3.0, 3.1, 2.9], [1.0, 1.1, 0.9]) == "no"
    assert holds([1.0, 2.0, 3.0], [2.0, 3.0, 4.01]) == "same seeds"  # each seed is better by about one
    assert holds([1.0, 2.0, 3.0], [3.0, 1.5, 4.0]) == "overlapping"
    assert holds([1.0], [3.0]) == "overlapping"  # one seed proves nothing
    assert holds([], [3.0]) == "unknown"
    assert holds([1.0, 1.0, 1.001], [0.97, 0.97, 0.971], pipeline.Ordering("", "a", "b", "m", 1.05)) == "yes"


def test_the_page_is_written_from_the_cells_that_are_there(pipeline, tmp_path):
    (tmp_path / "cells").mkdir()
    for seed, value in ((0, 80.0), (1, 82.0)):
        for name, worse in (("full", 0), ("no-cross", 20), ("full-2", 5)):
            metrics = {"mpjpe_mm": value + worse, "pa_mpjpe_mm": value / 2 + worse}
            cell = {"cell": name, "seed": seed, "pairs": 4, "steps": 2, "metrics": metrics}
            (tmp_path / "cells" / f"{name}-{seed}.json").write_text(json.dumps(cell))
    judged = {verdict["claim"]: verdict["holds"] for verdict in pipeline.report(tmp_path)}
    assert judged["L_cross lowers the error (Table 2)"] in ("yes", "same seeds")
    assert judged["all losses beat L_sup alone (Table 3)"] == "unknown"
    text = (tmp_path / "disentangle.md").read_text()
    assert "without L_cross, 10 %" in text and "87.4" in text and "101.0 ±" in text
    assert (tmp_path / "disentangle.html").is_file() and (tmp_path / "disentangle.json").is_file()
