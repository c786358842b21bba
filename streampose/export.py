"""Write a trained detector as a bundle, and refuse one whose runtime does not answer as eager PyTorch does."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from streampose import __version__
from streampose.config import skeleton_from_dict
from streampose.console import logger
from streampose.errors import BundleError, ConfigError, StoreError, TrainingError
from streampose.export_lifter import export_lifter, lifts
from streampose.geometry.crop import shrink
from streampose.models.detector import build_detector
from streampose.runtime.bundle import INT8_FILE, MODEL_FILE, WEIGHTS_FILE, Bundle, load_bundle, write_bundle
from streampose.runtime.parity import PARITY_PX, difference_px, parity_crops
from streampose.runtime.predictor import choose_runtime, load_predictor
from streampose.runtime.quantise import quantise_int8
from streampose.runtime.torch import CropsToKeypoints, load_detector
from streampose.structures import Skeleton
from streampose.tracking.boxes import MARGIN
from streampose.training.checkpoint import find_checkpoint

OPSET = 17
CALIBRATION_CROPS, HELD_OUT_CROPS = 300, 100  # of a store: to quantise with, and to measure with


def export(
    *,
    run: Path,
    out: Path,
    runtime: str = "onnx",
    precision: str = "f32",
    store: Path | None = None,
    metrics: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Export the detector of a training run (the running average of its best checkpoint), or a bundle once more.

    Args:
        run: the run's folder, one of its checkpoints, or a bundle.
        out: the bundle's folder; a bundle that is there is replaced.
        runtime, precision: what the result is checked with; every runtime can open the bundle. `int8` adds a quantised
            graph to it.
        store: the crops that `int8` is calibrated with, and that precisions are compared on; None for ./store.zarr
            where there is one, else a pattern that is always the same (not for `int8`).
        metrics: what the evaluation of this run found, kept in the bundle.

    Returns:
        {"bundle", "runtime", "precision", "parity_px", "difference_px": {"median", "p95", "max"}}: how far x, y or z of
        a joint are from eager PyTorch, in crop pixels; `parity_px` is the largest difference for f32, else the median.
        A run or bundle of a lifter gives `parity_mm` instead, see `export_lifter`.

    Raises:
        TrainingError: there is no run, or it has no checkpoint.
        BundleError: the runtime answers otherwise than eager PyTorch; nothing is written then.
        ConfigError, StoreError: the runtime, the precision or the store.
    """
    out, run = Path(out), Path(run)
    if lifts(run):
        return export_lifter(run=run, out=out, runtime=runtime, precision=precision, metrics=metrics)
    read = _read_bundle if (run / "bundle.json").is_file() else _read_run
    detector, skeleton, input_size, described = read(run)
    if metrics is not None:
        described["metrics"] = metrics
    bundle, difference = export_and_compare(
        detector, skeleton, input_size, out,
        runtime=runtime, precision=precision, crops=_store_crops(store, input_size, precision), **described,
    )  # fmt: skip
    return {
        "bundle": str(bundle.path),
        "runtime": choose_runtime(precision) if runtime == "auto" else runtime,
        "precision": precision,
        "parity_px": _parity(difference, precision),
        "difference_px": difference,
    }


def export_detector(
    detector: nn.Module, skeleton: Skeleton, input_size: int, out: Path, **options: Any
) -> tuple[Bundle, float]:
    """Export a detector that is at hand: `export_and_compare` with `parity_px` as its second result."""
    bundle, difference = export_and_compare(detector, skeleton, input_size, out, **options)
    return bundle, _parity(difference, options.get("precision", "f32"))


