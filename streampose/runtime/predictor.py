"""Keypoints from images: boxes -> crops -> one of the runtimes -> source pixels. Imports torch only for `torch`."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from streampose.errors import BundleError, ConfigError
from streampose.geometry.crop import crop_resize, source_from_crop, square_box
from streampose.runtime.bundle import Bundle, load_bundle
from streampose.structures import Keypoints, Skeleton

# name: (module, class, the library that it needs); modules are imported when chosen, so that none drags in another.
RUNTIMES = {
    "onnx": ("streampose.runtime.onnx", "OnnxRuntime", "onnxruntime"),
    "openvino": ("streampose.runtime.openvino", "OpenVinoRuntime", "openvino"),
    "torch": ("streampose.runtime.torch", "TorchRuntime", "torch"),
}


class Runtime(Protocol):
    """What executes a bundle."""

    name: str

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8, B > 0 -> keypoints (B, K, 3) crop pixels, confidence (B, K)."""


def choose_runtime(precision: str = "f32") -> str:
    """The runtime that `auto` stands for.

    ONNX Runtime in f32: OpenVINO took twice as long there (it reorders memory around every GroupNorm). OpenVINO for
    other precisions, which ONNX Runtime does not have on a CPU, and where ONNX Runtime is missing.
    """
    installed = [name for name in ("onnx", "openvino") if importlib.util.find_spec(RUNTIMES[name][2])]
    if precision != "f32" and "openvino" in installed:
        return "openvino"
    return installed[0] if installed else "onnx"


