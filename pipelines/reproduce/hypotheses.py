"""Tables 1, 3 and 4 of `hypotheses` (Li & Lee) on motion capture of dances, beside the paper's numbers.

    python pipelines/reproduce/hypotheses.py --mocap FOLDER --folder reproduce/hypotheses     # .bvh files, half an hour
    python pipelines/reproduce/hypotheses.py --folder reproduce/hypotheses --seeds 3 4        # more seeds of it

Interrupt it and start it again: finished cells are kept; `hypotheses.html`, `hypotheses.md` and `hypotheses.json` are
written anew after every cell.

Data: the motion capture on an average body (`streampose prior import`), 30 frames a second. Every sixth dance or
take of martial arts is held out as a whole, both partners together; nothing of it is trained with. 2D joints
are those that random cameras see in perspective, all round the subject, 2.5 to 8 of its extents away. Training sees 2D
joints and 3D poses in an order that has forgotten which belongs to which; the cell `apart` takes them from different
dances altogether. Errors are PA-MPJPE (protocol 2) of every 8th held-out pose, in millimetres; MPJPE is in the
camera's frame with metres as the network says them (its size is that of the average body).

Cells: all terms; without the terms that make poses differ (Table 4a): all three of ours, or only the paper's two; the
weight of Eq. 6 (Table 4b); without the consistency of turned poses, which the paper does not have. One network serves
full and partial poses (Table 3): the paper trains one for each. Settings are those of the preset `tiny`; training sees
noisy 2D joints, what is measured are exact ones.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from streampose.config import load_skeleton
from streampose.console import logger, progress, start_logging
from streampose.evaluation.lifted import BEST_OF, Views, calibrate, measure_lifter, photograph
from streampose.export_lifter import eager_lifting, write_lifter
from streampose.files import write_text
from streampose.methods.hypotheses import HypothesesTask, load_hypotheses_config
from streampose.methods.hypotheses_data import make_examples
from streampose.metrics.intervals import seed_interval
from streampose.prior import import_prior
from streampose.report import Picture, Section, Table, markdown_table, write_picture, write_report
from streampose.runtime.lifter import Lifting
from streampose.store.priors import Prior, read_prior
from streampose.structures import Skeleton
from streampose.training.engine import weighted_sum

NAME = "dances"
HELD_OUT, EVERY, CALIBRATING = 6, 8, 2000
SHOWN, TILE = 6, 160
DECAY = 0.995  # of the running average that is measured


@dataclass(frozen=True)
class Cell:
    """One row: what its settings change; whether 2D and 3D come from different dances; the paper's numbers."""

    title: str
    changes: tuple[str, ...] = ()
    apart: bool = False
    paper: str = ""


CELLS = {
    "full": Cell("all terms", paper="zero 35.3, mean shift about the same, best of ten 31.6, spread 77.4"),
    "plain": Cell("without diversity, codes and spread",
                  ("weights.diversity=0", "weights.codes=0", "weights.spread=0"),
                  paper="zero 37.4, best of ten 36.3, spread 3.6"),
    "paper-terms": Cell("without consistency and spread (the paper's terms)",
                        ("weights.consistency=0", "weights.spread=0")),
    "paper-strong": Cell("the paper's terms, 12 times diversity, 4 times codes",
                         ("weights.consistency=0", "weights.spread=0", "weights.diversity=2.5", "weights.codes=2")),
    "paper-plain": Cell("the paper's terms without diversity and codes",
                        ("weights.consistency=0", "weights.spread=0", "weights.diversity=0", "weights.codes=0")),
    "no-eq6-eq7": Cell("without diversity and codes; spread stays", ("weights.diversity=0", "weights.codes=0")),
    "more": Cell("5 times the weight of diversity", ("weights.diversity=1",),
                 paper="7.5 -> 10: best of ten 31.6 -> 34.2, spread 77.4 -> 98.2"),
    "most": Cell("25 times the weight of diversity", ("weights.diversity=5",)),
    "apart": Cell("2D joints and 3D poses from different dances", apart=True),
}  # fmt: skip
COLUMNS = {  # metric: its heading
    "pa_mpjpe_mm": "zero code",
    "mean_shift_pa_mpjpe_mm": "mean shift",
    "best10_pa_mpjpe_mm": "best of ten",
    "missing1_pa_mpjpe_mm": "one missing",
    "missing2_pa_mpjpe_mm": "two missing",
    "spread_mm": "spread of ten",
    "spread_diverse_mm": "of the farthest five",
    "coverage90": "in the 90 % region",
    "mpjpe_mm": "MPJPE",
}


