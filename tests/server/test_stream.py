"""The stream: its forms and options, and clients that are slow, silent, noisy or very many."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

from streampose.server import stream as stream_module
from streampose.server.app import create_app
from streampose.server.guard import Limits
from streampose.server.listen import bind, check_access, running
from streampose.server.packing import unpack_compact, unpack_frame
from streampose.server.results import Result
from streampose.server.session import build_session
from streampose.server.stage import Stage
from streampose.structures import Keypoints

STREAM = "ws://localhost:8765/v1/stream"


@pytest.fixture
def make_client(make_session, source):
    made = []

    def make(**options):
        session = make_session(source)
        session.start()
        app = create_app(Stage(session, **options))
        made.append(TestClient(app, base_url="http://localhost:8765"))
        made[-1].__enter__()
        return made[-1], session

    yield make
    for client in made:
        client.__exit__(None, None, None)


def next_frame(socket) -> dict | bytes:
    """The next frame, as JSON or bytes; other messages are left out."""
    while True:
        message = socket.receive()
        assert message["type"] == "websocket.send", message
        if message.get("bytes") is not None:
            return message["bytes"]
        if json.loads(message["text"])["type"] == "frame":
            return json.loads(message["text"])


def result(number: int, camera: int) -> Result:
    keypoints = Keypoints(np.full((1, 17, 2), camera), np.ones((1, 17)))
    now = time.monotonic()
    return Result(
        number, 0.0, np.zeros((48, 64, 3), np.uint8), np.zeros((1, 4)), (0,), keypoints, "following", now, now,
        camera=camera,
    )  # fmt: skip


def put(session, *results: Result) -> None:
    for slot in list(session._slots):
        for one in results:
            slot.put(one)


@pytest.mark.parametrize("video", ["none", "jpeg"])
def test_all_forms_say_the_same(make_client, source, fakes, video):
    client, _ = make_client()
    with (
        client.websocket_connect(f"{STREAM}?video={video}") as plain,
        client.websocket_connect(f"{STREAM}?video={video}&format=compact") as compact,
    ):
        for socket_ in (plain, compact):
            assert json.loads(socket_.receive_text())["type"] == "hello"
        source.push(fakes.dot(20, 30))
        first, second = next_frame(plain), next_frame(compact)
        message, jpeg = unpack_frame(first) if video == "jpeg" else (first, b"")
        frame, picture = unpack_compact(second)
        assert picture == jpeg and jpeg[:2] == (b"\xff\xd8" if video == "jpeg" else b"")
        for name in ("number", "pts_seconds", "size", "state", "camera"):
            assert frame[name] == pytest.approx(message[name]) if name != "size" else list(frame[name]) == message[name]
        np.testing.assert_allclose(frame["keypoints"][0], message["subjects"][0]["keypoints"], atol=0.01)
        assert frame["keypoints"][0, 3, :2].tolist() == [20, 30] and frame["ids"] == (message["subjects"][0]["id"],)
        assert len(second) - len(picture) < 0.5 * len(json.dumps(message))


def test_a_private_server_sends_no_pictures(make_client, source, fakes):
    client, _ = make_client(private=True)
    with client.websocket_connect(f"{STREAM}?video=jpeg") as plain:
        assert json.loads(plain.receive_text())["pictures"] is False
        source.push(fakes.dot(1, 2))
        message, jpeg = unpack_frame(next_frame(plain))
        assert jpeg == b"" and message["subjects"]


def test_a_client_may_choose_its_camera(make_client):
    client, session = make_client()
    with client.websocket_connect(STREAM) as both, client.websocket_connect(f"{STREAM}?camera=1") as second:
        for socket_ in (both, second):
            socket_.receive_text()
        put(session, result(1, 0), result(2, 1))
        assert [next_frame(both)["camera"], next_frame(both)["camera"]] == [0, 1]
        assert next_frame(second)["camera"] == 1


def test_a_new_session_greets_the_clients_again(make_client, make_session, source, fakes):
    other = fakes.Source()
    options = {"build": lambda *_: make_session(other), "sources": {"other": 1}, "models": lambda: {"m": Path()}}
    client, _ = make_client(**options, model="m")
    with client.websocket_connect(STREAM) as open_stream:
        open_stream.receive_text()
        source.push(fakes.dot(1, 1))
        assert next_frame(open_stream)["number"] == 1
        client.app.state.stage.switch("other", None)
        while json.loads(open_stream.receive_text())["type"] != "hello":
            continue
        other.push(fakes.dot(9, 9))
        assert next_frame(open_stream)["subjects"][0]["keypoints"][0][:2] == [9, 9]


@pytest.mark.parametrize("query", ["video=avi", "format=xml", "fps=0", "fps=-1", "fps=nan", "camera=-1", "ack=perhaps"])
def test_options_that_make_no_sense_are_refused(make_client, query):
    client, _ = make_client()
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{STREAM}?{query}"):
        pass


def test_a_client_that_talks_without_end_is_cut_off(make_client, monkeypatch):
    monkeypatch.setattr(stream_module, "MESSAGES_A_SECOND", 20)
    client, _ = make_client()
    with client.websocket_connect(STREAM) as noisy, client.websocket_connect(STREAM) as quiet:
        with pytest.raises(WebSocketDisconnect) as closed:
            for _ in range(200):
                noisy.send_text("x")
            while True:
                noisy.receive_text()
        assert closed.value.code == 1008
        assert json.loads(quiet.receive_text())["type"] == "hello"
    assert "streampose_clients_cut_off_total 1" in client.get("/metrics").text


@pytest.fixture(scope="module")
def served(walker_bundle):
    """(port, session) of a real server of the drawn walker."""
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        session = build_session("test", walker_bundle, runtime="onnx")
        session.start()
        access = check_access("127.0.0.1", None, None, None)
        with running(Stage(session), access, listener, limits=Limits(), load_predictor=None, max_subjects=1):
            yield listener.getsockname()[1], session


CROWD = """
import asyncio, sys, time
from websockets.asyncio.client import connect

