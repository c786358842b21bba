"""Start from the weights of an earlier model (`--init RUN|BUNDLE`): what fits is taken, joints are matched by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from streampose.errors import TrainingError
from streampose.training.checkpoint import load_networks

# The output layers of `models.detector.PoseDetector`, whose rows belong to joints (several rows a joint in `depth`).
JOINT_LAYERS = ("heatmap", "depth")


@dataclass(frozen=True)
class Taken:
    """What was taken over from an earlier model.

    Attributes:
        tensors, total: how many tensors of the new networks start from the earlier ones, of how many.
        joints: joints that start from the earlier model's.
        new_joints: joints that it does not have.
        left: tensors that do not fit, with the reason.
    """

    tensors: int
    total: int
    joints: list[str]
    new_joints: list[str]
    left: list[str]

    def __str__(self) -> str:
        text = f"{self.tensors} of {self.total} tensors, {len(self.joints)} joints by name"
        if self.new_joints:
            text += f"; from scratch: {', '.join(self.new_joints)}"
        return text + (f"; does not fit: {', '.join(self.left[:3])}" if self.left else "")


def initialise(networks: nn.ModuleDict, source: Path, joints: tuple[str, ...]) -> Taken:
    """Copy the matching tensors of a run, checkpoint or bundle into networks, in place.

    A tensor is taken where name and shape are the same; in the output layers each joint's rows are taken from the joint
    of the same name, and joints that the earlier model does not have keep their fresh weights.

    Args:
        joints: K names, of the new model.

    Raises:
        TrainingError: `source` is neither a run nor a bundle, or nothing of it fits.
    """
    source = Path(source)
    earlier, earlier_joints = load_networks(source), read_joints(source)
    rows = [earlier_joints.index(name) if name in earlier_joints else -1 for name in joints]
    taken, total, left = 0, 0, []
    with torch.no_grad():
        for network, module in networks.items():
            if not any(parameter.requires_grad for parameter in module.parameters()):
                continue  # a method's notes about its own data, or an average of another network
            for name, tensor in module.state_dict().items():
                total += 1
                old = earlier.get(network, {}).get(name)
                if old is None:
                    left.append(f"{network}.{name} (not there)")
                elif name.partition(".")[0] in JOINT_LAYERS:
                    if _copy_rows(tensor, old, rows, len(earlier_joints)):
                        taken += 1
                    else:
                        left.append(f"{network}.{name} ({_shapes(old, tensor)})")
                elif old.shape == tensor.shape:
                    tensor.copy_(old)
                    taken += 1
                else:
                    left.append(f"{network}.{name} ({_shapes(old, tensor)})")
    if not taken:
        raise TrainingError(f"{source}: nothing of it fits this model ({left[0]}); use the same --preset")
    known = [name for name in joints if name in earlier_joints]
    return Taken(taken, total, known, [name for name in joints if name not in earlier_joints], left)


def read_joints(source: Path) -> list[str]:
    """The joints of a bundle (bundle.json), or of the run that a folder or checkpoint belongs to (config.yaml).

    Raises:
        TrainingError: neither says it.
    """
    try:
        return list(_describe(source)["skeleton"]["joints"])
    except (KeyError, TypeError):
        raise TrainingError(f"{source}: does not say which joints it has; name a run's folder or a bundle") from None


def read_network(source: Path) -> tuple[str, int]:
    """Preset and input size of the detector of a run, checkpoint or bundle.

    Raises:
        TrainingError: it does not say them.
    """
    try:
        values = _describe(source)
        return str(values["preset"]), int(values["input_size"])
    except (KeyError, TypeError, ValueError):
        raise TrainingError(f"{source}: does not say what network it is; name a run's folder or a bundle") from None


def _describe(source: Path) -> dict[str, Any]:
    """What bundle.json, or the run's config.yaml, says; nothing where there is neither."""
    for folder in (Path(source), *Path(source).resolve().parents[:2]):
        for name in ("bundle.json", "config.yaml"):
            try:
                text = (folder / name).read_text(encoding="utf-8")
                values = json.loads(text) if name == "bundle.json" else yaml.safe_load(text)
            except (OSError, ValueError, yaml.YAMLError):
                continue
            if isinstance(values, dict) and "skeleton" in values:
                return values
    return {}


def _copy_rows(new: Tensor, old: Tensor, rows: list[int], earlier_joints: int) -> bool:
    """Copy the rows of each joint; False where the two do not have the same number of rows a joint."""
    each = new.shape[0] // len(rows)
    if new.shape[1:] != old.shape[1:] or new.shape[0] != each * len(rows) or old.shape[0] != each * earlier_joints:
        return False
    for joint, row in enumerate(rows):
        if row >= 0:
            new[joint * each : (joint + 1) * each] = old[row * each : (row + 1) * each]
    return True


def _shapes(old: Tensor, new: Tensor) -> str:
    return f"{tuple(old.shape)} there, {tuple(new.shape)} here"