def read_data(folder: Path, mocap: Path | None, skeleton: Skeleton) -> tuple[Prior, Prior]:
    """(train, test) dances; imports the motion capture where that is not done yet."""
    store = folder / "store.zarr"
    if not (store / "priors").is_dir():
        if mocap is None:
            raise SystemExit("--mocap FOLDER: name the folder of .bvh files once")
        import_prior([mocap], store=store, name=NAME, skeleton=skeleton.name)
    prior = read_prior(store, NAME).for_skeleton(skeleton)
    prior = prior.pick(np.isfinite(prior.poses).all((1, 2)))
    held_out = np.isin(prior.groups, np.unique(prior.groups)[::HELD_OUT])
    return prior.pick(~held_out), prior.pick(held_out)


def make_task(
    cell: Cell, seed: int, steps: int | None, train: Prior, test: Prior, skeleton: Skeleton
) -> HypothesesTask:
    """The task of a cell."""
    changes = [f"seed={seed}", *([] if steps is None else [f"steps={steps}"]), *cell.changes]
    config = load_hypotheses_config("tiny", None, changes)
    nothing = np.zeros((0, skeleton.num_joints, 2)), np.zeros((0, skeleton.num_joints))
    examples = make_examples(train, test, skeleton, config, *nothing)
    if cell.apart:
        seen, real = train.split(0.5, 1)
        projected = make_examples(seen, test, skeleton, config, *nothing).projected
        examples = make_examples(real, test, skeleton, config, *nothing)
        examples = type(examples)(**{**vars(examples), "projected": projected})
    torch.manual_seed(seed)
    return HypothesesTask(examples, skeleton, config)