async def one(end):
    count = 0
    async with connect(sys.argv[1], compression=None, proxy=None) as stream:
        while time.monotonic() < end:
            count += '"type":"frame"' in await asyncio.wait_for(stream.recv(), 10)
    return count

async def crowd():
    end = time.monotonic() + float(sys.argv[3])
    print(min(await asyncio.gather(*(one(end) for _ in range(int(sys.argv[2]))))))

asyncio.run(crowd())
"""


def test_two_hundred_clients_and_some_that_never_read(served):
    """All are served, nobody is slowed, and those who do not read hold nothing up."""
    port, session = served
    url = f"ws://127.0.0.1:{port}/v1/stream"
    alone = len(watch(url, 2.0)) / 2.0
    stuck = [never_reading(port) for _ in range(10)]
    command = [sys.executable, "-c", CROWD, url, "200", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd:
        while status(port)["clients"] < 210:
            assert crowd.poll() is None
            time.sleep(0.1)
        beside = len(watch(url, 3.0)) / 3.0
        fewest = int(crowd.communicate(timeout=30)[0]) / 8
    for one_stuck in stuck:
        one_stuck.close()
    assert session.failure is None and session.stats().inference_fps > 0.7 * alone
    assert beside > 0.7 * alone
    assert fewest > 0.3 * alone  # it shares the processor with the server, and took a while to connect


def status(port: int) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=10) as answer:
        return json.load(answer)


def watch(url: str, seconds: float) -> list[int]:
    """The numbers of the frames that a client gets."""
    numbers, end = [], time.monotonic() + seconds
    with connect(url, proxy=None) as stream:
        while time.monotonic() < end:
            message = json.loads(stream.recv(timeout=10))
            if message["type"] == "frame":
                numbers.append(message["number"])
    return numbers


def never_reading(port: int) -> socket.socket:
    """A client that asks for pictures and then takes nothing."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", port))
    stuck.sendall(
        f"GET /v1/stream?video=jpeg HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return stuck
