"""The Python client against a real server on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.client import ServerError, connect, find_poses, stream_address
from streampose.runtime.predictor import Predictor, load_predictor
from streampose.server.guard import Limits
from streampose.server.listen import bind, check_access, running
from streampose.server.session import build_session
from streampose.server.stage import Stage
from streampose.video.walker import draw_walker


@contextlib.contextmanager
def serving(bundle: Path, port: int = 0):
    """The address of a server of the drawn walker."""
    with contextlib.closing(bind("127.0.0.1", port)) as listener:
        session = build_session("test", bundle, runtime="onnx")
        session.start()
        stage = Stage(session, models=lambda: {"walker": bundle}, model="walker")

        def load(path: Path) -> Predictor:
            return load_predictor(path, "onnx", threads=1)

        access = check_access("127.0.0.1", None, None, None)
        with running(stage, access, listener, limits=Limits(), load_predictor=load, max_subjects=1):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def url(walker_bundle):
    with serving(walker_bundle) as address:
        yield address


def shirt(image: np.ndarray) -> float:
    red = image[..., 0].astype(int) - (image[..., 1].astype(int) + image[..., 2]) / 2 > 80
    return np.nonzero(red)[1].mean()


def test_frames_come_as_arrays_with_their_pictures(url):
    errors = []
    with connect(url, pictures=True) as stream:
        for frame in stream:
            assert frame.boxes.shape == (len(frame.ids), 4) and frame.keypoints.shape == (len(frame.ids), 17, 4)
            picture = cv2.cvtColor(
                cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
            )
            assert frame.size == (picture.shape[1], picture.shape[0])
            if len(frame.ids):
                errors.append(abs(frame.keypoints[0, :, 0].mean() - shirt(picture)))
            if len(errors) == 15:
                break
        assert stream.joints[0] == "pelvis" and (0, 1) in stream.bones
        assert stream.stats["source"] == "test"
    assert np.median(errors) < 25


def test_a_slow_reader_gets_the_newest_frames(url):
    numbers, late = [], []
    with connect(url) as stream:
        for frame in stream:
            numbers.append(frame.number)
            with urllib.request.urlopen(f"{url}/v1/status") as answer:
                late.append(json.load(answer)["published"] - frame.number)
            time.sleep(0.25)
            if len(numbers) == 9:
                break
    assert np.diff(numbers)[3:].min() >= 3  # what came in between was left out
    assert max(late[3:]) <= 25  # two frames are under way while one is worked on; no queue grows


def test_a_restarted_server_is_found_again(walker_bundle):
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        address = first.enter_context(serving(walker_bundle))
        stream = second.enter_context(connect(address))
        frames = iter(stream)
        before, hello = next(frames), stream.hello
        first.close()
        second.enter_context(serving(walker_bundle, int(address.rpartition(":")[2])))
        after = next(frame for frame in frames if stream.hello is not hello)
        assert after.ids and before.size == after.size


def test_fewer_frames_on_request(url):
    with connect(url, fps=5) as stream:
        times = [(frame.number, time.monotonic()) for frame, _ in zip(stream, range(8), strict=False)]
    gaps = np.diff([at for _, at in times])
    assert 0.15 < gaps.mean() < 0.3


def test_poses_of_a_picture_that_is_sent(url):
    picture = cv2.imencode(".png", cv2.cvtColor(draw_walker(1.0), cv2.COLOR_RGB2BGR))[1].tobytes()
    pose = find_poses(picture, url)
    (subject,) = pose["frames"][0]["subjects"]
    assert abs(np.mean([point[0] for point in subject["keypoints"]]) - shirt(draw_walker(1.0))) < 25
    with pytest.raises(ServerError, match="415: neither a picture"):
        find_poses(b"text", url)
    with pytest.raises(ServerError, match="404: no model is listed as 'nobody'"):
        find_poses(picture, url, model="nobody")


@pytest.mark.parametrize("nowhere", ["http://127.0.0.1:9", "http://no-such-host.invalid:80"])
def test_a_server_that_is_not_there_is_one_line(nowhere):
    with pytest.raises(ServerError, match="cannot be reached") as raised:
        connect(nowhere)
    assert "\n" not in str(raised.value)
    with pytest.raises(ServerError, match="cannot be reached"):
        find_poses(b"x", nowhere)


def test_addresses():
    assert stream_address("http://a:1/", {"fps": None, "ack": 1}) == "ws://a:1/v1/stream?ack=1"
    assert stream_address("https://a/pose/", {}) == "wss://a/pose/v1/stream?"
    assert stream_address("a:1", {}) == "ws://a:1/v1/stream?"
    for wrong in ("ftp://a", "http://", "file:///etc/passwd"):
        with pytest.raises(ServerError, match="not an address"):
            stream_address(wrong, {})


def test_the_client_is_light():
    heavy = "{'torch', 'cv2', 'fastapi', 'onnxruntime', 'av', 'pydantic'}"
    code = f"import sys, streampose.client; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
