"""The task of the method `mirrornet`: configuration, curriculum, labels, batches, losses, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streampose.config import load_skeleton
from streampose.errors import ConfigError, TrainingError
from streampose.losses.gaussian import gaussian_peaks
from streampose.methods.mirrornet import MirrorTask, load_mirror_config, make_mirror_task
from streampose.methods.mirrornet_config import MirrorAugmentation
from streampose.methods.mirrornet_data import Pictures, draw_rows, random_views
from streampose.models.heatmap_detector import HeatmapDetector
from streampose.runtime.predictor import load_predictor
from streampose.selftrain import selftrain
from streampose.store.labels import Labels, write_labels
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source
from streampose.training.checkpoint import load_networks
from streampose.training.engine import train
from streampose.training.initialise import read_joints

STAGES = ("generators", "parts", "supervised", "semi-supervised")
SHORT = ["batch_size=8", "supervision.weight=0.01", *(f"stages.{stage}.steps=2" for stage in STAGES)]
STEP = dict(zip(STAGES, (0, 2, 4, 6), strict=True))


@pytest.fixture(scope="module")
def pictures(painted):
    frames, joints, _ = painted
    labelled = joints[..., :2].astype(np.float32).copy()
    labelled[6:] = np.nan  # 6 of 24
    return Pictures(frames.crops, frames.masks, labelled)


@pytest.fixture
def task(pictures, painted):
    return task_of(pictures, painted)


def task_of(pictures, painted, *overrides):
    torch.manual_seed(0)
    return MirrorTask(pictures, painted[2], load_mirror_config("tiny", None, [*SHORT, *overrides]))


def loss_of(task, step, **changes):
    torch.manual_seed(1)
    return task.loss(task.batch(step) | changes, step)


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_presets_load(preset):
    config = load_mirror_config(preset)
    assert tuple(config.stages) == STAGES
    assert config.stages["semi-supervised"].unannotated == 0.25  # 96 + 32
    assert config.variance.recogniser == 0.01 and config.supervision.frames == 1
    assert config.supervision.weight == (0.01 if preset == "base" else 0.05)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("input_size=96", "multiple of 64"),
        ("imagenet=weights.pth", "simple-small"),
        ("stages.parts.trains=[mirror, pose]", "stages.parts"),
        ("stages.parts.unannotated=0.5", "stages.parts.unannotated"),
        ("stages.parts.trains=[elbows]", "stages.parts.trains"),
        ("widht=3", "widht"),
        ("stages={only: {steps: 5, trains: [pose]}}", "none of them trains the pose recogniser"),
    ],
)
def test_wrong_settings_are_named(override, said):
    with pytest.raises(ConfigError, match=said):
        load_mirror_config("tiny", None, [override])


def test_stages_follow_each_other_and_a_plan_scales_them(task):
    assert list(dict.fromkeys(task.stage(step) for step in range(task.total_steps))) == list(STAGES)
    assert task.total_steps == 8 and task.stage(100) == "semi-supervised"
    task.plan(2.0, 10.0)
    first = task.total_steps
    assert first > 100
    task.plan(2.0, 5.0)
    assert abs(task.total_steps - first / 2) <= 4


def test_of_little_time_the_recogniser_gets_most(pictures, painted):
    task = task_of(pictures, painted, *(f"stages.{stage}.steps=1000" for stage in STAGES))
    task.plan(1.0, 10.0)
    lengths = task.lengths
    assert lengths["generators"] < 0.5 * lengths["parts"]
    cost = {"generators": 123, "parts": 158, "supervised": 245, "semi-supervised": 245}  # milliseconds
    assert sum(cost[n] * steps for n, steps in lengths.items()) == pytest.approx(0.93 * 600 * 123, rel=0.02)


def test_a_stage_of_no_steps_is_left_out(pictures, painted):
    task = task_of(pictures, painted, "stages.generators.steps=0", "stages.parts.steps=0")
    assert [task.stage(step) for step in range(task.total_steps)] == ["supervised"] * 2 + ["semi-supervised"] * 2


def test_every_epoch_shows_every_row_once():
    rows = np.array([3, 5, 8, 9, 11])
    drawn = np.concatenate([draw_rows(rows, step, 2, (7,)) for step in range(5)])
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == rows.tolist()
    assert draw_rows(rows[:1], 0, 4, (7,)).tolist() == [3] * 4


def test_batches_depend_on_seed_step_and_rank_only(task):
    for step in STEP.values():
        one, same, other = task.batch(step, 0, 2), task.batch(step, 0, 2), task.batch(step, 1, 2)
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["images"], other["images"])


def test_batches_are_composed_as_the_stage_says(task):
    assert task.batch(STEP["supervised"])["annotated"].all()
    batch = task.batch(STEP["semi-supervised"])
    assert batch["annotated"].tolist() == [True] * 6 + [False] * 2
    assert batch["known"][:6].any(1).all() and not batch["known"][6:].any()


def test_without_other_frames_batches_are_all_labelled(pictures, painted):
    everything = Pictures(pictures.crops[:6], pictures.masks[:6], pictures.joints[:6])
    assert task_of(everything, painted).batch(STEP["semi-supervised"])["annotated"].all()


def test_views_move_joints_with_the_picture(painted):
    """A white dot at a joint stays at the joint; left and right change places in mirrored views."""
    skeleton = painted[2]
    crops, masks = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.uint8)
    crops[0, 40:43, 20:23] = masks[0, 40:43, 20:23] = 255
    joints = np.full((1, 17, 2), np.nan, np.float32)
    left, right = skeleton.flip_pairs[0]
    joints[0, left] = (np.array([21, 41]) + 0.5) / 32 - 1
    one = Pictures(crops, masks, joints)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(12):
        view = random_views(one, np.zeros(1, int), rng, MirrorAugmentation(), skeleton.flip_index, 16)
        (joint,) = np.flatnonzero(view["known"][0])
        seen.add(int(joint))
        rows, columns = np.nonzero(view["images"][0, ..., 0] > 127)
        expected = (np.array([columns.mean(), rows.mean()]) + 0.5) / 32 - 1
        np.testing.assert_allclose(view["joints"][0, joint], expected, atol=0.03)
        assert view["masks"].shape == (1, 16, 16) and view["masks"].max() > 30
    assert seen == {left, right}


def test_a_larger_share_of_the_labels_holds_the_smaller_ones(pictures):
    few, more = (set(pictures.keep_share(share, 3).annotated) for share in (0.2, 0.7))
    assert len(few) == 1 and len(more) == 4 and few < more < set(range(6))


def test_parts_are_trained_by_themselves(task):
    """No term reaches another part's networks."""
    owners = {"recogniser": {"detector"}, "mask": {"mask"}, "plausibility": {"primitive", "pose"}}
    owners |= {"primitive": {"primitive"}, "fidelity": {"appearance", "scene", "image"}}
    for name, owner in (owners | {"appearance": {"appearance"}, "scene": {"scene"}}).items():
        task.networks.zero_grad()
        loss_of(task, STEP["parts"])[0][name].backward()
        reached = {n for n, net in task.networks.items() if any(p.grad is not None for p in net.parameters())}
        assert reached == owner, name


