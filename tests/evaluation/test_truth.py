"""Tracks beside the truth of sessions: views of one moment are known to be so."""

from __future__ import annotations

import json

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.evaluation.predicted import Predicted
from streampose.evaluation.summary import summarise
from streampose.evaluation.truth import compare_truth, match_truth
from streampose.geometry.crop import square_box
from streampose.geometry.project import project_points
from streampose.synthetic.truth import Truth, write_truth

HUMAN = load_skeleton("human17")
T = 5


def write_views(folder, count: int = 2) -> dict[str, Truth]:
    """One person, seen by cameras around it: video_000_cam0 and so on, with session.json."""
    rng = np.random.default_rng(0)
    joints_3d = rng.normal(0, 0.4, (T, 1, 17, 3))
    truths = {}
    for view in range(count):
        angle = np.pi * view / max(count - 1, 1)
        R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        K = np.array([[800.0, 0, 160], [0, 800, 120], [0, 0, 1]])
        R, t, K = np.tile(R, (T, 1, 1)), np.tile([0.0, 0, 8], (T, 1)), np.tile(K, (T, 1, 1))
        xy = project_points(joints_3d[:, 0], K, R, t)[:, None]
        truth = Truth(
            joints=np.array(HUMAN.joints), joints_3d=joints_3d, joints_2d=xy,
            visibility=np.full((T, 1, 17), 2, np.uint8), boxes=np.concatenate([xy.min(2) - 4, xy.max(2) + 4], -1),
            masks=np.zeros((T, 240, 320), np.uint8), pts_seconds=np.arange(T) / 25, K=K, R=R, t=t,
            size=np.array([320, 240]),
        )  # fmt: skip
        name = f"video_000_cam{view}"
        write_truth(folder / f"{name}.truth.npz", truth)
        truths[name] = truth
    views = [{"video": f"{name}.mp4"} for name in truths]
    (folder / "session.json").write_text(json.dumps({"sessions": [{"name": "video_000", "views": views}]}))
    return truths


def track(name: str, truth: Truth, swapped: bool) -> Predicted:
    xy = truth.joints_2d[:, 0]
    xy = xy[:, HUMAN.flip_index] if swapped else xy
    return Predicted(
        name, f"videos/{name}.mp4", 0, np.arange(T), truth.pts_seconds, square_box(truth.boxes[:, 0], 0.1), xy, None,
        np.ones((T, 17)),
    )  # fmt: skip


@pytest.mark.parametrize(("swaps", "ratio"), [((0, 0), 0), ((1, 1), 0), ((1, 0), 0.5), ((1, 0, 0), 1 / 3)])
def test_views_that_disagree_about_left(tmp_path, swaps, ratio):
    truths = write_views(tmp_path, len(swaps))
    found = [track(name, truth, bool(s)) for (name, truth), s in zip(truths.items(), swaps, strict=True)]
    compared = compare_truth(match_truth(found, tmp_path, 0.1), HUMAN)
    assert len(set(compared.moments)) == T and set(compared.groups) == {"video_000"}
    assert summarise(compared)[1]["ambiguity_ratio"] == pytest.approx(ratio)


def test_without_a_session_there_is_no_ratio(tmp_path):
    truths = write_views(tmp_path)
    (tmp_path / "session.json").unlink()
    found = [track(name, truth, False) for name, truth in truths.items()]
    compared = compare_truth(match_truth(found, tmp_path, 0.1), HUMAN)
    assert set(compared.moments) == {""} and "ambiguity_ratio" not in summarise(compared)[1]
    assert set(compared.groups) == {"video_000_cam0", "video_000_cam1"}


def test_a_damaged_session_file_says_so(tmp_path):
    truths = write_views(tmp_path)
    (tmp_path / "session.json").write_text("[]")
    with pytest.raises(ConfigError, match="not the sessions of `streampose synth`"):
        match_truth([track(name, truth, False) for name, truth in truths.items()], tmp_path, 0.1)
