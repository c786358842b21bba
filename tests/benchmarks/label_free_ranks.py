"""Which label-free numbers rank models as the true error does? Rank correlations over checkpoints of all qualities.

    python tests/benchmarks/label_free_ranks.py RUNS... --store test.zarr --truth test --out ranks.csv

RUNS are folders; every checkpoint and loose `*.safetensors` of a detector below them is one model, and its run is its
kind. `--spoil` adds models made from the best one of each run: weights with noise or faded towards fresh ones, and
joints exchanged (wrong optima that a mask cannot see). Intervals are of 95 %, by drawing kinds with replacement.
"cv" is the smallest correlation when one kind at a time is left out.

Measured on the test split of SynthPose (600 frames, one camera): 116 models of 24 kinds, among them the recipe as
printed and without structure (which fill masks and are wrong), models taught with labels, and spoiled ones.

| measure | PCK@0.2 with flips | %-MSE with flips | PCK@0.2 | PA-MPJPE with flips | MPJPE with flips | cv |
|---|---|---|---|---|---|---|
| score | 0.948 [0.88, 0.97] | 0.949 | 0.818 | 0.879 | 0.898 | 0.942 |
| IoU x bone fit | 0.942 [0.83, 0.98] | 0.941 | 0.848 | 0.897 | 0.912 | 0.934 |
| bone fit | 0.921 [0.84, 0.96] | 0.910 | 0.894 | 0.923 | 0.917 | 0.914 |
| reader distance | 0.909 [0.79, 0.96] | 0.947 | 0.742 | 0.857 | 0.882 | 0.895 |
| mask IoU | 0.766 [0.57, 0.87] | 0.763 | 0.588 | 0.673 | 0.687 | 0.737 |
| IoU x inside x sides (before) | 0.595 [0.30, 0.81] | 0.604 | 0.388 | 0.499 | 0.502 | 0.541 |
| confidence | 0.565 [0.18, 0.86] | 0.524 | 0.474 | 0.467 | 0.464 | 0.531 |
| side difference | 0.452 [-0.04, 0.72] | 0.446 | 0.370 | 0.442 | 0.383 | 0.331 |
| mirror distance | 0.450 [0.13, 0.68] | 0.470 | 0.273 | 0.319 | 0.393 | 0.390 |
| turn distance | 0.230 [-0.16, 0.62] | 0.252 | -0.033 | 0.116 | 0.128 | 0.152 |
| joints inside | -0.098 [-0.47, 0.39] | -0.079 | -0.277 | -0.179 | -0.161 | -0.177 |
| bone change | -0.239 [-0.44, 0.05] | -0.233 | -0.290 | -0.151 | -0.279 | -0.322 |
| left-right swaps | -0.257 [-0.49, -0.01] | -0.177 | -0.517 | -0.294 | -0.319 | -0.319 |
| gain distance | -0.346 [-0.53, -0.03] | -0.302 | -0.480 | -0.429 | -0.347 | -0.391 |
| jitter | -0.624 [-0.73, -0.39] | -0.561 | -0.682 | -0.633 | -0.593 | -0.657 |

The reader's agreement is as good among models that learnt from it, but it underrates those that are better than the
reader, and own skeletons have none; so it is not part of the score. Where exchanged joints are of one limb (elbows and
wrists) the score hardly falls (0.603 to 0.600, PCK 0.715 to 0.656).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from streampose.config import load_skeleton
from streampose.evaluation.compared import measure
from streampose.evaluation.free import gather, measure_label_free
from streampose.evaluation.predicted import Predicted, predict_clips, resize_crops
from streampose.evaluation.truth import Matched, compare_truth, match_truth
from streampose.models.detector import build_detector
from streampose.promotion import eager, limit
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.tracking.boxes import MARGIN

FRAMES = 600
TRUTH = {"pck@0.2/flips": 1, "mse_percent/flips": -1, "pck@0.2": 1, "pa_mpjpe_mm/flips": -1, "mpjpe_mm/flips": -1}
FEWER_IS_BETTER = {"mirror distance", "jitter", "left-right swaps", "turn distance", "gain distance", "bone change",
                   "side difference", "reader distance"}  # fmt: skip
NOISE, FADE = (0.03, 0.08, 0.15, 0.25, 0.4), (0.1, 0.2, 0.3, 0.5)
EXCHANGED = {"hips-wrists": [("hip", "wrist")], "elbows-wrists": [("elbow", "wrist")],
             "knees-ankles": [("knee", "ankle")], "shoulders-elbows": [("shoulder", "elbow")],
             "legs-arms": [("hip", "shoulder"), ("knee", "elbow"), ("ankle", "wrist")]}  # fmt: skip
Weights = dict[str, torch.Tensor]


def read_weights(path: Path) -> Weights | None:
    """A detector's tensors from a checkpoint, a bundle or a loose file; None where it is of something else."""
    tensors = load_file(path)
    own = {name.removeprefix("detector."): value for name, value in tensors.items() if name.startswith("detector.")}
    own = own or tensors
    return {name: value.float() for name, value in own.items()} if "heatmap.weight" in own else None


