"""Which model is the better one, measured without labels on frames held out; the better is `models/current`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from streampose.console import logger
from streampose.errors import BundleError, ConfigError
from streampose.evaluation.free import Evidence, compare_scores, gather, measure_label_free
from streampose.evaluation.labelled import compare_label_errors, label_errors
from streampose.evaluation.predicted import Predict, predict_clips
from streampose.evaluation.views import measure_views
from streampose.runtime.predictor import load_predictor
from streampose.runtime.torch import CropsToKeypoints
from streampose.store.labels import Labels
from streampose.store.reader import ClipInfo, StoreReader
from streampose.structures import Skeleton

HELD_OUT_SHARE = 0.1  # the end of every clip is not trained on
SHORTEST_CLIP = 30  # frames; shorter clips are trained on as a whole

# ------------------------------------------------------------------------------------------------------ held-out frames


def choose_held_out(clips: Sequence[ClipInfo]) -> list[tuple[ClipInfo, int, int]]:
    """(clip, first, end) of the last tenth of every clip that is long enough."""
    return [
        (clip, clip.num_frames - max(3, round(HELD_OUT_SHARE * clip.num_frames)), clip.num_frames)
        for clip in clips
        if clip.num_frames >= SHORTEST_CLIP
    ]


def limit(ranges: Sequence[tuple[ClipInfo, int, int]], frames: int) -> list[tuple[ClipInfo, int, int]]:
    """At most so many frames: fewer ranges where there are many, evenly picked, and each of them cut short."""
    count = max(1, min(len(ranges), frames // 12))
    kept = [ranges[i] for i in np.unique(np.linspace(0, len(ranges) - 1, count).round().astype(int))] if ranges else []
    return [(clip, first, min(end, first + frames // count)) for clip, first, end in kept]


class TrainingPart(StoreReader):
    """A store, of a folder or a URL, without the frames that are held out: ends of clips, so that positions stay."""

    def __init__(self, path: Path | str, held_out: Sequence[tuple[ClipInfo, int, int]]):
        super().__init__(path)
        for clip, first, _ in held_out:
            self._clips[clip.id] = replace(self._clips[clip.id], num_frames=first)

    def pairs(self) -> dict[str, np.ndarray]:
        """As in a store, without the pairs that reach into held-out frames."""
        pairs = super().pairs()
        ends = np.array([self._clips[name].num_frames for name in pairs["clip"]], int)
        kept = np.maximum(pairs["i"], pairs["j"]) < ends
        return {name: values[kept] for name, values in pairs.items()}

    def times(self, clip_id: str) -> np.ndarray:
        """As in a store, of the frames that are left."""
        return super().times(clip_id)[: self._clip(clip_id).num_frames]


class Measured(NamedTuple):
    """A model's metrics, and what they are made of.

    Attributes:
        evidence: of the label-free ones.
        label_errors: (N, K) distance from each held-out label, as a share of the crop's side; None without labels.
    """

    metrics: dict[str, float]
    evidence: Evidence
    label_errors: np.ndarray | None = None


def measure(
    predict: Predict,
    input_size: int,
    skeleton: Skeleton,
    reader: StoreReader,
    ranges: Sequence[tuple[ClipInfo, int, int]],
    labels: Labels | None = None,
) -> Measured:
    """Measure a model on parts of clips, and on labels; a score of zero where no frame has a mask."""
    predicted = predict_clips(predict, input_size, skeleton, reader, ranges, show_progress=False)
    found = measure_views(list(predicted), reader)
    metrics, evidence = {"free/score": 0.0, **measure_label_free(found, skeleton)[0]}, gather(found, skeleton)
    if labels is None or not len(labels):
        return Measured(metrics, evidence)
    errors = label_errors(predict, input_size, reader, labels)
    return Measured(
        {**metrics, "labels/error": float(np.nanmean(errors)), "labels/frames": len(errors)}, evidence, errors
    )


def eager(detector: nn.Module, skeleton: Skeleton, input_size: int, device: torch.device) -> Predict:
    """A detector in PyTorch as a function of crops."""
    module = CropsToKeypoints(detector, skeleton, input_size)

    def predict(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        training = detector.training
        detector.eval()
        with torch.inference_mode():
            keypoints, confidence = module(torch.from_numpy(np.ascontiguousarray(crops)).to(device))
        detector.train(training)
        return keypoints.float().cpu().numpy(), confidence.float().cpu().numpy()

    return predict


# ----------------------------------------------------------------------------------------------------------- promotion

COLLAPSE = 0.1  # of `free/score`: a model that loses more is not better, whatever a few labelled frames say


class Decision(NamedTuple):
    """What the gate said.

    Attributes:
        promoted: whether the new model is the current one now.
        before: metrics of the model that it was compared with: the current one, else what training started from.
        gate: {"reason"}, and where two models were compared {"difference", "low", "high"} in `free/score`.
    """

    promoted: bool
    before: dict[str, Any]
    gate: dict[str, Any]


def promote(
    bundle: Path,
    models: Path,
    new: Measured,
    skeleton: Skeleton,
    reader: StoreReader,
    ranges: Sequence[tuple[ClipInfo, int, int]],
    before: dict[str, Any],
    *,
    labels: Labels | None = None,
    force: bool = False,
) -> Decision:
    """Make a bundle `models/current` if it is better than the one there on the same frames; the old one is `previous`.

    Better is: the whole 95 % interval of the difference in `free/score` is above zero. A model that differs by less
    than the noise of the frames changes nothing for its users but costs them their trust, so it stays in its run.
    Where there are labels that the new one was not trained on, and the interval of their errors excludes zero, they
    decide: `free/score` knows neither left and right nor where in the body a joint is, and a model that people have
    mended covers masks a little worse. Only a model whose `free/score` collapses is refused all the same.
    """
    current = models / "current"
    better, gate, before = _compare(current, new, skeleton, reader, ranges, before, labels)
    if not better and not force:
        logger.warning(
            "%s: not promoted: %s; %s stays; --force-promote promotes it all the same", bundle, gate["reason"], current
        )
        return Decision(False, before, gate)
    publish(bundle, current, models / "previous")
    kept = f"; the one before is kept as {models / 'previous'}" if (models / "previous").exists() else ""
    forced = "" if better else ", forced"
    logger.info("%s: promoted to %s (%s%s)%s", bundle, current, gate["reason"], forced, kept)
    return Decision(True, before, gate)


def _compare(
    current: Path,
    new: Measured,
    skeleton: Skeleton,
    reader: StoreReader,
    ranges: Sequence[tuple[ClipInfo, int, int]],
    before: dict[str, Any],
    labels: Labels | None,
) -> tuple[bool, dict[str, Any], dict[str, Any]]:
    """Whether the new model may take the place of the current one, the gate, and what it was compared with."""
    if not current.exists():
        return True, {"reason": "the first model"}, before
    try:
        predictor = load_predictor(current)
    except (BundleError, ConfigError) as error:
        return True, {"reason": f"the current one cannot be used: {error}"}, before
    if predictor.skeleton.joints != skeleton.joints:
        return True, {"reason": f"the current one is of another skeleton, {predictor.skeleton.name}"}, before
    old = measure(predictor.predict_crops, predictor.input_size, skeleton, reader, ranges, labels)
    difference, low, high = compare_scores(new.evidence, old.evidence)
    scores = new.metrics["free/score"], old.metrics["free/score"]
    interval = f"difference {difference:+.3f}, 95 % {low:+.3f} to {high:+.3f}" if np.isfinite(low) else "too few frames"
    word = "better" if low > 0 else "worse" if high < 0 else "not better beyond noise"
    reason = (
        f"{word}: free/score {scores[0]:.3f}, the current model has {scores[1]:.3f} on the same frames ({interval})"
    )
    gate: dict[str, Any] = {"reason": reason, "difference": difference}
    if np.isfinite(low):
        gate |= {"low": low, "high": high}
    better = low > 0
    if new.label_errors is not None and old.label_errors is not None:
        closer, at_least, at_most = compare_label_errors(new.label_errors, old.label_errors)
        known = np.isfinite(at_least)
        between = f"95 % {at_least:+.4f} to {at_most:+.4f}" if known else "too few frames"
        gate["reason"] += (
            f"; {len(new.label_errors)} held-out labelled frames: error {new.metrics['labels/error']:.4f} of the crop, "
            f"the current model has {old.metrics['labels/error']:.4f} (closer by {closer:+.4f}, {between})"
        )
        gate["labels"] = {"difference": closer} | ({"low": at_least, "high": at_most} if known else {})
        verdict = "not decided by them" if at_least <= 0 <= at_most else "better" if at_least > 0 else "worse"
        gate["reason"] += f": {verdict}"
        if at_least > 0 or at_most < 0:
            better = at_least > 0 and difference > -COLLAPSE
    return better, gate, {"model": str(current), **old.metrics}


def publish(bundle: Path, current: Path, previous: Path) -> None:
    """Copy a bundle beside `current`, then exchange the two by renames."""
    current.parent.mkdir(parents=True, exist_ok=True)
    staging = current.with_name(f".{current.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(bundle, staging)
    if current.exists():
        shutil.rmtree(previous, ignore_errors=True)
        current.replace(previous)
    staging.replace(current)
