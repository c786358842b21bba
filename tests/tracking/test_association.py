import cv2
import numpy as np
import pytest

from streampose.tracking.association import Tracker

SIZE = (320, 180)
RED, BLUE, GREEN = (200, 40, 40), (40, 40, 200), (40, 180, 60)


def draw(*figures):
    """Standing ellipses (x, y, colour) on grey: mask and picture."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    image = np.full((*SIZE[::-1], 3), 128, np.uint8)
    for x, y, colour in figures:
        for canvas, paint in ((mask, 255), (image, colour)):
            cv2.ellipse(canvas, (round(x), round(y)), (10, 28), 0, 0, 360, paint, -1)
    return mask, image


def follow(frames):
    tracker = Tracker()
    seen = []
    for mask, image in frames:
        tracks = tracker.update(mask, image)
        seen.append({track.id: (track.centre.copy(), image[track.mask].mean(0)) for track in tracks if track.seen})
    return seen


def crossing(colour_a, colour_b, steps=80):
    return [draw((60 + 2.5 * t, 90, colour_a), (260 - 2.5 * t, 92, colour_b)) for t in range(steps)]


def test_two_of_different_colours_keep_their_identities_through_a_crossing():
    seen = follow(crossing(RED, BLUE))
    first, last = seen[5], seen[-1]
    assert len(first) == len(last) == 2 and set(first) == set(last)
    for track in first:
        np.testing.assert_allclose(first[track][1], last[track][1], atol=5)
    assert any(not frame for frame in seen)  # while they are one blob nobody is reported


def test_identities_never_swap_even_when_nobody_can_tell():
    """Two alike: after the crossing either the right identity or a new one, never the other's."""
    for colours in ((RED, RED), (RED, BLUE), (GREEN, BLUE)):
        seen = follow(crossing(*colours))
        starts = {track: centre for track, (centre, _) in seen[5].items()}
        for track, (centre, _) in seen[-1].items():
            if track in starts:
                came_from_left = starts[track][0] < 160
                assert (centre[0] > 160) == came_from_left, colours


def test_no_track_ever_jumps_to_another_body():
    """One leaves the picture while another stands elsewhere: the identity does not move over."""
    frames = [draw((100, 90, RED), (300 + 3 * t, 90, BLUE)) for t in range(30)]
    frames += [draw((100, 90, RED)) for _ in range(30)]
    seen = follow(frames)
    left = {track for frame in seen for track, (centre, _) in frame.items() if centre[0] < 160}
    right = {track for frame in seen for track, (centre, _) in frame.items() if centre[0] > 200}
    assert len(left) == 1 and left.isdisjoint(right)


def test_a_short_absence_keeps_the_identity_and_a_long_one_ends_it():
    def go(gap):
        walk = [draw((40 + 2 * t, 90, RED)) for t in range(30)]
        return follow(walk + [draw()] * gap + [draw((100 + 2 * gap + 2 * t, 90, RED)) for t in range(10)])

    assert set(go(6)[5]) == set(go(6)[-1])
    assert set(go(60)[5]).isdisjoint(go(60)[-1])


def test_a_torn_mask_is_one_subject():
    seen = []
    tracker = Tracker()
    for t in range(20):
        mask, image = draw((80 + 2 * t, 90, RED))
        mask[88:93] = 0  # the belt has the background's colour
        seen.append(len(tracker.update(mask, image)))
    assert seen == [1] * 20


def test_specks_are_no_subjects_and_untrusted_masks_are_ignored():
    mask, image = draw()
    cv2.circle(mask, (50, 50), 2, 255, -1)
    assert Tracker().update(mask, image) == []
    tracker = Tracker()
    for t in range(5):
        tracker.update(*draw((80 + 2 * t, 90, RED)))
    flash = np.full(SIZE[::-1], 255, np.uint8)
    (track,) = tracker.update(flash, image, steady=False)
    assert not track.seen
    (track,) = tracker.update(*draw((92, 90, RED)))
    assert track.seen and track.id == 0


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_subjects_than_asked_for(most):
    tracker = Tracker(max_subjects=most)
    for t in range(10):
        tracks = tracker.update(*draw((60 + t, 90, RED), (160, 90, BLUE), (260 - t, 90, GREEN)))
    assert len(tracks) == most
