"""The ablation and the curve of few poses of `landmarks` (Jakab et al.; Tables 5 and 4) at the scale of a laptop.

    python pipelines/reproduce/landmarks.py --folder reproduce/landmarks                  # three seeds
    python pipelines/reproduce/landmarks.py --folder reproduce/landmarks --preset paper --objective printed
    python pipelines/reproduce/landmarks.py --folder reproduce/printed --cells cyclegan ours --objective printed

Interrupt it and start it again: finished cells are kept, an unfinished one goes on from its checkpoint; the page
`landmarks.html`, `landmarks.md` and `landmarks.json` are written anew after every cell. Nothing is labelled; truth is
used to cut the crops out (as the paper uses the boxes that come with its data) and to measure.

Data (made where it is missing): SynthPose people in front of cluttered walls, filmed by cameras that move, so that no
mask of a background model could be had; measured on people, clothes, motions and scenes that were never seen. The
ablation has films of cameras that stand still, two seconds in one and the same crop, as Human3.6M has: what x' shows of
the scene is then what x shows, and 1,000 steps are enough for a decoder that knows it. The unpaired poses are those of
other people in other motions.

Cells. `whole` is the method as `selftrain` runs it, all stages one after the other. For the other rows eta is taught,
and with the preset `tiny` Phi's warm-up by painted figures is done, once a seed (`start`); every row goes on from
there for the same number of steps and on the same batches. Rows of Table 5 do so with their own switches, by one
objective for all of them: `BALANCED`, in which the image moves Phi about as much as the discriminator does, or with
`--objective printed` that of `PRINTED`, on the films of moving cameras (no figures, lambda 10). Rows of Table 4 have
the preset's objective, and do all of it with fewer poses. `leak` is how far Phi's skeleton image is from the clean one
of its own joints, root mean square: what a skeleton image can smuggle appearance in; the pictures show it as Fig. 2
does.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from streampose.config import load_skeleton
from streampose.console import logger, start_logging
from streampose.files import whole_file, write_text
from streampose.geometry.crop import crop_from_source, crop_resize, square_box
from streampose.methods.landmarks import LandmarksConfig, LandmarksTask, load_landmarks_config
from streampose.methods.landmarks_data import Crops, make_crops
from streampose.methods.landmarks_prior import Poses, pick_poses
from streampose.methods.mask_data import resize_images
from streampose.metrics.flips import better_of, swap_left_right
from streampose.metrics.keypoints_2d import mse_percent, pck, segment_size
from streampose.report import Picture, Section, Table, write_report
from streampose.structures import Skeleton
from streampose.synth import synth
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.synthetic.truth import read_truth
from streampose.tracking.boxes import MARGIN
from streampose.training.checkpoint import load_networks
from streampose.training.engine import train
from streampose.video.decode import open_video

SPLITS = {"train": (40, 31_001), "test": (12, 92_001)}  # videos and seed of each split
STILL = {"train": (24, 10.0, 20_001), "test": (40, 4.0, 91_001)}  # videos, their seconds and seed, of the ablation
PIECE = 2.0  # seconds of a film in one crop
ROAMS = 0.7  # of the crop's side: people who are smaller have moved too far in those seconds
CROP = 128  # pixels that crops are kept at
PRIOR_SEED = 777
SHOWN = 6  # crops of the test in the pictures


@dataclass(frozen=True)
class Cell:
    """One row: its switches, and the paper's numbers (2D error of people in % of the image; of faces)."""

    title: str
    table: int
    switches: tuple[str, ...] = ()
    paper: dict[str, float] = field(default_factory=dict)
    poses: int | None = None


