"""The ablations of `mask` (Yang, Qiao, Sun; Tables 3, 4 and 5) at the scale of a laptop, beside the paper's numbers.

    python pipelines/reproduce/mask.py --folder reproduce/mask --init SINGLE --views-init SESSIONS  # 10 minutes a seed
    python pipelines/reproduce/mask.py ... --seeds 3 4 --cells full no-g                            # more of some cells

SINGLE is a single-view model (`streampose selftrain --preset tiny` on single videos), SESSIONS that model refined on
the sessions (`streampose selftrain --refine triangulate --init SINGLE`). Interrupt it and start it again: finished
cells are kept, an unfinished one goes on from its checkpoint; the page `mask.html`, `mask.md` and `mask.json` are
written anew after every cell. Nothing is labelled; truth is used to measure.

Data (made where it is missing): 14 SynthPose people, each filmed by a rig of four cameras of its own, and 32 people
filmed by one camera; measured on 6 people with unseen rigs (`sessions`) and on 12 with one camera (`unseen`).

Table 4 and the last row of Table 5 are the paper's last stage (App. A.3). Before it, in the cells `tied`, the arms of
the model are taken back: left and right arms are tied as in the paper's second stage, psi learns, and only trunk and
legs are held by the model's own readings (a second set of rows begins with arms kept, psi taught alike). Then `--steps`
steps are taught by the masks alone, with psi and G as the rows say. Rows with Delta begin with SESSIONS, those without
with SINGLE, which has seen no two views together. Without structure there is nothing to begin with, so those rows are
trained from chance. Table 3 begins with a model taught from chance by the sessions alone, with the pseudo-labels that
the shipped silhouette reader gives; it goes on by masks and pseudo-labels together, as the presets do, with sessions
only or half of them and half new people of one camera.

Where rows differ from the paper's: the physique mask weighs 4, as in the paper's second stage, instead of 1.5; our
ceilings of bone lengths are kept, without which the printed losses run into other optima; z of the rows without Delta
comes from SINGLE, which learnt it from painted figures; Delta includes our settling of left and right by anatomy.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from streampose.console import logger, start_logging
from streampose.evaluation.exact import Exact, measure, predict_crops, read_exact
from streampose.files import write_text
from streampose.ingest import ingest
from streampose.methods.mask import MaskConfig, MaskTask, load_mask_config
from streampose.methods.mask_data import Frames, read_frames
from streampose.methods.mask_labels import Labels, predict_labels
from streampose.methods.mask_pictures import draw_columns
from streampose.methods.mask_views import Instants, find_instants
from streampose.metrics.intervals import seed_interval
from streampose.models.detector import build_detector
from streampose.report import Section, Table, markdown_table, write_picture, write_report
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synth import synth
from streampose.training.checkpoint import has_checkpoint, load_networks
from streampose.training.engine import train

SIZE = 64
DATA = {  # videos, seconds, cameras and seed
    "train": (14, 12, 4, 31_001),
    "wild": (32, 6, 1, 59_001),
    "test": (6, 8, 4, 57_001),
    "unseen": (12, 6, 1, 58_001),
}
EVERY = 2  # n-th moment that is measured
TIED, VIEWS, TUNE = 300, 800, 400  # steps of the stages that are no row's own


@dataclass(frozen=True)
class Cell:
    """One row: what it starts from, with which stage of the preset `ablation` and which switches; the paper's numbers.

    Attributes:
        table: 3, 4 or 5 of the paper; 0 for what other cells start from.
        start: a cell, `init` or `views_init` of the command line, or `nothing`.
        arms: whether the stage `tied` leaves the arms as they are.
        stage: `tied` (arms taken back), `masks` (the ablated losses), `views` (pseudo-labels), `tune` (both), or
            none: only measured.
    """

    title: str
    table: int
    start: str
    stage: str = "masks"
    delta: bool = True
    structure: bool = True
    psi: bool = True
    geodesic: bool = True
    arms: bool = False
    share: float = 1.0
    paper: dict[str, float] = field(default_factory=dict)


CELLS = {
    "single": Cell("SINGLE", 0, "init", "", delta=False),
    "sessions": Cell("SESSIONS", 0, "views_init", ""),
    "tied-single": Cell("(arms taken back from SINGLE)", 0, "init", "tied", delta=False),
    "tied": Cell("(arms taken back from SESSIONS)", 0, "views_init", "tied"),
    "no-psi-g-delta": Cell(
        "without psi, G, Delta", 4, "tied-single", delta=False, psi=False, geodesic=False,
        paper={"mpjpe_mm": 118.1, "ambiguity": 48.73},
    ),
    "no-psi-g": Cell(
        "without psi, G", 4, "tied", psi=False, geodesic=False, paper={"mpjpe_mm": 127.4, "ambiguity": 23.34}
    ),
    "no-g": Cell("without G", 4, "tied", geodesic=False, paper={"mpjpe_mm": 102.6, "ambiguity": 22.83}),
    "full": Cell(
        "full", 4, "tied", paper={"mpjpe_mm": 95.9, "ambiguity": 20.33, "mse_percent": 3.63}
    ),
    "dressed": Cell("(psi taught, arms kept)", 0, "views_init", "tied", arms=True),
    "no-psi-g-arms": Cell("arms kept, without psi, G", 4, "dressed", psi=False, geodesic=False),
    "no-g-arms": Cell("arms kept, without G", 4, "dressed", geodesic=False),
    "full-arms": Cell("arms kept, full", 4, "dressed"),
    "no-structure-psi": Cell(
        "without structure prior, psi", 5, "nothing", structure=False, psi=False, paper={"mse_percent": 20.22}
    ),
    "no-structure": Cell(
        "without structure prior", 5, "nothing", structure=False,
        paper={"mse_percent": 20.06, "mse_percent/spp": 9.32},
    ),
    "views": Cell(
        "sessions alone (baseline)", 3, "nothing", "views", paper={"3dhp_pck": 60.1, "mpii_pckh": 26.7}
    ),
    "multi-view": Cell("multi-view fine-tuning", 3, "views", "tune", paper={"3dhp_pck": 61.2, "mpii_pckh": 27.3}),
    "mixed-view": Cell(
        "mixed-view fine-tuning", 3, "views", "tune", share=0.5, paper={"3dhp_pck": 63.4, "mpii_pckh": 28.1}
    ),
}  # fmt: skip
TABLES = {4: "Table 4", 5: "Table 5", 3: "Table 3", 0: "What rows begin with"}
DRAWN = ("no-structure", "no-psi-g-delta", "no-psi-g-arms", "no-g-arms", "full-arms")
COLUMNS = {  # metric: its heading
    "mse_percent": "2D error, % of the crop",
    "mse_percent/flips": "with flips",
    "mse_percent/spp": "with SPP",
    "mpjpe_mm": "MPJPE, mm",
    "pa_mpjpe_mm": "PA-MPJPE, mm",
    "ambiguity": "ambiguity ratio, %",
    "unseen/pck@0.2": "unseen: PCK@0.2",
    "unseen/pck@0.2/flips": "unseen: PCK@0.2 with flips",
}


class Ordering(NamedTuple):
    """A finding: the better cell's metric lies below (above, where `higher`) `factor` times that of the worse."""

    claim: str
    better: str
    worse: str
    metric: str
    factor: float = 1.0
    higher: bool = False


