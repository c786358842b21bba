"""The tables of MirrorNet (Nakatsuka et al.; Tables 1 to 6 and 10 to 13) at the scale of a laptop, beside the paper's.

    python pipelines/reproduce/mirrornet.py --folder reproduce/mirrornet               # 5 % labels, three seeds
    python pipelines/reproduce/mirrornet.py --folder reproduce/mirrornet --shares 20 40 60 80 100 --detector hrnet-small
    python pipelines/reproduce/mirrornet.py --train lspet:LSPET --test lsp:LSP --skeleton mpii16 --input-size 256 ...

Interrupt it and start it again: finished cells are kept, an unfinished one goes on from its checkpoint; the page
`mirrornet.html`, `mirrornet.md` and `mirrornet.json` are written anew after every cell.

Data (made where it is missing): SynthPose, 24 people to train on and 8 others to measure on, a film each, and 40 more
people of the same making (`More people`), since eight say little about people; the labels are the exact joints of a
random part of the frames (or of the films, `--by film`: frames of a film are much alike, so that frames without labels
then show people that no label shows). Labelled pictures (`lspet:`, `lsp:`, `mpii:`) have no
masks, hence no mask estimator.

Cells. `baseline` is the recogniser alone for 2 x `--steps` steps. All others begin with the generators by themselves,
then the recogniser by itself on dressed frames for `--steps` steps; `supervised` goes on with Eq. 29 on the labelled
frames for as many, `semi` with the first half of that and then with frames without labels. So the recogniser takes
2 x `--steps` steps of the same batch in every cell, as in Sec. 5.2. The optimiser starts anew with each stage. The
number measured is of the recogniser's running average, on people that no training frame shows.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streampose.config import load_skeleton
from streampose.console import logger, start_logging
from streampose.evaluation.datasets import crops_of
from streampose.files import write_text
from streampose.formats.datasets import read_dataset
from streampose.geometry.crop import crop_from_source, square_box
from streampose.ingest import ingest
from streampose.methods.mask_data import resize_images
from streampose.methods.mask_pictures import draw_columns
from streampose.methods.mirrornet import MirrorConfig, MirrorTask, load_mirror_config
from streampose.methods.mirrornet_data import Pictures
from streampose.metrics.intervals import seed_interval
from streampose.metrics.keypoints_2d import pck, segment_size
from streampose.report import Picture, Section, Table, markdown_table, write_report
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.synth import synth
from streampose.synthetic.synthpose import SPLITS
from streampose.synthetic.truth import read_truth
from streampose.tracking.boxes import MARGIN
from streampose.training.checkpoint import load_checkpoint, load_networks
from streampose.training.engine import train

# "LSP" or "MPII", recogniser -> share of labels in percent -> total of baseline, supervised, semi-supervised
PAPER: dict[tuple[str, str], dict[int, tuple[float, ...]]] = {
    ("LSP", "hourglass"): {20: (74.94, 77.80, 72.66), 40: (80.81, 82.10, 84.68), 60: (82.46, 86.69, 86.87),
                           80: (84.10, 87.19, 87.34), 100: (86.97, 90.76)},
    ("LSP", "simple"): {20: (60.83, 68.19, 64.89), 40: (69.68, 73.30, 71.54), 60: (70.82, 76.35, 77.00),
                        80: (70.90, 78.14, 78.40), 100: (76.60, 82.56)},
    ("LSP", "hrnet"): {20: (75.86, 79.61, 79.49), 40: (78.36, 84.22, 85.02), 60: (80.65, 86.22, 86.58),
                       80: (81.43, 86.98, 86.95), 100: (88.06, 91.58)},
    ("MPII", "hourglass"): {20: (76.91, 79.63, 77.02), 40: (79.43, 82.51, 83.32), 60: (82.07, 85.18, 85.47),
                            80: (81.94, 85.54, 85.38), 100: (82.94, 86.40)},
    ("MPII", "simple"): {20: (67.10, 71.03, 69.16), 40: (70.50, 76.01, 75.87), 60: (70.79, 76.32, 76.79),
                         80: (68.40, 75.19, 75.61), 100: (72.11, 78.06)},
    ("MPII", "hrnet"): {20: (76.42, 80.04, 78.91), 40: (78.52, 83.35, 83.12), 60: (78.70, 84.48, 84.57),
                        80: (77.31, 84.30, 84.30), 100: (76.92, 85.69)},
}  # fmt: skip
WAYS = ("baseline", "supervised", "semi")
MORE: dict[str, Any] = {"videos": 40, "seconds": 4.0, "seed": 91_001}  # the people of `More people`
PEOPLE = {"Total": "test", "More people": "more"}  # what findings are judged by, and of whom it is


@dataclass(frozen=True)
class Cell:
    """One row of a table.

    Attributes:
        start: the cell it begins with; None for untrained networks.
        trains: parts of the stage, as in `methods.mirrornet_config.MirrorStage`.
        halves: its length in halves of `--steps`; 0 for `--generators`.
        unannotated: part of each batch without labels.
        taken: the networks that are taken over from `start`; all where it is empty.
        overrides: switches of the method.
        paper: of Tables 10 to 13 (HRNet, LSP): share of labels -> total.
    """

    title: str
    start: str | None
    trains: tuple[str, ...]
    halves: int = 2
    unannotated: float = 0.0
    taken: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    paper: dict[int, float] = field(default_factory=dict)


PARTS = ("image", "pose", "mask")
BARE, WHOLE = ("dressed=0",), ("mask_estimator=false",)
CELLS = {
    "generators": Cell("(generators by themselves)", None, PARTS, 0),
    "parts": Cell("(recogniser alone, half as long)", None, ("recogniser",), 2, 0.0, (), BARE),
    "baseline": Cell("baseline", "parts", ("recogniser",), 2, 0.0, (), BARE),
    "dressed": Cell("(recogniser by itself, on dressed frames)", "generators", ("recogniser",)),
    "half": Cell("(first half of supervised)", "dressed", ("mirror",), 1),
    "supervised": Cell("supervised MirrorNet", "half", ("mirror",), 1),
    "semi": Cell("semi-supervised MirrorNet", "half", ("mirror",), 1, 0.25),
    "half-no-pose": Cell("(first half without pose VAE)", "dressed", ("mirror",), 1, 0.0, (), ("pose_vae=false",)),
    "no-pose": Cell(
        "without pose VAE", "half-no-pose", ("mirror",), 1, 0.25, (), ("pose_vae=false",),
        {20: 78.31, 40: 82.49, 60: 84.77, 80: 85.35},
    ),
    "apart": Cell(
        "semi-supervised, L^X of frames without labels alone", "half-no-pose", ("mirror",), 1, 0.25, (),
        ("own_labelled=0",),
    ),
    "generators-no-mask": Cell(
        "(image VAE of whole images)", "generators", ("image",), 0, 0.0, ("primitive", "pose"), WHOLE
    ),
    "dressed-no-mask": Cell("(recogniser without masks)", "generators-no-mask", ("recogniser",), 2, 0.0, (), WHOLE),
    "half-no-mask": Cell("(first half without masks)", "dressed-no-mask", ("mirror",), 1, 0.0, (), WHOLE),
    "no-mask": Cell(
        "without mask estimator", "half-no-mask", ("mirror",), 1, 0.25, (), WHOLE,
        {20: 78.62, 40: 84.64, 60: 85.49, 80: 86.47},
    ),
    "no-parts": Cell(
        "without supervised pre-training", "generators", ("mirror",), 4, 0.25, ("mask",), (),
        {20: 78.22, 40: 83.56, 60: 86.61, 80: 88.82},
    ),
    "mix-32": Cell(
        "batches of 32 + 96", "half", ("mirror",), 1, 0.75, (), (), {20: 80.95, 40: 83.14, 60: 83.11, 80: 82.05}
    ),
    "mix-48": Cell(
        "batches of 48 + 80", "half", ("mirror",), 1, 0.625, (), (), {20: 79.28, 40: 83.94, 60: 85.50, 80: 84.78}
    ),
    "mix-64": Cell(
        "batches of 64 + 64", "half", ("mirror",), 1, 0.5, (), (), {20: 80.61, 40: 84.82, 60: 85.43, 80: 85.58}
    ),
    "mix-80": Cell(
        "batches of 80 + 48", "half", ("mirror",), 1, 0.375, (), (), {20: 79.59, 40: 84.82, 60: 86.15, 80: 86.56}
    ),
}  # fmt: skip
ABLATED = ("no-pose", "no-mask", "no-parts")
ABLATIONS = {
    10: ("no-pose", "semi", "apart"),
    11: ("no-mask", "semi"),
    12: ("no-parts", "semi"),
    13: ("supervised", "mix-32", "mix-48", "mix-64", "mix-80", "semi"),
}
GROUPS = {  # columns of the paper's tables: words in the names of joints
    "Head": ("head", "neck", "nose"), "Shoulder": ("shoulder",), "Elbow": ("elbow",), "Wrist": ("wrist",),
    "Hip": ("hip",), "Knee": ("knee",), "Ankle": ("ankle",),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Data:
    """What all cells share: all training pictures with all joints, what is measured, and which pictures are alike."""

    skeleton: Skeleton
    train: Pictures
    film: np.ndarray
    test: Pictures
    head_size: np.ndarray | None  # (N,) in [-1, 1] coordinates, of MPII's test pictures
    more: Pictures | None = None  # of further people to measure on


def make_data(folder: Path) -> None:
    """SynthPose as videos and stores, as far as they are missing."""
    for split, settings in {**SPLITS, "more": MORE}.items():
        last = folder / split / f"video_{settings['videos'] - 1:03d}.truth.npz"
        if not last.is_file():  # after an interrupt the same ones are filmed again
            synth(out=folder / split, **settings)
        ingest([folder / split], store=folder / f"{split}.zarr")  # skips what is there


def read_films(store: Path, folder: Path, skeleton: Skeleton, size: int) -> tuple[Pictures, np.ndarray]:
    """The crops of a store with the exact joints of the one person in each of its videos, and each one's film."""
    crops, masks, joints, films = [], [], [], []
    reader = StoreReader(store)
    for clip in reader.clips():
        data, truth = reader.read(clip.id), read_truth(folder / f"{Path(clip.source).stem}.truth.npz")
        columns = [list(truth.joints).index(name) for name in skeleton.joints]
        at = np.abs(truth.pts_seconds[None] - data.pts_seconds[:, None]).argmin(1)
        middle = (truth.boxes[at, 0, :2] + truth.boxes[at, 0, 2:]) / 2
        shown = ((middle > data.boxes[:, :2]) & (middle < data.boxes[:, 2:])).all(1)  # else a shadow was followed
        pixels = crop_from_source(truth.joints_2d[at, 0][:, columns], data.boxes, size)
        crops.append(resize_images(data.frames[shown], size))
        masks.append(resize_images(data.masks[shown], size))
        joints.append(((pixels[shown] + 0.5) * 2 / size - 1).astype(np.float32))
        films += [clip.source] * int(shown.sum())
    return Pictures(*(np.concatenate(parts) for parts in (crops, masks, joints))), np.array(films)


