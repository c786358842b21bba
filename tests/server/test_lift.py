"""The lifter of a live session: depth, hypotheses, and nothing invented where too little is seen."""

import json

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import BundleError
from streampose.runtime.lifter import load_lifter
from streampose.server.lift import COUNT, Lift
from streampose.server.messages import FrameMessage
from streampose.server.session import build_session
from streampose.structures import Keypoints
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module")
def lifting(lifter_bundle):
    return load_lifter(lifter_bundle)


def standing(count: int = 1) -> Keypoints:
    """People of the built-in prior, 200 pixels a metre, somewhere in the picture."""
    xy = built_in_prior(HUMAN, count, 0).poses[..., :2] * 200 + (320, 240)
    return Keypoints(xy, np.ones(xy.shape[:2]), np.zeros(xy.shape[:2]))


def test_hypotheses_are_seen_where_the_joints_are(lifting):
    found = standing(2)
    deep, more = Lift(lifting, HUMAN).apply(found, (4, 9), 0.0)
    np.testing.assert_array_equal(deep.xy, found.xy)
    assert np.ptp(deep.z, axis=1).min() > 1, "in pixels"
    assert more.poses.shape == (2, COUNT, 17, 3) and np.isfinite(more.poses).all()
    assert np.abs(more.poses[:, 0, :, :2].mean(1) - found.xy.mean(1)).max() < 10
    np.testing.assert_allclose(more.weights.sum(1), 1)
    assert (more.spread > 0).all()


def test_who_is_hardly_seen_keeps_its_depth_and_has_no_hypotheses(lifting):
    found = standing(2)
    found.confidence[1, 3:] = 0.0
    found.z[1] = 7.0
    deep, more = Lift(lifting, HUMAN).apply(found, (0, 1), 0.0)
    assert (deep.z[1] == 7).all() and np.isfinite(deep.z[0]).all()
    assert np.isnan(more.poses[1]).all() and np.isfinite(more.poses[0]).all()


def test_nobody_is_nobody(lifting):
    nobody = Keypoints(np.zeros((0, 17, 2)), np.zeros((0, 17)))
    assert Lift(lifting, HUMAN).apply(nobody, (), 0.0) == (nobody, None)


def test_a_model_without_the_joints_is_refused(lifting):
    with pytest.raises(BundleError, match="does not find its"):
        Lift(lifting, load_skeleton("mouse"))


def test_sessions_are_built_with_a_lifter(walker_bundle, lifter_bundle, tmp_path):
    session = build_session("test", walker_bundle, runtime="onnx", lifter=lifter_bundle)
    slot = session.subscribe()
    session.start()
    try:
        results = iter(lambda: slot.take(timeout=20), None)
        result = next(result for result in results if result.hypotheses is not None)
    finally:
        session.stop()
    assert result.hypotheses.poses.shape[1:] == (COUNT, 17, 3) and "lift" in result.stages_ms
    with pytest.raises(BundleError, match="no such lifter"):
        build_session("test", walker_bundle, runtime="onnx", lifter=tmp_path / "nowhere")


def test_watchers_get_the_hypotheses(make_session, source, fakes, lifting, monkeypatch):
    session = make_session(source)
    session.cameras[0].lift = Lift(lifting, HUMAN)
    person = standing()
    monkeypatch.setattr(session.predictor, "predict", lambda image, boxes: person.pick([0] * len(boxes)))
    slot = session.subscribe()
    session.start()
    source.push(fakes.dot(10, 20, 640, 480))
    result = slot.take(timeout=5)
    message = FrameMessage.model_validate_json(result.message())
    (subject,) = message.subjects
    assert len(subject.hypotheses.poses) == COUNT and len(subject.hypotheses.poses[0]) == 17
    assert len({z for _, _, z, _ in subject.keypoints}) > 10
    assert "lift" in message.stages_ms
    assert "NaN" not in result.message() and json.loads(result.message())["subjects"]