def test_the_mirror_teaches_all_but_the_mask_estimator(pictures, painted):
    task = task_of(pictures, painted, "own_fidelity=1")
    terms, weights = loss_of(task, STEP["semi-supervised"])
    assert terms.keys() == weights.keys()
    sum(terms[name] * weights[name] for name in terms).backward()
    reached = {n for n, net in task.networks.items() if any(p.grad is not None for p in net.parameters())}
    assert reached == set(task.networks) - {"mask"}
    for name in ("own_fidelity", "own_plausibility"):
        task.networks.zero_grad()
        loss_of(task, STEP["semi-supervised"])[0][name].backward()
        assert task.detector.heatmap.weight.grad.abs().sum() > 0  # through the heatmaps
        assert all(p.grad is None for p in task.mirror.parameters())  # L^X teaches the recogniser alone


def test_terms_by_hand(pictures, painted):
    """lambda log q_alpha with variance 0.01 is half the squared distance; unlabelled joints and frames add nothing."""
    task = task_of(pictures, painted, "supervision.frames=3", "own_fidelity=0.5", "outline=2")
    batch = task.batch(STEP["semi-supervised"])
    task.detector.heatmap.weight.data.zero_()
    terms, weights = loss_of(task, STEP["semi-supervised"], **batch)
    given = torch.zeros(8, 17, 16, 16)
    centres = (torch.arange(16) + 0.5) / 8 - 1
    for b, k in batch["known"].nonzero().tolist():
        x, y = batch["joints"][b, k]
        given[b, k] = torch.exp(-32 * ((centres - x)[None, :] ** 2 + (centres - y)[:, None] ** 2) / 1.5**2)
    half_square = 0.5 * given.square().sum() / 8
    assert terms["recogniser"].item() == pytest.approx(half_square.item() / 0.01, rel=1e-4)
    assert weights["recogniser"] * 256 == pytest.approx(3 * 0.01)  # lambda
    assert weights["fidelity"] * 256 == 3 and weights["own_fidelity"] * 256 == 0.5
    assert weights["own_outline"] * 256 == 2
    assert weights["own_primitive"] * 256 == task.config.divergence.pose
    assert weights["own_scene"] * 256 == task.config.divergence.image
    nothing, _ = loss_of(
        task, STEP["supervised"], known=torch.zeros_like(batch["known"]), annotated=torch.ones(8, dtype=torch.bool)
    )
    assert nothing["recogniser"] == 0 and nothing["plausibility"] == 0


