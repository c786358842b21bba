"""All metrics on poses whose values are known by hand; a metric that is wrong must not pass here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.evaluation.compared import Compared, match_joints, measure, measure_ambiguity, post_process
from streampose.evaluation.summary import by_joint, by_name, summarise

HUMAN = load_skeleton("human17")
K = HUMAN.num_joints


def make(count: int = 4, seed: int = 0, **changes) -> Compared:
    """Perfect predictions of random poses in boxes of 200 px."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(20, 180, (count, K, 2))
    mm = rng.normal([0, 0, 4000], 300, (count, K, 3))
    parts = {
        "joints": HUMAN.joints, "columns": np.arange(K), "skeleton": HUMAN, "xy": xy.copy(), "true_xy": xy,
        "counts": np.ones((count, K), bool), "boxes": np.tile([0.0, 0, 200, 200], (count, 1)),
        "features": rng.normal(size=(count, 8)), "groups": np.array([f"clip {n // 2}" for n in range(count)]),
        "activities": np.full(count, ""), "moments": np.full(count, ""), "pose_mm": mm - mm[:, :1], "true_mm": mm,
    }  # fmt: skip
    return Compared(**parts | changes)


def means(compared: Compared) -> dict[str, float]:
    return {name: float(np.nanmean(values)) for name, values in measure(compared).items()}


def test_the_truth_is_perfect():
    found = means(make())
    assert found["pck@0.2"] == found["pckh@0.5"] == found["pck3d@150mm"] == found["auc3d"] == 1
    for name in ("mse_percent", "mpjpe_mm", "n_mpjpe_mm", "pa_mpjpe_mm"):
        assert found[name] == pytest.approx(0, abs=1e-6)


def test_a_shift_by_hand():
    compared = make()
    found = means(
        replace(compared, xy=compared.xy + np.array([3, 4]), pose_mm=compared.pose_mm + np.array([0, 0, 500]))
    )
    assert found["mse_percent"] == pytest.approx(100 * 5 / 200)
    assert found["mpjpe_mm"] == pytest.approx(0, abs=1e-6)  # relative to the root


def test_one_joint_off_by_hand():
    """One of 17 joints is 170 mm off, in one of 4 frames."""
    compared = make()
    pose = compared.pose_mm.copy()
    pose[1, 5, 0] += 170
    errors = measure(replace(compared, pose_mm=pose))
    assert errors["mpjpe_mm"][1, 5] == pytest.approx(170) and np.nansum(errors["mpjpe_mm"]) == pytest.approx(170)
    assert np.nanmean(errors["pck3d@150mm"]) == pytest.approx(1 - 1 / (4 * K))
    assert errors["auc3d"][1, 5] == 0
    pose[1, 5, 0] -= 70  # 100 mm: within 11 of the 31 thresholds 0, 5, ..., 150
    assert measure(replace(compared, pose_mm=pose))["auc3d"][1, 5] == pytest.approx(11 / 31)


def test_mirrored_poses_are_wrong_in_every_3d_metric():
    compared = make()
    for axis in range(3):
        sign = np.ones(3)
        sign[axis] = -1
        found = means(replace(compared, pose_mm=compared.pose_mm * sign))
        assert found["mpjpe_mm"] > 100 and found["n_mpjpe_mm"] > 100 and found["pa_mpjpe_mm"] > 100


