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
from torch import Tensor, nn

from streampose import __version__
from streampose.config import skeleton_from_dict
from streampose.console import logger
from streampose.errors import BundleError, TrainingError
from streampose.models.detector import build_detector
from streampose.runtime.bundle import MODEL_FILE, WEIGHTS_FILE, Bundle, write_bundle
from streampose.runtime.predictor import choose_runtime, load_predictor
from streampose.runtime.torch import CropsToKeypoints
from streampose.structures import Skeleton
from streampose.tracking.boxes import MARGIN
from streampose.training.checkpoint import find_checkpoint

OPSET = 17
PARITY_CROPS = 8
PARITY_PX = {"f32": 0.1, "bf16": 2.0}  # largest difference to eager PyTorch in crop pixels


def export(
    *,
    run: Path,
    out: Path,
    runtime: str = "onnx",
    precision: str = "f32",
    metrics: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Export the detector of a training run (the running average of its best checkpoint).

    Args:
        run: the run's folder, or one of its checkpoints.
        out: the bundle's folder; a bundle that is there is replaced.
        runtime, precision: what the parity is checked with; every runtime can open the bundle.
        metrics: what the evaluation of this run found, kept in the bundle.

    Returns:
        {"bundle", "runtime", "precision", "parity_px"}.

    Raises:
        TrainingError: there is no run, or it has no checkpoint.
        BundleError: the runtime answers otherwise than eager PyTorch; nothing is written then.
    """
    checkpoint = find_checkpoint(Path(run), best=True)
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
    bundle, parity_px = export_detector(
        detector, skeleton, input_size, out,
        padding=float(settings.get("padding", MARGIN)), method=str(settings["method"]), preset=settings["preset"],
        provenance={"run": str(run_dir), "step": int(checkpoint.name.removeprefix("step_"))},
        metrics=metrics, runtime=runtime, precision=precision,
    )  # fmt: skip
    return {
        "bundle": str(bundle.path),
        "runtime": choose_runtime(precision) if runtime == "auto" else runtime,
        "precision": precision,
        "parity_px": parity_px,
    }


def export_detector(
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
) -> tuple[Bundle, float]:
    """Export a detector that is at hand; see `export`.

    Args:
        detector: (B, 3, S, S) in [0, 1] -> keypoints (B, K, 3) in [-1, 1], confidence (B, K).

    Returns:
        The bundle, and the largest difference between the runtime and eager PyTorch in crop pixels.

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
        now = datetime.now(UTC).isoformat(timespec="seconds")
        arguments: dict[str, Any] = {
            "model": folder / MODEL_FILE, "weights": folder / WEIGHTS_FILE, "skeleton": skeleton,
            "input_size": input_size, "padding": padding, "method": method, "preset": preset, "metrics": metrics,
            "provenance": {"created": now, "streampose": __version__, **(provenance or {})},
        }  # fmt: skip
        trial = write_bundle(folder / "trial", **arguments)
        parity_px = measure_parity(module, trial, runtime, precision)
        if not parity_px <= PARITY_PX[precision]:
            raise BundleError(
                f"{out}: not exported: {runtime} {precision} differs from PyTorch by {parity_px:.3f} px "
                f"(at most {PARITY_PX[precision]} is accepted); try another --runtime or --precision"
            )
        bundle = write_bundle(out, **arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    logger.info(f"{out}: exported, {runtime} {precision} within {parity_px:.2g} px of PyTorch")
    return bundle, parity_px


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
def measure_parity(module: nn.Module, bundle: Bundle, runtime: str, precision: str) -> float:
    """The largest difference of x, y or z between a runtime and the eager module, in crop pixels."""
    S = bundle.input_size
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(PARITY_CROPS, 3, 8, 8, generator=random)
    images = nn.functional.interpolate(coarse, (S, S), mode="bilinear")
    images = (images + 0.1 * torch.randn(images.shape, generator=random)).clamp(0, 1)
    crops: Tensor = (images * 255).byte().permute(0, 2, 3, 1).contiguous()
    expected = module(crops)[0].numpy()
    found, _ = load_predictor(bundle.path, runtime, precision).predict_crops(crops.numpy())
    return float(np.abs(found - expected).max())


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
