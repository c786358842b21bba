"""Keypoints from images: boxes -> crops -> one of the runtimes -> source pixels. Imports torch only for `torch`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from streampose.console import logger
from streampose.errors import BundleError, ConfigError
from streampose.geometry.crop import crop_boxes, source_from_crop, square_box
from streampose.runtime.bundle import Bundle, load_bundle
from streampose.structures import Keypoints, Skeleton

# name: (module, class, the libraries of which it needs one); modules are imported when chosen, so that none drags in
# another.
RUNTIMES = {
    "onnx": ("streampose.runtime.onnx", "OnnxRuntime", ("onnxruntime",)),
    "openvino": ("streampose.runtime.openvino", "OpenVinoRuntime", ("openvino",)),
    "tensorrt": ("streampose.runtime.tensorrt", "TensorRtRuntime", ("tensorrt", "tensorrt_rtx")),
    "torch": ("streampose.runtime.torch", "TorchRuntime", ("torch",)),
    "torch-compile": ("streampose.runtime.torch", "CompiledTorchRuntime", ("torch",)),
}
QUICK_SECONDS = 0.002
FALL_BACK = {"tensorrt": "onnx", "torch-compile": "torch"}  # where the machine cannot do it; said aloud


class Runtime(Protocol):
    """What executes a bundle. One that can also crop by itself has `run_frame`, see `runtime.tensorrt`."""

    name: str

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8, B > 0 -> keypoints (B, K, 3) crop pixels, confidence (B, K)."""


def installed(runtime: str) -> bool:
    """Whether a library that the runtime needs is installed."""
    return any(importlib.util.find_spec(library) for library in RUNTIMES[runtime][2])


def choose_runtime(precision: str = "f32") -> str:
    """The runtime that `auto` stands for.

    ONNX Runtime in f32: OpenVINO took twice as long there (it reorders memory around every GroupNorm). OpenVINO for
    other precisions on a CPU, where it is up to twice as fast, and where ONNX Runtime is missing. TensorRT for f16.
    """
    if precision == "f16":
        return "tensorrt"
    found = [name for name in ("onnx", "openvino") if installed(name)]
    if precision != "f32" and "openvino" in found:
        return "openvino"
    return found[0] if found else "onnx"


def load_predictor(
    bundle_path: str | Path,
    runtime: str = "auto",
    precision: str = "f32",
    threads: int | None = None,
    *,
    fall_back: bool = True,
) -> Predictor:
    """Open a bundle, start a runtime and run it once, so that the first frame is as fast as the others.

    Args:
        runtime: `onnx`, `openvino`, `tensorrt`, `torch`, `torch-compile`, or `auto` for the fastest one on a CPU.
        precision: `f32`, `bf16` (openvino, torch), `f16` (tensorrt, torch on a GPU) or `int8` (onnx, openvino,
            tensorrt; bundles that were exported for it).
        threads: cores to use; None for one where a crop takes it less than `QUICK_SECONDS` (more threads would only
            wait for each other), else for all that this process may use, if that is faster.
        fall_back: where `tensorrt` or `torch-compile` cannot be used here, say so and go on with `onnx` or `torch`;
            otherwise that is an error.

    Raises:
        BundleError: the bundle is missing, damaged or does not run.
        ConfigError: no such runtime or precision, or its library is not installed.
    """
    chosen = choose_runtime(precision) if runtime == "auto" else runtime
    if chosen not in RUNTIMES:
        raise ConfigError(f"--runtime {runtime}: unknown; choose auto, {', '.join(RUNTIMES)}")
    bundle = load_bundle(bundle_path)
    bundle.graph_path(precision)
    try:
        return _start(bundle, chosen, precision, threads)
    except (ConfigError, BundleError, RuntimeError) as error:
        if chosen not in FALL_BACK or not fall_back:
            raise
        module = importlib.import_module(RUNTIMES[FALL_BACK[chosen]][0])
        other = precision if precision in module.PRECISIONS else "f32"
        logger.warning(f"--runtime {chosen}: {error}; going on with {FALL_BACK[chosen]} {other}")
        return _start(bundle, FALL_BACK[chosen], other, threads)


def _start(bundle: Bundle, runtime: str, precision: str, threads: int | None) -> Predictor:
    """Start a runtime and run it once; without a number of threads, with as many as are fastest."""
    cores = available_cores()
    if threads is not None or cores == 1 or runtime not in ("onnx", "openvino"):
        return _start_with(bundle, runtime, precision, threads or cores)
    single = _start_with(bundle, runtime, precision, 1)
    seconds = _seconds_a_crop(single)
    if seconds < QUICK_SECONDS:
        return single
    many = _start_with(bundle, runtime, precision, cores)
    return many if _seconds_a_crop(many) < seconds else single


