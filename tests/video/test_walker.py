"""The drawn person: the same at every call, moves, and is where its joints say."""

from __future__ import annotations

import numpy as np

from streampose.video.walker import SIZE, draw_walker, walker_joints

TIMES = np.arange(0, 14, 0.7)
SMALL = (320, 240)


def test_same_time_same_picture():
    first = draw_walker(1.25)
    assert first.shape == (SIZE[1], SIZE[0], 3) and first.dtype == np.uint8
    draw_walker(3.0)
    np.testing.assert_array_equal(draw_walker(1.25), first)


def test_only_the_person_moves():
    pictures = np.stack([draw_walker(t, SMALL) for t in TIMES]).astype(int)
    background = np.median(pictures, 0)
    for seconds, picture in zip(TIMES, pictures, strict=True):
        rows, columns = np.nonzero(np.abs(picture - background).max(-1) > 30)
        joints = np.stack(list(walker_joints(seconds, SMALL).values()))
        low, high = joints.min(0) - 20, joints.max(0) + 20
        assert 500 < len(rows) < 0.2 * SMALL[0] * SMALL[1]
        assert columns.min() >= low[0] and columns.max() <= high[0] and rows.min() >= low[1] and rows.max() <= high[1]


def test_joints_lie_on_the_body():
    pictures = [draw_walker(t, SMALL).astype(int) for t in TIMES]
    background = np.median(pictures, 0)
    inside = []
    for seconds, picture in zip(TIMES, pictures, strict=True):
        body = np.abs(picture - background).max(-1) > 12
        inside += [body[round(y), round(x)] for x, y in walker_joints(seconds, SMALL).values()]
    assert np.mean(inside) > 0.95


def test_stays_in_the_picture_and_keeps_its_bones():
    times = np.arange(0, 30, 0.1)
    joints = [walker_joints(t) for t in times]
    points = np.stack([list(j.values()) for j in joints])
    assert points.min() > 0 and (points.max((0, 1)) < SIZE).all()
    for side in ("left", "right"):
        for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
            lengths = [np.linalg.norm(j[f"{side}_{a}"] - j[f"{side}_{b}"]) for j in joints]
            assert np.ptp(lengths) < 1e-6


def test_waves():
    heights = [walker_joints(t)["left_wrist"][1] - walker_joints(t)["head"][1] for t in np.arange(0, 7, 0.05)]
    assert max(heights) < 20 and np.ptp(heights) > 5
