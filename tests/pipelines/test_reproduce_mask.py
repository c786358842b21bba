"""The ablation table: its cells can be configured, and its intervals, verdicts and page are right."""

import json
import math

import pytest


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("reproduce/mask.py")


def test_every_cell_has_settings_and_a_start(pipeline):
    names = list(pipeline.CELLS)
    for name, cell in pipeline.CELLS.items():
        config = pipeline.cell_config(cell, 3, 20)
        steps = {"": 0, "tied": pipeline.TIED, "views": pipeline.VIEWS, "tune": pipeline.TUNE, "masks": 20}[cell.stage]
        steps += pipeline.TIED if not cell.structure else 0  # trained from chance for as long as both stages
        assert {stage: s.steps for stage, s in config.stages.items() if s.steps} == (
            {cell.stage: steps} if steps else {}
        )
        assert config.multiview.triangulate == cell.delta and config.structure == cell.structure
        assert (config.stages["masks"].terms.get("physique", 0) > 0) == cell.psi
        known = ("init", "views_init", "nothing")
        assert cell.start in known or names.index(cell.start) < names.index(name)
    for ordering in pipeline.ORDERINGS:
        assert {ordering.better, ordering.worse} <= pipeline.CELLS.keys()


def test_intervals_are_students(pipeline):
    mean, half = pipeline.seed_interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert pipeline.seed_interval([5.0]) == (5.0, math.inf)


def test_verdicts(pipeline):
    lower = pipeline.Ordering("", "a", "b", "m")
    half = pipeline.Ordering("", "a", "b", "m", 0.5)
    higher = pipeline.Ordering("", "a", "b", "m", 1.0, True)

    def holds(ordering, a, b):
        return pipeline.judge(ordering, {"a": {"m": a}, "b": {"m": b}})["holds"]

    apart = [1.0, 1.1, 0.9], [3.0, 3.1, 2.9]
    assert holds(lower, *apart) == "yes" and holds(lower, *apart[::-1]) == "no"
    assert holds(higher, *apart) == "no" and holds(higher, *apart[::-1]) == "yes"
    assert holds(half, [1.0, 1.0, 1.0], [1.9, 1.9, 1.9]) == "no"
    assert holds(half, [1.0, 1.0, 1.01], [2.5, 2.5, 2.51]) == "yes"
    assert holds(lower, [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]) == "overlapping"
    assert holds(lower, [1.0], [3.0]) == "overlapping"  # one seed proves nothing
    assert holds(lower, [], [3.0]) == "unknown"


def test_the_page_is_written_from_the_cells_that_are_there(pipeline, tmp_path):
    (tmp_path / "cells").mkdir()
    for name, error in (("no-g", 8.0), ("no-psi-g", 9.0)):
        for seed in (0, 1):
            result = {"cell": name, "seed": seed, "steps": 5, "metrics": {"mpjpe_mm": error + 0.01 * seed}}
            (tmp_path / "cells" / f"{name}-{seed}.json").write_text(json.dumps(result))
    judged = {verdict["claim"]: verdict["holds"] for verdict in pipeline.report(tmp_path)}
    assert judged["psi lowers the error"] == "yes"
    assert list(judged.values()).count("unknown") == 6
    assert "without psi, G" in (tmp_path / "mask.md").read_text()
    assert (tmp_path / "mask.html").stat().st_size > 1000 and (tmp_path / "mask.json").is_file()
