"""Tables 2 and 3, Fig. 2, 5 and 6 of `disentangle` (Liu et al.) at the scale of a laptop, beside the paper's numbers.

    python pipelines/reproduce/disentangle.py --folder reproduce/disentangle            # some minutes of a core a seed
    python pipelines/reproduce/disentangle.py --folder reproduce/disentangle --seeds 3 4    # more seeds of it

Interrupt it and start it again: finished cells are kept; the page `disentangle.html`, `disentangle.md` and
`disentangle.json` are written anew after every cell.

Data (made where it is missing): 240 synthetic people, 25 frames each, are all pairs (N = 6,000); the unpaired poses are
those of 600 other people (M = 12,000), of whom no picture is used; measured on 60 further people. As in the paper the
people are cut out by their true boxes and masks. Pictures have 32 pixels, the networks are small (preset `ablation`).

Cells: all losses, without L_cross, and L_sup alone (with the 2D supervision that the paper's baseline has, too), with
10 % of the pairs; all losses and L_sup alone with other parts of them (Fig. 5). Frames without a pose are not used by
any, as in the paper. All cells of a seed see the same pairs and take the same number of joint steps, each followed by
one step of VAE_y alone instead of m = floor(M / N) = 20, for a core's sake. The rows with BatchNorm have it wherever
the paper does; the others have layer and group normalisation, as our presets. What was found is told in
`pipelines/reproduce/disentangle.md`. MPJPE is that of the decoded poses, in metres as the network says them. The
confidence is judged by its rank correlation with the error of each frame.

Sketches (Sec. 4.1): strokes drawn from the same pictures by `methods/disentangle_targets.py`; 10 % of the pictures have
their sketch, the other sketches are unpaired (TD in Fig. 2) or unused. The error is the mean squared one of the
distance images of people never seen.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from streampose.config import load_skeleton
from streampose.console import logger, progress, start_logging
from streampose.files import write_text
from streampose.geometry.crop import crop_resize, square_box
from streampose.geometry.project import camera_from_world
from streampose.losses.latent import image_error
from streampose.methods.disentangle import DisentangleTask, load_disentangle_config
from streampose.methods.disentangle_config import DisentangleConfig
from streampose.methods.disentangle_data import Known, keep_share, plain_frames
from streampose.methods.disentangle_pairs import to_crop
from streampose.methods.disentangle_pictures import Rows, interpolation_grid, join, skeleton_tile, swap_grid, tile
from streampose.methods.disentangle_targets import PoseTarget, SketchTarget, draw_sketches
from streampose.methods.mask_data import Frames
from streampose.metrics.intervals import seed_interval
from streampose.metrics.keypoints_3d import mpjpe, pa_mpjpe
from streampose.models.disentangle import PoseOutput, PoseTranslator, without_background
from streampose.report import Picture, Section, Table, markdown_table, write_picture, write_report
from streampose.structures import Skeleton
from streampose.synth import synth
from streampose.synthetic.truth import read_truth
from streampose.training.engine import weighted_sum
from streampose.video.decode import open_video

SIZE, PADDING = 32, 0.1
SPLITS = {  # videos, frames each, side of the pictures in pixels, seed
    "train": (240, 25, 192, 51_001), "prior": (600, 20, 32, 71_003), "test": (60, 20, 192, 91_077),
}  # fmt: skip
RATE = 2.5  # frames a second
LEAST_PIXELS = 60  # of a subject that is used


@dataclass(frozen=True)
class Cell:
    """One row: the part of the pairs that is used, the loss terms that are left out; the paper's numbers."""

    title: str
    share: float = 0.1
    without: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    sketch: bool = False
    paper: str = ""


