"""The gate: who becomes the current model, on models whose quality is known because they are drawn from the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError
from streampose.metrics.label_free import render_skeletons
from streampose.promotion import Measured, TrainingPart, choose_held_out, limit, measure, promote, publish
from streampose.store.labels import Labels, write_labels
from streampose.store.push import begin_writing, push_source
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source, write_pairs

HUMAN = load_skeleton("human17")
FRAMES, CROP, HEIGHT = 40, 64, 44.0


def true_pose(frame: int, clip: int) -> np.ndarray:
    """(17, 2) crop pixels: the rest pose, arms swinging."""
    pose = np.zeros((17, 2))
    for bone in HUMAN.bones:
        direction = np.array(bone.direction[:2])
        if bone.arm:
            direction = direction + np.array([0.6 * np.sin(frame / 4), 0])
        pose[bone.child] = pose[bone.parent] + bone.length * direction
    return pose * HEIGHT + [32 + 6 * np.sin(frame / 5 + clip), 32]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Two clips of a drawn person; the first pixel of a crop says which frame it is."""
    path = tmp_path_factory.mktemp("promotion") / "store.zarr"
    create_store(path, HUMAN, crop_size=CROP, margin=0.13)
    clips = []
    for number in range(2):
        writer = ClipWriter(path, f"walk-{number}", source="walk.mp4", fps=25)
        for frame in range(FRAMES):
            mask = render_skeletons(true_pose(frame, number)[None], np.array([HEIGHT]), HUMAN, CROP)[0]
            image = np.zeros((CROP, CROP, 3), np.uint8)
            image[0, [0, -1]] = image[1, [0, -1]] = (frame, number, 1)  # the same in the mirror
            image[0, 0, 2] = 0  # but for this
            writer.append(image, mask, np.array([0, 0, 128, 128], np.float32), frame / 25, frame)
        writer.finish()
        clips.append(writer.id)
    publish_source(path, "walk", {"path": "walk.mp4", "verdict": "ok", "reason": "", "clips": clips})
    i = np.arange(FRAMES - 5)
    pairs = {"clip": np.repeat("walk-0", len(i)), "i": i, "j": i + 5, "seconds": np.full(len(i), 0.2)}
    write_pairs(path, {**pairs, "motion": np.ones(len(i))})
    return path


