"""Run a bundle's weights with PyTorch, and the module that both this runtime and the exported graph are made of.

The only file under `runtime/` that imports torch, and the only one that builds a network.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from streampose.console import logger
from streampose.errors import BundleError, ConfigError
from streampose.runtime.bundle import Bundle
from streampose.structures import Skeleton

PRECISIONS = ("f32", "bf16", "f16")
MAX_BATCH = 32
COMPILERS = ("c++", "g++", "clang++", "cl")


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
    """A bundle's weights in PyTorch: eagerly on the CPU, as CUDA graphs on a GPU; see `load_predictor`.

    On a GPU each batch size is recorded once as a CUDA graph with buffers of its own in pinned memory; sizes are
    rounded up to powers of two so that there are few.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, precision: str, threads: int):
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if precision == "f16" and self._device.type != "cuda":
            raise ConfigError("--precision f16: torch can do it on an NVIDIA GPU only; choose f32 or bf16")
        torch.set_num_threads(threads)
        self._dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]
        module = CropsToKeypoints(load_detector(bundle), bundle.skeleton, bundle.input_size).eval()
        self._module: Callable[[Tensor], tuple[Tensor, Tensor]] = module.requires_grad_(False).to(self._device)
        self._graphs: dict[int, _Graph] = {}

    @torch.inference_mode()
    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 -> keypoints (B, K, 3) crop pixels, confidence (B, K); float32."""
        if self._device.type != "cuda":
            keypoints, confidence = self._infer(torch.from_numpy(crops))
            return keypoints.numpy(), confidence.numpy()
        parts = []
        for start in range(0, len(crops), MAX_BATCH):
            part = crops[start : start + MAX_BATCH]
            batch = 1 << (len(part) - 1).bit_length()
            if batch not in self._graphs:
                self._graphs[batch] = _Graph(self._infer, batch, crops.shape[1], self._device)
            parts.append(self._graphs[batch].run(part))
        keypoint_parts, confidence_parts = zip(*parts, strict=True)
        return np.concatenate(keypoint_parts), np.concatenate(confidence_parts)

    def _infer(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            keypoints, confidence = self._module(crops)
        return keypoints.float(), confidence.float()


class CompiledTorchRuntime(TorchRuntime):
    """The same, compiled by `torch.compile`, which takes a while when it starts and needs a C++ compiler."""

    name = "torch-compile"

    def __init__(self, bundle: Bundle, precision: str, threads: int):
        super().__init__(bundle, precision, threads)
        if self._device.type == "cpu" and not any(shutil.which(name) for name in COMPILERS):
            raise ConfigError("no C++ compiler for torch.compile; install g++ or clang")
        logger.info("torch-compile: compiling; this can take minutes")
        self._module = torch.compile(self._module, dynamic=self._device.type == "cpu")
        crops = torch.zeros(2, bundle.input_size, bundle.input_size, 3, dtype=torch.uint8, device=self._device)
        with torch.inference_mode():
            try:
                self._infer(crops)
            except Exception as error:  # compilers and their back-ends raise all kinds
                message = " ".join(str(error).split())[:200]
                raise ConfigError(f"torch.compile does not work here ({message})") from error


class _Graph:
    """One batch size recorded as a CUDA graph: upload, network, download."""

    def __init__(self, infer: Callable[[Tensor], tuple[Tensor, Tensor]], batch: int, size: int, device: torch.device):
        self._crops = torch.zeros(batch, size, size, 3, dtype=torch.uint8).pin_memory()
        on_device = self._crops.to(device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # the first runs set up what must not be recorded
            for _ in range(3):
                answer = infer(on_device)
        stream.synchronize()
        self._keypoints, self._confidence = (torch.zeros(part.shape).pin_memory() for part in answer)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            on_device.copy_(self._crops, non_blocking=True)
            keypoints, confidence = infer(on_device)
            self._keypoints.copy_(keypoints, non_blocking=True)
            self._confidence.copy_(confidence, non_blocking=True)

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        B = len(crops)
        self._crops.numpy()[:B] = crops
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        return self._keypoints.numpy()[:B].copy(), self._confidence.numpy()[:B].copy()


def load_detector(bundle: Bundle) -> nn.Module:
    """The network of a bundle with its weights.

    Raises:
        BundleError: they do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from streampose.models.detector import build_detector

    try:
        detector = build_detector(bundle.preset, bundle.skeleton.num_joints, bundle.input_size)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: {error}; choose another --runtime") from None
    try:
        detector.load_state_dict(load_file(bundle.weights_path))
    except (RuntimeError, SafetensorError) as error:
        message = " ".join(str(error).split())[:200]
        raise BundleError(f"{bundle.weights_path}: does not fit the preset {bundle.preset!r} ({message})") from None
    return detector


def lifter_run(bundle: Bundle, threads: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A bundle that lifts 2D joints, as a function of arrays; see `runtime.lifter.Lifting`."""
    from streampose.models.lifter import JointsToPoses

    torch.set_num_threads(threads)
    return eager_lifter(JointsToPoses(load_lifter_network(bundle)))


def eager_lifter(module: nn.Module) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A `models.lifter.JointsToPoses` as a function of arrays."""
    device = next(module.parameters()).device

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        training = module.training
        with torch.inference_mode():
            poses, placement = module.eval()(*(torch.from_numpy(array).to(device) for array in arrays))
        module.train(training)
        return poses.float().cpu().numpy(), placement.float().cpu().numpy()

    return run


def load_lifter_network(bundle: Bundle) -> nn.Module:
    """The network of a bundle that lifts, with its weights.

    Raises:
        BundleError: they do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from streampose.models.lifter import build_lifter

    try:
        lifter = build_lifter(bundle.preset, bundle.skeleton)
        lifter.load_state_dict(load_file(bundle.weights_path))
    except (ValueError, RuntimeError, SafetensorError) as error:
        message = " ".join(str(error).split())[:200]
        raise BundleError(f"{bundle.weights_path}: does not fit the preset {bundle.preset!r} ({message})") from None
    return lifter