def find_models(folders: list[Path], joints: int) -> Iterator[tuple[str, str, Weights]]:
    """(name, kind, weights) of every detector with so many joints; optimisers and what is there twice are left out."""
    seen = set()
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors")):
            if path.name.startswith("optimiser"):
                continue
            weights = read_weights(path)
            if weights is None or weights["heatmap.weight"].shape[0] != joints:
                continue
            fingerprint = tuple(float(value.double().abs().sum()) for value in weights.values())
            if fingerprint in seen:
                continue
            seen.add(fingerprint)
            parts = [part for part in path.relative_to(folder.parent).parts if part not in ("checkpoints", "bundle")]
            kind = "/".join(parts[:2]) if len(parts) > 2 and not parts[1].startswith("step_") else parts[0]
            yield "/".join(parts).removesuffix(".safetensors"), kind, weights


def spoil(name: str, weights: Weights, skeleton: Skeleton, fresh: Weights) -> Iterator[tuple[str, str, Weights]]:
    """Worse models made from a good one."""
    for share in NOISE:
        torch.manual_seed(int(100 * share))
        noisy = {k: v + share * v.std() * torch.randn(v.shape) if v.dim() > 1 else v for k, v in weights.items()}
        yield f"{name} noise {share}", f"noise {name}", noisy
    for share in FADE:
        yield (
            f"{name} fade {share}",
            f"fade {name}",
            {k: (1 - share) * v + share * fresh[k] for k, v in weights.items()},
        )
    for label, pairs in EXCHANGED.items():
        order = list(range(skeleton.num_joints))
        for one, other in pairs:
            for side in ("left_", "right_"):
                if side + one in skeleton.joints and side + other in skeleton.joints:
                    i, j = skeleton.joints.index(side + one), skeleton.joints.index(side + other)
                    order[i], order[j] = order[j], order[i]
        changed = {
            k: v.unflatten(0, (len(order), -1))[order].flatten(0, 1) if k.startswith(("heatmap.", "depth.")) else v
            for k, v in weights.items()
        }
        yield f"{name} {label}", "exchanged", changed


