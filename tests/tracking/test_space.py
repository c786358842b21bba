import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from studio import FLIP, SKELETON, film, make_rig, walker

from streampose.tracking import space
from streampose.tracking.space import reconstruct


def joined(windows, number=0):
    people = [person for window in windows for person in window if person.id == number]
    return np.concatenate([p.seconds for p in people]), np.concatenate([p.points for p in people]), people


def far(points, truth):
    return np.linalg.norm(points - truth, axis=-1)


def confuse(views, rng, share=0.3):
    """Left and right exchanged in some frames of each view."""
    for view in views:
        yield (replace(s, xy=s.xy[:, FLIP]) if rng.random() < share else s for s in view)


def test_people_are_where_they_are(monkeypatch):
    monkeypatch.setattr(space, "WINDOW_MOMENTS", 32)
    rng = np.random.default_rng(0)
    cameras, truth = make_rig(4), [walker(90), walker(90, (1.0, 0.4))]
    windows = list(reconstruct(film(cameras, truth, rng), cameras, SKELETON, tolerance_seconds=0.02))
    assert [len(window) for window in windows] == [2, 2, 2]
    for number in (0, 1):
        seconds, points, people = joined(windows, number)
        np.testing.assert_allclose(seconds, np.arange(90) / 25)
        errors = [far(points, world) for world in truth]
        error = min(errors, key=np.mean)
        assert error.mean() < 0.012 and np.isfinite(points).all()
        assert all(p.inliers.mean() > 0.98 for p in people)


def test_confused_views_are_put_right_and_all_confused_alike_by_the_shape_of_the_body():
    rng = np.random.default_rng(1)
    cameras, truth = make_rig(3), walker(64)
    views = list(confuse(film(cameras, [truth], rng), rng))
    fixed = joined(list(reconstruct(views, cameras, SKELETON, tolerance_seconds=0.02)))[1]
    views = list(confuse(film(cameras, [truth], rng), rng))
    left = joined(list(reconstruct(views, cameras, SKELETON, tolerance_seconds=0.02, left_right=False)))[1]
    assert far(fixed, truth).mean() < min(0.01, 0.3 * np.nanmean(far(left, truth)))
    views = list(confuse(film(cameras, [truth], rng), rng, share=1.0))  # every view, every frame
    assert far(joined(list(reconstruct(views, cameras, SKELETON, tolerance_seconds=0.02)))[1], truth).mean() < 0.03


def test_smoothing_goes_over_the_windows(monkeypatch):
    rng = np.random.default_rng(2)
    cameras, truth = make_rig(3), walker(60)
    seen = [list(view) for view in film(cameras, [truth], rng, sigma=3.0)]
    results = {}
    for size in (10, 60):
        monkeypatch.setattr(space, "WINDOW_MOMENTS", size)
        views = [iter(view) for view in seen]
        results[size] = joined(list(reconstruct(views, cameras, SKELETON, tolerance_seconds=0.02)))[1]
    raw = joined(list(reconstruct([iter(v) for v in seen], cameras, SKELETON, tolerance_seconds=0.02, smooth=False)))[1]
    assert np.median(far(results[10], results[60])) < 0.2 * np.median(far(raw, truth))
    assert far(results[10], truth).mean() < 0.7 * far(raw, truth).mean()


def test_joints_that_a_view_gets_wrong_are_left_out_and_uncertainty_tells():
    rng = np.random.default_rng(3)
    cameras, truth = make_rig(4), walker(40)
    views = film(cameras, [truth], rng)
    wrong = np.zeros((17, 2))
    wrong[[0, 8, 9, 10]] = [150, -90]
    views[2] = (replace(s, xy=s.xy + wrong) for s in list(views[2]))
    person = joined(list(reconstruct(views, cameras, SKELETON, tolerance_seconds=0.02)))[2][0]
    bad = wrong.any(-1)
    assert person.inliers[2][:, bad].mean() < 0.05 and person.inliers[2][:, ~bad].mean() > 0.95
    assert far(person.points, truth).mean() < 0.02 and np.median(person.uncertainty) < 0.03
    assert np.median(person.error_px[2][:, bad]) > 140
    two = film(cameras[:2], [truth], rng)
    unsure = joined(list(reconstruct(two, cameras[:2], SKELETON, tolerance_seconds=0.02)))[2][0]
    assert np.median(unsure.uncertainty) > np.median(person.uncertainty)


@pytest.mark.parametrize("seen", [0, 1])
def test_nobody_in_two_views_is_nobody(seen):
    cameras = make_rig(2)
    views = film(cameras, [walker(10)], np.random.default_rng(4))
    views[seen] = iter(())
    assert [window for window in reconstruct(views, cameras, SKELETON, tolerance_seconds=0.02) if window] == []