def test_what_is_recognised_teaches_all_as_printed_where_asked(pictures, painted):
    task = task_of(pictures, painted, "own_teaches=all", "own_fidelity=1")
    terms, _ = loss_of(task, STEP["semi-supervised"])
    (terms["own_fidelity"] + terms["own_plausibility"]).backward()
    reached = {n for n, net in task.networks.items() if any(p.grad is not None for p in net.parameters())}
    assert reached == set(task.networks) - {"mask"}


def test_labelled_frames_may_be_left_out_of_what_teaches_without_labels(pictures, painted):
    step, values = STEP["semi-supervised"], {}
    for share in (0, 1):
        task = task_of(pictures, painted, f"own_labelled={share}")
        labelled = task.batch(step)["annotated"]
        values[share] = loss_of(task, step)[0]
    assert 0 < values[0]["own_plausibility"] < values[1]["own_plausibility"]
    assert values[0]["plausibility"] == values[1]["plausibility"]
    assert loss_of(task_of(pictures, painted, "own_labelled=0"), STEP["supervised"])[0]["own_plausibility"] == 0
    assert labelled.any() and not labelled.all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_unpaired_poses_teach_the_pose_autoencoder_alone(pictures, painted, dimensions):
    poses = painted[1][..., :dimensions].copy()
    poses[:, 3] = np.nan
    config = load_mirror_config("tiny", None, SHORT)
    task = MirrorTask(pictures, painted[2], config, poses)
    for step in (STEP["generators"], STEP["supervised"]):
        batch = task.batch(step)
        assert batch["unpaired"].shape == (8, 17, 2) and batch["unpaired"].abs().max() < 1
        assert not batch["unpaired_known"][:, 3].any() and batch["unpaired_known"].float().mean() > 0.7
        terms, weights = task.loss(batch, step)
        assert terms.keys() == weights.keys() and weights["unpaired_primitive"] * 256 == config.divergence.pose
        task.networks.zero_grad()
        (terms["unpaired_plausibility"] + terms["unpaired_primitive"]).backward()
        reached = {n for n, net in task.networks.items() if any(p.grad is not None for p in net.parameters())}
        assert reached == {"primitive", "pose"}


def test_own_heatmaps_are_redrawn_or_sampled(pictures, painted):
    task = task_of(pictures, painted)
    xy = torch.tensor([[[0.2, -0.35]] * 17])
    maps = gaussian_peaks(xy, 16, 1.5).requires_grad_()
    again = task.own_heatmaps(0.8 * maps)
    torch.testing.assert_close(again, maps, atol=0.06, rtol=0)  # full height, at the same place
    again[..., 10:].sum().backward()
    assert maps.grad.abs().sum() > 0
    sampled = task_of(pictures, painted, "own_heatmaps=sampled").own_heatmaps(maps)
    assert (sampled - maps).std().item() == pytest.approx(0.1, rel=0.1)


def test_dressed_frames_keep_their_joints_and_change_their_colours(pictures, painted):
    task = task_of(pictures, painted, "dressed=1")
    images = torch.rand(4, 3, 64, 64)
    s = gaussian_peaks(torch.rand(4, 17, 2) - 0.5, 16, 1.5)
    labelled = torch.tensor([True, True, True, False])
    dressed = task.dress(images, task.shrink(images), s, labelled)
    assert not dressed.requires_grad and dressed.min() >= 0 and dressed.max() <= 1
    change = (dressed - images).abs().amax((1, 2, 3))
    assert change[:3].max() > 0 and change[3] == 0  # a frame without labels has no joints to paint
    same, maps = images[:1].repeat(4, 1, 1, 1), s[:1].repeat(4, 1, 1, 1)  # in the features of their like
    torch.testing.assert_close(task.dress(same, task.shrink(same), maps, labelled), same, atol=1e-4, rtol=0)
    never = task_of(pictures, painted, "dressed=0")
    assert never.dress(images, never.shrink(images), s, labelled) is images


