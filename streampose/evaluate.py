"""Measure a model: against exact truth where there is some, and always by what needs no labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.config import configs_folder, load_skeleton
from streampose.console import logger, progress
from streampose.errors import ConfigError, StoreError
from streampose.formats.coco import read_coco
from streampose.geometry.crop import crop_from_source, source_from_crop, square_box
from streampose.geometry.project import camera_from_world
from streampose.metrics import flips, keypoints_2d, keypoints_3d, label_free
from streampose.report import Picture, Section, Table, write_picture, write_report
from streampose.runtime.bundle import default_bundle
from streampose.runtime.predictor import load_predictor
from streampose.runtime.sheet import Shown, predictions_picture
from streampose.store.reader import ClipInfo, StoreReader
from streampose.structures import Skeleton
from streampose.synthetic.truth import Truth, read_truth

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # crops (B, S, S, 3) -> (B, K, 3) pixels, (B, K)

CHUNK = 128  # frames that are in memory at a time
MIN_OVERLAP = 0.2  # a clip whose boxes overlap less with every true subject shows none
HIGHER_IS_BETTER = {
    "pck@0.2": True, "pckh@0.5": True, "mse_percent": False, "mpjpe_mm": False, "n_mpjpe_mm": False,
    "pa_mpjpe_mm": False, "pck3d@150mm": True, "auc3d": True,
}  # fmt: skip


@dataclass(frozen=True)
class Predicted:
    """Keypoints of one track, and how they lie on its masks.

    Attributes:
        track, source: clip (or track) and the path of its video.
        first: position in the clip of the first of the T frames.
        frame_index, pts_seconds: (T,) of each frame in the source.
        boxes: (T, 4) what the crops show, edges in source pixels.
        xy, z: (T, K, 2) and (T, K) source pixels, z relative to the root; z is None for 2D predictions.
        confidence: (T, K).
        size: (T,) the subject's size in source pixels; None where there were no masks, as are the next two.
        iou: (T,) of the rendered skeleton and the mask.
        inside: (T, K) whether each joint is inside the mask.
    """

    track: str
    source: str
    first: int
    frame_index: np.ndarray
    pts_seconds: np.ndarray
    boxes: np.ndarray
    xy: np.ndarray
    z: np.ndarray | None
    confidence: np.ndarray
    size: np.ndarray | None = None
    iou: np.ndarray | None = None
    inside: np.ndarray | None = None


def evaluate(
    *,
    store: Path | None = None,
    truth: Path | None = None,
    model: Path | None = None,
    runtime: str = "auto",
    precision: str = "f32",
    predictions: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure a model on the crops of a store, or predictions that `annotate` wrote.

    With `truth`, each clip is compared with the true subject whose boxes it overlaps most, joints by name, frames by
    their number. Joints outside the picture do not count; occluded ones do.

    Args:
        store: what to predict on; ./store.zarr where neither it nor predictions are given.
        truth: folder with a `<video>.truth.npz` for each video, as `synth` writes them.
        model, runtime, precision: the bundle (None for the current model, else the shipped one) and how to run it.
        predictions: folder with `<video>.keypoints.json`, as `annotate` writes them, instead of a store and a model;
            needs truth.
        out: folder for report.html, predictions.png and metrics.json.

    Returns:
        {"metrics": {name: value}, "per_joint": {name: {joint: value}}, "samples": frames measured,
        "clips": {"compared", "without_truth"}}

    Raises:
        StoreError: no store, or nothing in it. BundleError: no model. ConfigError: no truth, or none that fits.
    """
    reader: StoreReader | None = None
    model = model or default_bundle()
    if predictions is not None:
        if truth is None:
            raise ConfigError(f"{predictions}: predictions can only be measured with truth; give --truth FOLDER")
        found, skeleton = read_predictions(predictions, model)
        padding = 0.0
    else:
        reader = StoreReader(Path("store.zarr") if store is None else store)
        predictor = load_predictor(model, runtime, precision)
        skeleton, padding = predictor.skeleton, predictor.padding
        margin = float(reader.attributes.get("margin", padding))
        if margin != padding:
            logger.warning(
                "%s: its crops have a margin of %g, the model was trained with %g", reader.name, margin, padding
            )
            padding = margin  # where the boxes are compared with the truth's
        found = list(predict_clips(predictor.predict_crops, predictor.input_size, skeleton, reader))
        if not found:
            raise StoreError(f"{reader.name}: no clips in it; ingest videos that show a subject first")
    metrics: dict[str, float] = {}
    per_joint: dict[str, dict[str, float]] = {}
    samples = sum(len(item.xy) for item in found)
    compared: list[tuple[Predicted, Truth, int]] = []
    errors: dict[str, np.ndarray] = {}
    if truth is not None:
        compared = match_truth(found, Path(truth), padding)
        errors, joints = measure(compared, skeleton)
        errors = {name: values for name, values in errors.items() if np.isfinite(values).any()}
        metrics |= {name: float(np.nanmean(values)) for name, values in errors.items()}
        per_joint |= {name: _by_joint(values, joints) for name, values in errors.items()}
        samples = sum(len(_known_frames(item, exact)) for item, exact, _ in compared)
    if reader is not None:
        free, free_per_joint = measure_label_free(found, skeleton)
        metrics |= free
        per_joint |= free_per_joint
    result: dict[str, Any] = {
        "metrics": metrics,
        "per_joint": per_joint,
        "samples": samples,
        "clips": {"compared": len(compared), "without_truth": len(found) - len(compared) if truth else len(found)},
    }
    if out is not None:
        _write(Path(out), result, skeleton, reader, _chosen(found, compared, errors, skeleton))
    return result


