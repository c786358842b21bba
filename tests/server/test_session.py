"""The live path over a source and a model that the test drives."""

import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.server import cameras as cameras_module
from streampose.server.messages import FrameMessage
from streampose.server.results import Slot, Timings


def test_keypoints_belong_to_the_published_picture(make_session, source, fakes):
    session = make_session(source)
    slot = session.subscribe()
    session.start()
    for number, (x, y) in enumerate([(10, 20), (30, 5), (63, 47)], start=1):
        source.push(fakes.dot(x, y))
        result = slot.take(timeout=5)
        assert result.number == number
        np.testing.assert_array_equal(result.keypoints.xy[0, 0], [x, y])
        assert result.image[y, x, 0] == 255
        assert result.latency_ms >= 0


def test_a_slow_subscriber_gets_the_newest_and_slows_nobody(make_session, source, fakes):
    session = make_session(source)
    quick, slow = session.subscribe(), session.subscribe()
    session.start()
    for number in range(1, 6):
        source.push(fakes.dot(number, 0))
        assert quick.take(timeout=5).number == number
    assert quick.skipped == 0
    assert slow.take().number == 5
    assert slow.skipped == 4
    assert slow.take() is None


def test_frames_that_nobody_looked_at_are_counted(make_session, source, fakes):
    for x in range(4):
        source.push(fakes.dot(x, 0))  # before the session runs: three are replaced
    session = make_session(source)
    slot = session.subscribe()
    session.start()
    assert slot.take(timeout=5).keypoints.xy[0, 0, 0] == 3
    stats = session.stats()
    assert (stats.captured, stats.published, stats.dropped) == (4, 1, 3)


def test_a_lost_source_is_opened_again_and_numbers_go_on(make_session, fakes, monkeypatch):
    monkeypatch.setattr(cameras_module, "RETRY_SECONDS", (0.0,))
    first, second = fakes.Source(), fakes.Source()
    session = make_session(first, VideoError("still away"), second)
    slot = session.subscribe()
    session.start()
    first.push(fakes.dot(1, 1))
    assert slot.take(timeout=5).number == 1
    second.push(fakes.dot(2, 2))
    first.end("unplugged")
    assert slot.take(timeout=5).number == 2
    assert first.closed
    assert session.stats().reconnects == 1
    assert session.stats().error is None


def test_while_the_source_is_away_the_state_says_so(make_session, source, fakes, monkeypatch):
    monkeypatch.setattr(cameras_module, "RETRY_SECONDS", (60.0,))
    session = make_session(source)
    waited = threading.Event()
    stop = session.cameras[0]._stop
    wait = stop.wait
    monkeypatch.setattr(stop, "wait", lambda timeout=None: waited.set() or wait(timeout))
    session.start()
    source.end("unplugged")
    assert waited.wait(5)
    stats = session.stats()
    assert (stats.state, stats.error, session.ready) == ("reconnecting", "unplugged", False)
    session.stop()
    assert session.done.is_set()


def test_a_source_that_opens_itself_again_is_waited_for(make_session, source, fakes):
    session = make_session(source)
    slot = session.subscribe()
    session.start()
    source.push(fakes.dot(1, 1))
    before = slot.take(timeout=5)
    source.error = "no data came in time"  # and it has not ended: it goes on trying
    end = time.monotonic() + 5
    while session.stats().state != "reconnecting":
        assert time.monotonic() < end
    assert session.stats().error == "no data came in time" and not session.ready
    source.error = None
    source.push(fakes.dot(9, 9))
    after = slot.take(timeout=5)
    assert after.number == 2 and after.ids != before.ids  # whoever comes now need not be the same
    assert (session.stats().state, session.stats().error, session.stats().reconnects) == ("following", None, 1)


def test_the_end_of_a_file_ends_the_session(make_session, source, fakes):
    session = make_session(source)
    session.start()
    source.push(fakes.dot(0, 0))
    source.end()
    assert session.done.wait(5)
    assert session.stats().state == "ended" and session.failure is None
    session.stop()
    assert session.published == 1 and source.closed


def test_a_failing_model_ends_the_session_with_its_reason(make_session, source, fakes):
    predictor = fakes.Predictor()
    predictor.failure = RuntimeError("no memory")
    session = make_session(source, predictor=predictor)
    session.start()
    source.push(fakes.dot(0, 0))
    assert session.done.wait(5)
    assert session.failure is predictor.failure
    assert session.stats().state == "failed" and session.stats().error == "no memory"


def test_a_source_that_cannot_be_opened_is_said_before_anything_runs(make_session):
    session = make_session(VideoError("no camera 7"))
    with pytest.raises(VideoError, match="no camera 7"):
        session.start()
    assert not any(thread.name == "streampose-infer" for thread in threading.enumerate())


def test_stop_leaves_no_thread(make_session, source, fakes):
    session = make_session(source)
    session.start()
    source.push(fakes.dot(0, 0))
    session.stop()
    session.stop()
    assert not any(thread.name == "streampose-infer" for thread in threading.enumerate())
    assert source.closed


def test_a_new_resolution_looks_for_the_subject_again(make_session, source, fakes):
    session = make_session(source)
    slot = session.subscribe()
    session.start()
    source.push(fakes.dot(10, 10))
    before = slot.take(timeout=5)
    source.push(fakes.dot(100, 90, width=160, height=120))
    after = slot.take(timeout=5)
    assert before.ids != after.ids
    np.testing.assert_array_equal(after.keypoints.xy[0, 0], [100, 90])