def export_and_compare(
    detector: nn.Module,
    skeleton: Skeleton,
    input_size: int,
    out: Path,
    *,
    padding: float = MARGIN,
    method: str = "",
    preset: str = "",
    provenance: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    runtime: str = "onnx",
    precision: str = "f32",
    crops: np.ndarray | None = None,
) -> tuple[Bundle, dict[str, float]]:
    """Export a detector that is at hand; see `export`.

    Args:
        detector: (B, 3, S, S) in [0, 1] -> keypoints (B, K, 3) in [-1, 1], confidence (B, K).
        crops: (N, S, S, 3) uint8 of a store, the last `HELD_OUT_CROPS` of them to measure with.

    Returns:
        The bundle, and the difference between the runtime and eager PyTorch in crop pixels: {"median", "p95", "max"}.

    Raises:
        BundleError: the difference is too large, or `out` is something else than a bundle.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    module = CropsToKeypoints(detector, skeleton, input_size).cpu().eval()
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.export.", dir=out.parent))
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        write_onnx(module, folder / MODEL_FILE, input_size, skeleton.num_joints)
        int8 = None
        if precision == "int8":
            if crops is None:
                raise ConfigError("--precision int8: needs crops to calibrate with; name a store with --store")
            int8 = folder / INT8_FILE
            quantise_int8(folder / MODEL_FILE, int8, crops[:-HELD_OUT_CROPS] if len(crops) > 200 else crops)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        arguments: dict[str, Any] = {
            "model": folder / MODEL_FILE, "weights": folder / WEIGHTS_FILE, "int8": int8, "skeleton": skeleton,
            "input_size": input_size, "padding": padding, "method": method, "preset": preset, "metrics": metrics,
            "provenance": {"created": now, "streampose": __version__, **(provenance or {})}, "precision": precision,
        }  # fmt: skip
        trial = write_bundle(folder / "trial", **arguments)
        asked = parity_crops(input_size) if crops is None else crops[-HELD_OUT_CROPS:]
        difference = measure_difference(module, trial, runtime, precision, asked)
        if not _parity(difference, precision) <= PARITY_PX[precision]:
            raise BundleError(
                f"{out}: not exported: {runtime} {precision} differs from PyTorch by {_told(difference, precision)} "
                f"(at most {PARITY_PX[precision]} is accepted); try another --runtime or --precision"
            )
        bundle = write_bundle(out, **arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    on = "a pattern" if crops is None else "crops of the store"
    logger.info(f"{out}: exported; {runtime} {precision} is within {_told(difference, precision)} of PyTorch on {on}")
    return bundle, difference


def _parity(difference: dict[str, float], precision: str) -> float:
    return difference["max" if precision == "f32" else "median"]


def _told(difference: dict[str, float], precision: str) -> str:
    if precision == "f32":
        return f"{difference['max']:.3g} px"
    return f"{difference['median']:.3f} px in the median ({difference['p95']:.2f} px for 95 %)"


def _read_bundle(path: Path) -> tuple[nn.Module, Skeleton, int, dict[str, Any]]:
    """As `_read_run`, of what was exported before."""
    bundle = load_bundle(path)
    described = {
        "padding": bundle.padding, "method": bundle.method, "preset": bundle.preset, "provenance": bundle.provenance,
        "metrics": bundle.metrics,
    }  # fmt: skip
    return load_detector(bundle), bundle.skeleton, bundle.input_size, described


def _read_run(run: Path) -> tuple[nn.Module, Skeleton, int, dict[str, Any]]:
    """The detector of a run's best checkpoint, its skeleton and input size, and what else describes it."""
    checkpoint = find_checkpoint(run, best=True)
    run_dir = checkpoint.parent.parent
    settings = _read_settings(run_dir / "config.yaml")
    skeleton = skeleton_from_dict(settings["skeleton"], f"{run_dir / 'config.yaml'}: skeleton")
    input_size = int(settings["input_size"])
    detector = build_detector(settings["preset"], skeleton.num_joints, input_size)
    weights = {
        name.removeprefix("detector."): tensor
        for name, tensor in load_file(checkpoint / "ema.safetensors").items()
        if name.startswith("detector.")
    }
    try:
        detector.load_state_dict(weights)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:200]
        raise TrainingError(f"{checkpoint}: does not fit the run's config.yaml ({message})") from None
    return detector, skeleton, input_size, {
        "padding": float(settings.get("padding", MARGIN)), "method": str(settings["method"]),
        "preset": settings["preset"],
        "provenance": {"run": str(run_dir), "step": int(checkpoint.name.removeprefix("step_"))},
    }  # fmt: skip


def _store_crops(store: Path | None, size: int, precision: str) -> np.ndarray | None:
    """Crops of a store, in a random order that is always the same; None where no store is named or found."""
    from streampose.store.reader import StoreReader

    if store is None and (precision == "f32" or not Path("store.zarr").exists()):
        return None
    reader = StoreReader(store or Path("store.zarr"))
    frames = [(clip.id, n) for clip in reader.clips() for n in range(clip.num_frames)]
    if not frames:
        raise StoreError(f"{store}: holds no crops; `streampose ingest` some videos first")
    count = min(len(frames), CALIBRATION_CROPS + HELD_OUT_CROPS)
    chosen = np.random.default_rng(0).permutation(len(frames))[:count]
    crops = reader.read_many([frames[n] for n in chosen], masks=False).frames
    return np.stack([shrink(crop, (size, size)) for crop in crops])


def write_onnx(module: nn.Module, path: Path, input_size: int, num_joints: int) -> None:
    """Trace the module into an ONNX file: `crops` (B, S, S, 3) uint8 -> `keypoints`, `confidence`; B is dynamic."""
    example = torch.zeros(2, input_size, input_size, 3, dtype=torch.uint8)
    names = ["crops", "keypoints", "confidence"]
    with warnings.catch_warnings():  # the exporter without further packages is announced to go away one day
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            module, (example,), str(path), dynamo=False, opset_version=OPSET,
            input_names=names[:1], output_names=names[1:], dynamic_axes={name: {0: "batch"} for name in names},
        )  # fmt: skip
    graph = onnx.load(path)
    for value, shape in zip(graph.graph.output, ((num_joints, 3), (num_joints,)), strict=True):  # tracing loses them
        for dimension, size in zip(value.type.tensor_type.shape.dim[1:], shape, strict=True):
            dimension.dim_value = size
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


@torch.inference_mode()
def measure_difference(
    module: nn.Module, bundle: Bundle, runtime: str, precision: str, crops: np.ndarray
) -> dict[str, float]:
    """How far a runtime's keypoints are from the eager module's, in crop pixels: {"median", "p95", "max"}."""
    parts = [module(torch.from_numpy(crops[n : n + 16]))[0].numpy() for n in range(0, len(crops), 16)]
    found, _ = load_predictor(bundle.path, runtime, precision, fall_back=False).predict_crops(crops)
    return difference_px(found, np.concatenate(parts))


def _read_settings(path: Path) -> dict[str, Any]:
    """A run's config.yaml; the method's settings are found at the top or one level below."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise TrainingError(
            f"{path}: cannot be read ({error}); name a folder that `streampose selftrain` made"
        ) from None
    flat = {k: v for group in values.values() if isinstance(group, dict) for k, v in group.items()}
    settings = {**flat, **values}
    if missing := [key for key in ("method", "preset", "skeleton", "input_size") if key not in settings]:
        raise TrainingError(f"{path}: does not say {', '.join(missing)}; was it made by `streampose selftrain`?")
    return settings