ALONE = ("vae_x", "vae_y", "cross")
BATCH_NORM = ("detector=disentangle-mini-paper",)
SAME_FRAME = "other_frames=false"
CELLS = {
    "full": Cell("all losses, 10 % of the pairs", paper="MPJPE 68.9, PA-MPJPE 49.7 (Table 2); 60.6 (Table 3)"),
    "no-cross": Cell("without L_cross, 10 %", without=("cross",), paper="MPJPE 87.4, PA-MPJPE 55.0 (Table 2)"),
    "sup": Cell("L_sup alone, 10 %", without=ALONE, paper="PA-MPJPE 76.7 (Table 3)"),
    "bn": Cell("all losses, BatchNorm, 10 %", changes=BATCH_NORM),
    "bn-no-cross": Cell("without L_cross, BatchNorm, 10 %", without=("cross",), changes=BATCH_NORM),
    "bn-sup": Cell("L_sup alone, BatchNorm, 10 %", without=ALONE, changes=BATCH_NORM),
    "bn-printed": Cell(
        "all losses as printed (BatchNorm, z_s of the same frame), 10 %",
        changes=(*BATCH_NORM, SAME_FRAME),
        paper="as all losses, 10 %",
    ),
    "printed": Cell("z_s of the same frame in L_cross, as printed, 10 %", changes=(SAME_FRAME,)),
    "full-all": Cell("all losses, all pairs", 1.0, paper="MPJPE 68.1, PA-MPJPE 49.2 (Table 1)"),
    "sup-all": Cell("L_sup alone, all pairs", 1.0, ALONE),
    "full-2": Cell("all losses, 2 %", 0.02),
    "no-cross-2": Cell("without L_cross, 2 %", 0.02, ("cross",)),
    "sup-2": Cell("L_sup alone, 2 %", 0.02, ALONE),
    "sketch": Cell("sketches, 10 % of the pairs, with the other sketches", sketch=True),
    "sketch-pairs": Cell("sketches, 10 % of the pairs alone", sketch=True, changes=("target_steps=0",)),
}
COLUMNS = {  # metric: its heading
    "mpjpe_mm": "MPJPE, mm",
    "pa_mpjpe_mm": "PA-MPJPE, mm",
    "points": "2D error, % of the crop",
    "confidence": "confidence: rank correlation with the error",
    "pose_follows_task": "swap: pose to the giver of z_t, mm",
    "pose_follows_rest": "to the giver of z_s, mm",
    "colour_follows_task": "swap: colour to the giver of z_t",
    "colour_follows_rest": "to the giver of z_s",
    "sketch_error": "error of sketches, % ",
}


class Ordering(NamedTuple):
    """A finding: the better cell's metric is at most `factor` times that of the worse."""

    claim: str
    better: str
    worse: str
    metric: str
    factor: float = 1.0


ORDERINGS = [
    Ordering("L_cross lowers the error (Table 2)", "full", "no-cross", "mpjpe_mm"),
    Ordering("L_cross lowers it after alignment (Table 2)", "full", "no-cross", "pa_mpjpe_mm"),
    Ordering("all losses beat L_sup alone (Table 3)", "full", "sup", "pa_mpjpe_mm"),
    Ordering("all losses beat L_sup alone, MPJPE", "full", "sup", "mpjpe_mm"),
    Ordering("L_cross lowers the error, BatchNorm", "bn", "bn-no-cross", "mpjpe_mm"),
    Ordering("L_cross lowers it after alignment, BatchNorm", "bn", "bn-no-cross", "pa_mpjpe_mm"),
    Ordering("all losses beat L_sup alone, BatchNorm", "bn", "bn-sup", "pa_mpjpe_mm"),
    Ordering("L_cross lowers the error, as printed", "bn-printed", "bn-no-cross", "mpjpe_mm"),
    Ordering("L_cross lowers it after alignment, as printed", "bn-printed", "bn-no-cross", "pa_mpjpe_mm"),
    Ordering("all losses beat L_sup alone, as printed", "bn-printed", "bn-sup", "pa_mpjpe_mm"),
    Ordering("10 % of the pairs: within 5 % of all (Table 1)", "full", "full-all", "pa_mpjpe_mm", 1.05),
    Ordering("all losses beat L_sup alone with 2 % (Fig. 5)", "full-2", "sup-2", "pa_mpjpe_mm"),
    Ordering("L_cross lowers the error after alignment with 2 %", "full-2", "no-cross-2", "pa_mpjpe_mm"),
    Ordering("all losses beat L_sup alone with all pairs (Fig. 5)", "full-all", "sup-all", "pa_mpjpe_mm"),
    Ordering("z_s of another frame keeps the pose in z_t (Fig. 6)", "full", "printed", "pose_follows_task"),
    Ordering("unpaired sketches lower the error (Fig. 2)", "sketch", "sketch-pairs", "sketch_error"),
]