def test_smoothing_calms_a_jumping_dot(make_session, fakes):
    spread = {}
    for smooth in (False, True):
        source = fakes.Source()
        session = make_session(source, smooth=smooth)
        slot = session.subscribe()
        session.start()
        xs = []
        for n in range(12):
            source.push(fakes.dot(30 + n % 2, 20))
            xs.append(slot.take(timeout=5).keypoints.xy[0, 0, 0])
        spread[smooth] = np.abs(np.diff(xs)).mean()
    assert spread[True] < 0.6 * spread[False]


def test_a_result_is_encoded_as_its_message_and_its_picture(make_session, source, fakes):
    session = make_session(source)
    slot = session.subscribe()
    session.start()
    image = np.zeros((1000, 2000, 3), np.uint8)
    image[400:420, 800:820] = (255, 0, 0)
    source.push(image)
    result = slot.take(timeout=5)
    message = FrameMessage.model_validate_json(result.message())
    assert message.size == (2000, 1000) and message.number == 1
    assert message.subjects[0].keypoints[0] == (800, 400, 0, 0.9)
    decoded = cv2.imdecode(np.frombuffer(result.jpeg(), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (480, 960, 3)
    b, g, r = decoded[197, 389].astype(int)
    assert r > 180 and g < 80 and b < 80
    assert result.jpeg() is result.jpeg()


def test_slots_notify():
    calls = []
    slot = Slot(lambda: calls.append(1))
    for n in range(2):
        slot.put(SimpleNamespace(camera=0, number=n))
    assert len(calls) == 2 and slot.skipped == 1
    slot.put(SimpleNamespace(camera=1, number=7))
    assert [slot.take().number for _ in range(2)] == [1, 7] and slot.take() is None and slot.skipped == 1


def test_timings_give_percentiles_of_a_window_and_a_rate():
    timings = Timings()
    assert timings.percentiles().p50 is None and timings.rate(0.0) == 0.0
    for n in range(101):
        timings.add(n / 10, float(n))
    assert timings.percentiles().p50 == 50.0 and timings.percentiles().p95 == 95.0
    assert timings.percentiles(since=9.0).p50 == 95.0
    assert timings.rate(10.0) == pytest.approx(10.0)


def test_several_cameras_are_served_beside_each_other(make_session, fakes, monkeypatch):
    monkeypatch.setattr(cameras_module, "RETRY_SECONDS", (60.0,))
    first, second = fakes.Source(), fakes.Source()
    session = make_session.of([[first], [second]], fakes.Predictor())
    slot = session.subscribe()
    session.start()
    first.push(fakes.dot(1, 1))
    assert (slot.take(timeout=5).camera, session.stats().cameras[1].state) == (0, "starting")
    second.push(fakes.dot(2, 2))
    result = slot.take(timeout=5)
    assert (result.camera, result.number) == (1, 2)
    first.end("unplugged")
    end = time.monotonic() + 5
    while session.stats().cameras[0].state != "reconnecting":
        assert time.monotonic() < end
    second.push(fakes.dot(3, 3))
    assert slot.take(timeout=5).keypoints.xy[0, 0, 0] == 3  # one that is lost disturbs no other
    assert session.ready and session.stats().error == "unplugged"


def test_the_session_goes_on_until_the_last_camera_has_ended(make_session, fakes):
    first, second = fakes.Source(), fakes.Source()
    session = make_session.of([[first], [second]], fakes.Predictor())
    slot = session.subscribe()
    session.start()
    first.end()
    second.push(fakes.dot(3, 3))
    assert slot.take(timeout=5).camera == 1 and not session.done.is_set()
    second.end()
    assert session.done.wait(5)


def test_a_camera_that_cannot_be_opened_closes_the_others(make_session, source, fakes):
    session = make_session.of([[source], [VideoError("no camera 7")]], fakes.Predictor())
    with pytest.raises(VideoError, match="no camera 7"):
        session.start()
    assert source.closed


def test_overload_leaves_frames_out_and_never_queues_them(make_session, source, fakes):
    """Inference takes twice as long as there is: every result shows the newest picture of when it was begun."""
    predictor = fakes.Predictor()
    predict = predictor.predict_views

    def slowly(images, boxes):
        time.sleep(0.04)
        return predict(images, boxes)

    predictor.predict_views = slowly
    session = make_session(source, predictor=predictor)
    results = []
    slot = session.subscribe(lambda: results.append(slot.take()))
    session.start()
    pushed_at = []
    for n in range(60):
        source.push(fakes.dot(n, 0))
        pushed_at.append(time.monotonic())
        time.sleep(0.02)
    session.stop()
    stats = session.stats()
    results = [result for result in results if result is not None]
    assert stats.dropped >= 20 and stats.published + stats.dropped in (59, 60)
    assert max(result.stages_ms["wait"] for result in results) < 45 + 25  # never older than one inference
    ages = [result.latency_ms for result in results]
    assert np.mean(ages[-10:]) < np.mean(ages[:10]) + 20  # and it does not grow


def test_stage_times_add_up_to_the_latency(make_session, source, fakes):
    session = make_session(source, smooth=True)
    slot = session.subscribe()
    session.start()
    source.push(fakes.dot(3, 3))
    result = slot.take(timeout=5)
    assert set(result.stages_ms) == {"decode", "wait", "find", "infer", "smooth"}
    assert sum(result.stages_ms.values()) == pytest.approx(result.latency_ms, abs=0.05)
    assert result.visibility.shape == result.keypoints.confidence.shape