def test_masks_of_frames_without_labels_teach_the_recogniser(pictures, painted):
    task = task_of(pictures, painted)
    step = STEP["semi-supervised"]
    batch = task.batch(step)
    term = loss_of(task, step, **batch)[0]["own_outline"]
    task.networks.zero_grad()
    term.backward()
    assert task.detector.heatmap.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in task.mirror.parameters())
    labelled = batch["annotated"][:, None, None]
    other = torch.where(labelled, 255 - batch["masks"], batch["masks"])  # those of labelled frames do not count
    torch.testing.assert_close(loss_of(task, step, **batch | {"masks": other})[0]["own_outline"], term)
    none = torch.zeros_like(batch["masks"])  # nor do frames without a mask
    assert loss_of(task, step, **batch | {"masks": none})[0]["own_outline"] == 0
    assert "own_outline" not in loss_of(task, STEP["supervised"])[0]
    assert "own_outline" not in loss_of(task_of(pictures, painted, "mask_estimator=false"), step)[0]


def test_the_outline_by_hand(task):
    """Logits of zero say one half everywhere: a quarter a cell of an empty or a full mask."""
    task.mirror["mask"].out.weight.data.zero_()
    task.mirror["mask"].out.bias.data.zero_()
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[1, :8] = 255
    x, s = torch.rand(2, 3, 16, 16), torch.rand(2, 17, 16, 16)
    torch.testing.assert_close(task.outline_terms(x, s, masks), torch.tensor([64.0, 64.0]))
    task.mirror["mask"].out.bias.data.fill_(50.0)
    torch.testing.assert_close(task.outline_terms(x, s, masks), torch.tensor([256.0, 128.0]))


def test_some_nats_of_appearance_and_scene_are_free(pictures, painted):
    task = task_of(pictures, painted, "divergence.free_nats=1e6")
    terms, _ = loss_of(task, STEP["generators"])
    assert terms["appearance"] == 1e6 and terms["scene"] == 1e6
    terms["appearance"].backward()
    assert all(p.grad is None or not p.grad.any() for p in task.mirror["appearance"].parameters())
    paid = loss_of(task_of(pictures, painted, "divergence.free_nats=0"), STEP["generators"])[0]
    assert 0 < paid["appearance"] < 1e6


def test_switches(pictures, painted):
    without = task_of(pictures, painted, "pose_vae=false")
    assert not {"plausibility", "own_plausibility", "primitive"} & loss_of(without, STEP["supervised"])[0].keys()
    task = task_of(pictures, painted, "mask_estimator=false")
    x, s = torch.rand(2, 3, 16, 16), torch.rand(2, 17, 16, 16)
    front, back = task.split(x, s)
    assert front is x and back is x
    task = task_of(pictures, painted)
    front, back = task.split(x, s)
    torch.testing.assert_close(front + back, x)
    w = task.mask(x, s)
    logits = task.mirror["mask"](torch.cat([x, s], 1))
    torch.testing.assert_close(w, 1 / (1 + torch.exp(-10 * logits)))


def test_the_picture_shows_every_step_of_the_mirror(task):
    with torch.no_grad():
        image = task.picture(task.batch(STEP["supervised"]), 1)
    assert image.dtype == np.uint8 and image.shape == (6 * 128, 8 * 128, 3)


def test_it_learns_the_painted_figures(pictures, painted):
    everything = Pictures(pictures.crops[:6], pictures.masks[:6], pictures.joints[:6])
    task = task_of(
        everything, painted, "stages.generators.steps=0", "stages.parts.steps=20", "stages.supervised.steps=10"
    )
    optimiser = torch.optim.Adam(task.networks.parameters(), 2e-3)
    found: dict[str, list[float]] = {}
    for step in range(30):
        terms, weights = task.loss(task.batch(step), step)
        optimiser.zero_grad()
        sum(terms[name] * weights[name] for name in terms).backward()
        optimiser.step()
        for name, term in terms.items():
            found.setdefault(name, []).append(float(term.detach()))
    for name in ("recogniser", "fidelity"):
        assert np.mean(found[name][-5:]) < 0.7 * np.mean(found[name][:5]), name
    assert np.mean(found["mask"][-5:]) < 0.7 * np.mean(found["mask"][:5])


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.fixture
def store(tmp_path, painted) -> Path:
    frames, _, skeleton = painted
    folder = tmp_path / "store.zarr"
    create_store(folder, skeleton, crop_size=64, margin=0.13)
    writer = ClipWriter(folder, "one", source="one.mp4", fps=25)
    for n in range(12):
        writer.append(frames.crops[n], frames.masks[n], frames.boxes[n], n / 25, n)
    writer.finish()
    publish_source(folder, "one", {"path": "one.mp4", "verdict": "ok", "reason": "", "clips": [writer.id]})
    return folder