SECOND = "second_cycle=true"
PRINTED = (
    "figures=0", "decoder_first=0.2", "learning_rate=2e-4", "weights.adversarial=10", "weights.image_adversarial=10",
    "weights.proper=0", "weights.equivariance=0",
)  # fmt: skip
BALANCED = (
    "figures=0.25", "decoder_first=0.4", "learning_rate=6e-4", "weights.perceptual=10", "weights.adversarial=1",
    "weights.image_adversarial=1", "weights.proper=0", "weights.equivariance=0",
    "augmentation.rotation_degrees=0", "augmentation.scale=0", "augmentation.shift=0",
)  # fmt: skip
OBJECTIVES = {"balanced": BALANCED, "printed": PRINTED}
CELLS = {
    "whole": Cell("all stages, from nothing", 0, paper={"humans": 2.91}),
    "cyclegan": Cell(
        "CycleGAN", 5, ("conditional=false", "bottleneck=false", SECOND), {"humans": 4.39, "faces": 18.51}
    ),
    "conditional": Cell("+ conditional generator", 5, ("bottleneck=false", SECOND), {"humans": 4.07}),
    "bottleneck": Cell("+ skeleton bottleneck", 5, (SECOND,), {"humans": 3.01, "faces": 10.10}),
    "ours": Cell("- second cycle (the method)", 5, (), {"humans": 2.91, "faces": 9.85}),
    "poses-all": Cell("all 4,096 unpaired poses", 4),
    "poses-50": Cell("50 unpaired poses", 4, poses=50),
    "poses-500": Cell("500 unpaired poses", 4, poses=500),
}
ORDER = ("cyclegan", "conditional", "bottleneck", "ours")  # errors fall from one to the next in the paper
COLUMNS = {
    "mse_percent/flips": "2D error, % of the crop, with flips",
    "mse_percent": "without flips",
    "pck@0.2/flips": "PCK@0.2 with flips",
    "leak": "leak",
}


class Exact(NamedTuple):
    """Crops (N, S, S, 3), joints (N, K, 2) in [-1, 1], number of the video and seconds of each, (N,)."""

    crops: np.ndarray
    joints: np.ndarray
    clip: np.ndarray
    seconds: np.ndarray


# ------------------------------------------------------------------------------------------------------------- data


def read_split(folder: Path, split: str, size: int, skeleton: Skeleton) -> Exact:
    """The crops of a split at a resolution, made from its videos where they are missing."""
    file = folder / f"{split}.npz"
    if not file.is_file():
        videos, seed = SPLITS[split]
        if not is_filmed(folder / split, videos):
            filmed: dict[str, Any] = {"seconds": 8, "size": (256, 256), "fps": 12.5, "moving_camera": True}
            synth(out=folder / split, videos=videos, seed=seed, **filmed)
        cut_out(sorted((folder / split).glob("*.mp4")), file, skeleton)
    with np.load(file) as kept:
        return Exact(resize_images(kept["crops"], size), kept["joints"], kept["clip"], kept["seconds"])


def cut_out(videos: list[Path], file: Path, skeleton: Skeleton) -> None:
    """Cut the one person out of each frame by the true box, a little off as boxes are, and keep the crops."""
    rng = np.random.default_rng(5)
    rows: dict[str, list[Any]] = {"crops": [], "joints": [], "clip": [], "seconds": []}
    for number, path in enumerate(videos):
        truth = read_truth(path.with_suffix(".truth.npz"))
        columns = [list(truth.joints).index(name) for name in skeleton.joints]
        with open_video(path) as video:
            for frame in video.frames():
                if not np.isfinite(truth.boxes[frame.index, 0]).all():
                    continue
                box = square_box(truth.boxes[frame.index], MARGIN)[0]
                box = box + np.tile(rng.normal(0, 0.015, 2) * (box[2] - box[0]), 2).astype(np.float32)
                pixels = crop_from_source(truth.joints_2d[frame.index, 0][columns], box, CROP)
                rows["crops"].append(crop_resize(frame.image, box, CROP))
                rows["joints"].append(((pixels + 0.5) * 2 / CROP - 1).astype(np.float32))
                rows["clip"].append(number)
                rows["seconds"].append(frame.pts_seconds)
    arrays: dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
    keep_arrays(file, arrays)


def is_filmed(folder: Path, videos: int) -> bool:
    """Whether the last of so many videos is there; filming them again, after an interrupt, gives the same ones."""
    return (folder / f"video_{videos - 1:03d}.truth.npz").is_file()