def candidates(found: list[Predicted], skeleton: Skeleton, predict, crops: list[np.ndarray], masks) -> dict[str, float]:
    """Everything that might tell a good model from a bad one."""
    free, _ = measure_label_free(found, skeleton)
    values = {
        "score": free["free/score"], "mask IoU": free["free/mask_iou"], "bone fit": free["free/bone_fit"],
        "mirror distance": free["free/mirror_distance"], "joints inside": free["free/inside_mask"],
        "jitter": free.get("free/jitter", np.nan), "left-right swaps": free.get("free/left_right_swaps", 0.0),
        "IoU x inside x sides (before)": free["free/mask_iou"] * free["free/inside_mask"]
        * (1 - free.get("free/left_right_swaps", 0.0)),
        "confidence": float(np.concatenate([item.confidence for item in found]).mean()),
    }  # fmt: skip
    evidence = gather(found, skeleton)
    values["IoU x bone fit"] = values["mask IoU"] * values["bone fit"]
    mirrors = [(i, j) for i, a in enumerate(skeleton.bones) for j, b in enumerate(skeleton.bones)
               if i < j and skeleton.flip_index[a.child] == b.child]  # fmt: skip
    change, sides = [], []
    for item in found:
        xyz = np.concatenate([item.xy, item.z[..., None]], -1)
        lengths = np.stack([np.linalg.norm(xyz[:, b.child] - xyz[:, b.parent], axis=-1) for b in skeleton.bones], 1)
        change.append(lengths.std(0) / np.maximum(lengths.mean(0), 1))
        sides += [
            np.abs(lengths[:, i] - lengths[:, j]) / np.maximum(lengths[:, i] + lengths[:, j], 1) for i, j in mirrors
        ]
    values["bone change"] = float(np.mean(change))
    values["side difference"] = float(np.mean(np.concatenate(sides))) if sides else np.nan
    rng = np.random.default_rng(0)
    turned, gained, read = [], [], []
    for item, part, mask in zip(found, crops, masks, strict=True):
        size = part.shape[1]
        scale = size / (item.boxes[:, 2] - item.boxes[:, 0])
        subject = (item.size * scale)[:, None]
        plain = predict(part)[0][..., :2]
        middle, matrices = (size - 1) / 2, []
        for _ in part:
            matrix = cv2.getRotationMatrix2D((middle, middle), rng.uniform(-20, 20), rng.uniform(0.85, 1.05))
            matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * size
            matrices.append(matrix)
        images = [
            cv2.warpAffine(c, m, (size, size), borderMode=cv2.BORDER_REPLICATE)
            for c, m in zip(part, matrices, strict=True)
        ]
        moved = np.einsum("nij,nkj->nki", np.array(matrices)[:, :, :2], plain) + np.array(matrices)[:, None, :, 2]
        turned.append(np.linalg.norm(predict(np.stack(images))[0][..., :2] - moved, axis=-1) / subject)
        gain, offset = rng.uniform(0.7, 1.3, (len(part), 1, 1, 3)), rng.uniform(-20, 20, (len(part), 1, 1, 3))
        bright = np.clip(part * gain + offset, 0, 255).astype(np.uint8)
        gained.append(np.linalg.norm(predict(bright)[0][..., :2] - plain, axis=-1) / subject)
        if mask is not None:
            ways = [
                np.linalg.norm(mask[:, order] - plain, axis=-1) / subject
                for order in (slice(None), skeleton.flip_index)
            ]
            read.append(np.minimum(ways[0].mean(1), ways[1].mean(1)))
    values["turn distance"], values["gain distance"] = (float(np.concatenate(v).mean()) for v in (turned, gained))
    if read:
        values["reader distance"] = float(np.concatenate(read).mean())
    assert len(evidence.iou) == sum(len(item.xy) for item in found)
    return values


def read_silhouettes(reader: StoreReader, ranges, skeleton: Skeleton, size: int) -> list[np.ndarray | None]:
    """What the shipped reader of silhouettes finds in the masks, (T, K, 2) crop pixels a range; None without one."""
    from streampose.methods.mask_config import SilhouetteConfig
    from streampose.methods.mask_reader import load_shipped

    config = SilhouetteConfig(detector="tiny", size=64, steps=1, batch_size=1)
    network = build_detector("tiny", skeleton.num_joints, 64, channels=1)
    if not load_shipped(network, skeleton, config):
        return [None] * len(ranges)
    found = []
    for clip, first, end in ranges:
        masks = reader.read(clip.id, slice(first, end)).masks
        small = np.stack([cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA) for mask in masks])
        with torch.inference_mode():
            out = network.eval()(torch.from_numpy(small)[:, None].float() / 255).keypoints[..., :2].numpy()
        found.append((out + 1) * size / 2 - 0.5)
    return found


