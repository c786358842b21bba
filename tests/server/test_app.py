"""HTTP and WebSocket answers over a session that the test drives."""

import json
import threading

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from streampose.server.app import WEB, create_app
from streampose.server.guard import Limits
from streampose.server.messages import HelloMessage, StatsMessage
from streampose.server.packing import unpack_frame
from streampose.server.stage import Stage

STREAM = "ws://localhost:8765/v1/stream"


@pytest.fixture
def running(make_session, source):
    session = make_session(source)
    session.start()
    with TestClient(create_app(Stage(session)), base_url="http://localhost:8765") as client:
        yield client, session, source


def next_of(socket, kind: str) -> dict:
    """The next text message of this type."""
    for _ in range(100):
        message = json.loads(socket.receive_text())
        if message["type"] == kind:
            return message
    raise AssertionError(f"no {kind} message")


def next_picture(socket) -> tuple[dict, bytes]:
    for _ in range(100):
        message = socket.receive()
        if message.get("bytes") is not None:
            return unpack_frame(message["bytes"])
    raise AssertionError("no binary message")


def test_the_page_and_its_parts_are_served_without_foreign_addresses(running):
    client, *_ = running
    page = client.get("/")
    assert page.status_code == 200 and "streampose" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in [
        "page.js",
        "stream.js",
        "overlay.js",
        "space.js",
        "style.css",
        "icon.svg",
        "vendor/three.module.min.js",
    ]:
        assert client.get(f"/static/{name}").status_code == 200, name
    for file in [*WEB.glob("*.js"), *WEB.glob("*.html"), *WEB.glob("*.css")]:
        assert "http://" not in file.read_text() and "https://" not in file.read_text(), file.name


def test_three_is_small_and_brings_its_licence():
    assert (WEB / "vendor/three.module.min.js").stat().st_size < 2_000_000
    assert "MIT License" in (WEB / "vendor/three.LICENSE.txt").read_text()


def test_status_skeleton_and_health(running, fakes):
    client, session, source = running
    assert client.get("/readyz").status_code == 503
    slot = session.subscribe()
    source.push(fakes.dot(3, 4))
    assert slot.take(timeout=5) is not None
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    status = StatsMessage.model_validate(client.get("/v1/status").json())
    assert (status.published, status.source, status.state) == (1, "fake", "following")
    assert client.get("/v1/skeleton").json()["joints"][0] == "pelvis"


def test_the_interface_describes_itself(running):
    client, *_ = running
    assert {"/v1/status", "/v1/skeleton", "/healthz", "/readyz"} <= set(client.get("/openapi.json").json()["paths"])
    schema = client.get("/v1/schema").json()
    assert {"number", "pts_seconds", "latency_ms", "size", "subjects"} <= set(schema["FrameMessage"]["properties"])


def test_health_says_when_the_session_failed(make_session, source, fakes):
    predictor = fakes.Predictor()
    predictor.failure = RuntimeError("no memory")
    session = make_session(source, predictor=predictor)
    session.start()
    source.push(fakes.dot(0, 0))
    assert session.done.wait(5)
    with TestClient(create_app(Stage(session)), base_url="http://localhost") as client:
        assert client.get("/healthz").status_code == 503
        assert client.get("/healthz").json()["error"] == "no memory"


def test_the_stream_carries_picture_and_keypoints_of_the_same_frame(running, fakes):
    client, _, source = running
    with client.websocket_connect(f"{STREAM}?video=jpeg") as socket:
        hello = HelloMessage.model_validate_json(socket.receive_text())
        assert hello.skeleton.name == "human17" and hello.model == "fake model"
        for x in (8, 40):
            image = np.zeros((48, 64, 3), np.uint8)
            image[16:24, x : x + 8] = 255
            source.push(image)
            message, jpeg = next_picture(socket)
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
            assert message["subjects"][0]["keypoints"][0][:2] == [x, 16]
            assert picture[20, x + 4] > 200 and picture[20, 63 - x] < 60
            assert message["size"] == [64, 48]


def test_without_video_frames_are_text(running, fakes):
    client, _, source = running
    with client.websocket_connect(STREAM) as socket:
        next_of(socket, "hello")
        source.push(fakes.dot(5, 6))
        frame = next_of(socket, "frame")
        assert frame["subjects"][0]["keypoints"][16][:2] == [5, 6]


def test_numbers_come_while_no_frames_flow(running):
    client, *_ = running
    with client.websocket_connect(STREAM) as socket:
        stats = next_of(socket, "stats")
        assert stats["state"] == "starting" and stats["clients"] == 1


def test_a_client_that_acknowledges_has_at_most_two_frames_under_way(running, fakes):
    client, session, source = running
    watcher = session.subscribe()
    with client.websocket_connect(f"{STREAM}?ack=1") as socket:
        next_of(socket, "hello")
        for n in range(1, 3):
            source.push(fakes.dot(n, 0))
            assert watcher.take(timeout=5).number == n
            assert next_of(socket, "frame")["number"] == n
        for n in range(3, 7):  # nothing was acknowledged: these wait, and only the newest is kept
            source.push(fakes.dot(n, 0))
            assert watcher.take(timeout=5).number == n
        socket.send_text('{"type": "ack", "number": 1}')
        assert next_of(socket, "frame")["number"] == 6
        stats = next_of(socket, "stats")
        assert stats["skipped"] == 3
        assert stats["shown_latency_ms"]["p50"] is not None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"type": "ack"}', '{"type": "ack", "number": "x"}', "x" * 5000])
def test_nonsense_from_a_client_is_ignored(running, fakes, text):
    client, _, source = running
    with client.websocket_connect(f"{STREAM}?ack=1") as socket:
        next_of(socket, "hello")
        socket.send_text(text)
        socket.send_bytes(b"\0\1")
        source.push(fakes.dot(1, 1))
        assert next_of(socket, "frame")["number"] == 1


def test_a_client_that_leaves_gives_its_slot_back(running, fakes):
    client, *_ = running
    with client.websocket_connect(STREAM) as socket:
        next_of(socket, "hello")
        assert client.get("/v1/status").json()["clients"] == 1
    assert client.get("/v1/status").json()["clients"] == 0


def test_the_end_of_the_session_closes_the_stream(running):
    client, session, source = running
    with client.websocket_connect(STREAM) as socket:
        next_of(socket, "hello")
        source.end()
        while next_of(socket, "stats")["state"] != "ended":
            continue
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()
    assert session.done.is_set()


def test_too_many_clients_are_turned_away(make_session, source):
    session = make_session(source)
    session.start()
    app = create_app(Stage(session), limits=Limits(clients=1))
    with TestClient(app, base_url="http://localhost:8765") as client, client.websocket_connect(STREAM) as socket:
        next_of(socket, "hello")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM):
            pass


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}])
def test_foreign_names_and_pages_are_refused(running, headers):
    client, *_ = running
    answer = client.get("/v1/status", headers=headers)
    assert answer.status_code == 403 and answer.json()["detail"].startswith("refused:")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM, headers=headers):
        pass


def test_a_wrong_option_is_refused(running):
    client, *_ = running
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{STREAM}?video=avi"):
        pass


def test_no_thread_is_left(make_session, source):
    before = threading.active_count()
    session = make_session(source)
    session.start()
    with TestClient(create_app(Stage(session)), base_url="http://localhost") as client:
        client.get("/healthz")
    session.stop()
    assert threading.active_count() <= before
