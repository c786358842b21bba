"""The verb `serve` with real sockets, a real source and a tiny bundle."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.sync.client import connect

from streampose.errors import BundleError, ConfigError, StreamposeError, VideoError
from streampose.serve import serve
from streampose.server import stream as stream_module
from streampose.server.packing import unpack_frame

SCRIPT = """
import json, pathlib, sys
from streampose.console import start_logging
from streampose.serve import serve
start_logging()
result = serve(source=sys.argv[1], model=pathlib.Path(sys.argv[2]), runtime=sys.argv[3], port=int(sys.argv[4]))
print(json.dumps({**result, "torch": "torch" in sys.modules}))
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def get(port: int, path: str, deadline_seconds: float = 20.0) -> dict:
    """The JSON answer to a request, as soon as it is 200."""
    end = time.monotonic() + deadline_seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end:
                raise


@contextlib.contextmanager
def serving(**arguments):
    """`serve` in a thread; yields a dict that holds its result after `stop()` or its own end."""
    outcome: dict = {}

    def run() -> None:
        try:
            outcome["result"] = serve(**arguments)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive()
        if "error" in outcome:
            raise outcome["error"]


def test_serves_frames_that_follow_the_person_until_the_time_is_over(walker_bundle, port):
    with serving(source="test", model=walker_bundle, port=port, seconds=3.0) as outcome:
        assert get(port, "/readyz") == {"status": "ready"}
        errors = []
        with connect(f"ws://127.0.0.1:{port}/v1/stream?video=jpeg") as stream:
            assert json.loads(stream.recv(timeout=5))["type"] == "hello"
            while len(errors) < 10:
                received = stream.recv(timeout=5)
                if isinstance(received, str):
                    continue
                message, jpeg = unpack_frame(received)
                picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
                assert message["size"] == [picture.shape[1], picture.shape[0]]
                if message["subjects"]:
                    red = picture[..., 2] - (picture[..., 1] + picture[..., 0]) / 2 > 80
                    x = np.nonzero(red)[1].mean()
                    errors.append(abs(np.mean([k[0] for k in message["subjects"][0]["keypoints"]]) - x))
        assert np.median(errors) < 25  # of 640: the skeleton is where the shirt of that very picture is
    result = outcome["result"]
    assert set(result) == {"url", "frames", "published", "dropped", "latency_ms", "seconds", "runtime"}
    assert result["url"] == f"http://127.0.0.1:{port}/"
    assert 2.5 < result["seconds"] < 8 and result["published"] + result["dropped"] == result["frames"] > 20
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p95"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("streampose", "capture"))]


def test_a_client_that_never_reads_is_cut_off_and_slows_nobody(walker_bundle, port, monkeypatch):
    monkeypatch.setattr(stream_module, "SEND_SECONDS", 1.0)
    with serving(source="test", model=walker_bundle, port=port, seconds=7.0):
        get(port, "/readyz")
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", port))
            stuck.sendall(
                f"GET /v1/stream?video=jpeg HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            counts, most = [], 0
            with connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
                numbers = []
                while not (most == 2 and counts[-1] == 1):
                    message = json.loads(stream.recv(timeout=5))
                    if message["type"] == "frame":
                        numbers.append(message["number"])
                    elif message["type"] == "stats":
                        counts.append(message["clients"])
                        most = max(most, counts[-1])
            assert np.mean(np.diff(numbers)) < 1.5  # the other client got nearly every frame


@pytest.mark.parametrize(("runtime", "end"), [("onnx", signal.SIGINT), ("openvino", signal.SIGTERM)])
def test_ends_cleanly_on_a_signal_and_never_imports_torch(walker_bundle, port, runtime, end):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    command = [sys.executable, "-c", SCRIPT, "test", str(walker_bundle), runtime, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        get(port, "/readyz", 60)
        with connect(f"ws://127.0.0.1:{port}/v1/stream?video=jpeg") as stream:  # an open client must not hold it up
            stream.recv(timeout=5)
            asked = time.monotonic()
            process.send_signal(end)
            out, messages = process.communicate(timeout=20)
            assert time.monotonic() - asked < 5.0
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, messages
    result = json.loads(out)
    assert result["torch"] is False
    assert result["runtime"] == f"{runtime} f32" and result["published"] > 0
    assert "Traceback" not in messages and "ERROR" not in messages, messages


def test_a_file_that_ends_ends_the_server(walker_bundle, port, tmp_path):
    from streampose.video.encode import VideoWriter
    from streampose.video.walker import draw_walker

    with VideoWriter(tmp_path / "short.mp4", 25.0, size=(320, 240)) as writer:
        for n in range(12):
            writer.write(cv2.resize(draw_walker(n / 25), (320, 240)))
    result = serve(source=str(tmp_path / "short.mp4"), model=walker_bundle, port=port, loop=False, seconds=60)
    assert result["frames"] == 12 and result["seconds"] < 30


def test_a_port_in_use_is_one_line_with_the_mend(walker_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(StreamposeError, match=rf"port {number} on 127.0.0.1 is in use; .*--port {number + 1}"):
            serve(source="test", model=walker_bundle, port=number)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"port": 70000}, StreamposeError, "--port 70000"),
        ({"host": "203.0.113.9"}, StreamposeError, "--host"),
        ({"host": "no-such-host.invalid"}, StreamposeError, "--host"),
        ({"max_subjects": 0}, StreamposeError, "--max-subjects 0"),
        ({"runtime": "abacus"}, ConfigError, "abacus"),
        ({"source": "nothing-here.mp4"}, VideoError, "nothing-here.mp4"),
        ({"source": 97}, VideoError, "camera 97"),
        ({"model": Path("nothing-here")}, BundleError, "nothing-here"),
    ],
)
def test_what_a_user_can_get_wrong_is_said_in_one_line(walker_bundle, arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        serve(**{"source": "test", "model": walker_bundle, "port": 0, **arguments})
    assert "\n" not in str(raised.value)


def test_another_address_is_warned_about(walker_bundle, caplog):
    with caplog.at_level("WARNING", logger="streampose"):
        result = serve(source="test", model=walker_bundle, host="0.0.0.0", port=0, seconds=0.2)
    assert any("needs this token" in record.message for record in caplog.records)
    assert result["url"].startswith(f"http://{socket.gethostname()}:")