def fit(task: HypothesesTask, saved: Path) -> None:
    """Train as the engine does, without its checkpoints; the lifter is left with its running average."""
    average = {name: tensor.clone() for name, tensor in task.lifter.state_dict().items()}
    groups = [{"params": list(network.parameters()), "network": name} for name, network in task.networks.items()]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    with progress("Training", task.total_steps, unit="steps") as bar:
        for step in range(task.total_steps):
            torch.manual_seed(task.config.seed * 1_000_003 + step)
            loss = weighted_sum(*task.loss(task.batch(step), step))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            for network in task.networks.values():
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            settings: dict[str, Any] = task.optimiser_settings(step)
            for group in optimiser.param_groups:
                group["lr"] = settings.get(f"{group['network']}.lr", settings["lr"])
                group["betas"] = settings["betas"]
            optimiser.step()
            decay = min(DECAY, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, tensor in task.lifter.state_dict().items():
                    if tensor.is_floating_point():
                        average[name].lerp_(tensor, 1 - decay)
            bar.advance(1, note=f"loss {float(loss.detach()):.3f}")
    task.lifter.load_state_dict(average)
    saved.parent.mkdir(parents=True, exist_ok=True)
    save_file(average, saved)


def run_cell(name: str, seed: int, arguments: argparse.Namespace, data: tuple[Prior, Prior]) -> dict[str, Any]:
    """Train a cell, or take it where it was left; measure, draw and export it."""
    skeleton, (train, test) = load_skeleton("human17"), data
    task = make_task(CELLS[name], seed, arguments.steps, train, test, skeleton)
    saved = arguments.folder / "weights" / f"{name}-{seed}.safetensors"
    if saved.is_file():
        task.lifter.load_state_dict(load_file(saved))
    else:
        fit(task, saved)
    views = photograph(test, skeleton, len(test) // EVERY, 0)
    part = calibrate(eager_lifting(task.lifter, skeleton), photograph(train, skeleton, CALIBRATING, 1))
    lifting = eager_lifting(task.lifter, skeleton, part)
    measured = measure_lifter(lifting, views)
    image = draw_hypotheses(lifting, views)
    write_picture(arguments.folder / "pictures" / f"{name}-{seed}.jpg", image)
    write_lifter(
        task.lifter, arguments.folder / "bundles" / f"{name}-{seed}", skeleton=skeleton, part=part,
        method="hypotheses", preset=task.config.detector, metrics=measured.metrics,
    )  # fmt: skip
    return {"cell": name, "seed": seed, "steps": task.total_steps, "poses": len(train), "metrics": measured.metrics}


def draw_hypotheses(lifting: Lifting, views: Views) -> np.ndarray:
    """A column for each of some poses: the joints that a camera sees, the true pose from the side, and ten hypotheses
    from the side with the zero code's on top, (3 TILE, SHOWN TILE, 3).
    """
    index = np.linspace(0, len(views.joints) - 1, SHOWN + 2).round().astype(int)[1:-1]
    found = lifting.lift(views.joints[index], count=BEST_OF + 1)
    columns = []
    for flat, truth, poses in zip(views.joints[index], views.truth[index], found.hypotheses, strict=True):
        middle, extent = (flat.max(0) + flat.min(0)) / 2, (flat.max(0) - flat.min(0)).max()
        size = 1.1 * (truth.max(0) - truth.min(0)).max()
        cloud = np.full((TILE, TILE, 3), 24, np.uint8)
        for pose in poses[1:]:
            drawn = draw_skeleton(cloud.copy(), _place(pose[:, [2, 1]], size), lifting.skeleton, 1)
            cloud = np.maximum(cloud, (0.6 * drawn).astype(np.uint8))
        blank = np.full((TILE, TILE, 3), 24, np.uint8)
        columns.append([
            draw_skeleton(blank.copy(), (flat - middle) / extent * 0.8 * TILE + TILE / 2, lifting.skeleton, 2),
            draw_skeleton(blank.copy(), _place(truth[:, [2, 1]], size), lifting.skeleton, 2),
            draw_skeleton(cloud, _place(poses[0][:, [2, 1]], size), lifting.skeleton, 2),
        ])  # fmt: skip
    return np.concatenate([np.concatenate(column) for column in columns], 1)


def _place(points: np.ndarray, size: float) -> np.ndarray:
    """Points about the root, in metres, on a tile."""
    return points / size * 0.85 * TILE + TILE / 2


def draw_skeleton(image: np.ndarray, points: np.ndarray, skeleton: Skeleton, width: int) -> np.ndarray:
    """Draw bones into a picture: left orange, right blue, middle white."""
    left, right = ({pair[side] for pair in skeleton.flip_pairs} for side in (0, 1))
    for bone in skeleton.bones:
        colour = (255, 160, 60) if bone.child in left else (80, 160, 255) if bone.child in right else (235, 235, 235)
        ends = [tuple(int(v) for v in points[k].round()) for k in (bone.parent, bone.child)]
        cv2.line(image, ends[0], ends[1], colour, width, cv2.LINE_AA)
    return image


def findings(found: dict[str, dict[str, list[float]]]) -> list[list[Any]]:
    """[claim, what was found, yes or no] of what the cells that are done can say; limits hold for every seed."""
    full, plain = found.get("full", {}), found.get("plain", {})
    none = [math.nan]
    zero, mode, best = (full.get(key, none) for key in ("pa_mpjpe_mm", "mean_shift_pa_mpjpe_mm", "best10_pa_mpjpe_mm"))
    one, two = full.get("missing1_pa_mpjpe_mm", none), full.get("missing2_pa_mpjpe_mm", none)
    wide, narrow = full.get("spread_mm", none), plain.get("spread_mm", none)
    inside, plain_best = full.get("coverage90", none), plain.get("best10_pa_mpjpe_mm", none)
    off = [100 * abs(z - m) / m for z, m in zip(zero, mode, strict=True)]
    ratio = float(np.mean(wide) / np.mean(narrow))
    claims = [
        ("zero code at most 60 mm", _worst(zero), max(zero) <= 60),
        ("best of ten at most 50 mm", _worst(best), max(best) <= 50),
        ("the terms spread ten samples 10 times as much", f"{np.mean(wide):.1f} against {np.mean(narrow):.2f} mm: "
         f"{ratio:.1f} times (at least {min(wide) / max(narrow):.1f})", ratio >= 10),
        ("without the terms the best of ten is worse", f"{np.mean(best):.1f} against {np.mean(plain_best):.1f}",
         np.mean(best) < np.mean(plain_best)),
        ("zero code within 3 % of the mean shift", f"{_worst(off)} %", max(off) <= 3),
        ("one and two missing joints degrade gracefully", f"{np.mean(zero):.1f}, {np.mean(one):.1f}, "
         f"{np.mean(two):.1f}", np.mean(zero) < np.mean(one) < np.mean(two)),
        ("the 90 % region holds 85 to 95 % of true joints", f"{100 * min(inside):.1f} to {100 * max(inside):.1f} %",
         0.85 <= min(inside) <= max(inside) <= 0.95),
    ]  # fmt: skip
    return [[claim, text, "unknown" if "nan" in text else "yes" if holds else "no"] for claim, text, holds in claims]


def _worst(values: list[float]) -> str:
    return f"{np.mean(values):.1f}, the worst of {len(values)} seeds {max(values):.1f}"


def report(folder: Path) -> list[list[Any]]:
    """Write the page of all cells that are done; returns the findings."""
    results = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    found: dict[str, dict[str, list[float]]] = {}
    for result in results:
        for metric, value in result["metrics"].items():
            found.setdefault(result["cell"], {}).setdefault(metric, []).append(value)
    judged = findings(found)
    header = ["configuration", "seeds", *COLUMNS.values(), "paper (Human3.6M)"]
    rows: list[list[Any]] = []
    for name, cell in CELLS.items():
        metrics = found.get(name)
        if metrics:
            cells = [_shown(*seed_interval(metrics[key])) for key in COLUMNS]
            rows.append([cell.title, len(metrics["pa_mpjpe_mm"]), *cells, cell.paper])
    claim_header = ["finding", "found", "holds"]
    pictures = [Picture(path, path.stem) for path in sorted((folder / "pictures").glob("full-*.jpg"))[:1]]
    told = (
        "From above: the joints that a camera sees; the true pose from the side; ten hypotheses from the side, and the "
        "zero code's on top."
    )
    sections = [
        Section("Findings", [], [Table(claim_header, judged)]),
        Section("Errors in millimetres, mean and 95 % interval over seeds", [], [Table(header, rows)]),
        Section("Poses", [told], pictures=pictures),
        Section("What was done", [part.replace("\n", " ") for part in (__doc__ or "").split("\n\n")[3:]]),
    ]
    write_report(folder / "hypotheses.html", "Many 3D poses for one set of 2D joints, at our scale", sections)
    text = ["# hypotheses at our scale", "", *markdown_table(claim_header, judged), "", *markdown_table(header, rows)]
    write_text(folder / "hypotheses.md", "\n".join(text) + "\n")
    write_text(folder / "hypotheses.json", json.dumps({"cells": results, "findings": judged}, indent=1) + "\n")
    return judged


def _shown(mean: float, half: float) -> str:
    digits = 3 if abs(mean) < 2 else 1
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("reproduce/hypotheses"), help="data, cells and the page")
    parser.add_argument("--mocap", type=Path, help="folder of .bvh files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--steps", type=int, help="steps of each cell [default: the preset's]")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    start_logging()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = read_data(arguments.folder, arguments.mocap, load_skeleton("human17"))
    (arguments.folder / "cells").mkdir(parents=True, exist_ok=True)
    for name in (name for name in CELLS if name in arguments.cells):
        for seed in arguments.seeds:
            done = arguments.folder / "cells" / f"{name}-{seed}.json"
            if done.is_file():
                continue
            logger.info("cell %s, seed %d", name, seed)
            write_text(done, json.dumps(run_cell(name, seed, arguments, data), indent=1) + "\n")
            report(arguments.folder)
    for claim, text, holds in report(arguments.folder):
        logger.info("%s: %s (%s)", claim, holds, text)


if __name__ == "__main__":
    main()