ORDERINGS = [
    Ordering("no structure prior is several (3) times worse", "full", "no-structure", "mse_percent/flips", 1 / 3),
    Ordering("triangulation at least halves the ambiguity", "no-psi-g", "no-psi-g-delta", "ambiguity", 0.5),
    Ordering("psi lowers the error", "no-g", "no-psi-g", "mpjpe_mm"),
    Ordering("psi lowers the error, arms kept", "no-g-arms", "no-psi-g-arms", "mpjpe_mm"),
    Ordering("geodesic weighting lowers it again", "full", "no-g", "mpjpe_mm"),
    Ordering("geodesic weighting lowers it again, arms kept", "full-arms", "no-g-arms", "mpjpe_mm"),
    Ordering("mixed views beat multi-view on unseen data", "mixed-view", "multi-view", "unseen/pck@0.2/flips", 1, True),
]


# ------------------------------------------------------------------------------------------------------------- data


def make_data(folder: Path) -> None:
    """Videos and stores, as far as they are missing: train.zarr (sessions and single clips), test.zarr, unseen.zarr."""
    for name, (videos, seconds, cameras, seed) in DATA.items():
        if not (folder / name).is_dir():
            synth(
                out=folder / name, videos=videos, seconds=seconds, size=(256, 256), fps=25, cameras=cameras, seed=seed
            )
    for name in ("train", "test"):
        if not (folder / f"{name}.zarr" / "sessions").is_dir():
            ingest([], sessions=[folder / name], store=folder / f"{name}.zarr")
    ingest([folder / "wild"], store=folder / "train.zarr")  # skips what is there
    if not (folder / "unseen.zarr").is_dir():
        ingest([folder / "unseen"], store=folder / "unseen.zarr")


