from itertools import pairwise

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.geometry.bones import bone_lengths
from streampose.tracking.hypothesis_path import LivePath, LivePaths, PathCosts, limbs_of, smooth_path

HUMAN = load_skeleton("human17")
AT = {name: k for k, name in enumerate(HUMAN.joints)}
H, T, FPS = 10, 60, 30.0


def moving():
    """(T, K, 3) metres: one arm and one leg swing out of the picture plane and back."""
    poses = np.zeros((T, 17, 3))
    for bone in HUMAN.bones:
        poses[:, bone.child] = poses[:, bone.parent] + 1.7 * bone.length * np.asarray(bone.direction)
    for chain, phase in (
        (("left_shoulder", "left_elbow", "left_wrist"), 0.3),
        (("right_hip", "right_knee", "right_ankle"), 1.0),
    ):
        angle = 0.9 + 0.3 * np.sin(2 * np.pi * np.arange(T) / T + phase)
        for a, b in pairwise(chain):
            bone = next(bone for bone in HUMAN.bones if bone.child == AT[b])
            way = np.stack([0 * angle, np.cos(angle), -np.sin(angle)], -1)
            poses[:, AT[b]] = poses[:, AT[a]] + 1.7 * bone.length * way
    return poses


def ambiguous(poses, rng, wrong=0.3, bad=((20, 26),), noise=0.01):
    """Hypotheses in which each limb's depth is reversed now and then, and mostly so in some frames."""
    hypotheses = np.repeat(poses[:, None], H, 1)
    odds = np.full(T, wrong)
    for start, end in bad:
        odds[start:end] = 0.8
    for limb in limbs_of(HUMAN)[1:]:
        anchor = HUMAN.parents[limb[0]]
        flipped = rng.random((T, H)) < odds[:, None]
        depth = hypotheses[:, :, limb, 2] - hypotheses[:, :, [anchor], 2]
        hypotheses[:, :, limb, 2] += np.where(flipped[..., None], -2 * depth, 0)
    scale = 1 + rng.normal(0, 0.03, (T, H, 1, 1))
    return scale * hypotheses + rng.normal(0, noise, hypotheses.shape)


def error(poses, truth):
    return float(np.linalg.norm(poses - truth, axis=-1).mean())


def most_frequent(hypotheses):
    """Of each frame alone the hypothesis that is nearest to the others, as a mode is."""
    squared = ((hypotheses[:, :, None] - hypotheses[:, None]) ** 2).sum((-1, -2))
    return hypotheses[np.arange(T), np.exp(-squared / 0.5).sum(-1).argmax(1)]


@pytest.fixture(scope="module")
def scene():
    truth = moving()
    return truth, ambiguous(truth, np.random.default_rng(0)), np.arange(T) / FPS


def test_limbs_of_a_person():
    parts = limbs_of(HUMAN)
    names = [{HUMAN.joints[k] for k in part} for part in parts]
    assert names[1:] == [
        {"right_knee", "right_ankle"}, {"left_knee", "left_ankle"}, {"left_elbow", "left_wrist"},
        {"right_elbow", "right_wrist"},
    ]  # fmt: skip
    assert sorted(k for part in parts for k in part) == list(range(17))


def test_the_path_goes_on_where_most_hypotheses_are_wrong(scene):
    truth, hypotheses, times = scene
    limbs = [k for part in limbs_of(HUMAN)[1:] for k in part]
    alone = most_frequent(hypotheses)
    offline = smooth_path(hypotheses, times, HUMAN)
    live = LivePath(HUMAN)
    causal = np.stack([live.step(frame, t) for frame, t in zip(hypotheses, times, strict=True)])
    assert error(alone[20:26, limbs], truth[20:26, limbs]) > 0.15  # in these frames the mode is wrong
    assert error(offline[:, limbs], truth[:, limbs]) < 0.03 > error(offline[20:26, limbs], truth[20:26, limbs])
    assert error(causal, truth) < 0.6 * error(alone, truth)
    assert error(offline, truth) < error(causal, truth)


def test_bones_are_constant(scene):
    _, hypotheses, times = scene
    lengths = bone_lengths(smooth_path(hypotheses, times, HUMAN), HUMAN)
    assert lengths.std(0).max() < 1e-9
    np.testing.assert_allclose(lengths[0], np.median(bone_lengths(hypotheses, HUMAN).reshape(-1, 16), 0), rtol=0.05)


def test_clear_frames_are_left_as_they_are():
    truth = moving()
    hypotheses = np.repeat(truth[:, None], H, 1)
    times = np.arange(T) / FPS
    np.testing.assert_allclose(
        smooth_path(hypotheses, times, HUMAN, costs=PathCosts(smooth_seconds=0)), truth, atol=1e-5
    )
    live = LivePath(HUMAN)
    for t in range(T):  # who stands still
        np.testing.assert_allclose(live.step(hypotheses[0], times[t]), truth[0], atol=1e-5)
    live = LivePath(HUMAN)
    found = np.stack([live.step(hypotheses[t], times[t]) for t in range(T)])
    assert error(found, truth) < 0.01  # the filter's lag
    assert bone_lengths(found[20:], HUMAN).std(0).max() < 0.01


