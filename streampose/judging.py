"""How the networks of a method are measured, exported and promoted: one judge for each kind of model.

Detectors are measured label-free on frames that were held out, and become `models/current`. Lifters are measured on
held-out poses of the prior, as random cameras see them, and become `models/lifter`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from streampose.console import logger
from streampose.errors import BundleError, ConfigError
from streampose.evaluation.lifted import LiftedMeasured, calibrate, compare_lifted, measure_lifter, photograph
from streampose.export import export
from streampose.export_lifter import CALIBRATION_FILE, eager_lifting, export_lifter
from streampose.promotion import Decision, Measured, choose_held_out, eager, limit, measure, promote, publish
from streampose.runtime.bundle import LifterPart
from streampose.runtime.lifter import load_lifter
from streampose.store.labels import Labels
from streampose.store.reader import ClipInfo, StoreReader
from streampose.structures import Skeleton
from streampose.training.checkpoint import write_json

MAX_HELD_OUT = 600  # frames that are measured after training, and of them at every checkpoint:
MAX_SCORED = 96
MAX_VIEWS = 300  # of held-out poses, that a lifter is measured on
MAX_CALIBRATING = 800  # poses of the prior that say how far true joints are off
LIFTER = "lifter"  # in the folder of models


class Judge(Protocol):
    """What self-training needs to know of the models that a method makes.

    Attributes:
        score_name: of the metric by which models are compared; higher is better.
    """

    score_name: str

    def score(self, network: nn.Module) -> float:
        """`score_name` on a few of the samples, for checkpoints."""
        ...

    def measure(self, network: nn.Module) -> Any:
        """An object whose `metrics` are {name: value}."""
        ...

    def export(self, checkpoint: Path, out: Path, metrics: dict[str, float]) -> dict[str, Any]:
        """Write the bundle; what `export` returns."""
        ...

    def promote(self, bundle: Path, models: Path, new: Any, before: dict[str, Any], *, force: bool) -> Decision:
        """Make it the current model of its kind if it is better."""
        ...


class DetectorJudge:
    """Of models that find joints in pictures; those that learn from labels are measured on held-out ones too."""

    score_name = "free/score"

    def __init__(self, task: Any, whole: StoreReader, skeleton: Skeleton, settings: Any, device: torch.device):
        self._whole, self._skeleton, self._size, self._device = whole, skeleton, settings.input_size, device
        held_out = choose_held_out(whole.clips())
        self._measured = limit(held_out or [(clip, 0, clip.num_frames) for clip in whole.clips()], MAX_HELD_OUT)
        self._scored = limit(self._measured, MAX_SCORED)
        self._labels = held_out_labels(whole, held_out, skeleton, settings)
        if not held_out:
            logger.warning("%s: too short to hold frames out; measured on frames that it is trained on", whole.path)

    def score(self, network: nn.Module) -> float:
        return self._measure(network, self._scored).evidence.score()

    def measure(self, network: nn.Module) -> Measured:
        return self._measure(network, self._measured, self._labels)

    def _measure(self, network: nn.Module, ranges: list, labels: Labels | None = None) -> Measured:
        predict = eager(network, self._skeleton, self._size, self._device)
        return measure(predict, self._size, self._skeleton, self._whole, ranges, labels)

    def export(self, checkpoint: Path, out: Path, metrics: dict[str, float]) -> dict[str, Any]:
        return export(run=checkpoint, out=out, metrics=metrics)

    def promote(self, bundle: Path, models: Path, new: Measured, before: dict[str, Any], *, force: bool) -> Decision:
        return promote(
            bundle, models, new, self._skeleton, self._whole, self._measured, before, labels=self._labels, force=force
        )


def held_out_labels(
    whole: StoreReader, held_out: list[tuple[ClipInfo, int, int]], skeleton: Skeleton, settings: Any
) -> Labels | None:
    """Labels of the sets that a run learns from, of the frames that are held out; None where there are none."""
    names = getattr(getattr(settings, "supervision", None), "labels", [])
    if not names or not held_out:
        return None
    first = {clip.id: start for clip, start, _ in held_out}
    labels = whole.labels(names).for_skeleton(skeleton).merged()
    late = [f >= first.get(c, f + 1) for c, f in zip(labels.clip.tolist(), labels.frame.tolist(), strict=True)]
    labels = labels.pick(np.flatnonzero(np.array(late, bool) & (labels.visibility > 0).any(1)))
    return labels if len(labels) else None


class LifterJudge:
    """Of models that lift 2D joints."""

    score_name = "score"

    def __init__(self, task: Any, whole: StoreReader, skeleton: Skeleton, settings: Any, device: torch.device):
        self._skeleton, examples = skeleton, task.examples
        cameras = {name: getattr(settings, name) for name in ("elevation_degrees", "roll_degrees", "distance", "noise")}
        self._scored = photograph(examples.test, skeleton, MAX_SCORED, settings.seed, **cameras)
        self._measured = photograph(examples.test, skeleton, MAX_VIEWS, settings.seed, **cameras)
        self._calibrating = photograph(examples.train, skeleton, MAX_CALIBRATING, settings.seed + 1, **cameras)
        self._part: LifterPart | None = None

    def score(self, network: nn.Module) -> float:
        lifting = eager_lifting(network, self._skeleton)
        return measure_lifter(lifting, self._scored, thorough=False).metrics["score"]

    def measure(self, network: nn.Module) -> LiftedMeasured:
        """As a bundle will lift: calibrated on poses that were trained with, measured on those held out."""
        self._part = calibrate(eager_lifting(network, self._skeleton), self._calibrating)
        return measure_lifter(eager_lifting(network, self._skeleton, self._part), self._measured)

    def export(self, checkpoint: Path, out: Path, metrics: dict[str, float]) -> dict[str, Any]:
        assert self._part is not None, "measured before"
        write_json(checkpoint.parent.parent / CALIBRATION_FILE, self._part.model_dump())
        return export_lifter(run=checkpoint, out=out, metrics=metrics)

    def promote(
        self, bundle: Path, models: Path, new: LiftedMeasured, before: dict[str, Any], *, force: bool
    ) -> Decision:
        current = models / LIFTER
        better, gate, before = self._compare(current, new, before)
        if not better and not force:
            logger.warning(
                "%s: not promoted: %s; %s stays; --force-promote promotes it all the same",
                bundle, gate["reason"], current,
            )  # fmt: skip
            return Decision(False, before, gate)
        publish(bundle, current, models / f"previous-{LIFTER}")
        logger.info("%s: promoted to %s (%s%s)", bundle, current, gate["reason"], "" if better else ", forced")
        return Decision(True, before, gate)

    def _compare(
        self, current: Path, new: LiftedMeasured, before: dict[str, Any]
    ) -> tuple[bool, dict[str, Any], dict[str, Any]]:
        if not current.exists():
            return True, {"reason": "the first lifter"}, before
        try:
            lifting = load_lifter(current)
        except (BundleError, ConfigError) as error:
            return True, {"reason": f"the current one cannot be used: {error}"}, before
        if lifting.skeleton.joints != self._skeleton.joints:
            return True, {"reason": f"the current one is of another skeleton, {lifting.skeleton.name}"}, before
        old = measure_lifter(lifting, self._measured)
        difference, low, high = compare_lifted(new, old)
        word = "better" if low > 0 else "worse" if high < 0 else "not better beyond noise"
        errors = new.metrics["pa_mpjpe_mm"], old.metrics["pa_mpjpe_mm"]
        interval = f"95 % {low:+.1f} to {high:+.1f}" if np.isfinite(low) else "too few groups of poses"
        reason = (
            f"{word}: PA-MPJPE {errors[0]:.1f} mm on held-out poses, the current lifter has {errors[1]:.1f} mm "
            f"(difference {difference:+.1f} mm, {interval})"
        )
        gate: dict[str, Any] = {"reason": reason, "difference": difference}
        if np.isfinite(low):
            gate |= {"low": low, "high": high}
        return low > 0, gate, {"model": str(current), **old.metrics}
