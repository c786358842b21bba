"""Which tracks are subjects: the rules one by one, and what a watch makes of sightings."""

from dataclasses import replace

import numpy as np
import pytest

from streampose.tracking.worth import Evidence, Watch, is_subject

WALKS = Evidence(seconds=3.0, firm=True, motion=0.3, area=0.05, at_border=0.1)
STANDS = replace(WALKS, firm=False)


@pytest.mark.parametrize(
    ("track", "largest", "answer"),
    [
        (WALKS, 0.05, True),
        (replace(WALKS, seconds=0.3), 0.05, False),
        (STANDS, 0.05, True),  # it moves in its place
        (replace(STANDS, motion=0.05), 0.05, False),  # a shadow
        (replace(STANDS, area=0.005), 0.0, False),  # a flickering leaf
        (replace(WALKS, area=0.005), 0.005, True),  # far away, but it walks
        (replace(WALKS, at_border=0.9), 0.2, False),  # a reflection of the large one at the edge
        (replace(WALKS, at_border=0.9), 0.06, True),
        (replace(WALKS, area=0.01, seconds=1.0), 0.05, False),  # a crumb of the large one
        (replace(WALKS, area=0.01, seconds=1.0), 0.0, True),
        (replace(WALKS, area=0.01), 0.05, True),
        (replace(WALKS, area=0.01, steadiness=0.5), 0.05, False),
        (replace(WALKS, steadiness=0.5), 0.05, True),
    ],
)
def test_the_rules(track, largest, answer):
    assert is_subject(track, largest) is answer


def watch(shapes, seconds_apart=0.1, firm=False, skip=()):
    """Show a watch a (width, height) a moment, centred in a picture of 100 x 80 pixels."""
    made = Watch(seconds_apart)
    for n, (w, h) in enumerate(shapes):
        if n in skip:
            continue
        mask = np.zeros((80, 100), bool)
        mask[40 - h // 2 : 40 + h // 2, 50 - w // 2 : 50 + w // 2] = True
        box = np.array([50 - w // 2, 40 - h // 2, 50 + w // 2, 40 + h // 2], np.float32)
        made.see(mask, box, firm, n * seconds_apart)
    return made.evidence


def test_what_keeps_its_shape_does_not_move():
    found = watch([(20, 40)] * 12, firm=True)
    assert found.motion == 0 and found.firm and found.at_border == 0 and found.steadiness == 1
    assert found.seconds == pytest.approx(1.2) and found.area == pytest.approx(0.1)


def test_what_changes_its_shape_moves():
    assert watch([(20, 40)] * 4 + [(40, 40)] * 4).motion == pytest.approx(0.5, abs=0.05)
    assert watch([(20, 40), (40, 40)] * 2).motion == 0  # too short to tell


def test_gaps_and_the_border_are_counted():
    assert watch([(20, 40)] * 10, skip=(3, 4, 5)).steadiness == pytest.approx(0.7)
    assert watch([(20, 40)] * 5 + [(20, 80)] * 5).at_border == pytest.approx(0.5)


def test_nothing_seen_is_no_subject():
    assert not is_subject(Watch(0.1).evidence)