def collect(folders: list[Path], store: Path, truth: Path, preset: str, size: int, spoiled: bool) -> list[dict]:
    """A row for each model: name, kind, true errors ("true ...") and candidates."""
    reader = StoreReader(store)
    skeleton = load_skeleton(reader.skeleton_name)
    ranges = limit([(clip, 0, clip.num_frames) for clip in reader.clips()], FRAMES)
    crops = [resize_crops(reader.read(clip.id, slice(a, b)).frames, size) for clip, a, b in ranges]
    silhouettes = read_silhouettes(reader, ranges, skeleton, size)
    padding = float(reader.attributes.get("margin", MARGIN))
    detector = build_detector(preset, skeleton.num_joints, size)
    fresh = {name: value.clone() for name, value in detector.state_dict().items()}
    rows: list[dict] = []
    matched: list[Matched] = []  # who is who does not depend on the model

    def add(name: str, kind: str, weights: Weights) -> None:
        detector.load_state_dict(weights)
        predict = eager(detector, skeleton, size, torch.device("cpu"))
        found = list(predict_clips(predict, size, skeleton, reader, ranges, show_progress=False))
        if not matched:
            matched.extend(match_truth(found, truth, padding))
        by_track = {item.track: item for item in found}
        again = [match._replace(item=by_track[match.item.track]) for match in matched]
        errors = measure(compare_truth(again, skeleton))
        row = {"name": name, "kind": kind} | {f"true {n}": float(np.nanmean(errors[n])) for n in TRUTH}
        rows.append(row | candidates(found, skeleton, predict, crops, silhouettes))
        print(f"{name[-60:]:60s} {row['true pck@0.2/flips']:.3f} {rows[-1]['score']:.3f}", flush=True)

    add("fresh", "fresh", fresh)
    best: dict[str, tuple[float, str, Weights]] = {}
    for name, kind, weights in find_models(folders, skeleton.num_joints):
        try:
            add(name, kind, weights)
        except RuntimeError:
            print(f"{name}: of another preset or size, left out", flush=True)
            continue
        pck = rows[-1]["true pck@0.2/flips"]
        if pck > best.get(kind, (0.0, "", {}))[0]:
            best[kind] = pck, name, weights
    if spoiled:
        for _, name, weights in sorted(best.values(), key=lambda entry: -entry[0])[:2]:
            for entry in spoil(name, weights, skeleton, fresh):
                add(*entry)
    return rows


def correlations(rows: list[dict]) -> dict[str, dict[str, float]]:
    """{candidate: {truth: Spearman, "low", "high", "cv"}}; the interval and cv are of the first truth."""
    kinds = np.array([row["kind"] for row in rows])
    names = [n for n in rows[0] if n not in ("name", "kind") and not n.startswith("true ")]
    rng = np.random.default_rng(0)
    each = np.unique(kinds)
    drawn = [np.concatenate([np.flatnonzero(kinds == k) for k in rng.choice(each, len(each))]) for _ in range(500)]
    table = {}
    for name in names:
        x = np.array([row.get(name, np.nan) for row in rows]) * (-1 if name in FEWER_IS_BETTER else 1)
        if not np.isfinite(x).all() or np.ptp(x) == 0:
            continue
        ys = {t: sign * np.array([row[f"true {t}"] for row in rows]) for t, sign in TRUTH.items()}
        y = next(iter(ys.values()))
        low, high = np.nanquantile([spearmanr(x[i], y[i])[0] for i in drawn], [0.025, 0.975])
        cv = min(spearmanr(x[kinds != k], y[kinds != k])[0] for k in each)
        table[name] = {t: float(spearmanr(x, v)[0]) for t, v in ys.items()} | {"low": low, "high": high, "cv": cv}
    return dict(sorted(table.items(), key=lambda entry: -entry[1]["pck@0.2/flips"]))


def markdown(table: dict[str, dict[str, float]]) -> str:
    lines = ["| measure | " + " | ".join(TRUTH) + " | cv |", "|---" * (len(TRUTH) + 2) + "|"]
    for name, row in table.items():
        first, *others = (row[t] for t in TRUTH)
        cells = [
            f"{first:.3f} [{row['low']:.2f}, {row['high']:.2f}]",
            *(f"{v:.3f}" for v in others),
            f"{row['cv']:.3f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--store", type=Path, required=True, help="clips whose truth is known")
    parser.add_argument("--truth", type=Path, required=True, help="folder of their *.truth.npz")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--size", type=int, default=64, help="side of the models' crops")
    parser.add_argument("--spoil", action="store_true", help="add worse models made from the best")
    parser.add_argument("--out", type=Path, default=Path("ranks.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    rows = collect(arguments.runs, arguments.store, arguments.truth, arguments.preset, arguments.size, arguments.spoil)
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), restval="")
        writer.writeheader()
        writer.writerows(rows)
    table = correlations(rows)
    print(markdown(table))
    models = f"{len(rows)} models of {len({row['kind'] for row in rows})} kinds"
    print(f"{models}, {time.monotonic() - began:.0f} s")
    print(json.dumps({"score": table["score"]}))


if __name__ == "__main__":
    main()
