"""Readers of silhouettes (rho of `methods/mask.py`) that come with the package.

A reader is taught by random poses of a skeleton file alone, so it is the same for every user of that file and can be
made once: `pipelines/silhouette_readers.py` writes it, and a run whose skeleton says the same starts from it instead of
spending minutes on teaching its own. A changed or own skeleton teaches its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from streampose.config import skeleton_to_dict
from streampose.losses import heatmaps
from streampose.methods.mask_config import SilhouetteConfig
from streampose.structures import Skeleton

READERS = Path(__file__).resolve().parent / "readers"
WEIGHTS = {"label": 1.0, "label_xy": 2.0, "label_z": 0.5}


def reader_loss(network: nn.Module, masks: Tensor, joints: Tensor) -> dict[str, Tensor]:
    """Terms of a reader's loss: masks (B, 1, S, S) in [0, 1], joints (B, K, 3) in [-1, 1]; weights are WEIGHTS."""
    out = network(masks)
    inside = (joints[..., :2].abs() < 1).all(-1).float()
    target = heatmaps.gaussian_targets(joints[..., :2], out.heatmaps.shape[-1])
    joints = joints.clamp(-1, 1)
    return {
        "label": (heatmaps.heatmap_cross_entropy(out.heatmaps, target) * inside).mean(),
        "label_xy": heatmaps.robust_distance(out.keypoints[..., :2], joints[..., :2]).mean(),
        "label_z": heatmaps.robust_distance(out.keypoints[..., 2:], joints[..., 2:]).mean(),
    }


def load_shipped(network: nn.Module, skeleton: Skeleton, config: SilhouetteConfig, folder: Path = READERS) -> bool:
    """Load the shipped reader into a network, where there is one for just this skeleton and size.

    Returns:
        whether there was one.
    """
    file = folder / f"{skeleton.name}.safetensors"
    if not file.is_file():
        return False
    with safe_open(file, "pt") as opened:
        if (opened.metadata() or {}).get("key") != reader_key(skeleton, config):
            return False
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    return True


def save_shipped(network: nn.Module, skeleton: Skeleton, config: SilhouetteConfig, folder: Path = READERS) -> Path:
    """Write a reader in half precision, with the key that ties it to its skeleton."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{skeleton.name}.safetensors"
    tensors = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, file, {"key": reader_key(skeleton, config)})
    return file


def reader_key(skeleton: Skeleton, config: SilhouetteConfig) -> str:
    """What a reader depends on: the skeleton file's content and the network's kind and size."""
    said = [skeleton_to_dict(skeleton), config.detector, config.size]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
