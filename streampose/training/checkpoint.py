"""Checkpoints: folders of safetensors and JSON that appear whole or not at all, even after `kill -9` or a full disk.

    run_dir/checkpoints/step_00000400/
        model.safetensors      every tensor of the task's networks, named <network>.<tensor>
        ema.safetensors        the running average of the detector, named detector.<tensor>
        optimiser.safetensors  the optimiser's tensors, named <parameter>|<slot>
        state.json             step, seed, plan, precision, scalars of the optimiser
    run_dir/checkpoints/scores.json   {"best", "last": {"step", "score"}}: label-free scores, higher is better

Nothing is pickled, so a run from a stranger is safe to open.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from streampose.errors import TrainingError
from streampose.files import write_text

KEPT = 2  # the newest checkpoints; the best one is kept beside them
CLEARLY_BETTER = 0.05  # in label-free score: less than that does not speak for an older checkpoint
FILES = ("model.safetensors", "ema.safetensors", "optimiser.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read back.

    Attributes:
        folder: where it lies.
        model: tensors of all networks, `<network>.<tensor>`.
        ema: running average of the detector, `detector.<tensor>`.
        optimiser: tensors of the optimiser, `<parameter>|<slot>`.
        state: step, seed, plan and the like.
    """

    folder: Path
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    run_dir: Path,
    step: int,
    networks: nn.ModuleDict,
    ema: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Path:
    """Write the state after `step` steps as one folder, then drop older ones (the newest two and the best are kept).

    Args:
        ema: `detector.<tensor>` of the running average.
        state: JSON values that a resumed run needs besides the tensors.

    Returns:
        The folder, which exists only if every byte of it is on the disk.

    Raises:
        TrainingError: the disk is full or not writable; the checkpoint before stays.
    """
    root = run_dir / "checkpoints"
    folder, temporary = root / f"step_{step:08d}", root / f".step_{step:08d}.writing"
    tensors, groups = _optimiser_to_tensors(optimiser, networks)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_savable(networks.state_dict()), temporary / "model.safetensors")
        save_file(_savable(ema), temporary / "ema.safetensors")
        save_file(_savable(tensors), temporary / "optimiser.safetensors")
        text = json.dumps({**state, "step": step, "optimiser_groups": groups}, indent=1)
        (temporary / "state.json").write_text(text, encoding="utf-8")
        for name in FILES:
            _sync(temporary / name)
        _sync(temporary)
        if folder.exists():  # written before a resume from an older step: move it away, then publish
            replaced = root / f".step_{step:08d}.replaced"
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
            temporary.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            temporary.rename(folder)
        _sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(
            f"{folder}: the checkpoint cannot be written ({error}); free some space and continue with --resume"
        ) from None
    _drop_old(root)
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder, or the newest one of a run.

    Raises:
        TrainingError: there is none, or a file of it is missing or damaged.
    """
    folder = find_checkpoint(folder)
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        model, ema, optimiser = (load_file(folder / name) for name in FILES[:3])
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{folder}: the checkpoint is damaged ({error}); remove it to use the one before") from None
    return Checkpoint(folder, model, ema, optimiser, state)


def find_checkpoint(folder: Path, *, best: bool = False) -> Path:
    """The newest checkpoint of a run; a checkpoint folder is returned as it is.

    Args:
        best: take an older one whose label-free score is clearly better. Small differences say little, because the
            later stages of a method change what they trade against each other.

    Raises:
        TrainingError: there is none.
    """
    folder = Path(folder)
    if (folder / "state.json").is_file():
        return folder
    found = _complete(folder / "checkpoints")
    if not found:
        raise TrainingError(f"{folder}: no checkpoint in it; name a folder that `streampose selftrain` made")
    scores = read_scores(folder)
    if best and "best" in scores and scores["last"]["step"] == _step_of(found[-1]):
        chosen = folder / "checkpoints" / f"step_{scores['best']['step']:08d}"
        if chosen in found and scores["best"]["score"] > scores["last"]["score"] + CLEARLY_BETTER:
            return chosen
    return found[-1]


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run can be resumed."""
    return bool(_complete(Path(run_dir) / "checkpoints"))


