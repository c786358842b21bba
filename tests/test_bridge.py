"""The bridges against a real MQTT broker and a real OSC receiver on loopback."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from streampose.bridge import PASSWORD, bridge, describe
from streampose.client import PoseFrame, ServerError
from streampose.errors import StreamposeError
from streampose.runtime.predictor import load_predictor
from streampose.server.guard import Limits
from streampose.server.listen import bind, check_access, running
from streampose.server.session import build_session
from streampose.server.stage import Stage

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
JOINTS = 17


@pytest.fixture(scope="module")
def url(walker_bundle):
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        session = build_session("test", walker_bundle, runtime="onnx")
        session.start()
        access = check_access("127.0.0.1", None, None, None)
        with running(Stage(session), access, listener, limits=Limits(), load_predictor=load_predictor, max_subjects=1):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Broker:
    """Mosquitto on a free port; with a password where a user is named."""

    def __init__(self, folder: Path, user: str = "", password: str = ""):
        self.port = free_port()
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(not user).lower()}"]
        if user:
            subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "users", user, password], check=True)
            (folder / "users").chmod(0o644)
            lines.append(f"password_file {folder / 'users'}")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([*lines, "user root", ""]))
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            assert time.monotonic() < end and self._process.poll() is None, "the broker did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)


@pytest.fixture
def broker(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("needs mosquitto, a broker")
    brokers = []

    def make(*login: str) -> Broker:
        brokers.append(Broker(tmp_path, *login))
        return brokers[-1]

    yield make
    for each in brokers:
        each.stop()


@contextlib.contextmanager
def listening(port: int, user: str = "", password: str | None = None):
    """topic -> payloads, as another program receives them."""
    mqtt = pytest.importorskip("paho.mqtt.client")
    received, ready = defaultdict(list), threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if user:
        client.username_pw_set(user, password)
    client.on_connect = lambda c, *_: c.subscribe("#")
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _c, _d, message: received[message.topic].append(message.payload.decode())
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(5)
    yield received
    client.disconnect()
    client.loop_stop()


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_mqtt_carries_frames_skeleton_and_status(url, broker):
    port = broker().port
    with listening(port) as received:
        result = bridge(f"mqtt://127.0.0.1:{port}", url=url, seconds=1.5)
        wait_for(lambda: received["streampose/status"][-1:] == ["offline"])
    assert received["streampose/status"] == ["online", "offline"]
    (hello,) = map(json.loads, received["streampose/hello"])
    assert len(hello["skeleton"]["joints"]) == JOINTS
    frames = [json.loads(text) for text in received["streampose/frame/0"]]
    assert 10 < len(frames) <= result["frames"]
    assert np.diff([frame["number"] for frame in frames]).min() >= 1
    subjects = [subject for frame in frames for subject in frame["subjects"]]
    assert subjects and np.shape(subjects[0]["keypoints"]) == (JOINTS, 4)
    with listening(port) as late:  # who comes later learns the skeleton and that nobody sends
        wait_for(lambda: late["streampose/hello"] and late["streampose/status"] == ["offline"])


def test_mqtt_with_a_password(url, broker, monkeypatch):
    port = broker("stage", "open sesame").port
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(StreamposeError, match="the broker refuses"):
        bridge(f"mqtt://stage@127.0.0.1:{port}", url=url, seconds=1.0)
    monkeypatch.setenv(PASSWORD, "open sesame")
    with listening(port, "stage", "open sesame") as received:
        bridge(f"mqtt://stage@127.0.0.1:{port}", url=url, seconds=0.7, prefix="hall/left")
        wait_for(lambda: received["hall/left/frame/0"])


def test_a_broker_that_goes_and_comes_again(url, broker):
    one = broker()
    result = {}
    arguments = {"url": url, "seconds": 6.0}
    thread = threading.Thread(target=lambda: result.update(bridge(f"mqtt://127.0.0.1:{one.port}", **arguments)))
    with listening(one.port) as received:
        thread.start()
        wait_for(lambda: received["streampose/frame/0"])
    one.stop()
    time.sleep(0.3)
    one.start()
    with listening(one.port) as received:
        wait_for(lambda: len(received["streampose/frame/0"]) > 5 and received["streampose/hello"])
        thread.join(20)
        wait_for(lambda: received["streampose/status"][-1:] == ["offline"])
    assert result["frames"] > 60  # the stream itself went on


def test_osc_reaches_a_receiver(url):
    dispatcher = pytest.importorskip("pythonosc.dispatcher")
    osc_server = pytest.importorskip("pythonosc.osc_server")
    received = defaultdict(list)
    listen = dispatcher.Dispatcher()
    listen.set_default_handler(lambda address, *values: received[address].append(values))
    with osc_server.ThreadingOSCUDPServer(("127.0.0.1", 0), listen) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        result = bridge(f"osc://127.0.0.1:{server.server_address[1]}", url=url, seconds=1.5)
        wait_for(lambda: len(received["/streampose/frame"]) > 0.9 * result["frames"])
        server.shutdown()
        thread.join()
    camera, number, seconds, subjects, width, height = received["/streampose/frame"][-1]
    assert (camera, subjects, width, height) == (0, 1, 640, 480) and number > 0 and seconds > 0
    joints = {address.split("/")[-1] for address in received if address.startswith("/streampose/0/")}
    assert len(joints) == JOINTS and "left_wrist" in joints
    (address,) = {address for address in received if address.endswith("/pelvis")}
    assert all(len(values) == 4 and 0 <= values[0] <= 640 and values[3] > 0.5 for values in received[address])


def test_osc_to_nobody_goes_on(url):
    pytest.importorskip("pythonosc")
    assert bridge(f"osc://127.0.0.1:{free_port()}", url=url, seconds=0.7)["frames"] > 5


@pytest.mark.parametrize(
    ("to", "more", "message"),
    [
        ("http://127.0.0.1", {}, "expected osc://"),
        ("osc:9000", {}, "expected osc://"),
        ("osc://127.0.0.1", {}, "name the port"),
        ("osc://127.0.0.1:99999", {}, "no number from 1 to 65535"),
        ("mqtt://127.0.0.1:9", {}, "no broker can be reached"),
        ("mqtt://no-such-host.invalid", {}, "no broker can be reached"),
        ("osc://127.0.0.1:9000", {"prefix": "a#b"}, "--prefix"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(to, more, message):
    with pytest.raises(StreamposeError, match=message) as raised:
        bridge(to, **more)
    assert "\n" not in str(raised.value)


def test_without_a_server_nothing_is_sent():
    pytest.importorskip("pythonosc")
    with pytest.raises(ServerError, match="is `streampose serve` running"):
        bridge("osc://127.0.0.1:9000", url=f"http://127.0.0.1:{free_port()}")


def test_subjects_in_space_are_described():
    points = np.array([[[0.1, 0.2, 0.3], [np.nan] * 3]], np.float32)
    fields = SimpleNamespace(boxes=np.zeros((0, 4)), keypoints=np.zeros((0, 2, 4)), errors_px=np.zeros((1, 2)))
    frame = PoseFrame(1, 0, 0.5, 9.0, (64, 48), "following", (), fields.boxes, fields.keypoints, None, (4,), points,
                      fields.errors_px)  # fmt: skip
    assert describe(frame)["scene"] == [{"id": 4, "points": [pytest.approx([0.1, 0.2, 0.3], abs=1e-4), None]}]