def test_turned_and_scaled_poses_are_right_in_protocol_2_only():
    compared = make()
    angle = np.radians(30)
    R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    found = means(replace(compared, pose_mm=1.3 * compared.pose_mm @ R.T))
    assert found["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-6) and found["n_mpjpe_mm"] > 50
    found = means(replace(compared, pose_mm=1.3 * compared.pose_mm))
    assert found["n_mpjpe_mm"] == pytest.approx(0, abs=1e-6) and found["mpjpe_mm"] > 50


def test_swapped_sides_are_forgiven_where_they_may_be():
    compared = make()
    swapped = replace(compared, xy=compared.xy[:, HUMAN.flip_index], pose_mm=compared.pose_mm[:, HUMAN.flip_index])
    found = means(swapped)
    assert found["mse_percent/flips"] == 0 and found["mpjpe_mm/flips"] == pytest.approx(0, abs=1e-6)
    assert found["mse_percent"] > 10 and found["pck@0.2"] < 0.7


def test_missing_truth_does_not_count_and_a_missing_prediction_is_a_miss():
    compared = make()
    counts = compared.counts.copy()
    counts[0, 3] = False
    xy = compared.xy.copy()
    xy[1, 4] = np.nan
    xy[0, 3] = 1e6  # nobody looks there
    errors = measure(replace(compared, counts=counts, xy=xy))
    assert np.isnan(errors["pck@0.2"][0, 3]) and errors["pck@0.2"][1, 4] == 0
    assert np.nanmean(errors["pck@0.2"]) == pytest.approx(1 - 1 / (4 * K - 1))


def test_one_joint_and_no_frame():
    one = make(columns=np.array([0]), joints=("pelvis",), xy=np.ones((4, 1, 2)), true_xy=np.ones((4, 1, 2)),
               counts=np.ones((4, 1), bool), pose_mm=np.zeros((4, 1, 3)), true_mm=np.ones((4, 1, 3)))  # fmt: skip
    found = measure(one)
    assert set(found) == {f"{name}{end}" for name in ("mse_percent", "mpjpe_mm", "pck3d@150mm", "auc3d")
                          for end in ("", "/flips")}  # fmt: skip
    assert measure(make().pick(np.zeros(0, int))) == {}
    nothing = make(counts=np.zeros((4, K), bool), pose_mm=None, true_mm=None)
    assert measure(nothing) == {} and summarise(nothing)[1] == {}


def test_joints_are_matched_by_name_and_by_what_else_they_are_called():
    joints, columns, order = match_joints(HUMAN, ("head_top", "tail", "left_hip"), "a file")
    assert joints == ("left_hip", "head") and order == [2, 0]
    assert [HUMAN.joints[c] for c in columns] == ["left_hip", "head"]
    with pytest.raises(ConfigError, match="a file has none of the joints of human17"):
        match_joints(HUMAN, ("tail",), "a file")


def test_a_twin_that_is_unknown_stays_in_a_swap():
    columns = np.array([HUMAN.joints.index(name) for name in ("left_hip", "right_hip", "left_knee")])
    assert replace(make(), columns=columns).flip_index == [1, 0, 2]


def test_ambiguity_by_hand():
    """Two moments of three views: of the first one view is swapped, of the second all are."""
    compared = make(6)
    moments = np.array(["a", "a", "a", "b", "b", "b"])
    pose = compared.pose_mm.copy()
    for number in (0, 3, 4, 5):
        pose[number] = pose[number][HUMAN.flip_index]
    found = measure_ambiguity(replace(compared, pose_mm=pose, moments=moments))
    np.testing.assert_allclose(found, [1 / 3] * 3 + [0] * 3)
    assert np.isnan(measure_ambiguity(compared)).all()  # one view a moment


def test_post_processing_undoes_any_linear_change():
    """Landmarks that are the truth mixed up linearly: useless by name, perfect after the map."""
    rng = np.random.default_rng(1)
    compared = make(400, seed=2)
    mixed = (compared.true_xy.reshape(400, -1) / 200 - 0.5) @ rng.normal(size=(2 * K, 2 * K))
    groups = np.array([f"clip {n // 10}" for n in range(400)])
    broken = replace(compared, xy=compared.xy[:, ::-1], features=mixed, groups=groups)
    assert means(broken)["mse_percent"] > 20
    mapped = post_process(broken, 0.5)
    assert len(mapped.xy) == 200 and means(mapped)["mse_percent"] < 2
    assert set(mapped.groups).isdisjoint(set(groups) - set(mapped.groups))


def test_post_processing_never_sees_what_it_is_measured_on():
    """Features that say nothing: the map can only answer the mean pose."""
    compared = make(400, seed=3)
    groups = np.array([f"clip {n // 10}" for n in range(400)])
    features = np.random.default_rng(4).normal(size=(400, 6))
    found = means(post_process(replace(compared, features=features, groups=groups), 0.5))
    assert found["mse_percent"] > 20


def test_post_processing_needs_another_recording():
    with pytest.raises(ConfigError, match="one recording only"):
        post_process(make(groups=np.full(4, "a")), 0.5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        post_process(make(), 0.0)


def test_means_by_joint_and_name():
    values = np.array([[1.0, np.nan], [0.0, np.nan], [1.0, 4.0]])
    assert by_joint(values, ["a", "b"]) == {"a": pytest.approx(2 / 3), "b": 4}
    assert by_joint(values[:2], ["a", "b"]) == {"a": 0.5}
    tables = by_name({"m": values}, np.array(["x", "x", ""]))
    assert tables == {"m": {"x": 0.5}}
