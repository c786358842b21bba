"""How fast a training step of `landmarks` is against the straightforward eager float32 version of the same networks.

Straightforward: a distance map for every bone, discriminators asked anew for each side of the game, the usual memory
format, float32. Ours: as the engine runs it on this machine. With one thread ($BENCHMARK_THREADS=1) the time of the
processor is taken, which other programs disturb less. Renderers' memory: tests/losses/test_skeleton_images.py.
"""

import os
import time

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.losses.adversarial import discriminator_loss, generator_loss
from streampose.losses.bone_maps import squared_distances
from streampose.losses.skeleton_images import GAMMA
from streampose.methods import landmarks
from streampose.methods.landmarks import LandmarksTask, load_landmarks_config
from streampose.methods.landmarks_data import make_crops
from streampose.methods.landmarks_prior import Poses
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.training.devices import autocast, choose_precision
from streampose.training.engine import weighted_sum

pytestmark = pytest.mark.benchmark
SKELETON = load_skeleton("human17")
THREADS = int(os.environ.get("BENCHMARK_THREADS", "0")) or torch.get_num_threads()


def plain_limbs(xy, bones, size, gamma=GAMMA):
    """Eq. 1 with a map for every bone."""
    distances = squared_distances(xy[:, bones[:, 0]], xy[:, bones[:, 1]], size)
    return torch.exp(-gamma * distances.amin(1))


def plain_play(judge, real, made):
    """Both sides with forward passes of their own; what goes to the judge's weights from the maker is thrown away."""
    weights = [p for p in judge.parameters() if p.requires_grad]
    for p in weights:
        p.requires_grad_(False)
    maker = generator_loss(judge(made))
    for p in weights:
        p.requires_grad_(True)
    return maker, discriminator_loss(judge(real), judge(made.detach()))


def make(preset, *overrides):
    rng = np.random.default_rng(0)
    config = load_landmarks_config(preset, None, ["steps.skeletons=0", "steps.figures=0", *overrides])
    S = config.input_size
    crops = make_crops(rng.integers(0, 256, (32, S, S, 3), np.uint8), np.zeros(32, int), np.arange(32) / 5)
    torch.manual_seed(0)
    return LandmarksTask(crops, Poses(built_in_prior(SKELETON, 64, 0).poses, SKELETON), SKELETON, config)


def seconds_a_step(task, precision, repeats):
    optimiser = torch.optim.AdamW(task.networks.parameters(), lr=1e-4)
    batch, best = task.batch(0), float("inf")
    clock = time.process_time if THREADS == 1 else time.perf_counter
    for _ in range(repeats):
        began = clock()
        with autocast(torch.device("cpu"), precision):
            total = weighted_sum(*task.loss(batch, 0))
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        best = min(best, clock() - began)
    return best


@pytest.mark.parametrize(("preset", "repeats"), [("tiny", 8), ("small", 3)])
def test_a_step_beats_the_straightforward_one(preset, repeats, monkeypatch, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        task = make(preset)
        precision = choose_precision(
            "auto", torch.device("cpu"), lambda: weighted_sum(*task.loss(task.batch(0), 0)), task.networks
        )
        ours = seconds_a_step(task, precision, repeats)
        plain = make(preset)
        plain.networks.to(memory_format=torch.contiguous_format)
        monkeypatch.setattr(landmarks, "play", plain_play)
        monkeypatch.setattr(
            landmarks, "sided_image",
            lambda xy, groups, size, gamma: torch.stack([plain_limbs(xy, bones, size, gamma) for bones in groups], 1),
        )  # fmt: skip
        monkeypatch.setattr(landmarks, "_images", lambda x: x.permute(0, 3, 1, 2).float().contiguous() / 255)
        straight = seconds_a_step(plain, "f32", repeats)
    finally:
        torch.set_num_threads(threads)
    with capsys.disabled():
        print(
            f"\n{preset}: {1000 * ours:.0f} ms a step ({precision}, {THREADS} threads), straightforward "
            f"{1000 * straight:.0f} ms: {straight / ours:.2f} x"
        )
    assert straight > 1.3 * ours
