from __future__ import annotations

import numpy as np
import pytest

from streampose.metrics.intervals import group_interval


def test_frames_of_one_recording_are_not_many_samples():
    """Two recordings of 500 alike frames each: as uncertain as two samples, not as a thousand."""
    values = np.repeat([0.0, 1.0], 500)
    groups = np.repeat(["a", "b"], 500)
    assert group_interval(values, groups) == (0, 1)
    low, high = group_interval(values, np.arange(1000))
    assert 0.45 < low < 0.5 < high < 0.55


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        levels = rng.normal(0, 1, 30)
        values = np.repeat(levels, 5) + rng.normal(0, 0.1, 150)
        low, high = group_interval(values, np.repeat(np.arange(30), 5), draws=400)
        hits += low <= 0 <= high
    assert 0.87 <= hits / 200 <= 0.99


def test_means_are_over_known_entries():
    values = np.array([[1.0, np.nan], [1.0, 1.0], [np.nan, np.nan]])
    assert group_interval(values, np.array(["a", "b", "c"])) == (1, 1)


def test_one_group_or_none_has_no_interval():
    assert group_interval(np.ones(5), np.full(5, "a")) is None
    assert group_interval(np.full(5, np.nan), np.arange(5)) is None
    assert group_interval(np.zeros(0), np.zeros(0)) is None


def test_the_share_is_used():
    values, groups = np.random.default_rng(0).normal(size=200), np.arange(200)
    wide, narrow = (group_interval(values, groups, share=share) for share in (0.99, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert narrow[1] - narrow[0] == pytest.approx(2 * 0.674 / np.sqrt(200), rel=0.2)