def _seconds_a_crop(predictor: Predictor) -> float:
    """The quickest of a few runs with one crop."""
    crop = np.zeros((1, predictor.input_size, predictor.input_size, 3), np.uint8)
    best = np.inf
    for _ in range(5):
        began = time.perf_counter()
        predictor.predict_crops(crop)
        best = min(best, time.perf_counter() - began)
    return best


def _start_with(bundle: Bundle, runtime: str, precision: str, threads: int) -> Predictor:
    module_name, class_name, libraries = RUNTIMES[runtime]
    if not installed(runtime):
        raise ConfigError(
            f"--runtime {runtime}: {libraries[0]} is not installed; `pip install {libraries[0]}` or use --runtime auto"
        )
    module = importlib.import_module(module_name)
    if precision not in module.PRECISIONS:
        raise ConfigError(f"--precision {precision}: {runtime} can do {', '.join(module.PRECISIONS)}")
    predictor = Predictor(bundle, getattr(module, class_name)(bundle, precision, threads), precision)
    predictor.predict_crops(np.zeros((1, bundle.input_size, bundle.input_size, 3), np.uint8))
    return predictor


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Predictor:
    """A bundle that is ready to run; numpy in, numpy out. Several threads may share one: they wait for each other.

    Attributes:
        runtime, precision: what it really runs with, also after falling back.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, precision: str = "f32"):
        self.bundle = bundle
        self.runtime = runtime
        self.precision = precision
        self._lock = threading.Lock()
        self._crops = np.zeros((0, bundle.input_size, bundle.input_size, 3), np.uint8)

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
        S = self.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (S, S, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}, expected uint8 (B, {S}, {S}, 3)")
        if not len(crops):
            return self._nothing()
        with self._lock:
            return self._checked(self.runtime.run(np.ascontiguousarray(crops)))

    def predict(self, image: np.ndarray, boxes: np.ndarray) -> Keypoints:
        """Keypoints of the subjects in these boxes, all in one batch.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) square boxes, padding included, edges in source pixels; may leave the image.

        Returns:
            Keypoints of N subjects in source pixels.

        Raises:
            ValueError: a box is empty.
            BundleError: the model answers with numbers that are not finite.
        """
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if not len(boxes):
            return self.to_source(*self._nothing(), boxes)
        run_frame = getattr(self.runtime, "run_frame", None)
        with self._lock:
            answer = run_frame(np.ascontiguousarray(image), boxes) if run_frame else None
            if answer is None:
                answer = self.runtime.run(crop_boxes(image, boxes, self._buffer(len(boxes))))
        return self.to_source(*self._checked(answer), boxes)

    def predict_views(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[Keypoints]:
        """Keypoints of the subjects in several images, all in one batch.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: for each image (N, 4), as for `predict`.
        """
        some = [np.asarray(part, np.float32).reshape(-1, 4) for part in boxes]
        if len(images) < 2 or hasattr(self.runtime, "run_frame"):
            return [self.predict(image, part) for image, part in zip(images, some, strict=True)]
        ends = np.cumsum([0, *(len(part) for part in some)])
        with self._lock:
            crops = self._buffer(int(ends[-1]))
            for image, part, start in zip(images, some, ends, strict=False):
                crop_boxes(image, part, crops[start : start + len(part)])
            answer = self._checked(self.runtime.run(crops)) if len(crops) else self._nothing()
        parts = zip(np.split(answer[0], ends[1:-1]), np.split(answer[1], ends[1:-1]), some, strict=True)
        return [self.to_source(keypoints, confidence, part) for keypoints, confidence, part in parts]

    def _buffer(self, count: int) -> np.ndarray:
        """(count, S, S, 3) to crop into; used again by the next call."""
        if len(self._crops) < count:
            self._crops = np.zeros((count, *self._crops.shape[1:]), np.uint8)
        return self._crops[:count]

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        K = self.skeleton.num_joints
        return np.zeros((0, K, 3), np.float32), np.zeros((0, K), np.float32)

    def _checked(self, answer: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        keypoints, confidence = answer
        if not np.isfinite(keypoints).all():
            raise BundleError(f"{self.bundle.path}: the model answers with NaN; train or export it again")
        return keypoints, np.clip(confidence, 0.0, 1.0)

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
