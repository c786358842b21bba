"""Measure a model against exact truth or a dataset's labels where there are some, and always by what needs none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError, StoreError
from streampose.evaluation.compared import HIGHER_IS_BETTER, Compared, post_process
from streampose.evaluation.datasets import compare_labels, crops_of, predict_people
from streampose.evaluation.free import measure_label_free
from streampose.evaluation.lifted_tracks import measure_lifted_tracks
from streampose.evaluation.pages import Cases, Fetch, write_pages
from streampose.evaluation.plausible import limits_of_prior, measure_plausibility
from streampose.evaluation.predicted import Predicted, predict_clips, read_predictions
from streampose.evaluation.summary import by_joint, by_name, summarise
from streampose.evaluation.truth import Matched, compare_truth, known_frames, match_truth
from streampose.evaluation.views import measure_views
from streampose.formats.datasets import read_dataset
from streampose.metrics.flips import row_means
from streampose.metrics.plausibility import Limits
from streampose.runtime.bundle import default_bundle
from streampose.runtime.lifter import load_lifter
from streampose.runtime.predictor import load_predictor
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton

SHOWN_PX = 192  # side of the pictures of a dataset's people


def evaluate(
    *,
    store: str | Path | None = None,
    truth: Path | None = None,
    dataset: str | None = None,
    model: Path | None = None,
    runtime: str = "auto",
    precision: str = "f32",
    predictions: Path | None = None,
    spp: float | None = None,
    prior: str | None = None,
    lifter: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure a model on the crops of a store or on a labelled dataset, or predictions that `annotate` wrote.

    With `truth`, each clip is compared with the true subject whose boxes it overlaps most, joints by name, frames by
    their number. Joints outside the picture do not count; occluded ones do. With `dataset`, its people are cut out and
    compared by its own protocol, see `formats/datasets`.

    Args:
        store: what to predict on; ./store.zarr where nothing else is given.
        truth: folder with a `<video>.truth.npz` for each video, as `synth` writes them.
        dataset: `NAME:FOLDER`, a dataset in its official layout: h36m, h36m-simplified, 3dhp, mpii, lsp, lspet, coco.
        model, runtime, precision: the bundle (None for the current model, else the shipped one) and how to run it.
        predictions: folder with `<video>.keypoints.json`, as `annotate` writes them, instead of a store and a model;
            needs truth.
        spp: also measure after supervised post-processing, a linear map fitted on this share of the recordings; these
            metrics end in `/spp` and are of the other recordings.
        prior: also whether a body could take the 3D poses, by what this prior of the store (or `built-in`) shows.
        lifter: also how good the poses are that this bundle lifts from what the model finds; needs truth.
        out: folder for report.html, predictions.png and metrics.json.

    Returns:
        {"metrics": {name: value}, "intervals": {name: [low, high]}, "per_joint": {name: {joint: value}},
        "per_activity": {name: {activity: value}}, "samples": frames measured, "groups": recordings that the intervals
        are drawn over, "clips": {"compared", "without_truth"}}

    Raises:
        StoreError: no store, or nothing in it. BundleError: no model. ConfigError: no truth, or none that fits.
    """
    if dataset is not None:
        given = [name for name, value in (("--truth", truth), ("--predictions", predictions)) if value is not None]
        if given:
            raise ConfigError(f"--dataset {dataset}: it brings its own labels; leave {given[0]} out")
        if lifter is not None:
            raise ConfigError(
                f"--dataset {dataset}: lifted poses are measured with exact truth only; leave --lifter out"
            )
        where = Path("store.zarr") if store is None else Path(store)
        return _on_dataset(dataset, model or default_bundle(), runtime, precision, spp, (where, prior), out)
    if lifter is not None and truth is None:
        raise ConfigError(f"--lifter {lifter}: what it lifts can only be measured with truth; give --truth FOLDER")
    model = model or default_bundle()
    lifting = None if lifter is None else load_lifter(lifter)
    reader: StoreReader | None = None
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
        predicted = list(predict_clips(predictor.predict_crops, predictor.input_size, skeleton, reader))
        found = measure_views(predicted, reader)
        if not found:
            raise StoreError(f"{reader.name}: no clips in it; ingest videos that show a subject first")
    limits = None if prior is None else limits_of_prior(_local(reader, store), prior, skeleton)
    if spp is not None and truth is None:
        raise ConfigError(f"--spp {spp:g}: it is fitted to labels; give --truth or --dataset")
    result = _empty_result()
    matched: list[Matched] = []
    compared: Compared | None = None
    errors: dict[str, np.ndarray] = {}
    if truth is not None:
        matched = match_truth(found, Path(truth), padding)
        compared = compare_truth(matched, skeleton)
        errors = _measure_into(result, compared, spp)
        if lifting is not None:
            for name, values in measure_lifted_tracks(matched, lifting, skeleton).items():
                result[name] |= values
    if reader is not None:
        free, free_per_joint = measure_label_free(found, skeleton)
        result["metrics"] |= free
        result["per_joint"] |= free_per_joint
    if limits is not None:
        _measure_poses(result, [_in_space(item) for item in found], limits)
    result["samples"] = sum(len(item.xy) for item in found) if compared is None else len(compared.xy)
    result["clips"] = {
        "compared": len(matched),
        "without_truth": len(found) - len(matched) if truth is not None else len(found),
    }
    if out is not None:
        cases, groups = _cases(found, matched, errors, skeleton, reader)
        notes = [f"{result['samples']} frames; {len(matched)} clips compared with truth"]
        _write(Path(out), result, skeleton, cases, groups, errors, compared, notes)
    return result


