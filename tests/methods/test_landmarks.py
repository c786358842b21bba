"""`landmarks` on painted figures: data, poses, gradients of each term, ablations, resuming, and learning."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streampose.config import load_skeleton
from streampose.errors import ConfigError, TrainingError
from streampose.methods.landmarks import LandmarksTask, joint_distance, joint_distances, load_landmarks_config, play
from streampose.methods.landmarks_data import Change, make_crops, random_again, random_backgrounds, random_pairs
from streampose.methods.landmarks_prior import Poses, pick_poses, skeleton_prior
from streampose.models.discriminators import SkeletonDiscriminator
from streampose.structures import Bone, Skeleton
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.training.engine import train

SKELETON = load_skeleton("human17")
QUICK = ["steps.skeletons=3", "steps.figures=2", "steps.landmarks=3", "steps.reading=0", "batch_size=2"]
QUICK += ["discriminator_width=4"]


@pytest.fixture(scope="module")
def poses():
    return Poses(built_in_prior(SKELETON, 64, 3).poses, SKELETON)


@pytest.fixture(scope="module")
def data(painted):
    frames, _, _ = painted
    return make_crops(frames.crops, frames.clip, frames.seconds)


def make(data, poses, *overrides, preset="tiny"):
    torch.manual_seed(0)
    config = load_landmarks_config(preset, None, [*QUICK, *overrides])
    return LandmarksTask(data, None if config.prior == "none" else poses, SKELETON, config)


def terms_of(task, step):
    batch = task.batch(step)
    task.networks.train()
    terms, weights = task.loss(batch, step)
    assert terms.keys() == weights.keys()
    return terms, weights


def test_pairs_are_two_frames_of_one_clip(data):
    assert (data.clip[data.pairs[:, 0]] == data.clip[data.pairs[:, 1]]).all()
    assert (data.pairs[:, 0] != data.pairs[:, 1]).all()
    still = Change(0, 0, 0, 0, 0)
    views = random_pairs(data, 4, np.random.default_rng(0), still)
    for image in [*views["images"], *views["others"]]:
        assert (data.crops == image).all((1, 2, 3)).any()


def test_other_views_move_as_their_matrices_say(data):
    dots = np.zeros((3, 64, 64, 3), np.uint8)
    dots[:, 40:43, 20:23] = 255
    views = random_again(dots, np.random.default_rng(1), Change(0.5, 20.0, 0.1, 0.2, 0.0))
    place = np.array([21.5, 41.5]) / 32 - 1
    for image, matrix in zip(views["again"], views["matrix"], strict=True):
        rows, columns = np.nonzero(image[..., 0] > 100)
        found = (np.array([columns.mean(), rows.mean()]) + 0.5) / 32 - 1
        np.testing.assert_allclose(found, matrix[:, :2] @ place + matrix[:, 2], atol=0.03)


def test_a_clip_of_one_frame_is_refused(data):
    with pytest.raises(TrainingError, match="--method mask"):
        make_crops(data.crops[:1], np.zeros(1, int), np.zeros(1))


def test_backgrounds_are_as_large_as_crops(data):
    assert random_backgrounds(data, 3, np.random.default_rng(0)).shape == (3, 64, 64, 3)


def test_poses_fill_the_crop_and_face_the_camera(poses):
    drawn = poses.draw(200, np.random.default_rng(0))
    extent = (drawn.xy.max(1) - drawn.xy.min(1)).max(1) / 2
    assert extent.min() > 0.5 and extent.max() < 1
    shoulders = drawn.xy[:, 11, 0] - drawn.xy[:, 14, 0]
    assert (shoulders > 0).mean() > 0.8
    any_way = Poses(poses.poses, SKELETON, facing=False).draw(200, np.random.default_rng(0)).xy
    assert 0.3 < (any_way[:, 11, 0] > any_way[:, 14, 0]).mean() < 0.7


def test_flat_poses_and_unknown_joints(poses):
    flat = poses.draw(40, np.random.default_rng(0)).xy * 100 + 300  # as labels in pixels are
    flat[:, 16] = math.nan
    flat[3, 2] = math.nan
    some = Poses(flat, SKELETON)
    assert len(some) == 39 and len(some.bones) == len(SKELETON.bones) - 1
    drawn = some.draw(8, np.random.default_rng(1))
    assert np.isfinite(drawn.xy[:, :13]).all() and np.abs(np.nan_to_num(drawn.xy)).max() < 1.5
    images = some.paint(drawn, np.zeros((8, 64, 64, 3), np.uint8), np.random.default_rng(1))
    assert images.any((1, 2, 3)).all()
    with pytest.raises(TrainingError, match="prior inspect"):
        Poses(np.full((4, 17, 2), np.nan), SKELETON)


def test_subjects_that_are_no_people_get_poses_of_their_skeleton_file():
    mouse = load_skeleton("mouse")
    some = Poses(skeleton_prior(mouse, 50, 1).poses, mouse)
    drawn = some.draw(20, np.random.default_rng(0))
    assert len(some) == 50 and np.isfinite(drawn.xy).all()
    assert ((drawn.xy.max(1) - drawn.xy.min(1)).max(1) / 2).min() > 0.4


def test_subjects_that_do_not_turn_every_way_are_turned_as_far_as_they_do(poses):
    still = replace(SKELETON, turn_degrees=(0.0, 20.0, 0.0))
    front = np.array([built_in_prior(SKELETON, 1, 3).poses[0]] * 50)
    left, right = front[0, 11], front[0, 14]
    angle = np.arctan2(left[2] - right[2], left[0] - right[0])
    c, s = np.cos(angle), np.sin(angle)
    front = front @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])  # shoulders across the picture
    seen = Poses(front, still).draw(50, np.random.default_rng(0)).xy
    widths = (seen[:, 11, 0] - seen[:, 14, 0]) / (seen[:, 0, 1] - seen[:, 8, 1])
    assert np.ptp(np.abs(widths)) < 0.25 * np.abs(widths).mean()


def test_mirror_images_are_drawn_where_they_are_seen():
    rng, still = np.random.default_rng(0), replace(SKELETON, turn_degrees=(0.0, 0.0, 10.0))
    front = np.array([built_in_prior(SKELETON, 1, 3).poses[0, :, :2]] * 40)
    front[:, :, 0] -= front[:, :, 0].mean(1, keepdims=True)
    both = (front + front[:, SKELETON.flip_index] * (-1, 1)) / 2 + rng.normal(0, 0.02, front.shape)
    aslant = both + both[:, :, 1:] * (0.7, 0)  # always leans to one side
    assert Poses(aslant, SKELETON).mirrored, "turns round"
    assert Poses(both, still).mirrored, "is its own mirror image"
    some = Poses(aslant, still)
    assert not some.mirrored
    leaning = some.draw(60, rng).xy
    assert (leaning[:, 10, 0] < leaning[:, 0, 0]).all(), "the head stays on its side"


def test_whole_frames_show_subjects_smaller_and_off_the_middle(poses):
    near, far = (
        Poses(poses.poses, SKELETON, followed=followed).draw(300, np.random.default_rng(0)).xy
        for followed in (True, False)
    )
    extent_near, extent_far = (np.ptp(xy, axis=1).max(1).mean() for xy in (near, far))
    assert extent_far < 0.95 * extent_near
    middle_near, middle_far = ((xy.max(1) + xy.min(1)).std() / 2 for xy in (near, far))
    assert middle_far > 1.5 * middle_near


def test_eta_reads_point_sets():
    """68 points such as a face's: Eq. 2 tells them apart by where they lie among the others."""
    t = np.linspace(0, np.pi, 17)
    jaw = np.stack([-np.cos(t), np.sin(t)], -1)
    rest = np.stack([np.tile(np.linspace(-0.6, 0.6, 17), 3), np.repeat([-0.5, -0.1, 0.4], 17)], -1)
    shape = np.concatenate([jaw, rest]).astype(np.float32)
    K = len(shape)
    bones = tuple(Bone(k, k + 1, 0.1, 0.2, 0.01, (1.0, 0.0, 0.0), 5.0) for k in range(K - 1))
    pairs = tuple((17 * row + k, 17 * row + 16 - k) for row in range(4) for k in range(8))
    face = Skeleton("face", tuple(f"p{k}" for k in range(K)), 0, bones, pairs, (0, 16), turn_degrees=(10.0, 30.0, 10.0))
    rng = np.random.default_rng(0)
    stretch = rng.normal(1, 0.15, (200, 1, 2))
    some = Poses(shape * stretch + rng.normal(0, 0.01, (200, K, 2)), face)
    config = load_landmarks_config("tiny", None, [*QUICK, "renderer=points", "sigma=0.05", "batch_size=8"])
    crops = make_crops(np.zeros((4, 64, 64, 3), np.uint8), np.zeros(4, int), np.arange(4.0))
    torch.manual_seed(0)
    task = LandmarksTask(crops, some, face, config)
    optimiser = torch.optim.AdamW(task.detector.reader.parameters(), lr=3e-3)
    errors = []
    for step in range(50):
        batch = {"poses": torch.from_numpy(some.draw(8, np.random.default_rng(step)).xy)}
        terms, weights = task.loss(batch, 0)
        optimiser.zero_grad()
        sum(terms[name] * weights[name] for name in terms).backward()
        optimiser.step()
        errors.append(float(terms["reader"].detach()))
    assert np.mean(errors[-10:]) < 0.1 * errors[0]


