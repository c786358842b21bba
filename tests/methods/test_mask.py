"""The task of the method `mask`: configuration, schedule, batches, losses, and that it learns."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.methods.mask import MaskTask, from_view, load_mask_config, to_view

SHORT = [
    "silhouette.shipped=false", "silhouette.steps=3", "silhouette.batch_size=4", "batch_size=8",
    *(f"stages.{stage}.steps=2" for stage in ("warm-up", "tight", "medium", "loose", "refine")),
]  # fmt: skip


def task_of(painted, *overrides):
    torch.manual_seed(0)
    frames, _, skeleton = painted
    return MaskTask(frames, skeleton, load_mask_config("tiny", None, [*SHORT, *overrides]))


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_presets_load(preset):
    assert list(load_mask_config(preset).stages) == ["warm-up", "tight", "medium", "loose", "refine"]


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="huge"):
        load_mask_config("huge")
    with pytest.raises(ConfigError, match="skeltal"):
        load_mask_config("tiny", None, ["stages.loose.terms.skeltal=1"])
    with pytest.raises(ConfigError, match="widht"):
        load_mask_config("tiny", None, ["widht=3"])


def test_stages_follow_each_other_and_a_plan_scales_them(painted):
    task = task_of(painted)
    names = [task.stage(step) for step in range(task.total_steps)]
    assert list(dict.fromkeys(names)) == ["silhouette", "warm-up", "tight", "medium", "loose", "refine"]
    assert task.total_steps == 13
    task.plan(2.0, 10.0)
    first = task.total_steps
    assert first > 100
    task.plan(2.0, 5.0)
    assert abs(task.total_steps - first / 2) <= 5
    rates = [task.optimiser_settings(step)["lr"] for step in range(task.total_steps)]
    assert min(rates) > 0 and max(rates) <= 3e-3 + 1e-9


def test_a_plan_leaves_the_detector_at_least_half_of_the_time(painted):
    task = task_of(painted, "silhouette.steps=3000", "stages.warm-up.steps=100")
    cost = task.schedule.costs()

    def share():
        times = {name: steps * cost[name] for name, steps in task.schedule.lengths.items()}
        return 1 - times["silhouette"] / sum(times.values())

    assert share() < 0.2
    for minutes in (5, 20, 50):
        task.plan(5.0, minutes)
        assert share() >= 0.495
        seconds = sum(steps * cost[name] for name, steps in task.schedule.lengths.items()) / cost["silhouette"] / 5.0
        assert seconds == pytest.approx(0.93 * 60 * minutes, rel=0.05)
    task.plan(5.0, 500)
    assert task.schedule.lengths["silhouette"] == 2 * 3000 and share() > 0.9


def test_minutes_left_follow_the_configured_schedule(painted):
    task = task_of(painted, "silhouette.steps=300")
    whole = sum(steps * task.schedule.costs()[name] for name, steps in task.schedule.configured().items())
    assert task.minutes_left(0, 100, 1.0) == pytest.approx(whole / (100 * task.schedule.costs()["silhouette"]) - 1)
    assert task.minutes_left(0, task.total_steps, 7.0) == 0


def test_batches_depend_on_seed_step_and_rank_only(painted):
    task = task_of(painted)
    for step in (0, 5):
        one, same, other = task.batch(step, 0, 2), task.batch(step, 0, 2), task.batch(step, 1, 2)
        assert all(torch.equal(one[name], same[name]) for name in one)
        key = "masks"
        assert not torch.equal(one[key], other[key])


@pytest.mark.parametrize(
    "overrides",
    [[], ["structure=false"], ["silhouette.enabled=false", "bone_width=sigma", "dolls=0"], ["self_training=false"]],
    ids=["full", "points", "paper", "labels"],
)
def test_every_stage_gives_finite_terms_whose_keys_match(painted, overrides):
    task = task_of(painted, *overrides, "stages.loose.tied_steps=9", "stages.loose.terms.tied=1")
    for step in range(task.total_steps):
        batch = task.batch(step)
        terms, weights = task.loss(batch, step)
        assert terms.keys() == weights.keys() and terms
        total = sum(weights[name] * term for name, term in terms.items())
        assert torch.isfinite(total)
        total.backward()
    assert any(p.grad is not None for p in task.detector.parameters())
    image = task.picture(task.batch(task.total_steps - 1), task.total_steps - 1)
    assert image is not None and image.dtype == np.uint8 and image.shape[2] == 3
    if overrides == ["structure=false"]:
        assert set(weights) == {"skeleton", "physique", "equivariance", "empty"}


def test_labels_are_made_once_a_stage_and_kept_in_the_checkpoint(painted):
    task = task_of(painted)
    task.loss(task.batch(3), 3)
    made = task.labels.keypoints.clone()
    assert made.abs().sum() > 0 and int(task.labels.made) == 1
    other = task_of(painted)
    other.networks.load_state_dict(task.networks.state_dict())
    other.loss(other.batch(4), 4)
    torch.testing.assert_close(other.labels.keypoints, made)


def test_views_and_back():
    skeleton = load_skeleton("human17")
    X = torch.randn(3, 17, 3)
    matrix = torch.tensor([[[0.8, -0.3, 0.1], [0.3, 0.8, -0.2]]]).repeat(3, 1, 1)
    flipped = torch.tensor([False, True, False])
    moved = to_view(X, matrix, flipped, skeleton.flip_index)
    torch.testing.assert_close(from_view(moved, matrix, flipped, skeleton.flip_index), X)
    torch.testing.assert_close(moved[0, 0, :2], matrix[0, :, :2] @ X[0, 0, :2] + matrix[0, :, 2])
    torch.testing.assert_close(moved[0, :, 2], X[0, :, 2] * (0.73**0.5))
    torch.testing.assert_close(moved[1, 1, 2], X[1, skeleton.flip_index[1], 2] * (0.73**0.5))


def test_known_labels_lower_the_error_in_a_few_dozen_steps(painted):
    frames, joints, _ = painted
    task = task_of(painted, "stages.warm-up.steps=60", "dolls=0", "augmentation.background=0", "augmentation.colour=0",
                   "augmentation.cutout=0")  # fmt: skip
    task.labels.keypoints.copy_(torch.from_numpy(joints))
    task.labels.confidence.fill_(1)
    task.labels.made.fill_(9)
    optimiser = torch.optim.Adam(task.networks.parameters(), 2e-3)
    images = torch.from_numpy(frames.crops).permute(0, 3, 1, 2).float() / 255

    def error():
        with torch.no_grad():
            return (task.detector(images).keypoints[..., :2] - torch.from_numpy(joints)[..., :2]).norm(dim=-1).mean()

    before = error()
    for step in range(3, 43):
        terms, weights = task.loss(task.batch(step), step)
        optimiser.zero_grad()
        sum(weights[name] * term for name, term in terms.items()).backward()
        optimiser.step()
    assert error() < 0.7 * before