def _local(reader: StoreReader | None, store: str | Path | None) -> Path:
    """The store on this machine that priors are read from."""
    return reader.path if reader is not None else Path("store.zarr" if store is None else store)


def _in_space(item: Predicted) -> np.ndarray:
    z = np.zeros(item.xy.shape[:2]) if item.z is None else item.z
    return np.concatenate([item.xy, z[..., None]], -1)


def _measure_poses(result: dict[str, Any], poses: Sequence[np.ndarray], limits: Limits) -> None:
    metrics, per_joint = measure_plausibility(poses, limits)
    result["metrics"] |= metrics
    result["per_joint"] |= per_joint


def _on_dataset(
    spec: str,
    model: Path,
    runtime: str,
    precision: str,
    spp: float | None,
    prior: tuple[Path, str | None],
    out: Path | None,
) -> dict[str, Any]:
    labelled = read_dataset(spec)
    predictor = load_predictor(model, runtime, precision)
    skeleton = predictor.skeleton
    known = np.isfinite(labelled.boxes).all(1)
    if not known.all():
        logger.info("%s: %d people without any labelled joint are left out", spec, int((~known).sum()))
        labelled = labelled.pick(np.flatnonzero(known))
    keypoints, confidence, boxes = predict_people(
        predictor.predict_crops, predictor.input_size, predictor.padding, labelled
    )
    compared = compare_labels(labelled, keypoints, boxes, skeleton)
    result = _empty_result()
    errors = _measure_into(result, compared, spp)
    if prior[1] is not None:
        _measure_poses(result, [keypoints], limits_of_prior(prior[0], prior[1], skeleton))
    result["samples"], result["clips"] = labelled.num_people, {"compared": labelled.num_people, "without_truth": 0}
    if out is not None:
        badness, captions = _badness(errors), []
        for picture, value in zip(labelled.pictures, badness, strict=True):
            frame = "" if picture.frame is None else f" {picture.frame}"
            captions.append(f"{picture.path.stem}{frame}: {value:.1f} %")
        truth_xy = np.full((len(badness), skeleton.num_joints, 2), np.nan)
        truth_xy[:, compared.columns] = compared.true_xy
        fetch: Fetch = crops_of(labelled, boxes, SHOWN_PX)
        cases = Cases(keypoints[..., :2], confidence, boxes, truth_xy, badness, captions, fetch)
        notes = [f"{labelled.name}: {labelled.num_people} people in {len(np.unique(labelled.groups))} recordings"]
        _write(Path(out), result, skeleton, cases, labelled.groups, errors, compared, notes)
    return result


def _empty_result() -> dict[str, Any]:
    return {
        "metrics": {}, "intervals": {}, "per_joint": {}, "per_activity": {}, "samples": 0, "groups": 0, "clips": {},
    }  # fmt: skip


