"""The ablation of `landmarks`: its switches, its verdicts, and a cell from start to page on painted crops."""

import json
from argparse import Namespace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.methods.landmarks_data import make_crops
from streampose.methods.mask_prior import dolls
from streampose.synth import synth

HUMAN = load_skeleton("human17")
FEW = ["batch_size=2", "discriminator_width=4"]


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("reproduce/landmarks.py")


@pytest.fixture(scope="module")
def exact(pipeline):
    crops, joints = dolls(HUMAN, np.full((12, 64, 64, 3), 60, np.uint8), np.random.default_rng(2))
    return pipeline.Exact(crops, joints[..., :2], np.zeros(12, int), np.arange(12) / 3)


def arguments(folder, **changes):
    values = {
        "folder": folder,
        "preset": "tiny",
        "skeletons": 2,
        "figures": 1,
        "steps": 2,
        "reading": 1,
        "set": FEW,
        "objective": "balanced",
    } | changes
    return Namespace(**values)


@pytest.mark.parametrize("objective", ["balanced", "printed"])
def test_rows_differ_by_their_switches_alone(pipeline, tmp_path, objective):
    given = arguments(tmp_path, objective=objective)
    configs = {
        name: pipeline.settings_of(given, 1, "landmarks", pipeline.switches_of(cell, given))
        for name, cell in pipeline.CELLS.items()
    }
    switches = {name: (c.conditional, c.bottleneck, c.second_cycle) for name, c in configs.items()}
    assert switches["cyclegan"] == (False, False, True)
    assert switches["conditional"] == (True, False, True)
    assert switches["bottleneck"] == (True, True, True)
    assert switches["ours"] == (True, True, False)
    for table in (4, 5):
        same = [
            configs[name].model_dump(exclude={"conditional", "bottleneck", "second_cycle"})
            for name, cell in pipeline.CELLS.items()
            if cell.table == table
        ]
        assert all(values == same[0] for values in same)
    assert (configs["ours"].figures == 0) == (objective == "printed") and configs["ours"].weights["proper"] == 0
    assert configs["poses-50"].figures > 0
    assert same[0]["steps"] == {"skeletons": 0, "figures": 0, "landmarks": 2, "reading": 0}
    assert pipeline.settings_of(arguments(tmp_path, preset="paper"), 1, "start").steps.figures == 0


def test_errors_by_hand(pipeline):
    joints = np.zeros((1, 17, 2))
    joints[0, 11:14, 0], joints[0, 14:, 0] = 0.5, -0.5  # left and right arms
    joints[0, 4:7, 0], joints[0, 1:4, 0] = 0.2, -0.2
    swapped = joints[:, HUMAN.flip_index]
    found = pipeline.errors(swapped, joints, HUMAN)
    assert found["mse_percent/flips"] == 0 and found["pck@0.2/flips"] == 1
    assert found["mse_percent"] == pytest.approx(100 / 2 * (6 * 1.0 + 6 * 0.4) / 17)


def test_the_order_is_judged_seed_by_seed(pipeline):
    found = {"cyclegan": [5.0, 5.0], "conditional": [4.0, 4.5], "bottleneck": [4.2, 3.0], "ours": [4.5, 3.5]}
    said = pipeline.orderings({name: {"mse_percent/flips": values} for name, values in found.items()})
    assert "holds; +0.75 over 2 seeds" in said[0]
    assert "holds in the mean only; +0.65" in said[1]
    assert "does not hold; -0.40" in said[2]
    assert "not run yet" in pipeline.orderings({})[0]


def test_local_contrast_shows_what_is_faint(pipeline):
    image = np.zeros((32, 32), np.float32)
    image[16, 16] = 0.01
    assert int(pipeline.local_contrast(image)[16, 16]) - int(pipeline.local_contrast(image)[4, 4]) > 60


def test_a_cell_from_its_start_to_the_page(pipeline, exact, tmp_path):
    data, given = make_crops(exact.crops, exact.clip, exact.seconds), arguments(tmp_path)
    result = pipeline.run_cell("cyclegan", 0, data, exact, HUMAN, given)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "cyclegan-0.json").write_text(json.dumps(result))
    baselines = {"the prior's mean pose": pipeline.mean_pose(HUMAN, exact)}
    assert all("not run yet" in line for line in pipeline.report(tmp_path, baselines))
    text = (tmp_path / "landmarks.md").read_text()
    assert "| CycleGAN | 1 |" in text and "mean pose" in text and "humans 4.39" in text
    assert "Appearance leak" in (tmp_path / "landmarks.html").read_text()
    assert {"mse_percent/flips", "leak", "start/mse_percent/flips"} <= result["metrics"].keys()


def test_the_ablation_has_crops_that_stand_still(pipeline, tmp_path):
    synth(out=tmp_path, videos=1, seconds=4.0, size=(96, 96), fps=12.5, seed=3)
    pieces = pipeline.cut_pieces([tmp_path / "video_000.mp4"], HUMAN)
    first = pieces["clip"] == 0
    assert 10 <= first.sum() <= 13 and set(np.round(np.diff(pieces["seconds"][first]), 2)) == {0.16}
    assert np.ptp(pieces["seconds"][first]) < pipeline.PIECE
    # The wall behind the person does not move: most pixels are alike in all frames of a piece.
    still = np.ptp(pieces["crops"][first].astype(int), 0).max(-1) < 40
    assert still.mean() > 0.4
    shown = pieces["joints"][first]
    assert np.abs(shown).max() < 1 and np.ptp(shown[..., 1]) > 2 * pipeline.ROAMS * 0.8


def test_films_are_made_again_after_an_interrupt(pipeline, tmp_path, monkeypatch):
    monkeypatch.setitem(pipeline.STILL, "test", (1, 2.5, 3))
    (tmp_path / "still-test").mkdir()
    (tmp_path / "still-test" / "video_000.mp4").write_bytes(b"cut off")
    made = pipeline.read_still(tmp_path, "test", 64, HUMAN)
    assert made.crops.shape == (25, 64, 64, 3) and made.joints.shape == (25, 17, 2)
    (tmp_path / "still-test" / "video_000.mp4").unlink()
    assert np.array_equal(pipeline.read_still(tmp_path, "test", 64, HUMAN).crops, made.crops), "read, not made"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["still-test", "still-test.npz"]


def test_all_stages_from_nothing(pipeline, exact, tmp_path):
    data, given = make_crops(exact.crops, exact.clip, exact.seconds), arguments(tmp_path)
    steps = pipeline.settings_of(given, 0, "whole").steps
    assert steps.model_dump() == {"skeletons": 2, "figures": 1, "landmarks": 2, "reading": 1}
    result = pipeline.run_cell("whole", 0, data, exact, HUMAN, given)
    assert result["steps"] == 6 and "mse_percent/flips" in result["metrics"]