# -------------------------------------------------------------------------------------------------------------- data


class Data(NamedTuple):
    """Frames of 32 pixels and what is known about them, of training and test; unpaired poses (M, K, 3)."""

    skeleton: Skeleton
    frames: Frames
    known: Known
    poses: np.ndarray
    test: Frames
    truth: Known


def read_data(folder: Path) -> Data:
    """Make the videos and cut the people out, where that is not done yet."""
    skeleton = load_skeleton("human17")
    arrays = {}
    for split, (videos, frames, side, seed) in SPLITS.items():
        kept = folder / f"{split}.npz"
        if not kept.is_file():
            if not (folder / split / f"video_{videos - 1:03d}.truth.npz").is_file():
                synth(out=folder / split, videos=videos, seconds=frames / RATE, fps=RATE, size=(side, side), seed=seed)
            np.savez(kept, **_cut_out(folder / split, skeleton, pictures=split != "prior"))
        with np.load(kept) as stored:
            arrays[split] = {name: stored[name] for name in stored.files}
    made = {
        split: (plain_frames(a["crops"], a["masks"], a["boxes"], a["clip"]), Known(a["pose"], a["xy"]))
        for split, a in arrays.items()
        if split != "prior"
    }
    return Data(skeleton, *made["train"], arrays["prior"]["pose"], *made["test"])


def _cut_out(folder: Path, skeleton: Skeleton, pictures: bool) -> dict[str, Any]:
    """The person of each frame by the true box and mask, the pose in the camera's frame, joints in the crop."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("crops", "masks", "boxes", "clip", "pose", "xy")}
    for number, path in enumerate(sorted(folder.glob("*.truth.npz"))):
        truth = read_truth(path)
        columns = [truth.joints.tolist().index(name) for name in skeleton.joints]
        pose = camera_from_world(truth.joints_3d[:, 0][:, columns], truth.R, truth.t)
        pose = (pose - pose[:, skeleton.root : skeleton.root + 1]).astype(np.float32)
        if not pictures:
            parts["pose"].append(pose)
            continue
        boxes = square_box(truth.boxes[:, 0], PADDING)
        rows = np.flatnonzero(np.isfinite(boxes).all(1) & ((truth.masks == 1).sum((1, 2)) >= LEAST_PIXELS))
        with open_video(path.with_name(path.name.replace(".truth.npz", ".mp4"))) as video:
            images = [frame.image for frame in video.frames()]
        rows = rows[rows < len(images)]
        masks = [np.where(truth.masks[n] == 1, 255, 0).astype(np.uint8) for n in rows]
        parts["crops"].append(np.stack([crop_resize(images[n], boxes[n], SIZE) for n in rows]))
        parts["masks"].append(np.stack([crop_resize(m, boxes[n], SIZE) for m, n in zip(masks, rows, strict=True)]))
        parts["boxes"].append(boxes[rows].astype(np.float32))
        parts["clip"].append(np.full(len(rows), number))
        parts["pose"].append(pose[rows])
        parts["xy"].append(to_crop(truth.joints_2d[rows, 0][:, columns], boxes[rows]))
    return {name: np.concatenate(values) for name, values in parts.items() if values}


# ------------------------------------------------------------------------------------------------------------- cells


def cell_config(cell: Cell, seed: int, steps: int) -> DisentangleConfig:
    """The settings of a cell: the preset `ablation`, and what its switches change."""
    changes = [f"seed={seed}", f"steps={steps}", *(f"terms.{name}=0" for name in cell.without), *cell.changes]
    if cell.sketch:
        changes += ["target=sketch", "prior=none", "terms.projection=0"]
    return load_disentangle_config("ablation", None, changes)


def make_task(cell: Cell, seed: int, steps: int, data: Data) -> DisentangleTask:
    """The task of a cell; all cells of a seed and a share have the same pairs."""
    torch.manual_seed(seed)
    config = cell_config(cell, seed, steps)
    known = keep_share(data.known, cell.share, seed)
    unpaired = np.setdiff1d(np.arange(len(data.frames)), known.paired)
    if cell.sketch:
        target: Any = SketchTarget(data.frames, unpaired, config.image_weight)
    else:
        target = PoseTarget(data.skeleton, known, data.poses)
    return DisentangleTask(data.frames, target, data.skeleton, config)


def run_cell(name: str, seed: int, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a cell, measure it and draw its pictures."""
    cell = CELLS[name]
    task = make_task(cell, seed, arguments.steps, data)
    fit(task)
    task.networks.eval()
    measured = measure_sketches if cell.sketch else measure_poses
    pictures = arguments.folder / "pictures"
    metrics = measured(task, data, pictures / f"{name}-{seed}")
    return {"cell": name, "seed": seed, "pairs": len(task.target.paired), "steps": arguments.steps, "metrics": metrics}