def _measure_into(result: dict[str, Any], compared: Compared, spp: float | None) -> dict[str, np.ndarray]:
    """Add all that labels tell to a result; returns the metrics of every frame and joint, without those of `/spp`."""
    errors, metrics, intervals = summarise(compared)
    result["metrics"] |= metrics
    result["intervals"] |= intervals
    result["per_joint"] |= {
        name: by_joint(values, compared.joints) for name, values in errors.items() if values.ndim == 2
    }
    result["per_activity"] |= by_name(errors, compared.activities)
    result["groups"] = len(np.unique(compared.groups))
    if spp is not None:
        _, metrics, intervals = summarise(post_process(compared, spp))
        for name, value in metrics.items():
            if not name.endswith("/flips"):  # a map to the true names has no sides to swap
                result["metrics"][f"{name}/spp"] = value
                if name in intervals:
                    result["intervals"][f"{name}/spp"] = intervals[name]
    return errors


def _badness(errors: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) how bad each frame is: its mean distance from the truth, sides forgiven."""
    return row_means(errors["mse_percent/flips"])


def _cases(
    found: Sequence[Predicted],
    matched: Sequence[Matched],
    errors: dict[str, np.ndarray],
    skeleton: Skeleton,
    reader: StoreReader | None,
) -> tuple[Cases | None, np.ndarray]:
    """What may be shown of a store, with the clip of each case: by distance to the truth, else by overlap of masks."""
    rows: list[tuple[Predicted, np.ndarray]] = []
    truth: np.ndarray | None = None
    if matched:
        rows = [(match.item, known_frames(match.item, match.exact)) for match in matched]
        badness = _badness(errors)
        parts = []
        for (item, index), match in zip(rows, matched, strict=True):
            part = np.full((len(index), skeleton.num_joints, 2), np.nan)
            names = match.exact.joints.tolist()
            both = [(k, names.index(name)) for k, name in enumerate(skeleton.joints) if name in names]
            frames = match.exact.joints_2d[item.frame_index[index], match.subject]
            part[:, [k for k, _ in both]] = frames[:, [k for _, k in both]]
            parts.append(part)
        truth = np.concatenate(parts)
        words = [f"{value:.1f} %" for value in badness]
    else:
        rows = [(item, np.arange(len(item.xy))) for item in found if item.iou is not None]
        overlap = [item.iou[index] for item, index in rows if item.iou is not None]
        badness = -np.concatenate(overlap) if overlap else np.zeros(0)
        words = [f"IoU {-value:.2f}" for value in badness]
    places = [(item, int(position)) for item, index in rows for position in index]
    groups = np.array([item.track for item, _ in places], str)
    if reader is None or not places:
        return None, groups

    def fetch(number: int) -> tuple[np.ndarray, np.ndarray | None]:
        item, position = places[number]
        data = reader.read_many([(item.track, item.first + position)])
        return data.frames[0], data.masks[0]

    captions = [
        f"{item.track}  frame {item.frame_index[p]}: {word}" for (item, p), word in zip(places, words, strict=True)
    ]
    cases = Cases(
        xy=np.concatenate([item.xy[index] for item, index in rows]),
        confidence=np.concatenate([item.confidence[index] for item, index in rows]),
        boxes=np.concatenate([item.boxes[index] for item, index in rows]),
        truth=truth, badness=badness, captions=captions, fetch=fetch,
    )  # fmt: skip
    return cases, groups


def _write(
    out: Path,
    result: dict[str, Any],
    skeleton: Skeleton,
    cases: Cases | None,
    groups: np.ndarray,
    errors: dict[str, np.ndarray],
    compared: Compared | None,
    notes: list[str],
) -> None:
    """The pages, with the worst recordings first."""
    measure: str
    if compared is not None:
        measure = "pck@0.2/flips" if "pck@0.2/flips" in errors else "mse_percent/flips"
        better = HIGHER_IS_BETTER[measure.removesuffix("/flips")]
        means = by_name({measure: errors[measure]}, groups).get(measure, {})
    else:
        measure, better = "mask overlap", True
        means = {} if cases is None else by_name({measure: -cases.badness[:, None]}, groups).get(measure, {})
    listed = sorted(((name, value, int((groups == name).sum())) for name, value in means.items()), key=lambda r: r[1])
    if not better:
        listed.reverse()
    if result["intervals"]:
        notes = [*notes, f"Intervals: 95 %, bootstrap over {result['groups']} recordings."]
    write_pages(out, result, skeleton, cases, groups, listed, measure, notes)
