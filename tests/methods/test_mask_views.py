"""Sessions: which frames are one moment of one subject, and batches that mix them with single frames."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.console import logger
from streampose.geometry.project import project_points
from streampose.methods.mask import MaskTask, load_mask_config
from streampose.methods.mask_data import make_frames
from streampose.methods.mask_views import Instants, Mixture, _moments, _rays, _subjects, no_instants
from streampose.synthetic.scene import look_at

SIZE = 64


def filmed(subjects: int = 1, moments: int = 6, shift: float = 0.0):
    """Frames of two to three people seen by three cameras, whose boxes follow them; clips in the order of views."""
    rng = np.random.default_rng(3)
    cameras = []
    for angle, distance in ((0.1, 4.0), (2.0, 6.0), (4.3, 5.0)):
        place = np.array([distance * np.cos(angle), distance * np.sin(angle), 1.4])
        R, t = look_at(place, np.zeros(3))
        cameras.append((np.array([[80.0 * distance, 0, 160], [0, 80.0 * distance, 120], [0, 0, 1]]), R, t))
    paths = rng.normal(0, 0.2, (subjects, moments, 3)) + np.arange(subjects)[:, None, None] * (1.5, 0.3, 0)
    boxes, clip, seconds, rays, Rs, ts = [], [], [], [], [], []
    for view, (K, R, t) in enumerate(cameras):
        for subject in range(subjects):
            centre = project_points(paths[subject], K, R, t)
            box = np.concatenate([centre + 0.5 - 70, centre + 0.5 + 70], -1)
            boxes.append(box)
            clip += [view * subjects + subject] * moments
            seconds += (np.arange(moments) * 0.08 + shift * view).tolist()
            rays.append(_rays(box, K))
            Rs.append(np.repeat(R[None], moments, 0))
            ts.append(np.repeat(t[None], moments, 0))
    count = len(clip)
    crops = rng.integers(0, 255, (count, SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    masks[:, 8:56, 24:40] = 255
    frames = make_frames(crops, masks, np.concatenate(boxes).astype(np.float32), np.array(clip), np.array(seconds))
    found = Instants(
        np.zeros((0, 3), np.int64), np.zeros(0, int), np.zeros(0), np.concatenate(rays).astype(np.float32),
        np.concatenate(Rs), np.concatenate(ts), np.full(count, -1),
    )  # fmt: skip
    clips = [(n // subjects, np.flatnonzero(frames.clip == n), frames.seconds[frames.clip == n]) for n in range(count)]
    return frames, found, [entry for entry in clips if len(entry[1])]


def with_instants(frames, found, clips):
    rows = np.concatenate([_moments([clips[n] for n in group], 3)[0] for group in _subjects(clips, found)])
    return Instants(rows, np.zeros(len(rows), int), np.arange(len(rows)), found.rays, found.R, found.t, found.lens)


def test_clips_of_one_subject_meet():
    _, found, clips = filmed(subjects=2)
    assert sorted(_subjects(clips, found)) == [[0, 2, 4], [1, 3, 5]]


def test_moments_follow_the_clocks_and_miss_views():
    _, _, clips = filmed()
    table, times = _moments(clips, 3)
    np.testing.assert_array_equal(table, np.arange(18).reshape(3, 6).T)
    assert times == pytest.approx(np.arange(6) * 0.08)
    late = (2, clips[2][1][3:], clips[2][2][3:] + 0.03)  # the third camera starts late and its clock is a little off
    table, _ = _moments([*clips[:2], late], 3)
    np.testing.assert_array_equal(table[:3, 2], -1)
    np.testing.assert_array_equal(table[3:, 2], [15, 16, 17])
    alone = [clips[0], (1, clips[1][1], clips[1][2] + 10)]
    assert len(_moments(alone, 3)[0]) == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_proportions_are_exact_and_depend_on_seed_and_step_only(share):
    frames, found, clips = filmed()
    instants = with_instants(frames, found, clips)
    more = Mixture(instants, len(frames) + 30, 3, share)
    drawn = [more.draw(step, 12, np.random.default_rng((7, step))) for step in range(50)]
    again = more.draw(17, 12, np.random.default_rng((7, 17)))
    assert all(np.array_equal(a, b) for a, b in zip(again, drawn[17], strict=True))
    inside = sum(int(seen.sum()) for _, seen in drawn)
    assert inside == pytest.approx(share * 12 * 50, abs=3)
    for index, seen in drawn:
        rows = index[: seen.size].reshape(seen.shape)
        assert all(set(row) in [set(r) for r in instants.frames] for row in rows)
        assert (index[seen.size :] >= len(frames)).all()


def test_batches_that_views_do_not_divide():
    frames, found, clips = filmed()
    mixture = Mixture(with_instants(frames, found, clips), len(frames) + 9, 3, 0.95)
    assert {mixture.groups(step, 10) for step in range(40)} == {3}
    assert Mixture(mixture.instants, len(frames), 8, 1.0).views == 3
    assert {mixture.groups(step, 2) for step in range(9)} == {0}  # smaller than one instant


def test_an_instant_with_fewer_views_leaves_slots_to_single_frames():
    frames, found, clips = filmed()
    instants = with_instants(frames, found, clips)
    instants.frames[:, 1] = -1
    mixture = Mixture(instants, len(frames) + 5, 3, 1.0)
    index, seen = mixture.draw(0, 12, np.random.default_rng(0))
    assert seen.shape == (4, 3) and (seen.sum(1) == 2).all()
    assert not set(index[:12].reshape(4, 3)[~seen]) & set(instants.frames.ravel())


def test_without_sessions_every_batch_is_single():
    index, seen = Mixture(no_instants(10), 10, 4, None).draw(3, 8, np.random.default_rng(0))
    assert len(index) == 8 and len(seen) == 0


def task_of(frames, instants, *overrides):
    torch.manual_seed(0)
    quick = ["silhouette.enabled=false", "dolls=0", "batch_size=12", "augmentation.empty=0",
             *(f"stages.{stage}.steps=2" for stage in ("warm-up", "tight", "medium", "loose", "refine"))]  # fmt: skip
    return MaskTask(frames, load_skeleton("human17"), load_mask_config("tiny", None, [*quick, *overrides]), instants)


def test_every_view_of_an_instant_is_taught_and_triangulation_is_a_switch():
    frames, found, clips = filmed()
    instants = with_instants(frames, found, clips)
    task = task_of(frames, instants, "multiview.share=1")
    batch = task.batch(7)
    assert batch["seen"].shape == (2, 3) and batch["rays"].shape == (2, 3, 2, 3)
    task.networks.train()
    terms, weights = task.loss(batch, 7)
    assert {"views", "views_z", "skeleton"} <= terms.keys() == weights.keys()
    out = task.detector(batch["images"].permute(0, 3, 1, 2).float() / 255)
    out.keypoints.retain_grad()
    space = task._space(batch, out, task.config.stages["loose"])
    drawn = task._reprojected(batch, out, space)
    drawn[:2, :, :2].square().sum().backward()  # the two pictures of the first view alone
    slopes = out.keypoints.grad.abs().sum((1, 2))
    assert (slopes[:6] > 0).all() and (slopes[6:] == 0).all()
    alone = task_of(frames, instants, "multiview.triangulate=false")
    assert "views" not in alone.loss(alone.batch(7), 7)[0]
    without = task_of(frames, instants, *(f"stages.{s}.triangulate=false" for s in ("loose", "refine")))
    assert without._space(batch, out, without.config.stages["loose"]) is None


def test_a_batch_of_single_frames_falls_back():
    frames, found, clips = filmed()
    instants = with_instants(frames, found, clips)
    task = task_of(frames, instants, "multiview.share=0")
    batch = task.batch(7)
    assert "seen" not in batch
    terms, weights = task.loss(batch, 7)
    assert "views" not in terms and terms.keys() == weights.keys()


def test_resumed_equals_uninterrupted(tmp_path):
    from streampose.training.engine import train

    frames, found, clips = filmed()
    instants = with_instants(frames, found, clips)

    def weights(folder, interrupt):
        task = task_of(frames, instants, "multiview.share=0.5")
        if interrupt:
            loss, calls = task.loss, []

            def stop(batch, step):
                calls.append(step)
                if len(calls) == 6:
                    raise KeyboardInterrupt
                return loss(batch, step)

            task.loss = stop
            with pytest.raises(KeyboardInterrupt):
                train(task, run_dir=folder, device="cpu", precision="f32", seed=1, save_every=4)
            task = task_of(frames, instants, "multiview.share=0.5")
        train(task, run_dir=folder, device="cpu", precision="f32", seed=1, save_every=4, resume=interrupt)
        return task.networks.state_dict()

    logger.setLevel("WARNING")
    whole, pieces = weights(tmp_path / "whole", False), weights(tmp_path / "pieces", True)
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_a_session_of_a_store_becomes_instants(tmp_path):
    from streampose.ingest import ingest
    from streampose.methods.mask import make_task
    from streampose.store.reader import StoreReader
    from streampose.synth import synth
    from streampose.synthetic.truth import read_truth

    logger.setLevel("WARNING")
    synth(out=tmp_path / "videos", videos=1, seconds=3, size=(160, 160), fps=12, cameras=3, seed=4)
    ingest([], sessions=[tmp_path / "videos"], store=tmp_path / "s.zarr", rate=6)
    reader = StoreReader(tmp_path / "s.zarr")
    config = load_mask_config("tiny", None, ["silhouette.enabled=false", "batch_size=8"])
    task = make_task(reader, load_skeleton("human17"), config, "cpu")
    instants, frames = task.instants, task.frames
    assert len(instants) >= 6 and instants.largest == 3
    batch = task.batch(3)
    assert batch["seen"].shape[1] == 3
    for row in instants.frames[:: len(instants) // 3]:
        for frame in row[row >= 0]:
            clip = reader.clips()[frames.clip[frame]]
            name = clip.source.rsplit("/", 1)[-1].replace(".mp4", ".truth.npz")
            truth = read_truth(tmp_path / "videos" / name)
            at = int(np.abs(truth.pts_seconds - frames.seconds[frame]).argmin())
            box, R = frames.boxes[frame], instants.R[frame]
            local = (truth.joints_3d[at, 0] @ truth.R[at].T + truth.t[at])[:, :2]
            depth = (truth.joints_3d[at, 0] @ truth.R[at].T + truth.t[at])[:, 2:]
            crop = (truth.joints_2d[at, 0] + 0.5 - box[:2]) * 2 / (box[2] - box[0]) - 1
            linear, offset = instants.rays[frame, :, :2], instants.rays[frame, :, 2]
            np.testing.assert_allclose(crop @ linear.T + offset, local / depth, atol=1e-5)
            np.testing.assert_allclose(R, truth.R[at], atol=1e-6)