def test_live_needs_no_frame_to_come_and_no_frame_before(scene):
    _, hypotheses, times = scene
    one, two = LivePath(HUMAN), LivePath(HUMAN)
    first = [one.step(hypotheses[t], times[t]) for t in range(30)]
    for t in range(20):
        np.testing.assert_array_equal(two.step(hypotheses[t], times[t]), first[t])
    single = smooth_path(hypotheses[:1], times[:1], HUMAN)
    assert single.shape == (1, 17, 3) and np.isfinite(single).all()


def test_what_speaks_against_a_hypothesis_counts(scene):
    truth, _, times = scene
    rng = np.random.default_rng(3)
    hypotheses = ambiguous(truth, rng, wrong=0.6, bad=())
    apart = np.linalg.norm(hypotheses - truth[:, None], axis=-1).mean(-1)
    cost = 200 * apart
    with_cost = smooth_path(hypotheses, times, HUMAN, cost=cost)
    assert error(with_cost, truth) < 0.8 * error(smooth_path(hypotheses, times, HUMAN), truth)


def test_gaps_and_missing_joints(scene):
    truth, hypotheses, times = scene
    gap = hypotheses.copy()
    gap[10:13] = np.nan  # short: bridged
    gap[:, :, AT["left_wrist"]] = np.nan
    gap[5, 3] = np.nan  # one hypothesis
    found = smooth_path(gap, times, HUMAN)
    assert np.isnan(found[10:13]).all() and np.isnan(found[:, AT["left_wrist"]]).all()
    others = [k for k in range(17) if k != AT["left_wrist"]]
    rest = [t for t in range(T) if not 10 <= t < 13]
    assert np.isfinite(found[np.ix_(rest, others)]).all()
    assert error(found[np.ix_(rest, others)], truth[np.ix_(rest, others)]) < 0.03
    assert np.isnan(smooth_path(np.full((4, H, 17, 3), np.nan), times[:4], HUMAN)).all()
    live = LivePath(HUMAN)
    assert np.isnan(live.step(np.full((H, 17, 3), np.nan), 0.0)).all()
    assert np.isfinite(live.step(hypotheses[0], 0.1)).all()


def test_a_long_gap_begins_anew():
    truth = moving()
    rng = np.random.default_rng(0)
    hypotheses = ambiguous(truth, rng, wrong=0.2, bad=())
    hypotheses[30:33] = truth[30:33, None] * (1, 1, -1)  # wrong but for one: only the frames before and after tell
    hypotheses[30:33, 1] = truth[30:33]
    times = np.arange(T) / FPS
    near = smooth_path(hypotheses, times, HUMAN, costs=PathCosts(smooth_seconds=0))
    assert error(near[30:33], truth[30:33]) < 0.05
    times[30:] += 5.0
    times[33:] += 5.0
    far = smooth_path(hypotheses, times, HUMAN, costs=PathCosts(smooth_seconds=0))
    assert error(far[30:33], truth[30:33]) > 2 * error(near[30:33], truth[30:33])
    assert error(far[:30], truth[:30]) < 0.05 > error(far[33:], truth[33:])


def test_wrong_shapes_are_refused(scene):
    _, hypotheses, times = scene
    with pytest.raises(ValueError, match=r"expected \(T, H, 17, 3\)"):
        smooth_path(hypotheses[..., :2], times, HUMAN)
    with pytest.raises(ValueError, match="5 times for 60 frames"):
        smooth_path(hypotheses, times[:5], HUMAN)
    with pytest.raises(ValueError, match="expected"):
        LivePath(HUMAN).step(hypotheses[0][:, :5], 0.0)


def test_each_subject_has_a_path_of_its_own():
    human, rng = load_skeleton("human17"), np.random.default_rng(0)
    tracks = {7: rng.normal(0, 0.3, (17, 3)), 9: rng.normal(0, 0.3, (17, 3))}
    paths, found = LivePaths(human), {7: [], 9: []}
    for frame in range(40):
        ids = [7, 9] if frame % 2 else [9, 7]
        many = np.stack([tracks[track] + rng.normal(0, 0.04, (10, 17, 3)) for track in ids])
        many -= many[:, :, :1]
        if frame == 20:
            many[0] = np.nan  # too little was seen of the first
        pose = paths.step(ids, many, frame / 25)
        assert np.isnan(pose[0]).all() == (frame == 20) and np.isfinite(pose[1]).all()
        for n, track in enumerate(ids):
            found[track].append(pose[n])
    for track, poses in found.items():
        late = np.array([pose for pose in poses[10:] if np.isfinite(pose).all()])
        assert bone_lengths(late, human).std(0).max() < 0.015  # of single hypotheses it is 0.05
        assert np.linalg.norm(late - (tracks[track] - tracks[track][:1]), axis=-1).mean() < 0.05