def fit(task: DisentangleTask) -> None:
    """Algorithm 1, as the engine runs it, without its checkpoints; the optimiser's fused kernel halves the steps."""
    groups = [list(network.parameters()) for network in task.networks.values()]
    optimiser = torch.optim.AdamW([p for group in groups for p in group], fused=True)
    task.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.networks.train()
    with progress("Training", task.total_steps, unit="steps") as bar:
        for step in range(task.total_steps):
            torch.manual_seed(task.config.seed * 1_000_003 + step)
            loss = weighted_sum(*task.loss(task.batch(step), step))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            for group in groups:
                torch.nn.utils.clip_grad_norm_([p for p in group if p.grad is not None], 1.0)
            for settings in optimiser.param_groups:
                settings.update(task.optimiser_settings(step))
            optimiser.step()
            bar.advance(1, note=f"loss {float(loss.detach()):.4f}")


# ----------------------------------------------------------------------------------------------------------- measure


def subjects_of(frames: Frames) -> tuple[torch.Tensor, torch.Tensor]:
    """Foreground-only images (N, 3, S, S) and masks (N, S, S), in [0, 1]."""
    mask = torch.from_numpy(frames.masks).float() / 255
    return without_background(torch.from_numpy(frames.crops).permute(0, 3, 1, 2).float() / 255, mask), mask


@torch.inference_mode()
def detect(detector: PoseTranslator, subjects: torch.Tensor, mask: torch.Tensor) -> PoseOutput:
    parts = [detector.detect(subjects[n : n + 200], mask[n : n + 200]) for n in range(0, len(subjects), 200)]
    return PoseOutput(*(torch.cat(values) for values in zip(*parts, strict=True)))


def measure_poses(task: DisentangleTask, data: Data, pictures: Path) -> dict[str, float]:
    """Errors on people never seen, and what swapped codes do."""
    detector = task.detector
    assert isinstance(detector, PoseTranslator)
    subjects, mask = subjects_of(data.test)
    found = detect(detector, subjects, mask)
    pose, true = 1000 * found.pose.numpy(), 1000 * data.truth.pose
    apart = np.linalg.norm(found.keypoints[..., :2].numpy() - data.truth.xy, axis=-1)
    metrics = {
        "mpjpe_mm": float(mpjpe(pose, true, data.skeleton.root).mean()),
        "pa_mpjpe_mm": float(pa_mpjpe(pose, true).mean()),
        "points": float(50 * apart.mean()),
        "confidence": float(-spearmanr(found.confidence.mean(1).numpy(), mpjpe(pose, true, 0).mean(1)).statistic),
    }
    shown = np.linspace(0, len(subjects) - 1, 6).round().astype(int)
    rows: Rows = [
        [skeleton_tile(points, data.skeleton, subjects[n]) for points, n in zip(place, shown, strict=True)]
        for place in (data.truth.xy[shown], found.keypoints[shown].numpy())
    ]
    write_picture(pictures.with_name(pictures.name + "-poses.png"), join(rows))
    if task.config.terms["vae_x"]:
        metrics |= measure_swaps(task, data, subjects)
        with torch.inference_mode():
            swapped = swap_grid(detector, task.decoder_x, subjects[shown])
            between = interpolation_grid(detector, task.decoder_x, subjects[shown], data.skeleton)
        write_picture(pictures.with_name(pictures.name + "-swap.png"), swapped)
        write_picture(pictures.with_name(pictures.name + "-between.png"), between)
    return metrics