def test_labels_of_the_store_are_used(store, painted):
    _, joints, skeleton = painted
    (clip,) = StoreReader(store).clips()
    names = ("left_wrist", "head", "tail")
    columns = [skeleton.joints.index(name) for name in names[:2]]
    keypoints = np.full((2, 3, 2), np.nan, np.float32)
    keypoints[:, :2] = (joints[[2, 5]][:, columns, :2] + 1) * 32 - 0.5
    keypoints[1, 1] = np.nan
    visibility = np.where(np.isfinite(keypoints).all(-1), 2, 0).astype(np.uint8)
    labels = Labels(np.repeat(clip.id, 2), np.array([2, 5]), keypoints, visibility, np.repeat("me", 2), names)
    config = load_mirror_config("tiny", None, SHORT)
    with pytest.raises(TrainingError, match="no labels"):
        make_mirror_task(StoreReader(store), skeleton, config, "cpu")
    write_labels(store, "mine", labels)
    task = make_mirror_task(StoreReader(store), skeleton, config, "cpu")
    assert task.annotated.tolist() == [2, 5] and len(task.unannotated) == 10
    found = task.pictures.joints
    np.testing.assert_allclose(found[2, columns], joints[2, columns, :2], atol=1e-5)
    assert np.isfinite(found[5]).all(-1).sum() == 1
    assert isinstance(task.detector, HeatmapDetector)
    tight = load_mirror_config("tiny", None, [*SHORT, "cache_megabytes=0.05"])
    kept = make_mirror_task(StoreReader(store), skeleton, tight, "cpu")
    assert len(kept.pictures) < 12 and len(kept.annotated) == 2


def label_all(store: Path, joints: np.ndarray, skeleton) -> None:
    (clip,) = StoreReader(store).clips()
    rows = np.arange(0, 12, 2)
    keypoints = ((joints[rows, :, :2] + 1) * 32 - 0.5).astype(np.float32)
    seen = np.full(keypoints.shape[:2], 2, np.uint8)
    who = np.repeat("me", len(rows))
    write_labels(store, "mine", Labels(np.repeat(clip.id, len(rows)), rows, keypoints, seen, who, skeleton.joints))


def test_selftrain_ends_in_a_bundle_that_serves(store, painted, tmp_path):
    """Only alpha is in it, and it answers like any other detector."""
    frames, joints, skeleton = painted
    label_all(store, joints, skeleton)
    result = selftrain(
        store=store, method="mirrornet", overrides=SHORT, labels=["mine"], out=tmp_path / "runs",
        models=tmp_path / "models", device="cpu", precision="f32",
    )  # fmt: skip
    assert result["promoted"] and result["parity_px"] < 0.1 and "free/score" in result["metrics"]
    assert read_joints(Path(result["run"])) == list(skeleton.joints)
    for runtime in ("onnx", "torch"):
        predictor = load_predictor(tmp_path / "models" / "current", runtime, threads=1)
        keypoints, confidence = predictor.predict_crops(frames.crops[:3])
        assert keypoints.shape == (3, 17, 3) and confidence.shape == (3, 17)
        assert (keypoints[..., :2] > -1).all() and (keypoints[..., :2] < 65).all() and not keypoints[..., 2].any()
    assert not any(name.startswith("primitive") for name in load_file(tmp_path / "models/current/weights.safetensors"))


def test_a_resumed_run_equals_one_that_never_stopped(pictures, painted, tmp_path, monkeypatch):
    def run(folder, **options):
        train(task_of(pictures, painted), run_dir=folder, device="cpu", precision="f32", picture_every=0, **options)
        return load_networks(folder)

    whole = run(tmp_path / "whole")
    loss = MirrorTask.loss

    def stopped(self, batch, step):
        if step == 5:
            raise KeyboardInterrupt
        return loss(self, batch, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MirrorTask, "loss", stopped)
        run(tmp_path / "cut", save_every=3)
    again = run(tmp_path / "cut", resume=True)
    assert whole.keys() == again.keys()
    for network, tensors in whole.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, again[network][name]), f"{network}.{name}"


def test_labels_of_other_joints_are_named(store, painted):
    skeleton = painted[2]
    (clip,) = StoreReader(store).clips()
    labels = Labels(
        np.array([clip.id]), np.array([0]), np.ones((1, 1, 2), np.float32), np.full((1, 1), 2, np.uint8),
        np.array(["me"]), ("tail",),
    )  # fmt: skip
    write_labels(store, "mine", labels)
    with pytest.raises(TrainingError, match="none of pelvis"):
        make_mirror_task(StoreReader(store), load_skeleton("human17"), load_mirror_config("tiny", None, SHORT), "cpu")
    assert skeleton.name == "human17"