def restore(
    checkpoint: Checkpoint, networks: nn.ModuleDict, ema: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's tensors back into the networks, the running average and the optimiser, in place.

    Raises:
        TrainingError: the run's networks are other ones.
    """
    expected = networks.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in checkpoint.model]
    problems += [f"{name} is not of this model" for name in checkpoint.model if name not in expected]
    problems += [
        f"{name} is {tuple(checkpoint.model[name].shape)} there and {tuple(tensor.shape)} here"
        for name, tensor in expected.items()
        if name in checkpoint.model and checkpoint.model[name].shape != tensor.shape
    ]
    if problems:
        raise TrainingError(
            f"{checkpoint.folder}: made with another configuration ({'; '.join(problems[:3])}); "
            "resume with the run's own config.yaml, or use --init to start from its weights"
        )
    networks.load_state_dict(checkpoint.model)
    with torch.no_grad():
        for name, tensor in ema.items():
            tensor.copy_(checkpoint.ema[name])
    _tensors_to_optimiser(checkpoint, optimiser, networks)


def load_networks(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of a run, a checkpoint or a bundle, by network: `{"detector": {tensor name: tensor}, ...}`.

    The detector is the running average, which is what is exported. A bundle holds the detector only.

    Raises:
        TrainingError: neither a run nor a bundle, or damaged.
    """
    folder = Path(folder)
    bundle = folder / "weights.safetensors"
    if bundle.is_file():
        try:
            tensors = load_file(bundle)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{bundle}: damaged ({error})") from None
        return {"detector": {name.removeprefix("detector."): tensor for name, tensor in tensors.items()}}
    checkpoint = load_checkpoint(folder)
    networks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in {**checkpoint.model, **checkpoint.ema}.items():
        network, _, rest = name.partition(".")
        networks.setdefault(network, {})[rest] = tensor
    return networks


def read_scores(run_dir: Path) -> dict[str, dict[str, Any]]:
    """`{"best": {"step", "score"}, "last": {"step", "score"}}`; empty where no checkpoint was scored."""
    try:
        return json.loads((Path(run_dir) / "checkpoints" / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_score(run_dir: Path, step: int, score: float) -> None:
    """Note the score of the checkpoint of this step, and whether it is the best so far (of the steps up to it)."""
    entry, scores = {"step": step, "score": score}, read_scores(run_dir)
    best = scores.get("best")
    if best is None or best["step"] > step or score > best["score"]:
        best = entry
    write_json(Path(run_dir) / "checkpoints" / "scores.json", {"best": best, "last": entry})


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file as a whole."""
    write_text(path, json.dumps(values, indent=1))


def _complete(root: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    return sorted(folder for folder in root.glob("step_*") if all((folder / name).is_file() for name in FILES))


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _drop_old(root: Path) -> None:
    kept = set(_complete(root)[-KEPT:])
    scores = read_scores(root.parent)
    if "best" in scores:
        kept.add(root / f"step_{scores['best']['step']:08d}")
    for folder in root.iterdir():
        if folder.is_dir() and folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _savable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Own, contiguous CPU tensors: safetensors refuses shared memory and odd strides."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _optimiser_to_tensors(
    optimiser: torch.optim.Optimizer, networks: nn.ModuleDict
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in networks.named_parameters()}
    tensors = {
        f"{names[parameter]}|{slot}": torch.as_tensor(value)
        for parameter, slots in optimiser.state.items()
        for slot, value in slots.items()
        if value is not None
    }
    scalars = (int, float, bool, str, type(None), list, tuple)
    groups = [
        {key: value for key, value in group.items() if key != "params" and isinstance(value, scalars)}
        for group in optimiser.param_groups
    ]
    return tensors, groups


def _tensors_to_optimiser(checkpoint: Checkpoint, optimiser: torch.optim.Optimizer, networks: nn.ModuleDict) -> None:
    slots_of: dict[str, dict[str, Tensor]] = {}
    for key, tensor in checkpoint.optimiser.items():
        name, _, slot = key.rpartition("|")
        slots_of.setdefault(name, {})[slot] = tensor
    names = {parameter: name for name, parameter in networks.named_parameters()}
    values = optimiser.state_dict()
    order = [names[parameter] for group in optimiser.param_groups for parameter in group["params"]]
    values["state"] = {i: slots_of[name] for i, name in enumerate(order) if name in slots_of}
    for group, saved in zip(values["param_groups"], checkpoint.state["optimiser_groups"], strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()})
    optimiser.load_state_dict(values)
    for parameter, slots in optimiser.state.items():  # the same strides as the parameter, hence the same arithmetic
        for slot, tensor in slots.items():
            if tensor.shape == parameter.shape:
                slots[slot] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _sync(path: Path) -> None:
    """Force a file, or the list of a folder's names, onto the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders; its rename is journalled
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