@torch.inference_mode()
def measure_swaps(task: DisentangleTask, data: Data, subjects: torch.Tensor, count: int = 300) -> dict[str, float]:
    """How far the pose (mm) and the colour of pictures from two people's codes are from each giver's."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(subjects), (2, 4 * count))
    kept = np.flatnonzero(data.test.clip[a] != data.test.clip[b])[:count]
    a, b = a[kept], b[kept]
    task_code, rest_code, _ = task.detector.encode(subjects)
    made = task.decoder_x(torch.cat([task_code.mean[a], rest_code.mean[b]], 1))
    assert isinstance(task.detector, PoseTranslator)
    own, of_made = (1000 * detect(task.detector, x, torch.ones_like(x[:, 0])).pose.numpy() for x in (subjects, made))
    result = {}
    for giver, index in (("task", a), ("rest", b)):
        result[f"pose_follows_{giver}"] = float(mpjpe(of_made, own[index], data.skeleton.root).mean())
        colours = _colour(made) - _colour(subjects[index])
        result[f"colour_follows_{giver}"] = float(colours.norm(dim=1).mean())
    return result


def _colour(images: torch.Tensor) -> torch.Tensor:
    """Mean colour of what is not the grey of the background: (N, 3, S, S) -> (N, 3)."""
    weight = ((images - 0.5).abs().amax(1, keepdim=True) > 0.08).float()
    return (images * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)


@torch.inference_mode()
def measure_sketches(task: DisentangleTask, data: Data, pictures: Path) -> dict[str, float]:
    """Error of the sketches of people never seen; a picture of some beside what they should be."""
    subjects, _ = subjects_of(data.test)
    true = torch.from_numpy(draw_sketches(data.test.crops, data.test.masks))
    parts = [task.detector.encode(subjects[n : n + 200])[0].mean for n in range(0, len(subjects), 200)]
    found = torch.cat([task.detector.decoder(part) for part in parts])
    shown = np.linspace(0, len(subjects) - 1, 8).round().astype(int)
    rows = [[tile(images[n]) for n in shown] for images in (subjects, true, found)]
    write_picture(pictures.with_name(pictures.name + "-sketches.png"), join(rows))
    return {"sketch_error": float(100 * image_error(found, true).mean())}


# ------------------------------------------------------------------------------------------------------------ report


def judge(ordering: Ordering, found: dict[str, dict[int, dict[str, float]]]) -> dict[str, Any]:
    """Whether a finding holds: `yes` with intervals apart (or, of the same seeds, that of the difference off zero),
    `overlapping`, or `no`; `unknown` without cells."""
    result: dict[str, Any] = ordering._asdict()
    better, worse = found.get(ordering.better, {}), found.get(ordering.worse, {})
    seeds = sorted(better.keys() & worse.keys())
    if not seeds:
        return result | {"holds": "unknown"}
    low = [better[seed][ordering.metric] for seed in seeds]
    high = [ordering.factor * worse[seed][ordering.metric] for seed in seeds]
    difference = seed_interval([b - a for a, b in zip(low, high, strict=True)])
    (a, a_half), (b, b_half) = seed_interval(low), seed_interval(high)
    apart = "yes" if b - a > a_half + b_half else "same seeds" if difference[0] > difference[1] else "overlapping"
    return result | {"holds": apart if b > a else "no", "values": [[a, a_half], [b, b_half]], "difference": difference}


def report(folder: Path) -> list[dict[str, Any]]:
    """Write disentangle.html, .md and .json of all cells that are done; returns the judged findings."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "cells").glob("*.json"))]
    found: dict[str, dict[int, dict[str, float]]] = {}
    for result in results:
        found.setdefault(result["cell"], {})[result["seed"]] = result["metrics"]
    judged = [judge(ordering, found) for ordering in ORDERINGS]
    header = ["configuration", "seeds", *COLUMNS.values(), "paper"]
    rows = [_row(cell, list(found.get(name, {}).values())) for name, cell in CELLS.items()]
    claims = ["finding", "metric", "better", "worse (times the factor)", "worse - better, same seeds", "holds"]
    verdicts = []
    for verdict in judged:
        shown = [_shown(*pair) for pair in verdict["values"]] if "values" in verdict else ["", ""]
        shown.append(_shown(*verdict["difference"]) if "difference" in verdict else "")
        verdicts.append([verdict["claim"], verdict["metric"], *shown, verdict["holds"]])
    text = [
        "# `disentangle` at our scale",
        "",
        *markdown_table(header, rows),
        "",
        *markdown_table(claims, verdicts),
        "",
    ]
    explained = [part.replace("\n", " ") for part in (__doc__ or "").split("\n\n")[3:]]
    figures = [Picture(curve(found), "Error on people never seen by the part of the pairs that is used (Fig. 5).")]
    captions = {
        "poses": "True (above) and detected joints of people never seen.",
        "swap": "Task codes of the upper row with the rest of the left column (Fig. 6b).",
        "between": "From one task code to another, with the left one's rest (Fig. 6a).",
        "sketches": "Pictures, sketches as distance images, and translations, of people never seen (Fig. 2).",
    }
    for path in sorted((folder / "pictures").glob("*.png")):
        cell, _, kind = path.stem.rpartition("-")
        figures.append(Picture(path, f"{cell}: {captions[kind]}"))
    sections = [
        Section("Findings of the paper", ["Mean and 95 % interval over seeds."], [Table(claims, verdicts)]),
        Section("Cells", [], [Table(header, rows)]),
        Section("Pictures", [], [], figures),
        Section("What was done", explained),
    ]
    write_report(folder / "disentangle.html", "Disentangled representations at our scale", sections)
    write_text(folder / "disentangle.md", "\n".join(text) + "\n")
    write_text(folder / "disentangle.json", json.dumps({"cells": results, "findings": judged}, indent=1) + "\n")
    return judged


