"""ImageNet weights of a pose recogniser's body, from a file that the user has; nothing is downloaded.

`simple` takes torchvision's ResNet-50, `hrnet` the classifier that HRNet's authors published (W32); as safetensors,
or as the file of tensors that torch saves.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from streampose.console import logger
from streampose.errors import ConfigError
from streampose.models.heatmap_detector import HeatmapDetector
from streampose.models.simple_baseline import SimpleBaseline

RESNET = [(r"conv1\.", "encoder.stem.0."), (r"bn1\.", "encoder.stem.1.")]
RESNET += [(rf"layer{n + 1}\.", f"encoder.levels.{n}.") for n in range(4)]
NORM = {"conv": 0, "bn": 1}


def load_imagenet(detector: HeatmapDetector, path: Path) -> int:
    """Load the body's weights in place, as far as the file has them; the heatmaps keep their random ones.

    Returns:
        How many tensors were taken.

    Raises:
        ConfigError: no such file, not a file of tensors, or of another network.
    """
    rename = _rename_resnet if isinstance(detector.body, SimpleBaseline) else _rename_hrnet
    body = detector.body.state_dict()
    found = {rename(name.removeprefix("module.")): tensor for name, tensor in _read(path).items()}
    taken = {name: tensor for name, tensor in found.items() if name in body and body[name].shape == tensor.shape}
    expected = [name for name in body if not name.startswith("up.")]  # transposed convolutions have no classifier
    missing = [name for name in expected if name not in taken and not name.endswith("num_batches_tracked")]
    if missing:
        raise ConfigError(
            f"imagenet={path}: not the weights of this network ({len(missing)} of {len(expected)} tensors are missing, "
            f"for instance {missing[0]}); take those of torchvision's ResNet-50 for `simple`, HRNet-W32 for `hrnet`"
        )
    detector.body.load_state_dict(taken, strict=False)
    logger.info("%s: %d tensors of ImageNet weights taken over", path, len(taken))
    return len(taken)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"imagenet={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(f"imagenet={path}: not a file of tensors ({' '.join(str(error).split())[:120]})") from None
    values = values.state_dict() if isinstance(values, nn.Module) else values.get("state_dict", values)
    return {name: tensor for name, tensor in values.items() if isinstance(tensor, Tensor)}


def _rename_resnet(name: str) -> str:
    for pattern, ours in RESNET:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name, count=1)
    return name


def _rename_hrnet(name: str) -> str:
    """The name here of a tensor of the published HRNet."""
    if match := re.match(r"(conv|bn)([12])\.(.+)", name):
        return f"stem.{int(match[2]) - 1}.{NORM[match[1]]}.{match[3]}"
    if match := re.match(r"layer1\.(\d+)\.(conv|bn)(\d)\.(.+)", name):
        return f"first.{match[1]}.layers.{int(match[3]) - 1}.{NORM[match[2]]}.{match[4]}"
    if match := re.match(r"layer1\.(\d+)\.downsample\.(.+)", name):
        return f"first.{match[1]}.shortcut.{match[2]}"
    if match := re.match(r"transition(\d)\.(\d)\.(?:0\.)?([01]\.[a-z_]+)$", name):
        return f"enter.{int(match[1]) - 1}.{match[2]}.{match[3]}"
    if match := re.match(r"stage(\d)\.(\d+)\.branches\.(\d)\.(\d)\.(conv|bn)(\d)\.(.+)", name):
        place = f"stages.{int(match[1]) - 2}.{match[2]}.branches.{match[3]}.{match[4]}"
        return f"{place}.layers.{int(match[6]) - 1}.{NORM[match[5]]}.{match[7]}"
    if match := re.match(r"stage(\d)\.(\d+)\.fuse_layers\.(\d)\.(\d)\.(.+)", name):
        target, source = int(match[3]), int(match[4])
        rest = match[5] if source < target else f"0.{match[5]}"
        return f"stages.{int(match[1]) - 2}.{match[2]}.fuse.{target}.{source}.{rest}"
    return name