def load_predictor(
    bundle_path: str | Path, runtime: str = "auto", precision: str = "f32", threads: int | None = None
) -> Predictor:
    """Open a bundle, start a runtime and run it once, so that the first frame is as fast as the others.

    Args:
        runtime: `onnx`, `openvino`, `torch`, or `auto` for the fastest one that is installed.
        precision: `f32`, or `bf16` (openvino, torch).
        threads: cores to use; None for all that this process may use.

    Raises:
        BundleError: the bundle is missing, damaged or does not run.
        ConfigError: no such runtime or precision, or its library is not installed.
    """
    chosen = choose_runtime(precision) if runtime == "auto" else runtime
    if chosen not in RUNTIMES:
        raise ConfigError(f"--runtime {runtime}: unknown; choose auto, {', '.join(RUNTIMES)}")
    module_name, class_name, library = RUNTIMES[chosen]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"--runtime {chosen}: {library} is not installed; `pip install {library}` or use --runtime auto"
        )
    bundle = load_bundle(bundle_path)
    module = importlib.import_module(module_name)
    if precision not in module.PRECISIONS:
        raise ConfigError(f"--precision {precision}: {chosen} can do {', '.join(module.PRECISIONS)}")
    predictor = Predictor(bundle, getattr(module, class_name)(bundle, precision, threads or available_cores()))
    predictor.predict_crops(np.zeros((1, bundle.input_size, bundle.input_size, 3), np.uint8))
    return predictor


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Predictor:
    """A bundle that is ready to run; numpy in, numpy out."""

    def __init__(self, bundle: Bundle, runtime: Runtime):
        self.bundle = bundle
        self.runtime = runtime

    @property
    def skeleton(self) -> Skeleton:
        return self.bundle.skeleton

    @property
    def input_size(self) -> int:
        """Side S of the crops in pixels."""
        return self.bundle.input_size

    @property
    def padding(self) -> float:
        """Share of a subject's box that is added on each side before it is cropped."""
        return self.bundle.padding

    def predict_crops(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints in crops.

        Args:
            crops: (B, S, S, 3) uint8 RGB; B may be zero.

        Returns:
            keypoints (B, K, 3) float32: x, y in crop pixels, z in crop pixels relative to the root; confidence (B, K).

        Raises:
            ValueError: another shape or type.
            BundleError: the model answers with numbers that are not finite.
        """
        S, K = self.input_size, self.skeleton.num_joints
        if crops.dtype != np.uint8 or crops.shape[1:] != (S, S, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}, expected uint8 (B, {S}, {S}, 3)")
        if not len(crops):
            return np.zeros((0, K, 3), np.float32), np.zeros((0, K), np.float32)
        keypoints, confidence = self.runtime.run(np.ascontiguousarray(crops))
        if not np.isfinite(keypoints).all():
            raise BundleError(f"{self.bundle.path}: the model answers with NaN; train or export it again")
        return keypoints, np.clip(confidence, 0.0, 1.0)

    def predict(self, image: np.ndarray, boxes: np.ndarray) -> Keypoints:
        """Keypoints of the subjects in these boxes, all in one batch.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) square boxes, padding included, edges in source pixels; may leave the image.

        Returns:
            Keypoints of N subjects in source pixels.
        """
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        crops = np.zeros((len(boxes), self.input_size, self.input_size, 3), np.uint8)
        for crop, box in zip(crops, boxes, strict=True):
            crop[:] = crop_resize(image, box, self.input_size)
        return self.to_source(*self.predict_crops(crops), boxes)

    def predict_views(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[Keypoints]:
        """Keypoints of the subjects in several images, all in one batch.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: for each image (N, 4), as for `predict`.
        """
        if len(images) == 1:
            return [self.predict(images[0], boxes[0])]
        crops = [
            crop_resize(image, box, self.input_size) for image, some in zip(images, boxes, strict=True) for box in some
        ]
        S = self.input_size
        keypoints, confidence = self.predict_crops(np.stack(crops) if crops else np.zeros((0, S, S, 3), np.uint8))
        ends = np.cumsum([len(some) for some in boxes])[:-1]
        parts = zip(np.split(keypoints, ends), np.split(confidence, ends), boxes, strict=True)
        return [
            self.to_source(points, sure, np.asarray(some, np.float32).reshape(-1, 4)) for points, sure, some in parts
        ]

    def to_source(self, keypoints: np.ndarray, confidence: np.ndarray, boxes: np.ndarray) -> Keypoints:
        """Map what `predict_crops` returned from crop pixels to source pixels: (B, K, 3), (B, K), (B, 4) boxes."""
        xy = source_from_crop(keypoints[..., 0:2], boxes, self.input_size).astype(np.float32)
        scale = (boxes[:, None, 2] - boxes[:, None, 0]) / self.input_size
        return Keypoints(xy, confidence, (keypoints[..., 2] * scale).astype(np.float32))


def box_from_keypoints(
    xy: np.ndarray, confidence: np.ndarray, skeleton: Skeleton, padding: float, *, min_confidence: float = 0.1
) -> np.ndarray | None:
    """The square box to look at in the next frame, given one subject's keypoints in this one.

    The flesh around the joints counts: each joint is as thick as the thickest bone that meets it.

    Args:
        xy: (K, 2) source pixels.
        confidence: (K,); joints below `min_confidence` are left out.
        padding: the share to add a side, `Predictor.padding`.

    Returns:
        (4,) xyxy edges in source pixels, or None where fewer than half of the joints are seen.
    """
    seen = (confidence >= min_confidence) & np.isfinite(xy).all(-1)
    if 2 * seen.sum() < len(seen):
        return None
    parents, children = np.array([[bone.parent, bone.child] for bone in skeleton.bones]).T
    radius = np.zeros(len(xy), np.float32)
    for bone in skeleton.bones:
        radius[[bone.parent, bone.child]] = np.maximum(radius[[bone.parent, bone.child]], bone.radius)
    known = seen[parents] & seen[children]
    lengths = np.linalg.norm(xy[parents[known]] - xy[children[known]], axis=-1)
    # Foreshortening only makes bones shorter, so the size of the subject is read from the long ones.
    ratios = lengths / np.array([bone.length for bone, use in zip(skeleton.bones, known, strict=True) if use])
    thickness = radius * (np.quantile(ratios, 0.75) if len(ratios) else 0.0)
    low = (xy - thickness[:, None])[seen].min(0) + 0.5
    high = (xy + thickness[:, None])[seen].max(0) + 0.5
    side = float((high - low).max())
    return square_box(np.concatenate([low, high]), padding) if side >= 1.0 else None