def read_labelled(spec: str, skeleton: Skeleton, size: int) -> tuple[Pictures, np.ndarray | None]:
    """The people of a dataset such as `lsp:FOLDER`, cut out and without masks; and the size of their heads."""
    labelled = read_dataset(spec)
    boxes = square_box(labelled.boxes, MARGIN).astype(np.float64)
    fetch = crops_of(labelled, boxes, size)
    crops = np.stack([fetch(number)[0] for number in range(labelled.num_people)])
    joints = np.full((len(crops), skeleton.num_joints, 2), np.nan, np.float32)
    for k, name in enumerate(skeleton.joints):
        if name in labelled.joints:
            column = labelled.joints.index(name)
            pixels = crop_from_source(labelled.xy[:, [column]], boxes, size)[:, 0]
            joints[:, k] = np.where(labelled.counts[:, column, None], (pixels + 0.5) * 2 / size - 1, np.nan)
    head = labelled.head_px
    head = None if head is None else np.asarray(head) * 2 / (boxes[:, 2] - boxes[:, 0])
    return Pictures(crops, np.zeros(crops.shape[:3], np.uint8), joints), head


def read_data(arguments: argparse.Namespace) -> Data:
    """All pictures in memory."""
    skeleton = load_skeleton(arguments.skeleton)
    size, folder = arguments.input_size, arguments.folder
    if arguments.train:
        train_part, _ = read_labelled(arguments.train, skeleton, size)
        test_part, head = read_labelled(arguments.test, skeleton, size)
        return Data(skeleton, train_part, np.arange(len(train_part)).astype(str), test_part, head)
    make_data(folder)
    train_part, film = read_films(folder / "train.zarr", folder / "train", skeleton, size)
    test_part, _ = read_films(folder / "test.zarr", folder / "test", skeleton, size)
    more, _ = read_films(folder / "more.zarr", folder / "more", skeleton, size)
    return Data(skeleton, train_part, film, test_part, None, more)


