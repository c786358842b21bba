"""The label-free score on predictions made by hand: what it rewards, and what must not fool it."""

from __future__ import annotations

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.evaluation.free import Evidence, compare_scores, gather, measure_label_free
from streampose.evaluation.predicted import Predicted

HUMAN = load_skeleton("human17")
T, SIZE = 60, 100.0
TRUE = np.array([bone.length for bone in HUMAN.bones])


def track(iou: float = 0.8, stretch: float = 1.0, mirror: float = 0.0, frames: int = T) -> Predicted:
    """A person in the rest pose, `stretch` times too large, with a given overlap and mirror distance."""
    pose = np.zeros((17, 2))
    for bone in HUMAN.bones:
        direction = np.array(bone.direction[:2]) / np.linalg.norm(bone.direction[:2])
        pose[bone.child] = pose[bone.parent] + SIZE * stretch * bone.length * direction
    mirrors = np.full((frames, 17), np.nan)
    mirrors[::4] = mirror
    return Predicted(
        track="a", source="a.mp4", first=0, frame_index=np.arange(frames), pts_seconds=np.arange(frames) / 25,
        boxes=np.tile([0.0, 0, 200, 200], (frames, 1)), xy=np.tile(pose, (frames, 1, 1)), z=np.zeros((frames, 17)),
        confidence=np.ones((frames, 17)), size=np.full(frames, SIZE), iou=np.full(frames, iou),
        inside=np.ones((frames, 17)), mirror=mirrors,
    )  # fmt: skip


def score(*tracks: Predicted) -> float:
    return measure_label_free(tracks, HUMAN)[0]["free/score"]


def test_the_score_is_the_product_of_its_parts():
    assert score(track(0.8)) == pytest.approx(0.8)
    assert score(track(0.8, stretch=2.0)) == pytest.approx(0.4)
    assert score(track(0.8, mirror=0.1)) == pytest.approx(0.8 * np.exp(-0.3))
    metrics, _ = measure_label_free([track(0.8, 0.5, 0.1)], HUMAN)
    assert metrics["free/bone_fit"] == pytest.approx(0.5) and metrics["free/mirror_distance"] == pytest.approx(0.1)
    assert metrics["free/score"] == pytest.approx(0.8 * 0.5 * np.exp(-0.3))


def test_a_mask_that_is_filled_without_a_body_scores_less_than_a_body():
    rng = np.random.default_rng(0)
    found = track(0.75)
    heap = Predicted(**{**vars(found), "xy": rng.uniform(-50, 50, found.xy.shape)})
    assert score(heap) < 0.6 * score(track(0.7))


def test_it_is_between_zero_and_one():
    assert 0 <= score(track(0.0)) <= score(track(1.0)) <= 1
    collapsed = track(0.5)
    assert score(Predicted(**{**vars(collapsed), "xy": np.zeros_like(collapsed.xy)})) < 1e-3


def test_frames_without_a_mask_count_for_nothing():
    found = track(0.8)
    iou = found.iou.copy()
    iou[:30] = np.nan
    assert score(Predicted(**{**vars(found), "iou": iou})) == pytest.approx(0.8)


def test_nothing_gives_no_metrics():
    assert measure_label_free([], HUMAN) == ({}, {})
    assert gather([], HUMAN).score() == 0


def test_differences_have_intervals():
    rng = np.random.default_rng(0)

    def evidence(level: float) -> Evidence:
        found = gather([track(frames=240)], HUMAN)
        return Evidence(
            HUMAN, level + 0.1 * rng.normal(size=240), found.lengths, found.mirror, found.views, found.block
        )

    difference, low, high = compare_scores(evidence(0.8), evidence(0.7))
    assert 0.05 < low < difference < high < 0.15
    _, low, high = compare_scores(evidence(0.75), evidence(0.75))
    assert low < 0 < high
    alike = evidence(0.7)
    assert compare_scores(alike, alike) == (0, 0, 0)


def test_a_single_stretch_of_frames_says_nothing():
    one = gather([track(frames=3)], HUMAN)
    difference, low, high = compare_scores(one, one)
    assert difference == 0 and low == -np.inf and high == np.inf
    assert len(np.unique(gather([track(frames=12)], HUMAN).block)) == 4  # few frames are cut finely
    assert len(np.unique(gather([track(frames=600)], HUMAN).block)) == 25


def test_the_same_frames_are_asked_for():
    with pytest.raises(AssertionError, match="other frames"):
        compare_scores(gather([track()], HUMAN), gather([track(frames=30)], HUMAN))