def predict_clips(
    predict: Predict,
    input_size: int,
    skeleton: Skeleton,
    reader: StoreReader,
    ranges: Sequence[tuple[ClipInfo, int, int]] | None = None,
    *,
    show_progress: bool = True,
) -> Iterator[Predicted]:
    """Run a model over a store's clips; frames are read a chunk at a time.

    Args:
        predict: crops (B, S, S, 3) uint8 -> keypoints (B, K, 3) in their pixels, confidence (B, K).
        input_size: side S of the crops that it takes.
        ranges: (clip, first, end) parts of clips; None for all of them.
        show_progress: False where another bar is running.
    """
    if ranges is None:
        ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    total = sum(end - first for _, first, end in ranges)
    with progress("Predicting", total) if show_progress else nullcontext() as bar:
        for clip, first, end in ranges:
            parts = []
            for start in range(first, end, CHUNK):
                data = reader.read(clip.id, slice(start, min(start + CHUNK, end)))
                keypoints, confidence = predict(resize_crops(data.frames, input_size))
                side = (data.boxes[:, 2] - data.boxes[:, 0])[:, None]
                xy = source_from_crop(keypoints[..., :2].astype(np.float64), data.boxes, input_size)
                sizes = label_free.subject_sizes(data.masks, data.boxes, data.pts_seconds)
                crop = data.frames.shape[1]
                crop_xy = crop_from_source(xy, data.boxes, crop)
                drawn = label_free.render_skeletons(crop_xy, sizes * crop / side[:, 0], skeleton, crop)
                parts.append(
                    (
                        data.frame_index, data.pts_seconds, data.boxes, xy, keypoints[..., 2] * side / input_size,
                        confidence, sizes, label_free.mask_iou(drawn, data.masks),
                        label_free.inside_mask(crop_xy, data.masks),
                    )
                )  # fmt: skip
                if bar is not None:
                    bar.advance(len(data.frames))
            if parts:
                arrays = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
                yield Predicted(clip.id, clip.source, first, *arrays)


def resize_crops(crops: np.ndarray, size: int) -> np.ndarray:
    """Crops at the size that a model takes: (N, H, H, 3) uint8 -> (N, size, size, 3)."""
    if crops.shape[1] == size:
        return crops
    method = cv2.INTER_AREA if crops.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(crop, (size, size), interpolation=method) for crop in crops])


