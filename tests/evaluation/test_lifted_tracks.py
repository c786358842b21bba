"""Lifted poses of tracks beside exact truth: a lifter that knows it, one that guesses, and what cannot be measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import BundleError, ConfigError
from streampose.evaluate import evaluate
from streampose.evaluation.lifted_tracks import measure_lifted_tracks
from streampose.evaluation.predicted import Predicted
from streampose.evaluation.truth import Matched
from streampose.geometry.project import camera_from_world, project_points
from streampose.runtime.bundle import LifterPart
from streampose.runtime.lifter import Lifting
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.synthetic.truth import Truth

HUMAN = load_skeleton("human17")
PART = LifterPart(code_size=2, least_metres=0.02, seen=[1.0] * 17, missing=[1.0] * 17)
T = 6


@pytest.fixture(scope="module")
def matched() -> list[Matched]:
    """Two videos of one person each, whose tracks are exact."""
    found = []
    for number in range(2):
        joints_3d = built_in_prior(HUMAN, T, number).poses[:, None].astype(float)
        K = np.tile([[800.0, 0, 160], [0, 800, 120], [0, 0, 1]], (T, 1, 1))
        R, t = np.tile(np.diag([-1.0, 1, -1]), (T, 1, 1)), np.tile([0.0, 0, 8], (T, 1))
        xy = project_points(joints_3d[:, 0], K, R, t)
        boxes = np.concatenate([xy.min(1), xy.max(1)], -1)
        truth = Truth(
            joints=np.array(HUMAN.joints), joints_3d=joints_3d, joints_2d=xy[:, None],
            visibility=np.full((T, 1, 17), 2, np.uint8), boxes=boxes[:, None], masks=np.zeros((T, 240, 320), np.uint8),
            pts_seconds=np.arange(T) / 25, K=K, R=R, t=t, size=np.array([320, 240]),
        )  # fmt: skip
        name = f"video_{number}"
        ones = np.ones((T, 17))
        found.append(
            Matched(Predicted(name, f"{name}.mp4", 0, np.arange(T), truth.pts_seconds, boxes, xy, None, ones), truth, 0)
        )
    return found


def oracle(matched: list[Matched], noise: float) -> Lifting:
    """Knows the true pose by its joints; codes move it."""
    joints = np.concatenate([match.item.xy for match in matched])
    truth = np.concatenate([camera_from_world(m.exact.joints_3d[:, 0], m.exact.R, m.exact.t) for m in matched])
    truth = truth - truth[:, [HUMAN.root]]

    def run(given, visibility, codes):
        poses = truth[((given[:, None] - joints[None]) ** 2).sum((2, 3)).argmin(1)]
        offset = noise * np.random.default_rng(0).normal(0, 1, poses.shape) * np.abs(codes[:, :1, None])
        return (poses + offset).astype(np.float32), np.ones((len(given), 3), np.float32)

    return Lifting(run, HUMAN, PART)


def test_an_oracle_is_right_in_the_cameras_axes(matched):
    found = measure_lifted_tracks(matched, oracle(matched, 0.1), HUMAN)
    metrics = found["metrics"]
    assert metrics["lifted/pa_mpjpe_mm"] == pytest.approx(0, abs=0.1) and metrics["lifted/share"] == 1
    assert metrics["lifted/mpjpe_mm"] == pytest.approx(0, abs=0.1) and metrics["lifted/coverage90"] == 1
    assert 5 < metrics["lifted/best10_pa_mpjpe_mm"] < 150  # the zero code is none of the ten
    assert found["per_joint"]["lifted/mpjpe_mm"].keys() == set(HUMAN.joints)
    assert found["per_joint"]["lifted/coverage90"].keys() == set(HUMAN.joints) - {HUMAN.joints[HUMAN.root]}
    low, high = found["intervals"]["lifted/pa_mpjpe_mm"]
    assert low <= metrics["lifted/pa_mpjpe_mm"] <= high


def test_joints_out_of_the_picture_and_frames_of_few_joints_do_not_count(matched):
    visibility = matched[0].exact.visibility.copy()
    visibility[:, 0, 4] = 0
    first = matched[0]._replace(exact=replace(matched[0].exact, visibility=visibility))
    confidence = np.ones((T, 17))
    confidence[1:, 3:] = 0.1
    second = matched[1]._replace(item=replace(matched[1].item, confidence=confidence))
    found = measure_lifted_tracks([first, second], oracle(matched, 0.0), HUMAN)
    assert found["metrics"]["lifted/share"] == pytest.approx((T + 1) / (2 * T))
    assert found["metrics"]["lifted/mpjpe_mm"] == pytest.approx(0, abs=0.1)
    nothing = [match._replace(item=replace(match.item, confidence=np.zeros((T, 17)))) for match in matched]
    with pytest.raises(ConfigError, match="could lift no frame"):
        measure_lifted_tracks(nothing, oracle(matched, 0.0), HUMAN)


def test_models_and_options_that_do_not_fit_are_told(matched, tmp_path):
    with pytest.raises(BundleError, match="does not find its"):
        measure_lifted_tracks(matched, oracle(matched, 0.0), load_skeleton("mouse"))
    with pytest.raises(ConfigError, match="give --truth"):
        evaluate(store=tmp_path, lifter=tmp_path)
    with pytest.raises(ConfigError, match="leave --lifter out"):
        evaluate(dataset="mpii:x", lifter=tmp_path)
