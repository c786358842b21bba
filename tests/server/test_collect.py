"""Hard moments of a live session in a store."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError
from streampose.server import collect as collect_module
from streampose.server.collect import Collector
from streampose.server.results import Result
from streampose.store.reader import StoreReader
from streampose.structures import Keypoints
from streampose.video.walker import draw_walker, walker_joints

SKELETON = load_skeleton("human17")
FPS = 10.0


def results(seconds: float, hard, start: float = 0.0, camera: int = 0):
    """The drawn walker as a session would publish it; `hard(t)` says when the model is unsure."""
    for n in range(round(seconds * FPS)):
        t = start + n / FPS
        image = draw_walker(t)
        joints = walker_joints(t, (640, 480))
        xy = np.array([[joints.get(name, joints["pelvis"]) for name in SKELETON.joints]], float)
        centre, side = (xy[0].min(0) + xy[0].max(0)) / 2, 1.3 * np.ptp(xy[0], axis=0).max()
        box = np.concatenate([centre - side / 2, centre + side / 2])[None]
        confidence = np.full(xy.shape[:2], 0.2 if hard(t) else 0.9)
        yield Result(
            n, t, image, box, (3,), Keypoints(xy, confidence), "following", 100 + t, 100 + t, camera=camera
        )  # fmt: skip


def feed(collector: Collector, some, polished=None) -> None:
    for result in some:
        collector.offer(result, polished, None)
        while (
            collector._thread.is_alive() and not collector._queue.empty()
        ):  # the camera waits, so that the test does not depend on the machine
            time.sleep(0.001)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "hard.zarr"


def test_a_hard_moment_becomes_a_clip_that_training_can_read(store):
    collector = Collector(store, SKELETON)
    feed(collector, results(8.0, lambda t: 5.0 < t < 6.0))
    collector.close()
    assert collector.kept == 1
    reader = StoreReader(store)
    (source,), (clip,) = reader.sources(), reader.clips()
    assert source["verdict"] == "ok" and source["hard"] == {"low confidence": 1}
    assert clip.attributes["hard"] == "low confidence" and clip.num_frames >= collect_module.LEAST_FRAMES
    frames = reader.read(clip.id)
    assert frames.frames.shape[1:] == (128, 128, 3)
    share = (frames.masks > 0).mean((1, 2))
    assert (share > 0.05).all() and (share < 0.6).all()
    assert frames.frames[frames.masks > 0].std() > 10
    assert len(reader.pairs()["i"]) > 0


def test_what_is_easy_is_not_kept(store):
    collector = Collector(store, SKELETON)
    feed(collector, results(8.0, lambda t: False))
    collector.close()
    assert collector.kept == 0 and StoreReader(store).clips() == []


def test_moments_that_look_alike_are_kept_once(store):
    collector = Collector(store, SKELETON)
    feed(collector, results(8.0, lambda t: 5.0 < t < 6.0))
    again = list(results(8.0, lambda t: 5.0 < t < 6.0))
    feed(collector, [result_at(result, 50.0) for result in again])
    collector.close()
    assert collector.kept == 1


def result_at(result: Result, later: float) -> Result:
    import dataclasses

    return dataclasses.replace(result, captured_at=result.captured_at + later)


def test_the_budget_is_kept(store, monkeypatch):
    monkeypatch.setattr(collect_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(collect_module, "ALIKE", 2.0)  # none are alike
    collector = Collector(store, SKELETON, most_clips=2)
    feed(collector, results(25.0, lambda t: t > 4.0 and (t % 3) < 1.2))
    collector.close()
    assert collector.kept == 2 and len(StoreReader(store).clips()) == 2


def test_swaps_and_jumps_are_hard(store):
    collector = Collector(store, SKELETON)
    (result,) = list(results(0.1, lambda t: False))
    K = SKELETON.num_joints
    calm = SimpleNamespace(held=np.zeros((1, K), bool), swapped=np.zeros(1, bool))
    jumping = SimpleNamespace(held=np.arange(K)[None] < 8, swapped=np.zeros(1, bool))
    swapping = SimpleNamespace(held=np.zeros((1, K), bool), swapped=np.ones(1, bool))
    moving = result.boxes + 400
    answers = [
        collector._judge(result, 0, 3, polished, motion)
        for polished, motion in [(calm, None), (jumping, None), (swapping, None), (calm, moving), (calm, result.boxes)]
    ]
    collector.close()
    assert answers == ["", "jumping joints", "swapped sides", "mask disagreement", ""]


def test_a_second_session_adds_to_the_store(store):
    for start in (0.0, 40.0):
        collector = Collector(store, SKELETON)
        feed(collector, results(8.0, lambda t, start=start: 5.0 < t - start < 6.0, start))
        collector.close()
        assert collector.kept == 1
    reader = StoreReader(store)
    assert len(reader.sources()) == 2 and len(set(reader.pairs()["clip"])) == 2


def test_a_store_of_another_skeleton_is_refused(store):
    Collector(store, SKELETON).close()
    with pytest.raises(StoreError, match="made for skeleton human17"):
        Collector(store, load_skeleton("mouse"))


def test_a_session_collects_through_its_own_path(make_session, source, fakes, store):
    collector = Collector(store, SKELETON)
    predictor = fakes.Predictor()
    session = make_session(source, predictor=predictor, smooth=True, collector=collector)
    slot = session.subscribe()
    session.start()
    for n in range(5):
        source.push(fakes.dot(n, 3))
        slot.take(timeout=5)
    assert session.stats().collected == 0
    session.stop()
    assert not collector._thread.is_alive()