def curve(found: dict[str, dict[int, dict[str, float]]]) -> np.ndarray:
    """PA-MPJPE against the part of the pairs, with all losses and with L_sup alone: RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    for label, without in (("all losses", ()), ("L_sup alone", ALONE)):
        points = sorted(
            (100 * cell.share, *seed_interval([m["pa_mpjpe_mm"] for m in found[name].values()]))
            for name, cell in CELLS.items()
            if cell.without == without and not cell.sketch and name in found
        )
        if points:
            share, mean, half = (np.array(values) for values in zip(*points, strict=True))
            axis.errorbar(share, mean, np.where(np.isfinite(half), half, 0), marker="o", capsize=3, label=label)
    axis.set(xscale="log", xlabel="part of the pairs, %", ylabel="PA-MPJPE, mm")
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _row(cell: Cell, metrics: list[dict[str, float]]) -> list[str | int | float]:
    cells: list[str | int | float] = [cell.title, len(metrics)]
    for key in COLUMNS:
        values = [one[key] for one in metrics if key in one]
        cells.append(_shown(*seed_interval(values)) if values else "")
    return [*cells, cell.paper]


def _shown(mean: float, half: float) -> str:
    digits = 3 if abs(mean) < 2 else 2 if abs(mean) < 20 else 1
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else " (one seed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("reproduce/disentangle"), help="data, runs and the page")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--steps", type=int, default=800, help="joint steps of each cell")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    start_logging()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
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
    for verdict in report(arguments.folder):
        logger.info("%s: %s", verdict["claim"], verdict["holds"])


if __name__ == "__main__":
    main()