def read_predictions(folder: Path, model: Path) -> tuple[list[Predicted], Skeleton]:
    """What `annotate` wrote, one `Predicted` a track, and the skeleton with exactly these joints.

    Raises:
        ConfigError: no keypoint files, or joints that neither a shipped skeleton nor the model has.
    """
    files = sorted(Path(folder).glob("*.keypoints.json"))
    if not files:
        raise ConfigError(f"{folder}: no *.keypoints.json in it; `streampose annotate` writes them")
    found, joints = [], None
    for file in files:
        rows, name = read_coco(file), file.name.removesuffix(".keypoints.json")
        if joints not in (None, rows["joints"]):
            raise ConfigError(f"{file}: other joints than {files[0]}; measure the folders of each model apart")
        joints = rows["joints"]
        for track in np.unique(rows["track_id"]):
            index = np.flatnonzero(rows["track_id"] == track)
            index = index[np.argsort(rows["image_id"][index], kind="stable")]
            times = np.full(len(index), np.nan)
            frames, boxes, xy = rows["image_id"][index], rows["boxes"][index], rows["xy"][index]
            found.append(
                Predicted(f"{name}/{track}", name, 0, frames, times, boxes, xy, None, rows["confidence"][index])
            )
    for path in sorted((configs_folder() / "skeletons").glob("*.yaml")):
        skeleton = load_skeleton(path)
        if list(skeleton.joints) == joints:
            return found, skeleton
    if (Path(model) / "bundle.json").is_file():
        from streampose.runtime.bundle import load_bundle

        skeleton = load_bundle(model).skeleton
        if list(skeleton.joints) == joints:
            return found, skeleton
    raise ConfigError(f"{files[0]}: no known skeleton has these joints; name the model that made them with --model")


def match_truth(found: Sequence[Predicted], folder: Path, padding: float) -> list[tuple[Predicted, Truth, int]]:
    """Each track with its video's truth and the number of the true subject that its boxes overlap most.

    A track keeps one subject for its whole length, so that one that jumps to another person is wrong from there on.

    Args:
        padding: of the tracks' boxes around the subject.

    Raises:
        ConfigError: there is no truth for any of the videos, or no track shows a true subject.
    """
    files = {path.name.removesuffix(".truth.npz"): path for path in sorted(Path(folder).rglob("*.truth.npz"))}
    if not files:
        raise ConfigError(f"{folder}: no *.truth.npz in it; `streampose synth` writes them beside its videos")
    truths: dict[str, Truth] = {}
    matched: list[tuple[Predicted, Truth, int]] = []
    for item in found:
        name = Path(item.source).stem
        if name not in files:
            continue
        exact = truths.setdefault(name, read_truth(files[name]) if name not in truths else truths[name])
        known = _known_frames(item, exact)
        if not len(known):
            continue
        subjects = square_box(exact.boxes[item.frame_index[known]], padding)  # (T, N, 4)
        overlaps = np.nan_to_num(_box_iou(item.boxes[known, None], subjects)).mean(0)
        if overlaps.max() >= MIN_OVERLAP:
            matched.append((item, exact, int(overlaps.argmax())))
        else:
            logger.info("%s: overlaps no true subject (at most %.2f); left out", item.track, overlaps.max())
    if not matched:
        names = ", ".join(sorted({Path(item.source).stem for item in found})[:5])
        raise ConfigError(f"{folder}: no truth that fits; there must be <video>.truth.npz for some of {names}")
    return matched


def measure(
    compared: Sequence[tuple[Predicted, Truth, int]], skeleton: Skeleton
) -> tuple[dict[str, np.ndarray], list[str]]:
    """All metrics with truth, with and without `/flips`: {name: (frames, joints)} and the joints' names."""
    joints = [name for name in skeleton.joints if all(name in exact.joints for _, exact, _ in compared)]
    if not joints:
        raise ConfigError(f"the truth has none of the joints of {skeleton.name}")
    columns = [skeleton.joints.index(name) for name in joints]
    flip_index = [
        joints.index(skeleton.joints[skeleton.flip_index[column]])
        if skeleton.joints[skeleton.flip_index[column]] in joints
        else number
        for number, column in enumerate(columns)
    ]
    parts = []
    for item, exact, subject in compared:
        known = _known_frames(item, exact)
        frames = item.frame_index[known]
        truth_columns = [list(exact.joints).index(name) for name in joints]
        values = _metrics_of_track(item, known, exact, frames, subject, columns, truth_columns, flip_index, skeleton)
        parts.append(values)
    names = [name for name in HIGHER_IS_BETTER if all(name in part for part in parts)]
    names += [f"{name}/flips" for name in names]
    return {name: np.concatenate([part[name] for part in parts]) for name in sorted(names)}, joints