def test_few_poses_are_always_the_same_ones(poses):
    assert np.array_equal(pick_poses(poses.poses, 5, 1), pick_poses(poses.poses, 5, 1))
    assert len(pick_poses(poses.poses, 5, 1)) == 5


def test_joint_distance():
    found, wanted = torch.zeros(1, 3, 3, requires_grad=True), torch.tensor([[[0.0, 0], [3, 4], [math.nan, 1]]])
    distance = joint_distance(found, wanted)
    assert distance.item() == pytest.approx((5 - 0.05) / 2, abs=1e-3)
    distance.backward()
    assert found.grad[0, 1].tolist() == pytest.approx([-0.3, -0.4, 0], abs=1e-3) and not found.grad[0, 2].any()
    torch.testing.assert_close(joint_distances(found, wanted)[0], distance)


def test_either_naming_of_a_subject_seen_from_the_side_will_do(data, poses):
    task = make(data, poses)
    batch = task.batch(3)
    named = batch["figure_poses"]
    swapped = named[:, SKELETON.flip_index]
    batch["figure_poses"] = swapped
    y = task.draw(named)
    batch["figure_side_on"] = torch.tensor([True, False])
    worse = task._figure_terms(y, batch)
    batch["figure_side_on"] = torch.tensor([True, True])
    better = task._figure_terms(y, batch)
    assert better["figures"] < worse["figures"]
    side = np.zeros((2, 17, 2))
    side[1, [11, 4], 0] = 0.2  # left shoulder and hip to the right of the others
    assert poses.side_on(side).tolist() == [True, False]
    assert not Poses(poses.poses, SKELETON, facing=False).side_on(side).any()


