"""Smoothing a moment late: calm where nothing moves, without lag where something does, bounded in what waits."""

import numpy as np
import pytest

from streampose.runtime.hold import Row
from streampose.runtime.smoother import MOST_PAST, Smoother
from streampose.structures import Keypoints

FPS = 25
BOX = np.array([[0, 0, 100, 100.0]])


def row(t: int, xy: np.ndarray, ids=(3,), z=None, sure=0.9) -> Row:
    keypoints = Keypoints(xy, np.full(xy.shape[:2], sure), z)
    return Row(t, t / FPS, keypoints, list(ids), np.repeat(BOX, len(ids), 0))


def smoothed(rows: list[Row], most: int = 32) -> tuple[list[Row], int]:
    """The rows that come out, and how many waited at most."""
    smoother, given, waiting, longest = Smoother(most), [], 0, 0
    for item in rows:
        out = list(smoother.add(f"frame {item.frame_index}", item, frozenset(item.ids)))
        given += out
        waiting += 1 - len(out)
        longest = max(longest, waiting)
    given += list(smoother.finish())
    assert [frame for frame, _, _ in given] == [f"frame {item.frame_index}" for item in rows]
    assert [proven for _, _, proven in given] == [frozenset(item.ids) for item in rows]
    return [out for _, out, _ in given], longest


@pytest.mark.parametrize("most", [4, 10, 32])
def test_what_stands_is_calmed_and_what_moves_is_not_late(most):
    random = np.random.default_rng(0)
    truth = np.full((120, 1, 17, 2), 50.0) + 4.0 * np.maximum(0, np.arange(120) - 60)[:, None, None, None]
    noisy = truth + random.normal(0, 0.7, truth.shape)
    rows, longest = smoothed([row(t, xy, z=np.zeros((1, 17))) for t, xy in enumerate(noisy)], most)
    xy = np.stack([item.keypoints.xy for item in rows])
    assert np.diff(xy[20:55], axis=0).std() < 0.5 * np.diff(noisy[20:55], axis=0).std()
    assert abs(xy[70:] - truth[70:]).mean() < abs(noisy[70:] - truth[70:]).mean()  # no lag at 100 pixels a second
    assert abs((xy[70:] - truth[70:]).mean()) < 0.1
    assert longest <= most


def test_an_outlier_is_put_back():
    xy = np.tile(np.linspace(20, 80, 60)[:, None, None, None], (1, 1, 17, 2))
    torn = xy.copy()
    torn[30, 0, 4] += 60
    rows, _ = smoothed([row(t, points) for t, points in enumerate(torn)])
    assert np.abs(rows[30].keypoints.xy[0, 4] - xy[30, 0, 4]).max() < 8


def test_tracks_are_apart_and_missing_joints_stay_missing():
    rows = []
    for t in range(40):
        ids = (1, 2) if t % 2 else (2,)
        xy = np.stack([np.full((17, 2), 1000.0 * track) for track in ids])
        xy[:, 5] = np.nan
        rows.append(row(t, xy, ids))
    for item in smoothed(rows)[0]:
        for n, track in enumerate(item.ids):
            np.testing.assert_allclose(np.delete(item.keypoints.xy[n], 5, 0), 1000.0 * track)
            assert np.isnan(item.keypoints.xy[n, 5]).all()
        assert item.keypoints.z is None


def test_blocks_do_not_change_the_result():
    random = np.random.default_rng(1)
    noisy = 50 + np.cumsum(random.normal(0, 1, (90, 1, 17, 2)), 0)
    alike = [smoothed([row(t, xy) for t, xy in enumerate(noisy)], most)[0] for most in (16, 90)]
    for a, b in zip(*alike, strict=True):
        np.testing.assert_allclose(a.keypoints.xy, b.keypoints.xy, atol=0.5)


def test_times_that_stand_still_fill_no_memory():
    smoother = Smoother(8)
    for t in range(400):
        item = row(0, np.full((1, 17, 2), 50.0 + t))
        for _, out, _ in smoother.add("frame", item, frozenset()):
            assert np.isfinite(out.keypoints.xy).all()
    assert len(smoother._past) <= MOST_PAST and len(smoother._waiting) <= 9


def test_frames_without_subjects_pass():
    empty = [row(t, np.zeros((0, 17, 2)), ()) for t in range(30)]
    assert [item.ids for item in smoothed(empty)[0]] == [[]] * 30
