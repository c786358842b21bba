"""Time of live pictures."""

import itertools
import threading
import time

import pytest

from streampose.video import pace
from streampose.video.pace import Backlog, Clock, Pacer


@pytest.fixture
def pacer():
    return Pacer(threading.Event())


def test_a_picture_waits_until_it_is_due(pacer):
    began = time.monotonic()
    first = pacer.wait(3.0)
    assert pacer.wait(3.05) == pytest.approx(first + 0.05)
    assert time.monotonic() - began >= 0.05


def test_a_late_player_does_not_rush(pacer):
    """After a standstill it goes on from now, instead of hurrying through what it missed."""
    pacer.wait(0.0)
    pacer.zero -= 10.0  # as if ten seconds had passed
    before = time.monotonic()
    pacer.wait(0.02)
    assert before - 0.02 <= pacer.zero <= time.monotonic() - 0.02


def test_a_gap_of_hours_in_a_recording_is_closed(pacer, monkeypatch):
    monkeypatch.setattr(pace, "LONGEST_WAIT", 0.05)
    pacer.wait(0.0)
    began = time.monotonic()
    pacer.wait(7200.0)
    assert time.monotonic() - began < 1.0
    assert pacer.wait(7200.01) - began < 1.0


@pytest.mark.parametrize(
    "stamps",
    [
        [0.0, 0.1, 0.2, 900.0, 900.1, 900.2],  # the camera set its clock
        [900.0, 900.1, 900.2, 0.0, 0.1, 0.2],  # back: it restarted, or its counter is full
        [5.0, 5.1, None, None, 5.4, 5.5],
        [1.0, 1.1, 1.1, 1.1, 1.4, 1.5],
    ],
)
def test_time_rises_steadily_whatever_the_stream_says(stamps):
    clock = Clock()
    told = [clock.tell(stamp, 50.0 + n / 10) for n, stamp in enumerate(stamps)]
    steps = [b - a for a, b in itertools.pairwise(told)]
    assert told[0] == stamps[0]
    assert all(0 < step <= 0.4 for step in steps) and sum(steps) == pytest.approx(0.5, abs=0.1)


def test_a_pause_of_the_stream_stays_a_pause():
    clock = Clock()
    assert [clock.tell(s, 10 + s) for s in (0.0, 0.1, 6.1)] == [0.0, 0.1, 6.1]


def test_pictures_that_come_late_keep_their_times():
    """Nothing came for half a minute, then all at once; some of it was left out to catch up."""
    clock = Clock()
    told = [clock.tell(0.0, 10.0), clock.tell(0.1, 40.0), clock.tell(0.2, 40.01), clock.tell(20.0, 40.1, behind=29.7)]
    assert [*told, clock.tell(30.3, 40.3, behind=10.0)] == pytest.approx([0.0, 0.1, 0.2, 20.0, 30.3])


def test_backlog_is_what_comes_on_top_of_the_usual_delay():
    backlog = Backlog()
    assert [backlog.behind(n / 10, 100.0 + n / 10) for n in range(3)] == pytest.approx([0, 0, 0])
    assert backlog.behind(0.3, 101.3) == pytest.approx(1.0)
    assert backlog.behind(0.4, 100.4) == pytest.approx(0.0)


def test_a_clock_that_drifts_is_no_backlog():
    backlog = Backlog()
    for second in range(0, 3600, 5):
        behind = backlog.behind(second * 0.9999, 100.0 + second)  # a tenth of a millisecond a second
        assert behind < 0.02


def test_a_clock_that_was_set_is_no_backlog():
    backlog = Backlog()
    backlog.behind(1000.0, 100.0)
    assert backlog.behind(0.0, 100.1) == 0.0
    assert backlog.behind(0.1, 100.2) == pytest.approx(0.0)
    backlog.behind(2.0, 102.1)
    assert backlog.behind(0.0, 102.2) == 0.0  # by less than two seconds, but back