def model(noise_px: float = 0.0, *, shuffled: bool = False, seed: int = 0):
    """A model that knows the truth, some pixels off; or one that fills the mask with joints in a wrong order."""

    def predict(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = []
        for crop in crops:
            frame, clip = int(crop[0, 0, 0]), int(crop[0, 0, 1])
            mirrored = crop[0, 0, 2] == 1
            pose = true_pose(frame, clip)
            rng = np.random.default_rng([seed, frame, clip, int(mirrored)])
            if shuffled:
                pose = pose[np.random.default_rng(seed).permutation(17)]
            if mirrored:
                pose = pose[HUMAN.flip_index] * [-1, 1] + [CROP - 1, 0]
            pose = pose + rng.normal(0, noise_px, pose.shape) if noise_px else pose
            out.append(np.concatenate([pose, np.zeros((17, 1))], 1))
        return np.stack(out).astype(np.float32), np.ones((len(crops), 17), np.float32)

    return predict


def measured(store: Path, *arguments, **options) -> Measured:
    reader = StoreReader(store)
    ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    return measure(model(*arguments, **options), CROP, HUMAN, reader, ranges)


class Current:
    """What `load_predictor` would return for `models/current`."""

    def __init__(self, predict, skeleton=HUMAN):
        self.predict_crops, self.input_size, self.skeleton = predict, CROP, skeleton


def decide(store: Path, folder: Path, monkeypatch, new: Measured, current, *, force: bool = False):
    """Let the gate decide between a new bundle and a current one, which are marked by a file each."""
    bundle, models = folder / "bundle", folder / "models"
    for place, mark in ((bundle, "new"), (models / "current", "old")):
        place.mkdir(parents=True, exist_ok=True)
        (place / "mark").write_text(mark)
    monkeypatch.setattr("streampose.promotion.load_predictor", lambda path: current)
    reader = StoreReader(store)
    ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    return promote(bundle, models, new, HUMAN, reader, ranges, {"model": "untrained"}, force=force), models


def test_a_better_model_takes_the_place_and_the_old_one_is_kept(store, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    decision, models = decide(store, tmp_path, monkeypatch, measured(store, 1.0), Current(model(6.0)))
    assert decision.promoted and decision.gate["low"] > 0
    assert (models / "current" / "mark").read_text() == "new" and (models / "previous" / "mark").read_text() == "old"
    assert decision.before["model"].endswith("current") and decision.before["free/score"] > 0
    assert "better: free/score" in caplog.text and "previous" in caplog.text
    json.dumps(decision.gate)


@pytest.mark.parametrize("force", [False, True])
def test_a_worse_model_is_refused_unless_forced(store, tmp_path, monkeypatch, caplog, force):
    decision, models = decide(store, tmp_path, monkeypatch, measured(store, 6.0), Current(model(1.0)), force=force)
    assert decision.promoted is force and decision.gate["high"] < 0 and decision.gate["reason"].startswith("worse")
    assert (models / "current" / "mark").read_text() == ("new" if force else "old")
    assert (models / "previous").exists() is force
    assert force or "--force-promote" in caplog.text


def test_what_differs_by_noise_only_is_not_better(store, tmp_path, monkeypatch):
    new, current = measured(store, 3.0, seed=1), Current(model(3.0, seed=2))
    decision, _ = decide(store, tmp_path, monkeypatch, new, current)
    assert not decision.promoted and "not better beyond noise" in decision.gate["reason"]
    assert decision.gate["low"] < 0 < decision.gate["high"]
    decision, _ = decide(store, tmp_path, monkeypatch, new, Current(model(3.0, seed=1)))
    assert not decision.promoted and decision.gate["difference"] == 0  # the very same model


def test_joints_that_fill_the_mask_without_a_body_are_refused(store, tmp_path, monkeypatch):
    """Every joint lies in the mask, and is that of another: what a mask loss alone may end in."""
    new = measured(store, shuffled=True)
    assert new.metrics["free/inside_mask"] == pytest.approx(measured(store).metrics["free/inside_mask"])
    decision, _ = decide(store, tmp_path, monkeypatch, new, Current(model(1.0)))
    assert not decision.promoted and decision.gate["high"] < 0


def test_the_score_falls_with_the_error(store):
    scores = [measured(store, noise).metrics["free/score"] for noise in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.8 and scores[-1] < 0.3


def test_swapped_sides_are_invisible(store):
    """The gate ranks by what single views can tell; see `ambiguity_ratio` for what several can."""
    plain = measured(store, 2.0).evidence
    swapped = measured(store, 2.0).evidence
    assert plain.score() == swapped.score()


def test_the_first_model_and_one_of_another_skeleton_are_replaced(store, tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    reader = StoreReader(store)
    decision = promote(bundle, tmp_path / "models", measured(store), HUMAN, reader, [], {"model": "untrained"})
    assert decision.promoted and decision.gate == {"reason": "the first model"}
    assert decision.before == {"model": "untrained"}
    other = Current(model(), load_skeleton("coco17"))
    decision, _ = decide(store, tmp_path / "other", monkeypatch, measured(store, 9.0), other)
    assert decision.promoted and "another skeleton, coco17" in decision.gate["reason"]


def test_a_damaged_current_model_is_replaced(store, tmp_path):
    bundle, models = tmp_path / "bundle", tmp_path / "models"
    bundle.mkdir()
    (models / "current").mkdir(parents=True)
    (models / "current" / "bundle.json").write_text("{}")
    decision = promote(bundle, models, measured(store), HUMAN, StoreReader(store), [], {})
    assert decision.promoted and "cannot be used" in decision.gate["reason"]
    assert not (models / "current" / "bundle.json").exists()


def test_publishing_keeps_one_earlier_model(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").write_text(name)
        publish(tmp_path / name, tmp_path / "current", tmp_path / "previous")
    assert [(tmp_path / place / "mark").read_text() for place in ("current", "previous")] == ["c", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "current", "previous"]


def test_no_masks_no_score(store):
    def nowhere(crops):
        return np.full((len(crops), 17, 3), -500, np.float32), np.zeros((len(crops), 17), np.float32)

    reader = StoreReader(store)
    assert measure(nowhere, CROP, HUMAN, reader, []).metrics == {"free/score": 0.0}
    ranges = [(clip, 0, 4) for clip in reader.clips()]
    assert measure(nowhere, CROP, HUMAN, reader, ranges).metrics["free/score"] == 0


def test_held_out_frames_are_not_trained_on(store):
    whole = StoreReader(store)
    held_out = choose_held_out(whole.clips())
    assert [(first, end) for _, first, end in held_out] == [(36, 40), (36, 40)]
    part = TrainingPart(store, held_out)
    assert [clip.num_frames for clip in part.clips()] == [36, 36]
    assert len(part.read("walk-0").frames) == 36 == len(part.times("walk-0"))
    with pytest.raises(StoreError):
        part.read("walk-0", [36])
    pairs = part.pairs()
    assert len(pairs["i"]) == 31 and pairs["j"].max() == 35
    assert len(whole.pairs()["i"]) == 35


def test_limit_picks_evenly_and_keeps_runs_of_frames(store):
    clip = StoreReader(store).clips()[0]
    ranges = [(clip, start, start + 40) for start in range(0, 4000, 40)]
    kept = limit(ranges, 96)
    assert sum(end - first for _, first, end in kept) == 96 and len(kept) == 8
    assert kept[0][1] == 0 and kept[-1][1] == 3960
    assert limit(ranges[:1], 600) == ranges[:1]


def true_labels(rows: int) -> Labels:
    frames = np.arange(rows) + 36 - rows
    points = np.stack([true_pose(int(frame), 0) for frame in frames]).astype(np.float32)
    seen = np.full(points.shape[:2], 2, np.uint8)
    seen[:, 5], points[:, 5] = 0, np.nan
    return Labels(np.full(rows, "walk-0"), frames, points, seen, np.full(rows, "ann"), HUMAN.joints)


def swapped(predict):
    """The same model with left and right exchanged for good: no mask sees it."""

    def other(crops):
        keypoints, confidence = predict(crops)
        return keypoints[:, HUMAN.flip_index], confidence

    return other


@pytest.mark.parametrize(("rows", "promoted"), [(12, True), (3, False)])
def test_labels_decide_about_what_no_mask_sees(store, tmp_path, monkeypatch, rows, promoted):
    """Where they are enough: of three labelled frames nothing is concluded."""
    labels, reader = true_labels(rows), StoreReader(store)
    ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    new = measure(model(2.0), CROP, HUMAN, reader, ranges, labels)
    assert new.metrics["labels/error"] == pytest.approx(2 * np.sqrt(np.pi / 2) / CROP, rel=0.25)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "models" / "current").mkdir(parents=True)
    monkeypatch.setattr("streampose.promotion.load_predictor", lambda path: Current(swapped(model(2.0, seed=7))))
    decision = promote(
        tmp_path / "bundle", tmp_path / "models", new, HUMAN, reader, ranges, {"model": "untrained"}, labels=labels
    )
    assert decision.promoted is promoted and decision.gate["low"] < 0 < decision.gate["high"]
    assert f"{rows} held-out labelled frames" in decision.gate["reason"]
    assert ("low" in decision.gate["labels"]) is promoted and decision.gate["labels"]["difference"] > 0
    json.dumps(decision.gate)


@pytest.mark.parametrize(("noise", "promoted"), [(2.5, True), (9.0, False)])
def test_labels_outweigh_masks_unless_the_model_collapses(store, tmp_path, monkeypatch, noise, promoted):
    """The sides of the current one are exchanged; the new one covers the masks a little worse, or far worse."""
    labels, reader = true_labels(20), StoreReader(store)
    ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    new = measure(model(noise), CROP, HUMAN, reader, ranges, labels)
    new = new._replace(label_errors=measure(model(1.0), CROP, HUMAN, reader, ranges, labels).label_errors)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "models" / "current").mkdir(parents=True)
    monkeypatch.setattr("streampose.promotion.load_predictor", lambda path: Current(swapped(model(2.0))))
    decision = promote(tmp_path / "bundle", tmp_path / "models", new, HUMAN, reader, ranges, {}, labels=labels)
    assert decision.promoted is promoted and decision.gate["high"] < 0 < decision.gate["labels"]["low"]
    assert (decision.gate["difference"] > -0.1) is promoted and decision.gate["reason"].endswith("better")


def test_a_model_that_is_worse_on_labels_is_refused(store, tmp_path, monkeypatch):
    labels, reader = true_labels(20), StoreReader(store)
    ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    new = measure(swapped(model(1.0)), CROP, HUMAN, reader, ranges, labels)  # covers the masks better
    (tmp_path / "bundle").mkdir()
    (tmp_path / "models" / "current").mkdir(parents=True)
    monkeypatch.setattr("streampose.promotion.load_predictor", lambda path: Current(model(3.0)))
    decision = promote(tmp_path / "bundle", tmp_path / "models", new, HUMAN, reader, ranges, {}, labels=labels)
    assert not decision.promoted and decision.gate["low"] > 0 > decision.gate["labels"]["high"]


def test_training_reads_frames_and_labels_of_another_place(tmp_path, monkeypatch):
    """On a machine that has not seen them yet."""
    url = f"memory://{tmp_path.name}-part.zarr"
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "one"))
    with begin_writing(url, HUMAN, crop_size=CROP, margin=0.1) as (folder, copy):
        writer = ClipWriter(folder, "walk-0", source="walk.mp4", fps=25)
        for frame in range(FRAMES):
            image = np.full((CROP, CROP, 3), frame, np.uint8)
            writer.append(image, image[..., 0], np.array([0, 0, 128, 128], np.float32), frame / 25, frame)
        writer.finish()
        publish_source(folder, "walk", {"path": "walk.mp4", "verdict": "ok", "clips": ["walk-0"]})
        push_source(copy, "walk")
    write_labels(url, "hand", true_labels(30).pick([0, 1, 29]))
    write_labels(url, "late", replace(true_labels(3), frame=np.array([1, 36, 39])))
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "two"))
    whole = StoreReader(url)
    part = TrainingPart(whole.name, choose_held_out(whole.clips()))
    assert part.read("walk-0", [7]).frames[0, 0, 0, 0] == 7
    assert part.labels(["late"]).frame.tolist() == [1] and len(whole.labels()) == 6
    assert len(part.labels(["hand"])) == 3 and part.label_names() == ["hand", "late"]
