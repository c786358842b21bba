"""Write a lifter as a bundle that takes 2D joints, and refuse one whose runtime answers otherwise than PyTorch."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from streampose import __version__
from streampose.config import read_yaml, skeleton_from_dict
from streampose.console import logger
from streampose.errors import BundleError, ConfigError, TrainingError
from streampose.evaluation.lifted import LEAST_METRES
from streampose.models.lifter import JointsToPoses, build_lifter
from streampose.runtime.bundle import MODEL_FILE, WEIGHTS_FILE, Bundle, LifterPart, load_bundle, write_bundle
from streampose.runtime.lifter import Lifting, load_lifter
from streampose.runtime.torch import eager_lifter, load_lifter_network
from streampose.structures import Skeleton
from streampose.training.checkpoint import find_checkpoint

OPSET = 17
CALIBRATION_FILE = "calibration.json"  # in a run's folder, written when it was measured
PARITY_MM = 0.1  # between a runtime and eager PyTorch
TRIALS = 64
LIFTING_METHODS = ("hypotheses",)


def lifts(run: Path) -> bool:
    """Whether a run, a checkpoint or a bundle is of a lifter."""
    for folder in (run, run.parent.parent):  # a checkpoint lies two below its run
        if (folder / "bundle.json").is_file():
            return load_bundle(folder, None).kind == "lifter"
        if (folder / "config.yaml").is_file():
            return read_yaml(folder / "config.yaml").get("method") in LIFTING_METHODS
    return False


def neutral_part(lifter: nn.Module, num_joints: int) -> LifterPart:
    """What a lifter's bundle says before it was calibrated."""
    ones, code_size = [1.0] * num_joints, int(lifter.code_size)  # type: ignore[arg-type]
    return LifterPart(code_size=code_size, least_metres=LEAST_METRES, seen=ones, missing=ones)


def eager_lifting(lifter: nn.Module, skeleton: Skeleton, part: LifterPart | None = None) -> Lifting:
    """A lifter in PyTorch, as a bundle would lift."""
    return Lifting(eager_lifter(JointsToPoses(lifter)), skeleton, part or neutral_part(lifter, skeleton.num_joints))


def export_lifter(
    *, run: Path, out: Path, runtime: str = "onnx", precision: str = "f32", metrics: dict[str, float] | None = None
) -> dict[str, Any]:
    """Export the lifter of a run, or a bundle that lifts once more.

    Returns:
        {"bundle", "runtime", "precision", "parity_mm"}: the largest difference from eager PyTorch.

    Raises:
        TrainingError: no run, no checkpoint, or it did not come to its end, so that nothing is calibrated.
        BundleError: the runtime answers otherwise than PyTorch. ConfigError: a precision that lifters do not have.
    """
    if precision != "f32":
        raise ConfigError(f"--precision {precision}: lifters are exported in f32")
    run = Path(run)
    if (run / "bundle.json").is_file():
        bundle = load_bundle(run, "lifter")
        assert bundle.lifter is not None
        described: dict[str, Any] = {
            "skeleton": bundle.skeleton, "part": bundle.lifter, "method": bundle.method, "preset": bundle.preset,
            "provenance": bundle.provenance, "metrics": metrics or bundle.metrics,
        }  # fmt: skip
        return write_lifter(load_lifter_network(bundle), out, runtime=runtime, **described)
    checkpoint = find_checkpoint(run, best=True)
    run_dir = checkpoint.parent.parent
    values = read_yaml(run_dir / "config.yaml")
    skeleton = skeleton_from_dict(values.get("skeleton", {}), f"{run_dir / 'config.yaml'}: skeleton")
    lifter = build_lifter(values["preset"], skeleton)
    prefix = "detector."
    weights = load_file(checkpoint / "ema.safetensors")
    lifter.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in weights.items()})
    try:
        part = LifterPart.model_validate(json.loads((run_dir / CALIBRATION_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise TrainingError(
            f"{run_dir}: not calibrated yet; let it come to its end with `streampose selftrain --resume {run_dir}`"
        ) from None
    provenance = {"run": str(run_dir), "step": int(checkpoint.name.removeprefix("step_"))}
    return write_lifter(
        lifter, out, skeleton=skeleton, part=part, method=values["method"], preset=values["preset"],
        provenance=provenance, metrics=metrics, runtime=runtime,
    )  # fmt: skip


def write_lifter(
    lifter: nn.Module,
    out: Path,
    *,
    skeleton: Skeleton,
    part: LifterPart,
    method: str,
    preset: str,
    provenance: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    runtime: str = "onnx",
) -> dict[str, Any]:
    """Export a lifter that is at hand; see `export_lifter`."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    module = JointsToPoses(lifter).cpu().eval()
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.export.", dir=out.parent))
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in lifter.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        write_lifter_onnx(module, folder / MODEL_FILE, skeleton.num_joints, part.code_size)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        arguments: dict[str, Any] = {
            "model": folder / MODEL_FILE, "weights": folder / WEIGHTS_FILE, "skeleton": skeleton, "lifter": part,
            "input_size": 16, "padding": 0.0, "method": method, "preset": preset, "metrics": metrics,
            "provenance": {"created": now, "streampose": __version__, **(provenance or {})},
        }  # fmt: skip
        apart = measure_apart(module, write_bundle(folder / "trial", **arguments), runtime)
        if not apart <= PARITY_MM:
            raise BundleError(
                f"{out}: not exported: {runtime} differs from PyTorch by {apart:.3g} mm (at most {PARITY_MM} is "
                "accepted); try another --runtime"
            )
        bundle = write_bundle(out, **arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    logger.info(f"{out}: exported; {runtime} is within {apart:.3g} mm of PyTorch")
    return {"bundle": str(bundle.path), "runtime": runtime, "precision": "f32", "parity_mm": apart}


def write_lifter_onnx(module: JointsToPoses, path: Path, num_joints: int, code_size: int) -> None:
    """Trace the module into an ONNX file; the number of rows is dynamic."""
    example = torch.rand(2, num_joints, 2), torch.ones(2, num_joints), torch.zeros(2, code_size)
    names, answers = ["joints", "visibility", "codes"], ["poses", "placement"]
    with warnings.catch_warnings():  # as in export.py
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            module, example, str(path), dynamo=False, opset_version=OPSET, input_names=names, output_names=answers,
            dynamic_axes={name: {0: "rows"} for name in (*names, *answers)},
        )  # fmt: skip
    graph = onnx.load(path)
    for value, shape in zip(graph.graph.output, ((num_joints, 3), (3,)), strict=True):  # tracing loses them
        for dimension, size in zip(value.type.tensor_type.shape.dim[1:], shape, strict=True):
            dimension.dim_value = size
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def measure_apart(module: JointsToPoses, bundle: Bundle, runtime: str) -> float:
    """How far a runtime's poses are from the eager module's, in millimetres at most."""
    lifting = load_lifter(bundle.path, runtime)
    rng, K = np.random.default_rng(0), bundle.skeleton.num_joints
    joints, seen = rng.normal(100, 40, (TRIALS, K, 2)), (rng.random((TRIALS, K)) > 0.1).astype(float)
    found, _ = lifting.sample(joints, seen, lifting.codes(4))
    expected, _ = Lifting(eager_lifter(module), bundle.skeleton, lifting.part).sample(joints, seen, lifting.codes(4))
    return float(1000 * np.abs(found - expected).max())