def keep_arrays(file: Path, arrays: dict[str, Any]) -> None:
    """Write arrays as a whole file."""
    with whole_file(file) as partial, partial.open("wb") as out:
        np.savez(out, **arrays)


def read_still(folder: Path, split: str, size: int, skeleton: Skeleton) -> Exact:
    """The same of the ablation: pieces of films in a crop that stands still."""
    file = folder / f"still-{split}.npz"
    if not file.is_file():
        videos, seconds, seed = STILL[split]
        if not is_filmed(folder / f"still-{split}", videos):
            synth(out=folder / f"still-{split}", videos=videos, seconds=seconds, seed=seed)
        keep_arrays(file, cut_pieces(sorted((folder / f"still-{split}").glob("*.mp4")), skeleton))
    with np.load(file) as kept:
        return Exact(resize_images(kept["crops"], size), kept["joints"], kept["clip"], kept["seconds"])


def cut_pieces(videos: list[Path], skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Every other frame of films, each `PIECE` in one crop around all that the person does in it."""
    rows: dict[str, list[Any]] = {"crops": [], "joints": [], "clip": [], "seconds": []}
    number = 0
    for path in videos:
        truth = read_truth(path.with_suffix(".truth.npz"))
        columns = [list(truth.joints).index(name) for name in skeleton.joints]
        with open_video(path) as video:
            frames = [frame for frame in video.frames() if frame.index % 2 == 0]
        for piece in sorted({int(frame.pts_seconds // PIECE) for frame in frames}):
            part = [
                frame for frame in frames
                if int(frame.pts_seconds // PIECE) == piece and np.isfinite(truth.boxes[frame.index, 0]).all()
            ]  # fmt: skip
            boxes = truth.boxes[[frame.index for frame in part], 0]
            if len(part) < 10:
                continue
            around = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
            height = np.median((boxes[:, 2:] - boxes[:, :2]).max(1))
            if height < ROAMS * (around[2:] - around[:2]).max():
                continue
            box = square_box(around[None], MARGIN)[0]
            for frame in part:
                pixels = crop_from_source(truth.joints_2d[frame.index, 0][columns], box, CROP)
                rows["crops"].append(crop_resize(frame.image, box, CROP))
                rows["joints"].append(((pixels + 0.5) * 2 / CROP - 1).astype(np.float32))
                rows["clip"].append(number)
                rows["seconds"].append(frame.pts_seconds)
            number += 1
    return {name: np.stack(values) for name, values in rows.items()}


# ---------------------------------------------------------------------------------------------------------- measure


def errors(found: np.ndarray, joints: np.ndarray, skeleton: Skeleton) -> dict[str, float]:
    """2D error and PCK of joints (N, K, 2) in [-1, 1], with and without flips."""
    swapped, torso = swap_left_right(found, skeleton.flip_index), segment_size(joints, skeleton.torso)
    far, far_swapped = (mse_percent(points, joints, 2.0) for points in (found, swapped))
    hit, hit_swapped = (pck(points, joints, torso, 0.2) for points in (found, swapped))
    return {
        "mse_percent": float(np.nanmean(far)),
        "mse_percent/flips": float(np.nanmean(better_of(far, far_swapped, higher_is_better=False))),
        "pck@0.2/flips": float(np.nanmean(better_of(hit, hit_swapped, higher_is_better=True))),
    }


@torch.inference_mode()
def measure(task: LandmarksTask, test: Exact, every: int = 2) -> dict[str, float]:
    """The metrics of a task's detector on every so many crops, and its leak."""
    detector, crops = task.detector.eval(), test.crops[::every]
    found, leaks = [], []
    for start in range(0, len(crops), 64):
        y = detector.image_encoder(_images(crops[start : start + 64]))
        xy = detector.read(y).keypoints[..., :2]
        leaks.append((y - task.draw(xy)).square().mean((1, 2, 3)).numpy())
        found.append(xy.numpy())
    leak = float(np.sqrt(np.concatenate(leaks).mean()))
    return errors(np.concatenate(found), test.joints[::every], task.skeleton) | {"leak": leak}


@torch.inference_mode()
def leak_picture(task: LandmarksTask, test: Exact) -> np.ndarray:
    """As Fig. 2: rows of crop, reconstruction, skeleton image, and this after local contrast normalisation."""
    index = np.linspace(0, len(test.crops) - 1, SHOWN).astype(int)
    detector, x = task.detector.eval(), _images(test.crops[index])
    alike = [np.flatnonzero(test.clip == test.clip[number]) for number in index]
    others = _images(test.crops[[of[np.abs(of - number).argmax()] for of, number in zip(alike, index, strict=True)]])
    y = detector.image_encoder(x)
    clean = task.draw(detector.read(y).keypoints[..., :2])
    factor = x.shape[-1] // y.shape[-1]
    given = clean if task.config.bottleneck else y
    made = task.decoder.eval()(given, torch.nn.functional.avg_pool2d(others, factor))
    task.decoder.train()
    drawn = y.amax(1).numpy()
    rows = [
        test.crops[index],
        (made.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8),
        (drawn.clip(0, 1) * 255).astype(np.uint8),
        np.stack([local_contrast(image) for image in drawn]),
    ]
    return np.concatenate([np.concatenate([_tile(image) for image in row], 1) for row in rows], 0)


def local_contrast(image: np.ndarray) -> np.ndarray:
    """What is left of an image (s, s) after its local mean and scale, by its logarithm: uint8."""
    image = np.log(np.maximum(image, 0) + 1e-3).astype(np.float32)
    centred = image - cv2.GaussianBlur(image, (0, 0), 3)
    scale = np.sqrt(cv2.GaussianBlur(centred**2, (0, 0), 3)) + 1e-2
    return ((centred / scale).clip(-2, 2) * 63 + 128).astype(np.uint8)


def _images(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 255


def _tile(image: np.ndarray) -> np.ndarray:
    image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    return cv2.resize(image, (96, 96), interpolation=cv2.INTER_NEAREST)


# ------------------------------------------------------------------------------------------------------------ train


def settings_of(arguments: Any, seed: int, stage: str, switches: tuple[str, ...] = ()) -> LandmarksConfig:
    """The preset with the steps of the `start` alone, of the joint objective alone, or of the `whole`."""
    config = load_landmarks_config(arguments.preset, None, [f"seed={seed}", *arguments.set, *switches])
    first = {"skeletons": arguments.skeletons, "figures": arguments.figures if config.steps.figures else 0}
    own = {"skeletons": 0, "figures": 0, "landmarks": arguments.steps}
    of_stage = {"start": {**first, "landmarks": 1}, "landmarks": own, "whole": {**own, **first}}
    steps = of_stage[stage] | {"reading": arguments.reading if stage == "whole" else 0}
    return config.model_copy(update={"steps": type(config.steps)(**steps)})


def make_task(
    config: LandmarksConfig, data: Crops, skeleton: Skeleton, count: int | None = None, *, followed: bool = True
) -> LandmarksTask:
    """A task with the first `count` of the unpaired poses, framed as crops are that follow people or not."""
    torch.manual_seed(config.seed)
    poses = pick_poses(built_in_prior(skeleton, 4096, PRIOR_SEED).poses, count, config.seed)
    return LandmarksTask(data, Poses(poses, skeleton, facing=config.facing, followed=followed), skeleton, config)


def run(task: LandmarksTask, folder: Path, seed: int, precision: str = "f32") -> Path:
    """Train a task, or go on with it; its networks are the averaged detector and the others."""
    train(
        task, run_dir=folder, device="cpu", precision=precision, seed=seed, save_every=200, resume=True, ema=0.99,
        picture_every=500,
    )  # fmt: skip
    networks = load_networks(folder)
    for name, network in task.networks.items():
        network.load_state_dict(networks[name])
    return folder


def run_cell(name: str, seed: int, data: Crops, test: Exact, skeleton: Skeleton, arguments: Any) -> dict[str, Any]:
    """Train a cell from its seed's start, and measure it."""
    cell = CELLS[name]
    if name == "whole":
        task = make_task(settings_of(arguments, seed, "whole"), data, skeleton)
        run(task, arguments.folder / "runs" / f"{name}-{seed}", seed, precision="auto")
        return {"cell": name, "seed": seed, "steps": task.total_steps, "metrics": measure(task, test, every=1)}
    still = is_still(cell, arguments)
    begun = f"start-{'still' if still else cell.poses or 'all'}-{seed}"
    start = make_task(settings_of(arguments, seed, "start"), data, skeleton, cell.poses, followed=not still)
    run(start, arguments.folder / "runs" / begun, seed)
    config = settings_of(arguments, seed, "landmarks", switches_of(cell, arguments))
    task = make_task(config, data, skeleton, cell.poses, followed=not still)
    task.detector.load_state_dict(start.detector.state_dict())
    run(task, arguments.folder / "runs" / f"{name}-{seed}", seed)
    picture = arguments.folder / "pictures" / f"{name}-{seed}.png"
    picture.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(picture), leak_picture(task, test)[..., ::-1])
    before = {f"start/{key}": value for key, value in measure(start, test).items()}
    return {"cell": name, "seed": seed, "steps": arguments.steps, "metrics": measure(task, test) | before}


def switches_of(cell: Cell, arguments: Any) -> tuple[str, ...]:
    """A cell's own switches, in the ablation after the objective that all of its rows have."""
    return (*OBJECTIVES[arguments.objective], *cell.switches) if cell.table == 5 else cell.switches


def is_still(cell: Cell, arguments: Any) -> bool:
    """Whether a cell has the films of cameras that stand still."""
    return cell.table == 5 and arguments.objective == "balanced"


# ------------------------------------------------------------------------------------------------------------ report


def report(folder: Path, baselines: dict[str, dict[str, float]]) -> list[str]:
    """Write landmarks.html, .md and .json of all cells that are done; returns what was found about the order."""
    results = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    found: dict[str, dict[str, list[float]]] = {}
    for result in sorted(results, key=lambda r: r["seed"]):
        for metric, value in result["metrics"].items():
            found.setdefault(result["cell"], {}).setdefault(metric, []).append(value)
    header = ["configuration", "seeds", *COLUMNS.values(), "paper"]
    sections, text = [], ["# The ablation of `landmarks` at our scale", ""]
    titles = {0: "Unseen people", 5: "Table 5: the ablation", 4: "Table 4: few poses"}
    for number, title in titles.items():
        rows = [_row(cell, found.get(name, {})) for name, cell in CELLS.items() if cell.table == number]
        if number in (0, 5):
            rows += [
                [name, "", *(values.get(key, math.nan) for key in COLUMNS), ""] for name, values in baselines.items()
            ]
        if number == 5:
            rows.append(_row(Cell("(start of all rows)", 5), _starts(found)))
        sections.append(Section(title, ["Mean and standard deviation over seeds."], [Table(header, rows)]))
        text += [title, "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
        text += [*("| " + " | ".join(row) + " |" for row in cells), ""]
    said = orderings(found)
    explained = [part.replace("\n", " ") for part in (__doc__ or "").split("\n\n")[2:]]
    pictures = [
        Picture(file, f"{CELLS[name].title}: crop, reconstruction, skeleton image, its local contrast (log)")
        for name in CELLS if (file := folder / "pictures" / f"{name}-{_first_seed(results, name)}.png").is_file()
    ]  # fmt: skip
    sections += [Section("Order", said), Section("Appearance leak", [], [], pictures)]
    sections.append(Section("What was done", explained))
    write_report(folder / "landmarks.html", "Landmarks from unaligned data: the ablation at our scale", sections)
    write_text(folder / "landmarks.md", "\n".join([*text, *said]) + "\n")
    summary = {"cells": results, "baselines": baselines, "order": said}
    write_text(folder / "landmarks.json", json.dumps(summary, indent=1) + "\n")
    return said


def orderings(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Whether each step of the paper's order holds: the mean difference of the same seeds, and its sign in each."""
    said = []
    for worse, better in pairwise(ORDER):
        values = [found.get(name, {}).get("mse_percent/flips", []) for name in (worse, better)]
        if not all(values):
            said.append(f"{CELLS[worse].title} > {CELLS[better].title}: not run yet.")
            continue
        count = min(map(len, values))
        gap = np.subtract(values[0][:count], values[1][:count])
        holds = "holds" if (gap > 0).all() else "does not hold" if gap.mean() <= 0 else "holds in the mean only"
        said.append(f"{CELLS[worse].title} > {CELLS[better].title}: {holds}; {gap.mean():+.2f} over {count} seeds.")
    return said


def _starts(found: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    own = found.get("ours", {})
    return {key: own[f"start/{key}"] for key in COLUMNS if f"start/{key}" in own}


def _first_seed(results: list[dict[str, Any]], name: str) -> int:
    return min((result["seed"] for result in results if result["cell"] == name), default=-1)


def _row(cell: Cell, metrics: dict[str, list[float]]) -> list[str | int | float]:
    shown = []
    for key in COLUMNS:
        values = metrics.get(key, [])
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        shown.append(f"{np.mean(values):.3g}{spread}" if values else "")
    seeds = max(map(len, metrics.values()), default=0)
    return [cell.title, seeds, *shown, ", ".join(f"{key} {value:g}" for key, value in cell.paper.items())]


def mean_pose(skeleton: Skeleton, test: Exact, *, followed: bool = True) -> dict[str, float]:
    """The error of a detector that always says the unpaired poses' mean."""
    poses = Poses(built_in_prior(skeleton, 2048, PRIOR_SEED).poses, skeleton, followed=followed)
    mean = np.nanmean(poses.draw(2048, np.random.default_rng(0)).xy, 0)
    return errors(np.repeat(mean[None], len(test.joints), 0), test.joints, skeleton)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("reproduce/landmarks"), help="data, runs, and the page")
    parser.add_argument("--preset", default="tiny", help="of configs/methods/landmarks.yaml")
    parser.add_argument("--objective", default="balanced", choices=list(OBJECTIVES), help="of the rows of Table 5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--skeletons", type=int, default=1500, help="steps that teach eta")
    parser.add_argument("--figures", type=int, default=1500, help="steps of the warm-up, where the preset has one")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each row's own")
    parser.add_argument("--reading", type=int, default=1000, help="steps of eta alone at the end, of `whole`")
    parser.add_argument("--set", nargs="*", default=[], help="further settings as key=value, for all rows")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    start_logging()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    skeleton = load_skeleton("human17")
    (arguments.folder / "cells").mkdir(parents=True, exist_ok=True)
    size = load_landmarks_config(arguments.preset, None, arguments.set).input_size
    kinds = {is_still(CELLS[name], arguments) for name in arguments.cells}
    of_kind = {}
    for still in kinds:
        read = read_still if still else read_split
        kept, test = (read(arguments.folder, split, size, skeleton) for split in SPLITS)
        of_kind[still] = make_crops(kept.crops, kept.clip, kept.seconds), test
    baselines: dict[str, dict[str, float]] = {}
    for still, (data, test) in of_kind.items():
        where = ", cameras that stand still" if still else ""
        baselines["the prior's mean pose" + where] = mean_pose(skeleton, test, followed=not still)
        untrained = make_task(settings_of(arguments, 0, "start"), data, skeleton, followed=not still)
        baselines["untrained networks" + where] = measure(untrained, test)
    for seed in arguments.seeds:
        for name in arguments.cells:
            file = arguments.folder / "cells" / f"{name}-{seed}.json"
            if not file.is_file():
                data, test = of_kind[is_still(CELLS[name], arguments)]
                result = run_cell(name, seed, data, test, skeleton, arguments)
                write_text(file, json.dumps(result, indent=1) + "\n")
            for line in report(arguments.folder, baselines):
                logger.info("%s", line)


if __name__ == "__main__":
    main()