def _metrics_of_track(
    item: Predicted,
    known: np.ndarray,
    exact: Truth,
    frames: np.ndarray,
    subject: int,
    columns: list[int],
    truth_columns: list[int],
    flip_index: list[int],
    skeleton: Skeleton,
) -> dict[str, np.ndarray]:
    """Every metric of one track, (frames, joints) each."""
    true_xy = exact.joints_2d[frames, subject][:, truth_columns]
    visible = exact.visibility[frames, subject][:, truth_columns] > 0
    side = item.boxes[known, 2] - item.boxes[known, 0]
    position = {column: number for number, column in enumerate(columns)}
    true_mm = mm_per_pixel = None
    if item.z is not None and skeleton.root in position:
        in_camera = camera_from_world(exact.joints_3d[frames, subject], exact.R[frames], exact.t[frames])
        depth = in_camera[:, list(exact.joints).index(skeleton.joints[skeleton.root]), 2]
        mm_per_pixel = 1000 * depth / exact.K[frames, 0, 0]
        true_mm = 1000 * in_camera[:, truth_columns]

    def values_of(order: list[int]) -> dict[str, np.ndarray]:
        xy = item.xy[known][:, columns][:, order]
        values = {"mse_percent": keypoints_2d.mse_percent(xy, true_xy, side, visible)}
        for name, threshold, pair in (("pck@0.2", 0.2, skeleton.torso), ("pckh@0.5", 0.5, skeleton.head)):
            if pair is not None and pair[0] in position and pair[1] in position:
                size = keypoints_2d.segment_size(true_xy, (position[pair[0]], position[pair[1]]))
                values[name] = keypoints_2d.pck(xy, true_xy, size, threshold, visible)
        if true_mm is not None and mm_per_pixel is not None and item.z is not None:
            root = position[skeleton.root]
            xyz = np.concatenate([xy, item.z[known][:, columns][:, order, None]], -1)
            pose = keypoints_3d.metric_from_pixels(xyz, root, mm_per_pixel)
            values["mpjpe_mm"] = keypoints_3d.mpjpe(pose, true_mm, root)
            values["n_mpjpe_mm"] = keypoints_3d.n_mpjpe(pose, true_mm, root)
            values["pa_mpjpe_mm"] = keypoints_3d.pa_mpjpe(pose, true_mm)
            values["pck3d@150mm"] = keypoints_3d.pck3d(pose, true_mm, root)
            values["auc3d"] = keypoints_3d.auc3d(pose, true_mm, root)
        return values

    plain, swapped = values_of(list(range(len(columns)))), values_of(flip_index)
    both = {
        f"{name}/flips": flips.better_of(values, swapped[name], higher_is_better=HIGHER_IS_BETTER[name])
        for name, values in plain.items()
    }
    return plain | both


def _known_frames(item: Predicted, exact: Truth) -> np.ndarray:
    """Positions in a track whose frames the truth has."""
    return np.flatnonzero((item.frame_index >= 0) & (item.frame_index < exact.num_frames))


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(-1) for box in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)


