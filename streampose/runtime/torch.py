"""Run a bundle's weights with PyTorch, and the module that both this runtime and the exported graph are made of.

The only file under `runtime/` that imports torch, and the only one that builds a network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from streampose.errors import BundleError
from streampose.runtime.bundle import Bundle
from streampose.structures import Skeleton

PRECISIONS = ("f32", "bf16")


class CropsToKeypoints(nn.Module):
    """What a bundle promises, around a detector that speaks in [0, 1] images and [-1, 1] coordinates.

    Args:
        detector: (B, 3, S, S) float in [0, 1] -> keypoints (B, K, 3) in [-1, 1], confidence (B, K).
        skeleton: of K joints; z is relative to its root.
        input_size: S.
    """

    def __init__(self, detector: nn.Module, skeleton: Skeleton, input_size: int):
        super().__init__()
        self.detector, self.input_size = detector, input_size
        self.root = skeleton.root

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8 RGB -> keypoints (B, K, 3) crop pixels (z relative to the root), confidence (B, K)."""
        images = crops.permute(0, 3, 1, 2).float() / 255
        output = self.detector(images)
        xy, z = output.keypoints[..., 0:2], output.keypoints[..., 2:3]
        xy = (xy + 1) * (self.input_size / 2) - 0.5
        z = (z - z[:, self.root : self.root + 1]) * (self.input_size / 2)
        return torch.cat([xy, z], -1), output.confidence


class TorchRuntime:
    """A bundle's weights in eager PyTorch, on the GPU where there is one; see `runtime.predictor.load_predictor`."""

    name = "torch"

    def __init__(self, bundle: Bundle, precision: str, threads: int):
        from safetensors.torch import load_file

        from streampose.models.detector import build_detector

        detector = build_detector(bundle.preset, bundle.skeleton.num_joints, bundle.input_size)
        try:
            detector.load_state_dict(load_file(bundle.weights_path))
        except RuntimeError as error:
            message = " ".join(str(error).split())[:200]
            raise BundleError(f"{bundle.weights_path}: does not fit the preset {bundle.preset!r} ({message})") from None
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
        module = CropsToKeypoints(detector, bundle.skeleton, bundle.input_size).eval().requires_grad_(False)
        self._module = module.to(self._device)

    @torch.inference_mode()
    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 -> keypoints (B, K, 3) crop pixels, confidence (B, K); float32."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            keypoints, confidence = self._module(torch.from_numpy(crops).to(self._device))
        return keypoints.float().cpu().numpy(), confidence.float().cpu().numpy()
