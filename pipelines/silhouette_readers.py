"""Teach the readers of silhouettes that are shipped for the skeletons of `configs/skeletons`.

    python pipelines/silhouette_readers.py --skeleton human17 --steps 16000

Needs no video: poses, bodies and masks are drawn at random from the skeleton file. Again after every change of a
shipped skeleton or of `streampose/methods/mask_prior.py`.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from streampose.config import load_skeleton
from streampose.console import logger, progress, start_logging
from streampose.methods.mask_config import SilhouetteConfig
from streampose.methods.mask_prior import silhouettes
from streampose.methods.mask_reader import READERS, WEIGHTS, load_shipped, reader_loss, save_shipped
from streampose.models.detector import build_detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skeleton", default="human17")
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="end the schedule by then")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=READERS, help="folder of the readers")
    arguments = parser.parse_args()
    start_logging()
    skeleton, config = load_skeleton(arguments.skeleton), SilhouetteConfig()
    torch.manual_seed(arguments.seed)
    network = build_detector(config.detector, skeleton.num_joints, config.size, channels=1)
    if load_shipped(network, skeleton, config, arguments.out):
        logger.info("%s: continuing from the reader that is there", skeleton.name)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=1e-4)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )

    def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((arguments.seed, 1, step))
        return silhouettes(skeleton, config.batch_size, config.size, rng)

    began, mean = time.monotonic(), {}
    with ThreadPoolExecutor(1) as pool, progress(f"Reader of {skeleton.name}", arguments.steps, "steps") as bar:
        coming = pool.submit(draw, 0)
        for step in range(arguments.steps):
            masks, joints = coming.result()
            coming = pool.submit(draw, step + 1)
            passed = max(step / arguments.steps, (time.monotonic() - began) / 60 / arguments.max_minutes)
            if passed >= 1:
                break
            rate = min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * passed)))
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * rate
            terms = reader_loss(network, torch.from_numpy(masks)[:, None].float() / 255, torch.from_numpy(joints))
            optimiser.zero_grad()
            sum(WEIGHTS[name] * term for name, term in terms.items()).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            average.update_parameters(network)
            for name, term in terms.items():
                mean[name] = 0.99 * mean.get(name, term.item()) + 0.01 * term.item()
            bar.advance(1, " ".join(f"{name} {value:.3f}" for name, value in mean.items()))
            if (step + 1) % 500 == 0:
                logger.info("%s", {"step": step + 1} | {name: round(value, 4) for name, value in mean.items()})
    file = save_shipped(average.module, skeleton, config, arguments.out)
    logger.info("%s: %d kB after %d steps", file, file.stat().st_size // 1024, step + 1)


if __name__ == "__main__":
    main()