def measure_label_free(
    found: Sequence[Predicted], skeleton: Skeleton
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The metrics that need no labels, and those of them that have a value for each joint.

    `free/score` sums them up for comparing models on the same frames, higher is better: the overlap with the mask,
    times the share of joints inside it, times the share of steps in which left and right keep their sides.
    """
    iou, inside, shake, swaps = [], [], [], []
    for item in found:
        if item.size is None or item.iou is None or item.inside is None:
            continue
        iou.append(item.iou)
        inside.append(item.inside)
        shake.append(label_free.jitter(item.xy, item.pts_seconds, item.size))
        swaps.append(label_free.left_right_swaps(item.xy, item.pts_seconds, item.size, skeleton.flip_pairs))
    arrays = {
        "free/mask_iou": np.concatenate(iou),
        "free/inside_mask": np.concatenate(inside),
        "free/jitter": np.concatenate(shake),
        "free/left_right_swaps": np.concatenate(swaps),
    }
    metrics = {name: float(np.nanmean(values)) for name, values in arrays.items() if np.isfinite(values).any()}
    if "free/mask_iou" in metrics and "free/inside_mask" in metrics:
        kept_sides = 1 - metrics.get("free/left_right_swaps", 0.0)
        metrics["free/score"] = metrics["free/mask_iou"] * metrics["free/inside_mask"] * kept_sides
    joints = list(skeleton.joints)
    names = [name for name in ("free/inside_mask", "free/jitter") if name in metrics]
    return metrics, {name: _by_joint(arrays[name], joints) for name in names}


def _by_joint(values: np.ndarray, joints: list[str]) -> dict[str, float]:
    known = np.isfinite(values)
    means = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return {name: float(mean) for name, mean, count in zip(joints, means, known.sum(0), strict=True) if count}


@dataclass(frozen=True)
class _Choice:
    """A frame to show: where it is, and its truth in source pixels."""

    item: Predicted
    position: int
    truth: np.ndarray | None
    caption: str


def _chosen(
    found: Sequence[Predicted],
    compared: Sequence[tuple[Predicted, Truth, int]],
    errors: dict[str, np.ndarray],
    skeleton: Skeleton,
    count: int = 4,
) -> dict[str, list[_Choice]]:
    """The worst, middling and best frames, a few of each: by distance to the truth, else by overlap with the mask."""
    choices: list[_Choice] = []
    badness: list[float] = []
    if compared:
        distances = errors["mse_percent/flips"]
        means = np.where(np.isfinite(distances), distances, 0).sum(1) / np.maximum(np.isfinite(distances).sum(1), 1)
        row = 0
        for item, exact, subject in compared:
            for position in _known_frames(item, exact):
                frame = item.frame_index[position]
                true_xy = np.full((skeleton.num_joints, 2), np.nan)
                for number, name in enumerate(skeleton.joints):
                    if name in exact.joints:
                        true_xy[number] = exact.joints_2d[frame, subject, list(exact.joints).index(name)]
                choices.append(_Choice(item, position, true_xy, f"{item.track}  frame {frame}: {means[row]:.1f} %"))
                badness.append(float(means[row]))
                row += 1
    else:
        for item in found:
            if item.iou is None:
                continue
            for position, iou in enumerate(item.iou):
                if np.isfinite(iou):
                    caption = f"{item.track}  frame {item.frame_index[position]}: IoU {iou:.2f}"
                    choices.append(_Choice(item, position, None, caption))
                    badness.append(-float(iou))
    order = np.argsort(badness)
    if not len(order):
        return {}
    middle, step = len(order) // 2, max(1, len(order) // 40)  # a step, or a row would show one moment four times
    rows = {
        "best": order[: count * step : step],
        "median": order[max(0, middle - count * step // 2) :: step][:count],
        "worst": order[::-1][: count * step : step],
    }
    return {name: [choices[i] for i in index] for name, index in rows.items()}


def _write(
    out: Path,
    result: dict[str, Any],
    skeleton: Skeleton,
    reader: StoreReader | None,
    chosen: dict[str, list[_Choice]],
) -> None:
    """report.html, predictions.png and metrics.json."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    if reader is not None and chosen:
        image = predictions_picture(
            {name: [_shown(reader, choice) for choice in choices] for name, choices in chosen.items()}, skeleton
        )
        write_picture(out / "predictions.png", image)
        beside = "the truth" if result["clips"]["compared"] else "the outline of the mask"
        pictures.append(Picture(image, f"Predictions, each with {beside} at its right."))
    metrics, per_joint = result["metrics"], result["per_joint"]
    clips = result["clips"]
    count = f"{result['samples']} frames; {clips['compared']} clips compared with truth"
    names = list(per_joint)
    joints = [name for name in skeleton.joints if any(name in values for values in per_joint.values())]
    rows: list[list[str | int | float]] = [
        [joint, *(per_joint[name].get(joint, float("nan")) for name in names)] for joint in joints
    ]
    sections = [
        Section("Metrics", [count], [Table(["metric", "value"], [[name, value] for name, value in metrics.items()])]),
        Section("Pictures", pictures=pictures),
        Section("By joint", tables=[Table(["joint", *names], rows)]),
    ]
    write_report(out / "report.html", "Evaluation", [section for section in sections if section != Section("Pictures")])
    (out / "metrics.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


def _shown(reader: StoreReader, choice: _Choice) -> Shown:
    item, position = choice.item, choice.position
    data = reader.read_many([(item.track, item.first + position)])
    crop, box = data.frames.shape[1], item.boxes[position]
    truth = None if choice.truth is None else crop_from_source(choice.truth, box, crop)
    return Shown(
        data.frames[0], crop_from_source(item.xy[position], box, crop), item.confidence[position], truth, data.masks[0],
        choice.caption,
    )  # fmt: skip