def keep_labels(data: Data, share: float, seed: int, by: str) -> Pictures:
    """Training pictures with the labels of a random part: of the frames, or of the films."""
    if by == "frame":
        return data.train.keep_share(share, seed)
    films = np.random.default_rng(seed).permutation(np.unique(data.film))
    kept = np.isin(data.film, films[: max(1, round(share * len(films)))])
    joints = np.where(kept[:, None, None], data.train.joints, np.nan).astype(np.float32)
    return Pictures(data.train.crops, data.train.masks, joints)


# ------------------------------------------------------------------------------------------------- train and measure


def cell_config(cell: Cell, seed: int, arguments: argparse.Namespace) -> MirrorConfig:
    """The settings of a cell: those of the command line, and its one stage."""
    steps = math.ceil(cell.halves * arguments.steps / 2) if cell.halves else arguments.generators
    trains = [part for part in cell.trains if not (arguments.train and part == "mask")]
    stage = {"steps": steps, "trains": trains, "unannotated": cell.unannotated}
    changes = [
        f"seed={seed}", f"detector={arguments.detector}", f"input_size={arguments.input_size}",
        f"batch_size={arguments.batch}", *(WHOLE if arguments.train else ()), *cell.overrides, *arguments.set,
    ]  # fmt: skip
    config = load_mirror_config("tiny", None, changes)
    return MirrorConfig.model_validate({**config.model_dump(), "stages": {"stage": stage}})


