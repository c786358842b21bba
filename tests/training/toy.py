"""A tiny task for the tests of the engine: point at the bright square. `python toy.py RUN STEPS` trains it."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from streampose.training.engine import train


class Detector(nn.Module):
    def __init__(self, dropout: float = 0.1):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * 7 * 7, 2)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        return self.head(self.dropout(self.body(images)))


class ToyTask:
    """Satisfies the engine's protocol; draws on torch's generator in its loss (dropout and noise)."""

    def __init__(self, steps: int = 20, seed: int = 0, nan_at: int = -1, pause: float = 0.0, batch_size: int = 8):
        torch.manual_seed(seed)
        self.networks = nn.ModuleDict({"detector": Detector(), "helper": nn.Linear(2, 2)})
        self.total_steps, self.seed, self.nan_at, self.pause = steps, seed, nan_at, pause
        self.batch_size = batch_size
        self.seen_batches: list[tuple[int, int, int]] = []

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        self.seen_batches.append((step, rank, world))
        rng = np.random.default_rng((self.seed, step, rank))
        corner = rng.integers(0, 12, (self.batch_size, 2))
        images = rng.normal(0, 0.1, (self.batch_size, 1, 16, 16)).astype(np.float32)
        for image, (x, y) in zip(images, corner, strict=True):
            image[0, y : y + 4, x : x + 4] += 1
        return {"images": torch.from_numpy(images), "target": torch.from_numpy((corner / 6 - 1).astype(np.float32))}

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        time.sleep(self.pause)
        found = self.networks["detector"](batch["images"])
        terms = {"point": ((found - batch["target"]) ** 2).mean()}
        weights = {"point": 1.0}
        if self.stage(step) == "two":
            noise = torch.randn_like(batch["target"])
            terms["helper"] = ((self.networks["helper"](noise) - noise) ** 2).mean()
            weights["helper"] = 0.1
        if step == self.nan_at:
            terms["point"] = terms["point"] * float("nan")
        return terms, weights

    def optimiser_settings(self, step: int) -> dict[str, float]:
        return {"lr": 0.01 * (1 - step / (2 * self.total_steps)), "helper.lr": 0.001}

    def stage(self, step: int) -> str:
        return "one" if step < self.total_steps // 2 else "two"

    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        grey = (batch["images"][:4, 0].clamp(0, 1) * 255).byte().cpu().numpy()
        return np.repeat(np.concatenate(list(grey), 1)[..., None], 3, -1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--save-every", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    task = ToyTask(options.steps, pause=options.pause, seed=rank)  # unlike weights: the engine must make them alike
    task.seed = 0
    train(
        task, run_dir=options.run_dir, device="cpu", precision="f32", resume=options.resume,
        save_every=options.save_every, log_every=1, picture_every=0,
    )  # fmt: skip
    weights = torch.cat([tensor.double().flatten() for tensor in task.networks.state_dict().values()])
    print(f"weights {weights.abs().sum().item():.17g}")