def test_both_sides_of_the_game_get_the_gradients_of_their_own_losses():
    judge, real = SkeletonDiscriminator(1, 4, 32), torch.rand(2, 1, 32, 32)
    made = torch.rand(2, 1, 32, 32, requires_grad=True)
    maker, judging = play(judge, real, made)
    (maker + 3 * judging).backward()
    of_judge, of_made = [p.grad.clone() for p in judge.parameters()], made.grad.clone()
    made.grad = None
    judge.zero_grad()
    torch.stack([((1 - s) ** 2).mean() for s in judge(made)]).mean().backward()
    torch.testing.assert_close(of_made, made.grad)
    judge.zero_grad()
    pairs = zip(judge(real), judge(made.detach()), strict=True)
    (3 * torch.stack([((1 - r) ** 2).mean() + (m**2).mean() for r, m in pairs]).mean()).backward()
    for found, parameter in zip(of_judge, judge.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, atol=1e-5, rtol=1e-4)


def test_stages_train_what_they_should(data, poses):
    task = make(data, poses)
    reader, encoder = task.detector.reader, task.detector.image_encoder

    def gradients(step):
        task.networks.zero_grad(set_to_none=True)
        terms, weights = terms_of(task, step)
        sum(terms[name] * weights[name] for name in terms).backward()
        return [any(p.grad is not None and p.grad.any() for p in part.parameters())
                for part in (reader, encoder, task.decoder, task.networks["discriminator"])]  # fmt: skip

    assert [task.stage(step) for step in (0, 3, 5, 7)] == ["skeletons", "figures", "landmarks", "landmarks"]
    assert gradients(0) == [True, False, False, False]
    assert gradients(3) == [False, True, False, False]
    assert gradients(5) == [False, True, True, True]
    assert not reader.training  # its running statistics are frozen too


def test_in_the_end_eta_alone_learns_to_read_what_phi_makes(data, poses):
    task = make(data, poses, "steps.reading=2")
    assert [task.stage(step) for step in (7, 8, 9)] == ["landmarks", "reading", "reading"]
    terms_of(task, 7)
    terms, weights = terms_of(task, 8)
    assert terms.keys() == {"reader", "figures_xy"}
    sum(terms[name] * weights[name] for name in terms).backward()
    assert all(p.grad is None for p in task.detector.image_encoder.parameters())
    assert all(p.grad is not None for p in task.detector.reader.parameters())
    assert task.detector.reader.training and not task.detector.image_encoder.training


def test_the_image_teaches_the_encoder_through_the_joints_and_first_the_decoder(data, poses):
    task = make(data, poses, "decoder_first=0.5", "second_cycle=true")
    first = list(task.detector.image_encoder.parameters())[:1]
    terms, _ = terms_of(task, 7)
    for name in ("perceptual", "adversarial", "cycle"):
        assert torch.autograd.grad(terms[name], first, retain_graph=True)[0].any()
    terms, _ = terms_of(task, 5)
    assert "cycle" not in terms and not terms["adversarial"].requires_grad
    assert torch.autograd.grad(terms["perceptual"], first, allow_unused=True)[0] is None
    judge = list(task.networks["discriminator"].parameters())[:1]
    assert torch.autograd.grad(terms["discriminator"], judge)[0].any()