def run_cell(name: str, share: int, seed: int, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a cell, or go on with it, and measure it."""
    cell = CELLS[name]
    torch.manual_seed(seed)
    pictures = keep_labels(data, share / 100, seed, arguments.by)
    task = MirrorTask(pictures, data.skeleton, cell_config(cell, seed, arguments))
    if cell.start is not None:
        earlier = load_checkpoint(_run(arguments, cell.start, share, seed)).model
        taken = {key: value for key, value in earlier.items() if not cell.taken or key.startswith(cell.taken)}
        task.networks.load_state_dict({**task.networks.state_dict(), **taken})
    run_dir = _run(arguments, name, share, seed)
    train(task, run_dir=run_dir, device=arguments.device, precision="f32", seed=seed, resume=True, ema=0.99,
          picture_every=0, save_every=200)  # fmt: skip
    task.networks.to("cpu")
    live = task.detector.state_dict()
    task.detector.load_state_dict(load_networks(run_dir).get("detector", live))
    trained = any("recogniser" in part or "mirror" in part for part in cell.trains)
    metrics = measure(task.detector, data, arguments.every) if trained else {}
    if trained and not name.startswith(("parts", "dressed", "half")):
        save_picture(task, data, arguments.folder / "pictures" / f"{name}-{share}-{seed}.npz")
    return {"cell": name, "share": share, "seed": seed, "labelled": len(task.annotated), "metrics": metrics}


def _run(arguments: argparse.Namespace, name: str, share: int, seed: int) -> Path:
    return arguments.folder / "runs" / f"{name}-{share}-{seed}"


@torch.no_grad()
def measure(detector: torch.nn.Module, data: Data, every: int) -> dict[str, float]:
    """PCK@0.2, where the dataset has head boxes PCKh@0.5, in percent: all joints, by group, and of more people."""
    joints = data.test.joints[::every]
    found = find_joints(detector, data.test.crops[::every])
    if data.head_size is None:
        correct = pck(found, joints, segment_size(joints, data.skeleton.torso), 0.2)
    else:
        correct = pck(found, joints, data.head_size[::every], 0.5)
    metrics = {"Total": 100 * float(np.nanmean(correct))}
    if data.more is not None:
        joints = data.more.joints[::every]
        found = find_joints(detector, data.more.crops[::every])
        others = pck(found, joints, segment_size(joints, data.skeleton.torso), 0.2)
        metrics["More people"] = 100 * float(np.nanmean(others))
    for group, words in GROUPS.items():
        columns = [k for k, joint in enumerate(data.skeleton.joints) if any(word in joint for word in words)]
        metrics[group] = 100 * float(np.nanmean(correct[:, columns])) if columns else math.nan
    return metrics


@torch.no_grad()
def find_joints(detector: torch.nn.Module, crops: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, K, 2) in [-1, 1]."""
    parts = [
        detector.eval()(torch.from_numpy(crops[start : start + 100]).permute(0, 3, 1, 2).float() / 255).keypoints
        for start in range(0, len(crops), 100)
    ]
    return torch.cat(parts)[..., :2].numpy()


@torch.no_grad()
def save_picture(task: MirrorTask, data: Data, path: Path) -> None:
    """What the mirror makes of unseen people: one column a person, see `MirrorTask.picture`."""
    rows = np.linspace(0, len(data.test) - 1, 8).astype(int)
    batch = {"images": torch.from_numpy(data.test.crops[rows])}
    path.parent.mkdir(parents=True, exist_ok=True)
    task.networks.eval()
    columns = task.picture(batch, 0)
    assert columns is not None
    truth = draw_columns(batch["images"], [], torch.from_numpy(data.test.joints[rows]), data.skeleton)
    np.savez_compressed(path, image=np.concatenate([columns, truth[truth.shape[0] // 2 :]], 0))


# ------------------------------------------------------------------------------------------------------------ report


def findings(found: dict[tuple[str, int], dict[int, dict[str, float]]]) -> list[dict[str, Any]]:
    """The paper's claims, each with its difference over the seeds that both cells have: `yes` where the interval lies
    above the margin, `mean` where only the mean does, else `no`."""
    shares = sorted({share for _, share in found})
    claims = [("supervised MirrorNet beats the recogniser alone", "supervised", "baseline", shares)]
    claims += [("semi-supervised beats supervised (60 % labels and more)", "semi", "supervised", [60, 80])]
    claims += [(f"with it beats {CELLS[name].title}", "semi", name, shares) for name in ABLATED]
    results = []
    for claim, better, worse, where in claims:
        for share, measured in product(where, PEOPLE):
            one, other = found.get((better, share), {}), found.get((worse, share), {})
            seeds = [n for n in sorted(one.keys() & other.keys()) if measured in one[n] and measured in other[n]]
            if not seeds:
                continue
            margin = 3.0 if (better, share) == ("supervised", 5) else 0.0
            mean, half = seed_interval([one[seed][measured] - other[seed][measured] for seed in seeds])
            holds = "yes" if mean - half >= margin else "mean" if mean >= margin else "no"
            results.append({"claim": claim, "share": share, "people": PEOPLE[measured], "seeds": len(seeds),
                            "difference": [mean, half], "margin": margin, "holds": holds})  # fmt: skip
    return results


def report(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Write mirrornet.html, .md and .json of all cells that are done; returns the judged findings."""
    folder = arguments.folder
    results = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    found: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    for result in results:
        if result["metrics"]:
            found.setdefault((result["cell"], result["share"]), {})[result["seed"]] = result["metrics"]
    shares = sorted({share for _, share in found})
    judged = findings(found)
    header = ["finding", "labels, %", "people", "seeds", "difference, points", "margin", "holds"]
    rows: list[list[Any]] = [
        [v["claim"], v["share"], v["people"], v["seeds"], _shown(*v["difference"]), v["margin"], v["holds"]]
        for v in judged
    ]
    sections = [Section("Findings", ["Of the same seeds; mean and 95 % interval."], [Table(header, rows)])]
    text = ["# MirrorNet at our scale", "", *markdown_table(header, rows), ""]
    family = arguments.detector.removesuffix("-small")
    names = ["configuration", "labels, %", "seeds", *PEOPLE, *GROUPS, "paper, LSP", "paper, MPII"]
    rows = [
        _row(name, share, found, [PAPER[set_, family].get(share, ()) for set_ in ("LSP", "MPII")])
        for share in shares for name in ("parts", *WAYS) if (name, share) in found
    ]  # fmt: skip
    sections.append(Section("Tables 1 to 6", [], [Table(names, rows)]))
    text += ["Tables 1 to 6", "", *markdown_table(names, rows), ""]
    names = [*names[:-2], "paper, LSP (HRNet)"]
    for number, cells in ABLATIONS.items():
        rows = [_row(name, share, found, None) for share in shares for name in cells if (name, share) in found]
        sections.append(Section(f"Table {number}", [], [Table(names, rows)]))
        text += [f"Table {number}", "", *markdown_table(names, rows), ""]
    pictures = []
    for path in sorted((folder / "pictures").glob("*.npz")):
        with np.load(path) as stored:
            pictures.append(Picture(stored["image"], f"{path.stem}: crop, mask, image made, pose, pose again, joints"))
    sections.append(Section("Unseen people", ["The last row is the truth."], [], pictures))
    explained = [part.replace("\n", " ") for part in (__doc__ or "").split("\n\n")[3:]]
    sections.append(Section("What was done", explained))
    write_report(folder / "mirrornet.html", "MirrorNet at our scale", sections)
    write_text(folder / "mirrornet.md", "\n".join(text) + "\n")
    write_text(folder / "mirrornet.json", json.dumps({"cells": results, "findings": judged}, indent=1) + "\n")
    return judged


def _row(
    name: str,
    share: int,
    found: dict[tuple[str, int], dict[int, dict[str, float]]],
    paper: list[tuple[float, ...]] | None,
) -> list[str | int | float]:
    metrics = found[name, share]
    columns = [[v[key] for v in metrics.values() if key in v] for key in (*PEOPLE, *GROUPS)]
    cells = [_shown(*seed_interval(values)) if values else "" for values in columns]
    if paper is None:
        table = {"supervised": 1, "semi": 2}.get(name)
        values = PAPER["LSP", "hrnet"].get(share, ())
        number = CELLS[name].paper.get(share) if table is None else values[table] if len(values) > table else None
        shown = ["" if number is None else f"{number:.2f}"]
    else:
        at = WAYS.index(name) if name in WAYS else len(WAYS)
        shown = [f"{values[at]:.2f}" if at < len(values) else "" for values in paper]
    return [CELLS[name].title.strip("()"), share, len(metrics), *cells, *shown]


def _shown(mean: float, half: float) -> str:
    return f"{mean:.1f}" + (f" ± {half:.1f}" if math.isfinite(half) else " (one seed)")


def with_starts(cells: list[str]) -> list[str]:
    """Cells and those that they begin with, in an order in which they can be trained."""
    wanted: set[str] = set()
    for name in cells:
        cell: str | None = name
        while cell is not None:
            wanted.add(cell)
            cell = CELLS[cell].start
    return [name for name in CELLS if name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("reproduce/mirrornet"), help="data, runs, cells, the page")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=int, nargs="+", default=[5], help="percent of the labels that are used")
    parser.add_argument(
        "--cells", nargs="+", default=list(WAYS), choices=list(CELLS), help="what they start with comes too"
    )
    parser.add_argument("--detector", default="simple-small", help="of models.heatmap_detector")
    parser.add_argument(
        "--steps", type=int, default=250, help="of the recogniser before and after the parts are joined"
    )
    parser.add_argument("--generators", type=int, default=250, help="steps of the generators before that")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--skeleton", default="human17")
    parser.add_argument("--by", choices=("frame", "film"), default="frame", help="what a random part of is labelled")
    parser.add_argument("--train", help="labelled pictures instead of SynthPose, for instance lspet:FOLDER")
    parser.add_argument("--test", help="what is measured then, for instance lsp:FOLDER")
    parser.add_argument("--set", nargs="*", default=[], help="changes of the method's settings, key=value")
    parser.add_argument("--every", type=int, default=1, help="n-th test picture that is measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if bool(arguments.train) != bool(arguments.test):
        parser.error("--train and --test go together")
    start_logging()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    (arguments.folder / "cells").mkdir(parents=True, exist_ok=True)
    data = read_data(arguments)
    for seed in arguments.seeds:
        for share in arguments.shares:
            for name in with_starts(arguments.cells):
                done = arguments.folder / "cells" / f"{name}-{share}-{seed}.json"
                if done.is_file():
                    continue
                logger.info("cell %s, %d %% labels, seed %d", name, share, seed)
                write_text(done, json.dumps(run_cell(name, share, seed, data, arguments), indent=1) + "\n")
                report(arguments)
    for verdict in report(arguments):
        said = verdict["claim"], verdict["share"], verdict["people"], verdict["holds"]
        logger.info("%s at %d %% (%s): %s", *said)


if __name__ == "__main__":
    main()
