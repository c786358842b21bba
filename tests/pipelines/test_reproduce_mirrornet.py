"""The tables of MirrorNet: cells can be configured and follow each other, verdicts and page are right, a cell runs."""

import argparse
import json
import math

import numpy as np
import pytest
import torch

from streampose.methods.mirrornet_data import Pictures


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("reproduce/mirrornet.py")


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "cells").mkdir()
    return argparse.Namespace(
        folder=tmp_path, detector="simple-small", steps=4, generators=2, batch=4, input_size=64, train=None, set=[],
        by="frame", every=1, device="cpu",
    )  # fmt: skip


def test_every_cell_has_settings_and_a_start(pipeline, arguments):
    order = list(pipeline.CELLS)
    recogniser = {}
    for name, cell in pipeline.CELLS.items():
        (stage,) = pipeline.cell_config(cell, 3, arguments).stages.values()
        assert stage.trains == cell.trains and stage.unannotated == cell.unannotated
        assert cell.start is None or order.index(cell.start) < order.index(name)
        earlier = 0 if cell.start is None or cell.taken else recogniser[cell.start]
        recogniser[name] = earlier + (stage.steps if {"recogniser", "mirror"} & set(cell.trains) else 0)
    measured = [name for name, cell in pipeline.CELLS.items() if not cell.title.startswith("(")]
    assert {recogniser[name] for name in measured} == {2 * arguments.steps}  # equal epochs of the recogniser
    assert pipeline.with_starts(["semi"]) == ["generators", "dressed", "half", "semi"]
    assert pipeline.with_starts(["baseline"]) == ["parts", "baseline"]
    assert pipeline.cell_config(pipeline.CELLS["baseline"], 0, arguments).dressed == 0  # the recogniser alone
    assert pipeline.cell_config(pipeline.CELLS["supervised"], 0, arguments).dressed > 0
    assert not pipeline.cell_config(pipeline.CELLS["no-mask"], 0, arguments).mask_estimator
    assert not pipeline.cell_config(pipeline.CELLS["no-pose"], 0, arguments).pose_vae


def test_findings(pipeline):
    def holds(supervised, baseline, share=5):
        found = {
            ("supervised", share): {n: {"Total": value} for n, value in enumerate(supervised)},
            ("baseline", share): {n: {"Total": value} for n, value in enumerate(baseline)},
        }
        return pipeline.findings(found)[0]["holds"]

    assert holds([54.0, 54.1, 53.9], [50.0, 50.0, 50.0]) == "yes"
    assert holds([57.0, 51.0, 54.5], [50.0, 50.0, 50.0]) == "mean"
    assert holds([52.0, 52.1, 52.0], [50.0, 50.0, 50.0]) == "no"  # less than three points
    assert holds([52.0, 52.1, 52.0], [50.0, 50.0, 50.0], share=20) == "yes"
    assert holds([54.0], [50.0]) == "mean"  # one seed proves nothing
    assert pipeline.seed_interval([5.0]) == (5.0, math.inf)
    more = {  # people of the test and more people are judged apart
        ("supervised", 5): {0: {"Total": 51.0, "More people": 60.0}, 1: {"Total": 51.0, "More people": 60.1}},
        ("baseline", 5): {0: {"Total": 50.0, "More people": 50.0}, 1: {"Total": 50.0, "More people": 50.0}},
    }
    assert [(verdict["people"], verdict["holds"]) for verdict in pipeline.findings(more)] == [
        ("test", "no"),
        ("more", "yes"),
    ]


def test_labels_of_films(pipeline):
    joints = np.zeros((6, 17, 2), np.float32)
    pictures = Pictures(np.zeros((6, 8, 8, 3), np.uint8), np.zeros((6, 8, 8), np.uint8), joints)
    data = pipeline.Data(None, pictures, np.array(["a", "a", "b", "b", "c", "c"]), pictures, None)
    kept = pipeline.keep_labels(data, 0.34, 0, "film").annotated
    assert len(kept) == 2 and kept[0] // 2 == kept[1] // 2
    assert len(pipeline.keep_labels(data, 0.5, 0, "frame").annotated) == 3


def test_cells_run_on_from_each_other_and_the_page_is_written(pipeline, arguments, painted_pictures):
    pictures, skeleton = painted_pictures
    torch.set_num_threads(1)
    half = Pictures(pictures.crops[12:], pictures.masks[12:], pictures.joints[12:])
    data = pipeline.Data(skeleton, pictures, np.repeat(["a", "b"], 12), pictures, None, half)
    for name in pipeline.with_starts(["baseline", "semi"]):
        result = pipeline.run_cell(name, 50, 0, data, arguments)
        (arguments.folder / "cells" / f"{name}-50-0.json").write_text(json.dumps(result))
        assert result["labelled"] == 12
        assert (0 <= result["metrics"].get("Total", 0) <= 100) and bool(result["metrics"]) == (name != "generators")
        assert ("More people" in result["metrics"]) == (name != "generators")
    again = pipeline.run_cell("semi", 50, 0, data, arguments)  # finished: read again, not trained again
    assert again == result
    pipeline.report(arguments)
    text = (arguments.folder / "mirrornet.md").read_text()
    assert "semi-supervised MirrorNet | 50 | 1" in text and "Tables 1 to 6" in text
    assert "Unseen people" in (arguments.folder / "mirrornet.html").read_text()


@pytest.fixture(scope="module")
def painted_pictures():
    from streampose.config import load_skeleton
    from streampose.methods.mask_prior import dolls

    skeleton, rng = load_skeleton("human17"), np.random.default_rng(5)
    crops, joints = dolls(skeleton, np.full((24, 64, 64, 3), 60, np.uint8), rng)
    masks = ((np.abs(crops.astype(int) - 60).max(-1) > 12) * 255).astype(np.uint8)
    return Pictures(crops, masks, joints[..., :2].astype(np.float32)), skeleton