# ------------------------------------------------------------------------------------------------------------ train


def cell_config(cell: Cell, seed: int, steps: int) -> MaskConfig:
    """The settings of a cell: the preset `ablation`, and what its switches change."""
    length = {"tied": TIED, "masks": steps if cell.structure else TIED + steps, "views": VIEWS, "tune": TUNE}
    changes = [
        f"seed={seed}", f"structure={cell.structure}", f"multiview.triangulate={cell.delta}",
        f"multiview.share={cell.share}", f"silhouette.enabled={cell.stage != 'masks'}",
        f"stages.masks.geodesic={cell.geodesic}",
        *(f"stages.{stage}.steps={count if stage == cell.stage else 0}" for stage, count in length.items()),
    ]  # fmt: skip
    if cell.arms:
        changes.append("stages.tied.terms.tied=0")
    if not cell.psi:
        changes.append("stages.masks.terms.physique=0")
    if not cell.structure:
        changes.append("sigma=0.01")  # dots as wide as limbs
    if cell.start == "nothing":
        changes.append("learning_rate=3e-3")
    return load_mask_config("ablation", None, changes)


class Data(NamedTuple):
    """What all cells share: frames of sessions and single clips, those of sessions alone, and what is measured."""

    skeleton: Skeleton
    frames: Frames
    instants: Instants
    of_sessions: np.ndarray
    test: Exact
    unseen: Exact


def read_data(folder: Path) -> Data:
    reader = StoreReader(folder / "train.zarr")
    skeleton, frames = reader.skeleton, read_frames(reader, SIZE, 4096)
    instants = find_instants(reader, frames)
    of_sessions = np.unique(instants.frames[instants.frames >= 0])
    test = read_exact(folder / "test.zarr", folder / "test", skeleton, SIZE)
    unseen = read_exact(folder / "unseen.zarr", folder / "unseen", skeleton, SIZE)
    return Data(skeleton, frames, instants, of_sessions, test, unseen)


