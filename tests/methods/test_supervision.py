"""Labels beside what is learnt without them: batches, pinned pseudo-labels, `mask` with labels, refining by labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from streampose.config import load_config, load_skeleton
from streampose.errors import ConfigError, TrainingError
from streampose.methods.landmarks import LandmarksTask, load_landmarks_config
from streampose.methods.landmarks_data import make_crops
from streampose.methods.landmarks_prior import Poses
from streampose.methods.mask import MaskTask, load_mask_config
from streampose.methods.mask_affine import from_view
from streampose.methods.mask_config import AugmentationConfig, SupervisionConfig
from streampose.methods.mask_data import Augmentation
from streampose.methods.mask_labels import Labels as Pseudo
from streampose.methods.mask_labels import along_clips
from streampose.methods.supervision import (
    Labelled,
    find_pinned,
    labelled_batch,
    labelled_count,
    pin,
    read_labelled,
    supervised_term,
)
from streampose.methods.tune import TuneConfig, TuneTask, load_tune_config
from streampose.store.labels import Labels, write_labels
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.training.engine import train

FLIP = load_skeleton("human17").flip_index
HOW = Augmentation(**AugmentationConfig().model_dump())
ROWS = [0, 5, 14]


@pytest.fixture(scope="module")
def labelled(painted):
    """Three labelled frames of the two painted clips; in the first one joint was not placed, and one is hidden."""
    frames, joints, _ = painted
    weight = np.ones((3, joints.shape[1]), np.float32)
    weight[0, 3], weight[0, 4] = 0, 0.7
    points = joints[ROWS][..., :2].astype(np.float32)
    points[weight == 0] = np.nan
    arrays = {name: getattr(frames, name)[ROWS] for name in frames.__dataclass_fields__}
    return Labelled(replace(frames, **arrays), points, weight, np.array(["a", "a", "b"]))


def test_batches_show_labels_where_the_pictures_do(painted, labelled):
    frames, _, skeleton = painted
    batch = labelled_batch(labelled, skeleton, 16, np.random.default_rng(0), HOW, frames)
    assert batch["labelled_images"].shape == (16, 64, 64, 3) and batch["labelled_joints"].shape == (16, 17, 2)
    missing = ~torch.isfinite(batch["labelled_joints"]).all(-1)
    assert (missing == (batch["labelled_weight"] == 0)).all() and missing.any()
    still = replace(HOW, rotation_degrees=0, scale=0, shift=0, flip=1, colour=0, background=0, cutout=0)
    mirrored = labelled_batch(labelled, skeleton, 8, np.random.default_rng(0), still)
    back = from_view(
        torch.cat([mirrored["labelled_joints"], torch.zeros(8, 17, 1)], -1),
        torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(8, 2, 3), torch.ones(8, dtype=torch.bool), skeleton.flip_index,
    )[..., :2]  # fmt: skip
    known = torch.from_numpy(labelled.joints)
    for points in back:
        apart = torch.nan_to_num(points[None] - known, nan=0.0).abs().amax((1, 2))
        assert apart.min() < 1e-5
    assert labelled_count(None, SupervisionConfig(), 32) == 0
    assert labelled_count(labelled, SupervisionConfig(share=0.25), 32) == 8


def test_pinned_labels_spread_along_their_clip(painted, labelled):
    frames, joints, _ = painted
    still = joints.copy()
    still[:12], still[12:] = joints[0], joints[14]  # each clip stands still, so that only naming can change
    wrong = still[:, FLIP] * (1, 1, -1)  # the model exchanges the sides of everything
    pseudo = Pseudo(wrong.astype(np.float32), np.full(wrong.shape[:2], 0.6, np.float32))
    of = Labelled(labelled.frames, still[ROWS][..., :2].astype(np.float32), np.ones((3, 17), np.float32), labelled.clip)
    pinned = find_pinned(of, frames, ["a", "b"])
    assert pinned.frame.tolist() == ROWS and pinned.named.all()
    replaced = pin(pseudo, of, pinned, FLIP)
    np.testing.assert_allclose(replaced.keypoints[5, :, :2], still[5, :, :2], atol=1e-6)
    assert (replaced.confidence[5] == 1).all() and (replaced.confidence[6] == np.float32(0.6)).all()
    np.testing.assert_allclose(replaced.keypoints[5, :, 2], still[5, :, 2], atol=1e-6)  # z went back with the sides
    fixed = np.zeros(24, bool)
    fixed[pinned.frame] = True
    settled = along_clips(replaced, frames, FLIP, fixed=fixed)
    np.testing.assert_allclose(settled.keypoints, still, atol=2e-3)
    unfixed = along_clips(replaced, frames, FLIP)  # most frames decide, wrongly
    assert np.abs(unfixed.keypoints - still).max() > 0.1
    far = find_pinned(of, replace(frames, seconds=frames.seconds * 100), ["a", "b"])
    assert not len(far.frame) or far.named.sum() < 24


def test_labels_of_a_store_become_labelled_frames(tmp_path, painted):
    frames, joints, skeleton = painted
    store = tmp_path / "store.zarr"
    create_store(store, skeleton, crop_size=64)
    writer = ClipWriter(store, "a-0", source="a.mp4", fps=25)
    for t in range(12):
        writer.append(frames.crops[t], frames.masks[t], frames.boxes[t], t / 25, t)
    writer.finish()
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    points = ((joints[[2, 2, 7], :, :2] + 1) * 32 - 0.5).astype(np.float32)
    points[1] += 2  # a second person puts the joints of frame 2 elsewhere
    seen = np.full((3, 17), 2, np.uint8)
    seen[2, 0], points[2, 0] = 0, np.nan
    seen[2, 1] = 1
    rows = Labels(
        np.full(3, "a-0"), np.array([2, 2, 7]), points, seen, np.array(["ann", "bob", "ann"]), skeleton.joints
    )
    write_labels(store, "hand", rows)
    config = SupervisionConfig(labels=["hand"], hidden=0.4)
    found = read_labelled(StoreReader(store), skeleton, config, 64)
    assert len(found) == 2 and found.clip.tolist() == ["a-0", "a-0"]
    np.testing.assert_allclose(found.joints[0], joints[2, :, :2] + 2 / 64, atol=1e-5)  # in the middle of the two
    assert found.weight[1, :3].tolist() == pytest.approx([0, 0.4, 1]) and np.isnan(found.joints[1, 0]).all()
    np.testing.assert_allclose(found.frames.seconds, [2 / 25, 7 / 25])
    assert read_labelled(StoreReader(store), skeleton, SupervisionConfig(), 64) is None
    write_labels(store, "tail", replace(rows, joints=()), [f"tail{k}" for k in range(17)])
    with pytest.raises(TrainingError, match="place no joint of skeleton human17"):
        read_labelled(StoreReader(store), skeleton, SupervisionConfig(labels=["tail"]), 64)


def test_mask_learns_from_labels(painted, labelled):
    frames, _, skeleton = painted
    config = load_mask_config("tiny", None, ["batch_size=8", "supervision.labels=[x]", "supervision.weight=3"])
    torch.manual_seed(0)
    task = MaskTask(frames, skeleton, config, None, labelled, ["a", "b"])
    batch = task.batch(0)
    assert batch["labelled_images"].shape[0] == 2 and len(batch["index"]) == 4  # and two dolls
    terms, weights = task.loss(batch, 0)
    assert weights["supervised"] == 3 and terms.keys() == weights.keys() and terms["supervised"] > 0
    assert task.labels.named.all()  # a second around each label, left and right are known
    np.testing.assert_allclose(task.labels.keypoints[5, :, :2], labelled.joints[1], atol=1e-5)
    again = task.batch(0)
    assert all(torch.equal(torch.nan_to_num(again[name]), torch.nan_to_num(batch[name])) for name in batch)
    assert task.picture(batch, 0) is not None
    plain = MaskTask(frames, skeleton, load_mask_config("tiny", None, ["batch_size=8"]))
    assert "supervised" not in plain.loss(plain.batch(0), 0)[0]


def test_refining_by_labels(painted, labelled):
    frames, _, skeleton = painted
    config = load_config(
        TuneConfig, None, ["batch_size=12", "steps=20", "rounds=1", "round_steps=5", "supervision.labels=[x]",
        "supervision.share=0.5", "learning_rate=0.003", "seed=1"],
    )  # fmt: skip
    torch.manual_seed(0)
    task = TuneTask(frames, labelled, ["a", "b"], skeleton, config)
    assert task.total_steps == 25 and [task.stage(s) for s in (0, 19, 20, 24)] == ["labels"] * 2 + ["round 1"] * 2
    optimiser = torch.optim.AdamW(task.detector.parameters(), lr=3e-3)
    history = []
    for step in range(task.total_steps):
        terms, weights = task.loss(task.batch(step), step)
        assert terms.keys() == weights.keys() and ("label" in terms) == (step >= 20)
        optimiser.zero_grad()
        sum(weights[name] * terms[name] for name in terms).backward()
        optimiser.step()
        history.append(float(terms["supervised"].detach()))
    assert np.mean(history[-5:]) < 0.8 * np.mean(history[:5])
    np.testing.assert_allclose(task.labels.keypoints[14, :, :2], labelled.joints[2], atol=1e-5)
    task.plan(steps_per_second=10.0, max_minutes=1.0)
    assert 50 < task.total_steps < 600 and task.first < task.total_steps
    assert task.picture(task.batch(0), 0).ndim == 3
    out = task.detector(task.batch(3)["labelled_images"].permute(0, 3, 1, 2).float() / 255)
    assert torch.isfinite(supervised_term(out, task.batch(3)))
    with pytest.raises(ConfigError, match="needs labels"):
        load_tune_config("tiny")
    with pytest.raises(ConfigError, match="unknown views"):
        load_tune_config("tiny", None, ["supervision.labels=[x]", "terms.views=1"])


def test_landmarks_learn_from_labels(painted, labelled):
    frames, _, skeleton = painted
    short = ["steps.skeletons=3", "steps.figures=2", "steps.landmarks=3", "batch_size=4", "discriminator_width=4"]
    config = load_landmarks_config("tiny", None, [*short, "supervision.weight=2"])
    poses = Poses(built_in_prior(skeleton, 64, 3).poses, skeleton)
    torch.manual_seed(0)
    data = make_crops(frames.crops, frames.clip, frames.seconds)
    task = LandmarksTask(data, poses, skeleton, config, labelled=labelled)
    for step in (3, 5):  # the stages of figures and of landmarks
        batch = task.batch(step)
        terms, weights = task.loss(batch, step)
        assert len(batch["labelled_images"]) == 1 and weights["supervised"] == 2 and terms.keys() == weights.keys()
        gradient = torch.autograd.grad(terms["supervised"], task.detector.image_encoder.code.weight)[0]
        assert gradient.abs().sum() > 0
    assert "labelled_images" not in task.batch(0)


def test_resumed_equals_uninterrupted(painted, labelled, tmp_path):
    """Stopped in the second round: the teacher and what it read come back with the checkpoint."""
    frames, _, skeleton = painted
    settings = ["batch_size=4", "steps=2", "rounds=1", "round_steps=4", "supervision.labels=[x]", "seed=4"]
    config = load_config(TuneConfig, None, settings)

    class Stops(TuneTask):
        def loss(self, batch, step):
            if step == 5:
                raise RuntimeError("pulled the plug")
            return super().loss(batch, step)

    def begin(kind, folder, **more):
        torch.manual_seed(0)
        task = kind(frames, labelled, ["a", "b"], skeleton, config)
        train(
            task,
            run_dir=tmp_path / folder,
            seed=4,
            device="cpu",
            precision="f32",
            picture_every=0,
            save_every=2,
            **more,
        )
        return task.networks.state_dict()

    whole = begin(TuneTask, "whole")
    with pytest.raises(RuntimeError, match="plug"):
        begin(Stops, "parts")
    parts = begin(TuneTask, "parts", resume=True)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