@pytest.mark.parametrize(
    ("overrides", "extra"),
    [
        (["conditional=false", "bottleneck=false", "second_cycle=true"], {"cycle", "image_discriminator"}),
        (["bottleneck=false", "second_cycle=true"], {"cycle", "image_adversarial"}),
        (["second_cycle=true"], {"cycle"}),
        (["limb_masks=true", "detector=landmarks-tiny-skip-sided"], set()),
        (["renderer=points", "sigma=0.1"], set()),
        (["renderer=points", "sigma=0.1", "detector=landmarks-tiny"], set()),
        (["weights.proper=1", "weights.equivariance=1"], {"proper", "equivariance"}),
    ],
)
def test_ablations_and_variants_give_finite_terms_and_pictures(data, poses, overrides, extra):
    task = make(data, poses, *overrides)
    terms, _ = terms_of(task, 7)
    assert terms.keys() >= {"perceptual", "adversarial", "discriminator"} | extra
    assert all(torch.isfinite(term) for term in terms.values())
    picture = task.picture(task.batch(5), 5)
    assert picture.dtype == np.uint8 and picture.shape[0] == (6 + 2) * 96  # rows, and swaps below


def test_rotations_are_learnt_beside_the_skeletons(data, poses):
    task = make(data, poses, "perceptual=rotations")
    terms, _ = terms_of(task, 0)
    assert terms.keys() == {"reader", "reader_maps", "rotations"}
    assert terms["rotations"].item() == pytest.approx(math.log(4), abs=0.7)


def test_the_ancestor_learns_without_poses_and_names_points_by_labels(data, painted, poses):
    frames, joints, _ = painted
    config = load_landmarks_config("tiny", None, [*QUICK, "prior=none"])
    assert config.detector == "ancestor-tiny"
    task = LandmarksTask(data, None, SKELETON, config, (frames.crops[:6], joints[:6, :, :2]))
    assert task.total_steps == 3
    terms, _ = terms_of(task, 0)
    assert terms.keys() == {"perceptual", "labels"}
    terms["labels"].backward()
    assert task.detector.regressor.weight.grad.any()
    assert next(task.detector.reader.parameters()).grad is None  # labels name points, they do not move them
    assert task.picture(task.batch(0), 0).shape[1] == 2 * 96


def test_eta_learns_to_read_skeletons(data, poses, tmp_path):
    task = make(data, poses, "steps.skeletons=40", "batch_size=4", "reader_learning_rate=5e-3")
    train(task, run_dir=tmp_path / "run", seed=0, max_minutes=None, log_every=10, picture_every=0, precision="f32")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    reader = [line["terms"]["reader"] for line in lines if line.get("stage") == "skeletons" and "terms" in line]
    assert reader[-1] < 0.5 * reader[0]


def test_resuming_equals_never_having_stopped(data, poses, tmp_path):
    whole = make(data, poses, "steps.reading=2")
    train(whole, run_dir=tmp_path / "whole", seed=3, precision="f32", picture_every=0)
    part = make(data, poses, "steps.reading=2")
    part.total_steps = 6  # ends in the middle of `landmarks`
    train(part, run_dir=tmp_path / "part", seed=3, precision="f32", picture_every=0)
    train(
        make(data, poses, "steps.reading=2"),
        run_dir=tmp_path / "part",
        seed=3,
        precision="f32",
        picture_every=0,
        resume=True,
    )
    for name in ("model", "ema"):
        one, other = (
            load_file(tmp_path / run / "checkpoints" / "step_00000010" / f"{name}.safetensors")
            for run in ("whole", "part")
        )
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_plans_fill_the_time_and_keep_the_first_stages_short(data, poses):
    task = make(data, poses, "steps.skeletons=100", "steps.figures=100", "steps.landmarks=400")
    task.plan(10.0, 60.0)
    lengths = task.schedule.lengths
    assert lengths["skeletons"] == 200 and lengths["landmarks"] > 4000
    assert task.minutes_left(0, 100, 1.0) > 0


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="landmarks-tiny"):
        load_landmarks_config("tiny", None, ["detector=huge"])
    with pytest.raises(ConfigError, match="perceptual"):
        load_landmarks_config("tiny", None, ["weights.percept=1"])
    with pytest.raises(ConfigError, match="conditional"):
        load_landmarks_config("tiny", None, ["limb_masks=true", "conditional=false"])
    with pytest.raises(ConfigError, match="preset"):
        load_landmarks_config("enormous")
