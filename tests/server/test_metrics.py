"""Metrics as Prometheus reads them."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from streampose.server.app import create_app
from streampose.server.messages import CameraMessage, LatencyMessage, RecordingMessage, StatsMessage
from streampose.server.metrics import write_metrics
from streampose.server.stage import Stage
from streampose.server.stream import LATENCY_BUCKETS, Counts

SAMPLE = re.compile(r'^(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (?P<value>[0-9.e+-]+)$')
STATS = StatsMessage(
    state="following", source='a "quoted"\nname\\', model="mask tiny", runtime="onnx f32", capture_fps=30.0,
    inference_fps=29.5, latency_ms=LatencyMessage(p50=8.0, p95=20.0, p99=30.0),
    stages_ms={"infer": LatencyMessage(p50=4.0, p95=5.0, p99=6.0), "find": LatencyMessage()}, captured=100,
    published=90, dropped=10, reconnects=1, clients=2, seconds=3.5,
)  # fmt: skip


def read(text: str) -> dict[tuple[str, str], float]:
    """(name, labels) -> value, of text that Prometheus would accept."""
    samples, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} is described twice"
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            base = re.sub("_(bucket|sum|count)$", "", match["name"])
            assert base in types or match["name"] in types, line
            samples[match["name"], match["labels"] or ""] = float(match["value"])
    return samples


def test_all_numbers_are_there_in_seconds():
    counts = Counts()
    for milliseconds in (4.0, 5.0, 12.0, 5000.0):
        counts.add_latency(milliseconds)
    samples = read(write_metrics(STATS, counts, ready=True, version="1", answers={200: 5, 404: 1}))
    assert samples["streampose_frames_dropped_total", ""] == 10 and samples["streampose_ready", ""] == 1
    assert samples["streampose_stage_seconds", 'stage="infer",quantile="0.95"'] == 0.005
    assert samples["streampose_http_responses_total", 'status="404"'] == 1
    buckets = [samples["streampose_latency_seconds_bucket", f'le="{bound / 1000:g}"'] for bound in LATENCY_BUCKETS]
    assert buckets[:3] == [2, 2, 3] and buckets == sorted(buckets) and buckets[-1] == 3
    assert (
        samples["streampose_latency_seconds_bucket", 'le="+Inf"']
        == samples["streampose_latency_seconds_count", ""]
        == 4
    )
    assert samples["streampose_latency_seconds_sum", ""] == pytest.approx(5.021)


def test_cameras_recordings_and_collections_where_there_are_some():
    camera = {"state": "following", "capture_fps": 25.0, "captured": 9, "published": 8, "dropped": 1, "reconnects": 0}
    stats = STATS.model_copy(
        update={
            "cameras": [CameraMessage(name="left", **camera), CameraMessage(name="right", **camera)],
            "recording": RecordingMessage(running=True, name="x", seconds=1.0, frames=2, dropped=0),
            "collected": 7,
        }
    )
    samples = read(write_metrics(stats, Counts(), ready=False, version="1", answers={}))
    assert samples["streampose_camera_fps", 'camera="right"'] == 25
    assert samples["streampose_recording", ""] == 1 and samples["streampose_frames_collected_total", ""] == 7
    plain = read(write_metrics(STATS, Counts(), ready=False, version="1", answers={}))
    assert ("streampose_recording", "") not in plain and plain["streampose_ready", ""] == 0


def test_they_are_served(make_session, source, fakes):
    session = make_session(source)
    session.start()
    with TestClient(create_app(Stage(session)), base_url="http://localhost") as client:
        slot = session.subscribe()
        source.push(fakes.dot(1, 1))
        assert slot.take(timeout=5) is not None
        client.get("/nothing")
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = read(answer.text)
        assert samples["streampose_frames_published_total", ""] == 1
        assert samples["streampose_http_responses_total", 'status="404"'] == 1
        assert samples["streampose_process_resident_bytes", ""] > 1e7
