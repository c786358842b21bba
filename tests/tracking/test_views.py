import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from studio import FLIP, film, make_rig, walker

from streampose.tracking.views import Moment, Seen, ViewMatcher, join_moments

EMPTY = np.zeros((1, 17, 2)), np.ones((1, 17))


def frames(*seconds):
    return iter([Seen(s, (0,), *EMPTY) for s in seconds])


def times(moment):
    return [None if seen is None else seen.seconds for seen in moment.views]


def test_frames_become_moments_and_dropped_frames_leave_holes():
    moments = list(join_moments([frames(0.0, 0.04, 0.12), frames(0.01, 0.05, 0.09, 0.13), frames()], 0.02))
    assert [times(m) for m in moments] == [
        [0.0, 0.01, None],
        [0.04, 0.05, None],
        [None, 0.09, None],
        [0.12, 0.13, None],
    ]
    assert [m.seconds for m in moments] == [0.0, 0.04, 0.09, 0.12]


def test_a_faster_camera_gives_moments_of_its_own():
    moments = list(join_moments([frames(0.0, 0.04), frames(0.0, 0.02, 0.04)], 0.009))
    assert [times(m) for m in moments] == [[0.0, 0.0], [None, 0.02], [0.04, 0.04]]


def people_of(matcher, moments, size=20):
    return [matcher.match(moments[t : t + size]) for t in range(0, len(moments), size)]


def test_people_keep_their_numbers_over_windows_new_tracks_and_absence():
    rng = np.random.default_rng(0)
    cameras = make_rig(3)
    worlds = [walker(80), walker(80, (1.0, 0.5)), walker(80, (-0.8, 0.9))]
    shown = np.ones((3, 80, 3), bool)
    shown[:, 40:55, 2] = False  # gone for 0.6 s
    moments = []
    for moment in join_moments(film(cameras, worlds, rng, shown=shown), 0.02):
        views = list(moment.views)
        if moment.seconds > 30 / 25 and views[1] is not None:  # camera 1 loses its tracks and starts new ones
            views[1] = Seen(
                views[1].seconds, tuple(track + 100 for track in views[1].tracks), views[1].xy, views[1].confidence
            )
        moments.append(Moment(moment.seconds, tuple(views)))
    windows = people_of(ViewMatcher(cameras, FLIP.tolist()), moments)
    assert [[person.id for person in window] for window in windows] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    for t, window in enumerate(windows):
        for person in window:
            x = person.xy[0][:, 0]  # the pelvis in the first view: whose is it?
            here = np.isfinite(x).all(-1)
            number = [
                np.nanmean(np.abs(x[here] - expected[20 * t : 20 * t + 20][here]))
                for expected in _pelvis(cameras[0], worlds)
            ]
            if t == 0:
                _first[person.id] = int(np.argmin(number))
            assert int(np.argmin(number)) == _first[person.id]


_first: dict[int, int] = {}


def _pelvis(camera, worlds):
    from streampose.geometry.distortion import project

    return [project(world[:, 0], camera) for world in worlds]


def test_who_is_seen_by_one_camera_is_nobody():
    rng = np.random.default_rng(1)
    cameras = make_rig(3)
    shown = np.ones((3, 20, 2), bool)
    shown[1:, :, 1] = False
    moments = list(join_moments(film(cameras, [walker(20), walker(20, (1, 1))], rng, shown=shown), 0.02))
    matcher = ViewMatcher(cameras, FLIP.tolist())
    assert len(matcher.match(moments)) == 1
    assert matcher.match([Moment(9.0, (None, None, None))]) == []
