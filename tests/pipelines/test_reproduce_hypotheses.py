"""The tables of hypotheses: cells can be configured, findings are judged rightly, and a cell runs and is reported."""

import argparse
import json

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.runtime.lifter import load_lifter
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("reproduce/hypotheses.py")


@pytest.fixture(scope="module")
def data():
    torch.set_num_threads(1)
    prior = built_in_prior(HUMAN, 256, 0)
    held_out = np.isin(prior.groups, np.unique(prior.groups)[:2])
    return prior.pick(~held_out), prior.pick(held_out)


def test_every_cell_has_settings(pipeline, data):
    for cell in pipeline.CELLS.values():
        task = pipeline.make_task(cell, 3, 20, *data, HUMAN)
        assert task.total_steps == 20 and task.config.seed == 3
    plain = pipeline.make_task(pipeline.CELLS["plain"], 0, None, *data, HUMAN)
    assert not plain.weights.keys() & {"diversity", "codes", "spread"} and plain.total_steps > 20


def test_two_dances_apart_share_nothing(pipeline, data):
    together, apart = (pipeline.make_task(pipeline.CELLS[name], 0, 2, *data, HUMAN) for name in ("full", "apart"))
    assert len(apart.examples.poses) < len(together.examples.poses)
    assert len(apart.examples.projected) < len(together.examples.projected)


def test_findings_are_judged(pipeline):
    good = {"pa_mpjpe_mm": [50], "mean_shift_pa_mpjpe_mm": [50.5], "best10_pa_mpjpe_mm": [45], "spread_mm": [40]}
    good |= {"missing1_pa_mpjpe_mm": [60], "missing2_pa_mpjpe_mm": [70], "coverage90": [0.91]}
    plain = {"spread_mm": [3.0], "best10_pa_mpjpe_mm": [52]}
    assert {holds for _, _, holds in pipeline.findings({"full": good, "plain": plain})} == {"yes"}
    bad = {name: [2 * value[0]] for name, value in good.items()} | {"mean_shift_pa_mpjpe_mm": [90]}
    bad |= {"missing1_pa_mpjpe_mm": [10]}
    judged = {holds for _, _, holds in pipeline.findings({"full": bad, "plain": {k: [9.0] for k in plain}})}
    assert judged == {"no"}
    assert {holds for _, _, holds in pipeline.findings({})} == {"unknown"}
    one_bad = {name: [value[0], bad[name][0]] for name, value in good.items()}
    judged = {claim: holds for claim, _, holds in pipeline.findings({"full": one_bad, "plain": plain})}
    assert judged["zero code at most 60 mm"] == "no"  # limits hold for every seed


def test_a_cell_runs_and_is_reported(pipeline, data, tmp_path):
    arguments = argparse.Namespace(folder=tmp_path, steps=3)
    found = pipeline.run_cell("full", 0, arguments, data)
    assert set(pipeline.COLUMNS) <= found["metrics"].keys()
    again = pipeline.run_cell("full", 0, arguments, data)  # from the weights that were left
    assert again["metrics"]["pa_mpjpe_mm"] == pytest.approx(found["metrics"]["pa_mpjpe_mm"])
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "full-0.json").write_text(json.dumps(found))
    judged = pipeline.report(tmp_path)
    assert len(judged) == 7 and "all terms" in (tmp_path / "hypotheses.md").read_text()
    assert (tmp_path / "hypotheses.html").stat().st_size > 1000
    assert load_lifter(tmp_path / "bundles" / "full-0").lift(np.random.default_rng(0).random((1, 17, 2))).pose.shape
