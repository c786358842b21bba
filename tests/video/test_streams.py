"""Streams from real servers on loopback: lost, damaged, resized, restarted; none of it ends the source."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.video import streams
from streampose.video.live import LiveFrame, LiveSource, find_images, open_source

from .conftest import numbered_picture, read_number, write_video
from .rtsp import RtspServer

PATIENCE = 30.0  # seconds until a test gives up


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(streams, "RETRY_SECONDS", (0.05, 0.1, 0.2))
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("capture")] == []


def take(source: LiveSource, after: int) -> LiveFrame:
    """The next picture; the source must not end before it."""
    deadline = time.monotonic() + PATIENCE
    while (frame := source.latest(after=after, timeout=0.1)) is None:
        assert not source.ended and time.monotonic() < deadline, source.error
    return frame


def watch(source: LiveSource, count: int, after: int = 0) -> list[LiveFrame]:
    frames: list[LiveFrame] = []
    while len(frames) < count:
        frames.append(take(source, frames[-1].number if frames else after))
    return frames


@pytest.fixture(scope="module")
def transport(tmp_path_factory) -> bytes:
    """Two seconds of a transport stream with a key frame every fifth of a second."""
    return write_video(tmp_path_factory.mktemp("ts") / "v.ts", 50, gop=5).read_bytes()


@pytest.fixture
def make_rtsp(transport) -> Iterator:
    made = []

    def make(**options) -> RtspServer:
        made.append(RtspServer(transport, 2.0, **options))
        return made[-1]

    yield make
    for server in made:
        server.kill()


def test_rtsp_server_that_is_killed_and_restarted(make_rtsp):
    server = make_rtsp()
    with open_source(server.url) as source:
        before = watch(source, 5)
        server.kill()
        deadline = time.monotonic() + PATIENCE
        while source.error is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not source.ended
        again = make_rtsp(port=server.port)
        after = watch(source, 5, after=10**6 if source.error is None else take(source, before[-1].number).number)
        assert again.sessions == 1 and source.error is None
    stamps = [frame.pts_seconds for frame in (*before, *after)]
    assert stamps == sorted(set(stamps))


def test_time_rises_over_the_jumps_of_a_stream(make_rtsp):
    """The server begins anew every two seconds, so its clock goes back each time."""
    with open_source(make_rtsp().url) as source:
        frames = watch(source, 70)
    steps = np.diff([frame.pts_seconds for frame in frames])
    assert (steps > 0).all() and steps.max() < 2.5
    assert (np.diff([frame.captured_at for frame in frames]) >= 0).all()
    assert all(frame.captured_at <= frame.ready_at for frame in frames)


@pytest.mark.parametrize("kind", ["noise", "lost", "cut"])
def test_malformed_packets_are_survived(make_rtsp, kind):
    rng = np.random.default_rng(0)

    def damage(number: int, data: bytes) -> bytes:
        if number < 20 or number % 9:
            return data
        if kind == "noise":
            return rng.bytes(len(data))
        return b"" if kind == "lost" else data[: len(data) // 2]

    with open_source(make_rtsp(damage=damage).url) as source:
        frames = watch(source, 40)
        assert not source.ended
    good = [frame for frame in frames if frame.image.shape == (96, 160, 3)]
    assert len(good) == len(frames)


def ffmpeg(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(["ffmpeg", "-nostdin", "-loglevel", "error", *arguments])


@contextlib.contextmanager
def sending(*arguments: str) -> Iterator[subprocess.Popen]:
    process = ffmpeg(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_udp_sender_that_falls_silent_and_comes_back(monkeypatch):
    monkeypatch.setattr(streams, "TIMEOUT_SECONDS", (5.0, 0.5))
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    source_of = ("-re", "-f", "lavfi", "-i", "testsrc=size=160x96:rate=30", "-c:v", "mpeg2video", "-g", "5", "-f")
    with sending(*source_of, "mpegts", f"{url}?pkt_size=1316"):
        source = open_source(url)
        frames = watch(source, 5)
    with source:
        deadline = time.monotonic() + PATIENCE
        while source.error is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "no data came in time" in source.error
        with sending(*source_of, "mpegts", f"{url}?pkt_size=1316"):
            assert take(source, frames[-1].number).image.shape == (96, 160, 3)


def test_http_listener_of_ffmpeg():
    port = free_port()
    with sending(
        "-re", "-f", "lavfi", "-i", "testsrc=size=160x96:rate=30", "-c:v", "mpeg2video", "-f", "mpegts",
        "-listen", "1", f"http://127.0.0.1:{port}/live.ts",
    ):  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                source = open_source(f"http://127.0.0.1:{port}/live.ts")
                break
            except VideoError:
                assert time.monotonic() < deadline
        with source:
            assert watch(source, 10)[-1].image.shape == (96, 160, 3)


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """Pictures as web cameras send them; the size changes halfway, and one is damaged."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in range(1, 400):
                size = (160, 96) if number < 30 else (320, 192)
                data = cv2.imencode(".jpg", numbered_picture(number % 60, size)[..., ::-1])[1].tobytes()
                if number == 20:
                    data = data[: len(data) // 3]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.02)

    def log_message(self, *arguments: object) -> None:
        return


def test_mjpeg_over_http_whose_size_changes():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        with open_source(f"http://127.0.0.1:{server.server_port}/") as source:
            frames = [take(source, 0)]
            while frames[-1].image.shape != (192, 320, 3):
                frames.append(take(source, frames[-1].number))
            assert frames[0].image.shape == (96, 160, 3)
            seconds = frames[-1].pts_seconds - frames[0].pts_seconds
            assert seconds == pytest.approx(frames[-1].captured_at - frames[0].captured_at, abs=0.05)
        server.shutdown()


def test_camera_that_is_unplugged_and_plugged_in_again(monkeypatch):
    """FFmpeg's test pattern device stands for a camera: it ends, is missing for a while, and is there again."""
    import av

    if "lavfi" not in av.formats_available:
        pytest.skip("this PyAV was built without the test pattern device")
    state = {"tries": 0}

    def address(number: int) -> tuple[str, str]:
        state["tries"] += 1
        if state["tries"] == 1:
            return "testsrc=size=160x96:rate=100:duration=0.3", "lavfi"
        if state["tries"] < 4:
            raise VideoError(f"camera {number}: no device /dev/video{number}")
        return "testsrc=size=320x240:rate=100", "lavfi"

    monkeypatch.setattr(streams, "camera_address", address)
    with open_source(0) as source:
        first = take(source, 0)
        errors = set()
        while (frame := source.latest(after=first.number, timeout=0.01)) is None or frame.image.shape[0] == 96:
            errors.add(source.error)
            assert not source.ended
        assert frame.image.shape == (240, 320, 3) and frame.pts_seconds > first.pts_seconds
    assert any(error and "no device" in error for error in errors)


def test_a_stream_faster_than_it_can_be_decoded_is_caught_up_with(monkeypatch, make_rtsp):
    """Decoding takes three times as long as the stream leaves for it: pictures are left out, lag does not grow."""
    convert = streams.Converter.convert

    def slowly(*arguments, **options):
        time.sleep(0.12)  # of 0.04 that there are
        return convert(*arguments, **options)

    monkeypatch.setattr(streams.Converter, "convert", slowly)
    with open_source(make_rtsp().url) as source:
        began = time.monotonic()
        frames = watch(source, 30)
        seconds = time.monotonic() - began
    shown = frames[-1].pts_seconds - frames[0].pts_seconds
    assert source.dropped > 15
    assert shown == pytest.approx(seconds, abs=1.5)


def test_folder_of_images(tmp_path):
    for number in range(1, 12):
        picture = numbered_picture(number, (160, 96))[..., ::-1]
        assert cv2.imwrite(str(tmp_path / f"frame{number}.png"), picture)
    (tmp_path / "frame5.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("none either")
    assert [path.stem for path in find_images(tmp_path)][8:] == ["frame9", "frame10", "frame11"]
    with open_source(str(tmp_path)) as source:
        numbers, last = [], 0
        while (frame := source.latest(after=last, timeout=PATIENCE)) is not None:
            numbers.append(read_number(frame.image))
            last = frame.number
    assert source.error is None and len(numbers) + source.dropped == 10
    assert numbers == sorted(numbers) and numbers[-1] == 11 and 5 not in numbers


def test_folder_without_images(tmp_path: Path):
    with pytest.raises(VideoError, match="no images in this folder"):
        open_source(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"no picture")
    with open_source(str(tmp_path)) as source:
        assert source.latest(after=0, timeout=PATIENCE) is None
    assert "none of the 1 images can be read" in source.error


def test_device_by_its_name():
    with pytest.raises(VideoError, match=r"v4l2:/dev/nothing: cannot be opened"):
        open_source("v4l2:/dev/nothing")
