"""Where training runs: device, precision and the processes that `torchrun` started."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from streampose.errors import TrainingError

PRECISIONS = ("auto", "f32", "bf16")


def choose_device(name: str = "auto") -> torch.device:
    """The device to train on: `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        TrainingError: the device asked for is not there (it is never replaced silently).
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in there:
        raise TrainingError(f"device {name}: unknown; choose auto, cpu, cuda, cuda:N or mps")
    if not there[kind]:
        raise TrainingError(f"device {name}: not available on this machine; use --device auto")
    if name == "cuda":
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    try:
        return torch.device(name)
    except RuntimeError:
        raise TrainingError(f"device {name}: not a device; choose auto, cpu, cuda, cuda:N or mps") from None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context that a loss is computed in: bfloat16 where it was chosen, else as it is."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def choose_precision(name: str, device: torch.device, step: Callable[[], Tensor], networks: nn.ModuleDict) -> str:
    """`f32` or `bf16`: what was asked for; `auto` is bf16 on CUDA that has it, and on a CPU only if it is faster there.

    Args:
        step: computes one loss; tried forward and backward in both precisions on a CPU, without touching the weights.

    Raises:
        TrainingError: an unknown precision.
    """
    if name not in PRECISIONS:
        raise TrainingError(f"precision {name}: unknown; choose {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "f32"
    if device.type != "cpu":
        return "f32"
    before = {key: tensor.clone() for key, tensor in networks.state_dict().items()}
    seconds = {"f32": float("inf"), "bf16": float("inf")}
    for attempt in range(3):
        for precision in seconds:
            started = time.perf_counter()
            with autocast(device, precision):
                loss = step()
            loss.backward()
            if attempt > 0:  # the first one allocates
                seconds[precision] = min(seconds[precision], time.perf_counter() - started)
    networks.zero_grad(set_to_none=True)
    networks.load_state_dict(before)
    return "bf16" if seconds["bf16"] < 0.9 * seconds["f32"] else "f32"


@dataclass(frozen=True)
class World:
    """The processes that train together; one where `torchrun` did not start this one."""

    rank: int = 0
    size: int = 1

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, in all of them."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
            values /= self.size
        return values

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes; one message for all of them.

        A parameter that no process used keeps its gradient None, as in a single process.
        """
        if self.size == 1:
            return
        parameters = list(parameters)
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        flat = torch.cat([used, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters)])
        self.mean(flat)
        start = len(parameters)
        for parameter, share in zip(parameters, flat[: len(parameters)].tolist(), strict=True):
            gradient = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
            if share > 0:
                parameter.grad = gradient.clone()

    def same(self, value: Any) -> Any:
        """The first process's value (anything JSON-able), in all of them."""
        if self.size == 1:
            return value
        device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
        text = json.dumps(value).encode()
        length = torch.tensor([len(text)], device=device)
        torch.distributed.broadcast(length, src=0)
        letters = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.rank == 0:
            letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        torch.distributed.broadcast(letters, src=0)
        return json.loads(bytes(letters.tolist()).decode())


def join_world(device: torch.device) -> World:
    """Join the processes that `torchrun` started (nccl on CUDA, gloo elsewhere); alone where there are none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not torch.distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(minutes=10))
        atexit.register(leave_world)
    return World(torch.distributed.get_rank(), size)


def leave_world() -> None:
    """End the process group, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
