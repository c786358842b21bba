"""A gap means lost frames only where times are regular."""

from __future__ import annotations

import numpy as np

from streampose.video.rhythm import Rhythm


def missing(times, duration=0.04):
    rhythm = Rhythm()
    return [rhythm.missing_before(float(time), duration) for time in times]


def test_regular_times_have_no_gap():
    assert sum(missing(np.arange(50) * 0.04)) == 0
    assert sum(missing(np.round(np.arange(50) / 29.97, 3), 0.033)) == 0  # as matroska rounds them


def test_a_gap_in_regular_times_is_counted():
    times = np.r_[np.arange(20), np.arange(27, 40)] * 0.04
    counts = missing(times)
    assert counts[20] == 7 and sum(counts) == 7


def test_irregular_times_have_no_gaps():
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 200))
    assert sum(missing(times)) == 0


def test_pauses_and_unknown_durations_are_no_gaps():
    assert sum(missing(np.r_[np.arange(20) * 0.04, 10 + np.arange(20) * 0.04])) == 0
    assert sum(missing(np.r_[np.arange(20), np.arange(27, 40)] * 0.04, duration=0.0)) == 0
