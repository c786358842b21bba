"""The task of the method `disentangle`: Algorithm 1, losses, batches, resume, and that it learns."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streampose.errors import ConfigError, TrainingError
from streampose.methods.disentangle import DisentangleTask, load_disentangle_config, make_sketch_task
from streampose.methods.disentangle_config import TERMS
from streampose.methods.disentangle_data import Known, keep_share
from streampose.methods.disentangle_targets import PoseTarget
from streampose.training.engine import train

SCALE = 0.9  # crop units per metre of the painted figures


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def task_of(painted, *overrides, share=1.0, poses=60):
    torch.manual_seed(0)
    frames, joints, skeleton = painted
    pose = ((joints - joints[:, :1]) / SCALE).astype(np.float32)
    known = keep_share(Known(pose, joints[..., :2].astype(np.float32)), share, 0)
    config = load_disentangle_config("tiny", None, ["batch_size=8", "target_batch_size=8", "steps=4", *overrides])
    unpaired = np.random.default_rng(0).normal(0, 0.4, (poses, 17, 3)).astype(np.float32)
    return DisentangleTask(frames, PoseTarget(skeleton, known, unpaired), skeleton, config)


@pytest.mark.parametrize("preset", ["tiny", "small", "base", "paper", "sketch", "ablation"])
def test_presets_load(preset):
    config = load_disentangle_config(preset)
    assert set(config.terms) <= set(TERMS) and config.terms["cross"] == 1


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="huge"):
        load_disentangle_config("huge")
    with pytest.raises(ConfigError, match="crss"):
        load_disentangle_config("tiny", None, ["terms.crss=1"])
    with pytest.raises(ConfigError, match="multiple of 32"):
        load_disentangle_config("tiny", None, ["input_size=50"])


def test_targets_alone_follow_each_joint_step(painted):
    task = task_of(painted, poses=60)  # M / N = 60 / 24
    assert task.extra == 2 and task.total_steps == 12
    assert ["images" in task.batch(step) for step in range(6)] == [True, False, False, True, False, False]
    assert task_of(painted, "target_steps=5").extra == 5
    assert task_of(painted, poses=20).extra == 0
    assert task_of(painted, "terms.vae_y=0").extra == 0
    task.plan(10.0, 1.0)
    assert task.total_steps % 3 == 0 and task.total_steps == pytest.approx(558, abs=3)


def test_targets_alone_train_the_second_autoencoder_only(painted):
    task = task_of(painted)
    terms, weights = task.loss(task.batch(1), 1)
    assert list(terms) == list(weights) == ["vae_y"]
    terms["vae_y"].backward()
    moved = {name for name, p in task.networks.named_parameters() if p.grad is not None}
    assert moved and all(name.startswith(("detector.decoder.", "encoder_y.")) for name in moved)


def test_codes_decoded_at_once_or_one_kind_after_the_other_say_the_same(painted):
    """Only networks that normalise batches see a difference, so only they decode one kind after the other."""
    task = task_of(painted, share=0.5)
    batch, found = task.batch(0), []
    assert not task.batch_norm
    for task.batch_norm in (False, True):
        torch.manual_seed(1)
        found.append({name: float(term.detach()) for name, term in task.loss(batch, 0)[0].items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert task_of(painted, "detector=disentangle-mini-paper", "input_size=64").batch_norm


@pytest.mark.parametrize("off", ["", "cross", "vae_y", "vae_x", "foreground", "projection"])
def test_terms_are_finite_and_match_their_weights(painted, off):
    task = task_of(painted, *([f"terms.{off}=0"] if off else []), share=0.5)
    terms, weights = task.loss(task.batch(0), 0)
    assert terms.keys() == weights.keys() == set(TERMS) - {off}
    total = sum(weights[name] * term for name, term in terms.items())
    assert torch.isfinite(total)
    total.backward()
    for name, network in task.networks.items():
        assert any(p.grad is not None for p in network.parameters()), name


def test_supervision_alone_leaves_the_other_networks(painted):
    task = task_of(painted, *(f"terms.{name}=0" for name in ("vae_x", "vae_y", "cross", "foreground")))
    terms, _ = task.loss(task.batch(0), 0)
    assert set(terms) == {"sup", "projection"}
    sum(terms.values()).backward()
    assert not any(p.grad is not None for name in ("decoder_x", "encoder_y") for p in task.networks[name].parameters())


def test_frames_without_a_pose_count_for_pictures_only(painted):
    task = task_of(painted, "unlabelled=0.5", share=0.25)
    batch = task.batch(0)
    assert batch["paired"][:4].sum() + batch["empty"][:4].sum() == 4 and not batch["paired"][4:].any()
    batch["paired"][:] = False
    batch["xy"][:] = torch.nan
    terms, _ = task.loss(batch, 0)
    assert terms["vae_x"] > 0 and all(terms[name] == 0 for name in ("vae_y", "cross", "sup", "projection"))


def test_only_known_poses_are_encoded_so_that_statistics_of_batches_are_of_poses(painted):
    task = task_of(painted, "unlabelled=0.5", "detector=disentangle-mini-paper", share=0.25)
    seen = []
    task.encoder_y.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    task.networks.train()
    terms, weights = task.loss(task.batch(0), 0)
    assert [len(poses) for poses in seen] == [4] and torch.isfinite(seen[0]).all()
    assert terms.keys() == weights.keys() and all(torch.isfinite(term) for term in terms.values())


def test_the_rest_of_a_picture_comes_from_another_frame_of_its_clip(painted):
    frames = painted[0]
    task = task_of(painted, "unlabelled=0")
    rows = np.array([0, 5, 13])
    others = task._other_frames(rows, np.random.default_rng(0))
    assert (frames.clip[others] == frames.clip[rows]).all() and (others != rows).all()
    assert task.batch(0)["mate"].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert task_of(painted, "unlabelled=0", "other_frames=false").batch(0)["mate"].tolist() == list(range(8))
    alone = task_of(painted, share=0.08)  # two pairs
    assert set(alone._other_frames(alone.target.paired, np.random.default_rng(0))) <= set(alone.target.paired)


def test_batches_depend_on_seed_step_and_rank_only(painted):
    task = task_of(painted)
    for step in (0, 1, 3):
        one, same, other = task.batch(step, 0, 2), task.batch(step, 0, 2), task.batch(step, 1, 2)
        assert all(
            torch.equal(torch.nan_to_num(one[name].float()), torch.nan_to_num(same[name].float())) for name in one
        )
        assert not torch.equal(one["y"], other["y"])


def test_augmented_poses_still_project_onto_the_augmented_points(painted):
    """What a weak-perspective camera sees of a turned, mirrored pose is the points of the turned, mirrored crop."""
    task = task_of(painted, "unlabelled=0")
    batch = task.batch(0)
    pose, xy = batch["y"].numpy(), batch["xy"].numpy()
    seen, flat = xy - xy[:, :1], pose[..., :2]
    scale = (seen * flat).sum((1, 2)) / (flat**2).sum((1, 2))
    assert (scale > 0.5 * SCALE).all() and batch["flipped"].any() and not batch["flipped"].all()
    np.testing.assert_allclose(seen, scale[:, None, None] * flat, atol=1e-4)


def test_pictures_show_swaps_and_interpolations(painted):
    task = task_of(painted)
    image = task.picture({}, 0)
    assert image is not None and image.dtype == np.uint8 and image.ndim == 3 and task.networks.training
    assert task_of(painted, "terms.vae_x=0", "terms.cross=0").picture({}, 0) is None


def test_sketches_are_a_setting(painted):
    frames, _, skeleton = painted
    torch.manual_seed(0)
    task = make_sketch_task(frames, skeleton, load_disentangle_config("sketch", None, ["batch_size=4", "steps=2"]))
    assert task.extra == 1 and len(task.target.paired) == 12
    shown = set(task.batch(0)["y"].shape[1:]), task.batch(1)["y"].shape[1:]
    assert shown[1] == (1, 64, 64)
    for step in (0, 1):
        terms, weights = task.loss(task.batch(step), step)
        assert terms.keys() == weights.keys() and all(torch.isfinite(term) for term in terms.values())
    assert task.picture({}, 0) is not None


def test_too_few_pairs_are_refused(painted):
    frames, joints, skeleton = painted
    nothing = Known(np.full((24, 17, 3), np.nan, np.float32), joints[..., :2].astype(np.float32))
    target = PoseTarget(skeleton, nothing, np.zeros((0, 17, 3)))
    with pytest.raises(TrainingError, match="at least two"):
        DisentangleTask(frames, target, skeleton, load_disentangle_config())


def test_a_resumed_run_equals_one_that_never_stopped(painted, tmp_path):
    options = {"device": "cpu", "precision": "f32", "seed": 0, "picture_every": 0, "save_every": 3}
    small = ["steps=2", "batch_size=4", "target_steps=2"]
    whole = train(task_of(painted, *small), run_dir=tmp_path, **options)
    expected = {name: load_file(whole.checkpoint / f"{name}.safetensors") for name in ("model", "ema")}
    assert whole.steps == 6
    shutil.rmtree(whole.checkpoint)  # as if it had been stopped before its second joint step
    again = train(task_of(painted, *small), run_dir=tmp_path, resume=True, **options)
    for name, tensors in expected.items():
        found = load_file(again.checkpoint / f"{name}.safetensors")
        assert all(torch.equal(found[key], tensor) for key, tensor in tensors.items())


def test_it_learns_the_poses_of_its_pairs(painted):
    task = task_of(painted, "steps=60", "target_steps=1", "augmentation.background=0", "augmentation.colour=0",
                   "augmentation.cutout=0", "augmentation.empty=0", "found_masks=0", "terms.foreground=0")  # fmt: skip
    frames, joints, _ = painted
    optimiser = torch.optim.Adam(task.networks.parameters(), 1e-3)
    images = torch.from_numpy(frames.crops).permute(0, 3, 1, 2).float() / 255
    mask = torch.from_numpy(frames.masks).float() / 255
    pose = torch.from_numpy((joints - joints[:, :1]) / SCALE).float()

    def error():
        with torch.no_grad():
            subject = (images - 0.5) * mask[:, None] + 0.5
            return (task.detector.detect(subject, mask).pose - pose).norm(dim=-1).mean()

    before = error()
    for step in range(task.total_steps):
        terms, weights = task.loss(task.batch(step), step)
        optimiser.zero_grad()
        sum(weights[name] * term for name, term in terms.items()).backward()
        optimiser.step()
    assert error() < 0.7 * before
