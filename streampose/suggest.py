"""Choose the frames of a store that are worth labelling and write them as a package for a labelling tool."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import ConfigError, StoreError
from streampose.formats.coco import VISIBLE_CONFIDENCE
from streampose.labelling.choose import Candidates, choose_frames, gather_candidates
from streampose.labelling.package import SIDE, write_package
from streampose.runtime.bundle import default_bundle
from streampose.runtime.predictor import load_predictor
from streampose.store.labels import Labels
from streampose.store.reader import StoreReader


def suggest(
    *,
    store: Path | str = Path("store.zarr"),
    frames: int = 50,
    tool: str = "label-studio",
    out: Path = Path("to-label"),
    model: Path | None = None,
    runtime: str = "auto",
    side: int = SIDE,
    at_random: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Choose frames that the model gets wrong and that differ, and write pictures and predictions to correct.

    Frames that have labels in the store are not chosen again, nor what looks like them.

    Args:
        frames: how many.
        tool: one of `labelling.package.TOOLS`.
        out: folder of the package; must be empty.
        model, runtime: the bundle (None for the current model, else the shipped one) and how to run it.
        side: of the pictures in pixels.
        at_random: any frames, to compare with.

    Returns:
        {"out", "tool", "frames": how many, "looked_at", "clips": in how many clips they are, "confidence": mean of
        the chosen ones, "confidence_of_all", "files": name -> path, "seconds"}

    Raises:
        StoreError: no store, or no frame left to label. BundleError: no model. ConfigError: unknown tool, a folder
            that is not empty, or a wrong number.
    """
    began = time.monotonic()
    if frames < 1:
        raise ConfigError(f"--frames {frames}: choose at least one")
    reader = StoreReader(store)
    predictor = load_predictor(model or default_bundle(), runtime)
    if not reader.clips():
        raise StoreError(f"{reader.name}: no clips in it; ingest videos that show a subject first")
    candidates = gather_candidates(predictor.predict_crops, predictor.input_size, predictor.skeleton, reader)
    labels = reader.labels()
    labelled = list(zip(labels.clip.tolist(), labels.frame.tolist(), strict=True))
    if at_random:
        known = set(labelled)
        free = [i for i, at in enumerate(zip(candidates.clip, candidates.frame, strict=True)) if at not in known]
        chosen = np.random.default_rng(seed).permutation(free)[:frames].astype(int)
    else:
        chosen = choose_frames(candidates, frames, labelled)
    if not len(chosen):
        raise StoreError(f"{reader.name}: every frame has labels already")
    predictions = to_correct(candidates, chosen, predictor.skeleton.joints)
    reasons = [
        {"clip": str(candidates.clip[i]), "frame": int(candidates.frame[i]), **_measures(candidates, int(i))}
        for i in chosen
    ]
    files = write_package(
        Path(out), reader, predictions, tool, side=side, confidence=candidates.confidence[chosen],
        notes={"frames": reasons},
    )  # fmt: skip
    return {
        "out": str(out), "tool": tool, "frames": len(chosen), "looked_at": len(candidates),
        "clips": len(set(candidates.clip[chosen].tolist())),
        "confidence": float(candidates.confidence[chosen].mean()),
        "confidence_of_all": float(candidates.confidence.mean()), "files": files,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def to_correct(candidates: Candidates, chosen: np.ndarray, joints: tuple[str, ...]) -> Labels:
    """What the model says of some candidates, in the form of labels."""
    seen = np.where(candidates.confidence[chosen] >= VISIBLE_CONFIDENCE, 2, 1).astype(np.uint8)
    keypoints = candidates.keypoints[chosen].astype(np.float32)
    who = np.full(len(chosen), "")  # the tool, or `labels import --who`, says who corrected them
    return Labels(candidates.clip[chosen], candidates.frame[chosen], keypoints, seen, who, joints)


def _measures(candidates: Candidates, i: int) -> dict[str, float | None]:
    values = {name: float(of[i]) for name, of in candidates.measures.items()}
    return {name: round(value, 4) if np.isfinite(value) else None for name, value in values.items()}