def run_cell(name: str, seed: int, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a cell, or go on with it, and measure it."""
    cell, start = CELLS[name], None
    torch.manual_seed(seed)
    if cell.start != "nothing":
        start = load_networks(_start(arguments, cell.start, seed))
    if cell.stage:
        task = make_task(cell, seed, data, arguments, start)
        run_dir = _run(arguments, name, seed)
        train(task, run_dir=run_dir, device="cpu", precision="f32", seed=seed, save_every=500, resume=True, ema=0.99)
        start = load_networks(run_dir)
    assert start is not None
    detector = build_detector("tiny", data.skeleton.num_joints, SIZE)
    detector.load_state_dict(start["detector"])
    metrics, people = measure(detector, data.test, data.skeleton, EVERY)
    for found, unseen in zip((metrics, people), measure(detector, data.unseen, data.skeleton, EVERY), strict=True):
        found.update({f"unseen/{key}": value for key, value in unseen.items()})  # type: ignore[attr-defined]
    steps = task.total_steps if cell.stage else 0
    return {"cell": name, "seed": seed, "steps": steps, "metrics": metrics, "people": people}


def make_task(
    cell: Cell, seed: int, data: Data, arguments: argparse.Namespace, start: dict[str, dict[str, Tensor]] | None
) -> MaskTask:
    """The training of a cell that begins with these networks; without Delta on frames of sessions as single videos."""
    config, rows = cell_config(cell, seed, arguments.steps), np.arange(len(data.frames))
    if cell.delta:
        task = MaskTask(data.frames, data.skeleton, config, data.instants)
    else:
        rows = data.of_sessions
        frames = Frames(**{part.name: getattr(data.frames, part.name)[rows] for part in fields(Frames)})
        task = MaskTask(frames, data.skeleton, config)
    for key in (start or {}).keys() & {"detector", "physique"}:
        task.networks[key].load_state_dict((start or {})[key])
    if cell.stage != "masks":
        labels = read_labels(task, data, cell, arguments.folder)
        task.readings = Labels(labels.keypoints[rows], labels.confidence[rows])
    return task


def read_labels(task: MaskTask, data: Data, cell: Cell, folder: Path) -> Labels:
    """The pseudo-labels of all training frames, the same for every seed, so they are kept in `folder`.

    To take arms back, they are what the model that the cell starts from reads in the pictures, less the arms; elsewhere
    what the shipped silhouette reader reads from the masks.
    """
    if cell.stage != "tied":
        return _kept(folder / "labels-masks.npz", lambda: task.read_masks(torch.device("cpu")))
    own = _kept(folder / f"labels-{cell.start}.npz", lambda: _own_labels(task, data))
    if cell.arms:
        return own
    arms = sorted({bone.child for bone in data.skeleton.bones if bone.arm})
    confidence = own.confidence.copy()
    confidence[:, arms] = 0
    return Labels(own.keypoints, confidence)


def _own_labels(task: MaskTask, data: Data) -> Labels:
    return predict_labels(task.detector.eval(), data.frames.crops, data.skeleton.flip_index, torch.device("cpu"))


def _kept(file: Path, make: Callable[[], Labels]) -> Labels:
    if not file.is_file():
        labels = make()
        np.savez(file, keypoints=labels.keypoints, confidence=labels.confidence)
    with np.load(file) as stored:
        return Labels(stored["keypoints"], stored["confidence"])


def _start(arguments: argparse.Namespace, start: str, seed: int) -> Path:
    """The run or bundle whose networks a cell begins with."""
    return getattr(arguments, start) if start in ("init", "views_init") else _run(arguments, start, seed)


def _run(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    return arguments.folder / "runs" / f"{name}-{seed}"


# ------------------------------------------------------------------------------------------------------------ report


def judge(ordering: Ordering, found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Whether a finding holds: `yes` with intervals apart, `overlapping`, or `no`; `unknown` without cells."""
    result: dict[str, Any] = {"claim": ordering.claim, "metric": ordering.metric, "better": ordering.better}
    result["worse"] = ordering.worse
    values = [found.get(name, {}).get(ordering.metric, []) for name in (ordering.better, ordering.worse)]
    if not all(values):
        return result | {"holds": "unknown"}
    (low, low_half), (high, high_half) = seed_interval(values[0]), seed_interval(values[1])
    high, high_half = ordering.factor * high, ordering.factor * high_half
    gap = (low - high) if ordering.higher else (high - low)
    holds = "no" if gap <= 0 else "yes" if gap > low_half + high_half else "overlapping"
    paired = np.subtract(*(np.array(v[: min(map(len, values))]) for v in values)) if ordering.factor == 1 else None
    if paired is not None and len(paired) > 1:
        result["difference"] = list(seed_interval(paired.tolist()))  # of the same seeds: they share start and batches
    return result | {"holds": holds, "values": [[low, low_half], [high, high_half]]}


def agreeing(ordering: Ordering, people: dict[tuple[str, str], list[list[float]]]) -> dict[str, Any]:
    """For how many of the people who are measured a finding holds, in the mean over seeds."""
    values = [people.get((name, ordering.metric), []) for name in (ordering.better, ordering.worse)]
    if not all(values):
        return {}
    gain = ordering.factor * np.mean(values[1], 0) - np.mean(values[0], 0)
    return {"people": [int(((-gain if ordering.higher else gain) > 0).sum()), len(gain)]}


def report(folder: Path) -> list[dict[str, Any]]:
    """Write mask.html, mask.md and mask.json of all cells that are done; returns the judged orderings."""
    results = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    found: dict[str, dict[str, list[float]]] = {}
    people: dict[tuple[str, str], list[list[float]]] = {}
    for result in sorted(results, key=lambda r: r["seed"]):
        for metric, value in result["metrics"].items():
            found.setdefault(result["cell"], {}).setdefault(metric, []).append(value)
        for metric, values in result.get("people", {}).items():
            people.setdefault((result["cell"], metric), []).append(values)
    judged = [judge(ordering, found) | agreeing(ordering, people) for ordering in ORDERINGS]
    tables, text = [], ["# The ablations of `mask` at our scale", ""]
    for number, name_of in TABLES.items():
        rows = [_row(name, cell, found.get(name, {})) for name, cell in CELLS.items() if cell.table == number]
        header = ["configuration", "seeds", *COLUMNS.values(), "paper"]
        tables.append(Table(header, rows))
        text += [name_of, "", *markdown_table(header, rows), ""]
    header = ["finding", "metric", "better", "worse (times the factor)", "difference, same seeds", "people", "holds"]
    rows = []
    for verdict in judged:
        low, high = (_shown(*pair) for pair in verdict.get("values", [(math.nan, 0)] * 2))
        difference = _shown(*verdict["difference"]) if "difference" in verdict else ""
        people_of = "{} of {}".format(*verdict["people"]) if "people" in verdict else ""
        rows.append([verdict["claim"], verdict["metric"], low, high, difference, people_of, verdict["holds"]])
    text += ["Findings of the paper", "", *markdown_table(header, rows), ""]
    explained = [part.replace("\n", " ") for part in (__doc__ or "").split("\n\n")[3:]]
    sections = [Section("Findings", ["Mean and 95 % interval over seeds."], [Table(header, rows)])]
    sections += [Section(name_of, [], [t]) for name_of, t in zip(TABLES.values(), tables, strict=True)]
    sections.append(Section("What was done", explained))
    write_report(folder / "mask.html", "Mask as Supervision: the ablations at our scale", sections)
    write_text(folder / "mask.md", "\n".join(text) + "\n")
    write_text(folder / "mask.json", json.dumps({"cells": results, "findings": judged}, indent=1) + "\n")
    return judged


def draw(data: Data, arguments: argparse.Namespace) -> None:
    """Write mask.jpg: a row of crops of the measured people, and beneath it what each cell of `DRAWN` says of them."""
    moments = data.test.instants
    firsts = [np.flatnonzero(moments.subject == person)[40] for person in np.unique(moments.subject)]
    index = moments.frames[firsts][:, :2].ravel()
    crops = data.test.frames.crops[index]
    rows: list[np.ndarray] = []
    for name in DRAWN:
        run = _run(arguments, name, arguments.seeds[0])
        if has_checkpoint(run):
            detector = build_detector("tiny", data.skeleton.num_joints, SIZE)
            detector.load_state_dict(load_networks(run)["detector"])
            points = torch.from_numpy((predict_crops(detector, crops) + 0.5) * 2 / SIZE - 1)
            shown = draw_columns(torch.from_numpy(crops), [], points, data.skeleton)
            rows += [shown[len(shown) // 2 :]] if rows else [shown]
    if rows:
        write_picture(arguments.folder / "mask.jpg", np.concatenate(rows, 0))


def _row(name: str, cell: Cell, metrics: dict[str, list[float]]) -> list[str | int | float]:
    seeds = max((len(values) for values in metrics.values()), default=0)
    cells = [_shown(*seed_interval(metrics[key])) if metrics.get(key) else "" for key in COLUMNS]
    return [cell.title, seeds, *cells, ", ".join(f"{key} {value:g}" for key, value in cell.paper.items())]


def _shown(mean: float, half: float) -> str:
    digits = 3 if abs(mean) < 2 else 2 if abs(mean) < 20 else 1
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else " (one seed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("reproduce/mask"), help="data, runs, cells and the page")
    parser.add_argument("--init", type=Path, required=True, help="run or bundle of the single-view model, preset tiny")
    parser.add_argument("--views-init", type=Path, required=True, help="the same after it was refined on the sessions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--steps", type=int, default=400, help="steps of the rows of tables 4 and 5")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    start_logging()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    make_data(arguments.folder)
    data = read_data(arguments.folder)
    (arguments.folder / "cells").mkdir(exist_ok=True)
    for seed in arguments.seeds:
        for name in (name for name in CELLS if name in arguments.cells):
            done = arguments.folder / "cells" / f"{name}-{seed}.json"
            if done.is_file():
                continue
            logger.info("cell %s, seed %d", name, seed)
            write_text(done, json.dumps(run_cell(name, seed, data, arguments), indent=1) + "\n")
            report(arguments.folder)
    draw(data, arguments)
    for verdict in report(arguments.folder):
        logger.info("%s: %s", verdict["claim"], verdict["holds"])


if __name__ == "__main__":
    main()
