"""What waits until a track has proven itself, and what goes on in the meantime."""

from types import SimpleNamespace

import numpy as np

from streampose.runtime import hold as module
from streampose.runtime.hold import Hold, Row
from streampose.structures import Keypoints


def row(index, ids, fps=25):
    N = len(ids)
    xy = np.repeat(np.array(ids, float).reshape(N, 1, 1), 2, 2)  # each subject's joint lies at its number
    return Row(index, index / fps, Keypoints(xy, np.ones((N, 1))), list(ids), np.tile(np.array(ids)[:, None], 4))


def run(frames, most_pictures=3, film=True):
    """Frames of (ids, proven); the (frame, ids) written and drawn after each of them, and at the end."""
    written, drawn, history = [], [], []

    def draw(frame, row):
        assert frame.index == row.frame_index
        drawn.append((row.frame_index, tuple(row.ids)))

    def write(row):
        np.testing.assert_array_equal(row.keypoints.xy[:, 0, 0], row.ids)
        np.testing.assert_array_equal(row.boxes[:, 0], row.ids)
        written.append((row.frame_index, tuple(row.ids)))

    hold = Hold(write, draw if film else None, most_pictures)
    for index, (ids, proven) in enumerate(frames):
        hold.add(SimpleNamespace(index=index), row(index, ids), frozenset(proven))
        history.append((len(written), len(drawn)))
    hold.finish()
    return written, drawn, history, hold.subjects


def test_what_is_known_goes_on_at_once():
    written, drawn, history, subjects = run([([], ()), ([4], (4,)), ([4], (4,)), ([], ())])
    assert written == drawn == [(0, ()), (1, (4,)), (2, (4,)), (3, ())]
    assert history == [(1, 1), (2, 2), (3, 3), (4, 4)] and subjects == {4}


def test_rows_wait_for_the_proof_and_then_have_the_track_from_its_beginning():
    frames = [([1], ())] * 6 + [([1], (1,))] * 2
    written, drawn, history, subjects = run(frames)
    assert written == [(n, (1,)) for n in range(8)]
    assert [count for count, _ in history] == [0, 0, 0, 0, 0, 0, 7, 8]
    # Three pictures wait, so the first three of the film are without it.
    assert drawn == [(n, ()) for n in range(3)] + [(n, (1,)) for n in range(3, 8)]
    assert subjects == {1}


def test_what_never_proves_itself_is_left_out_and_the_others_stay():
    frames = [([1, 2], (1,)), ([2, 1], (1,)), ([1, 2], (1,)), ([1], (1,))]
    written, drawn, _, subjects = run(frames)
    assert written == drawn == [(n, (1,)) for n in range(4)]
    assert subjects == {1}


def test_without_a_film_no_picture_waits():
    written, drawn, _, _ = run([([1], ()), ([1], (1,))], film=False)
    assert written == [(0, (1,)), (1, (1,))] and drawn == []


def test_rows_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(module, "MOST_SECONDS", 0.1)
    frames = [([7], ())] * 10 + [([7], (7,))]
    written, _, history, subjects = run(frames)
    assert [ids for _, ids in written[:7]] == [()] * 7  # it took too long to prove itself
    assert [ids for _, ids in written[7:]] == [(7,)] * 4 and subjects == {7}
    assert max(n + 1 - count for n, (count, _) in enumerate(history)) <= 4
