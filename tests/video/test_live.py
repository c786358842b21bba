"""Live sources: the newest picture wins, losses are counted and mended, nothing is left running."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.video import live, streams
from streampose.video.live import LiveSource, open_source
from streampose.video.walker import draw_walker

from .conftest import numbered_picture, read_number, write_video

PATIENCE = 20.0  # seconds until a test gives up; none of them waits so long when all is well


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("capture")] == []


def collect(source: LiveSource) -> list[live.LiveFrame]:
    """Every picture until the source ends."""
    frames: list[live.LiveFrame] = []
    while (frame := source.latest(after=frames[-1].number if frames else 0, timeout=PATIENCE)) is not None:
        frames.append(frame)
    assert source.ended
    return frames


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server for the files in tmp_path: its address, and the requests that it got."""
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            requests.append(self.path)

        def copyfile(self, source, outputfile) -> None:  # a player that closes early is no error
            try:
                super().copyfile(source, outputfile)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


class Hand:
    """A source whose pictures are released one by one by the test."""

    def __init__(self) -> None:
        self.given = 0
        self.release = threading.Semaphore(0)

    def __call__(self, source: LiveSource):
        while not source.closed.is_set():
            if self.release.acquire(timeout=0.02):
                self.given += 1
                yield numbered_picture(self.given, (160, 96)), self.given / 10, time.monotonic()

    def give(self, source: LiveSource, count: int) -> None:
        target = self.given + count
        for _ in range(count):
            self.release.release()
        deadline = time.monotonic() + PATIENCE
        with source._news:
            assert source._news.wait_for(lambda: source._captured >= target, deadline - time.monotonic())


def test_newest_wins_and_the_missed_are_counted():
    hand = Hand()
    with LiveSource("hand", hand) as source:
        hand.give(source, 1)
        first = source.latest(after=0, timeout=PATIENCE)
        assert (first.number, read_number(first.image), source.dropped) == (1, 1, 0)
        hand.give(source, 5)
        newest = source.latest(after=first.number, timeout=PATIENCE)
        assert (newest.number, read_number(newest.image), newest.pts_seconds) == (6, 6, 0.6)
        assert source.dropped == 4
        assert first.captured_at < newest.captured_at <= time.monotonic()
        assert source.latest(after=newest.number, timeout=0.0) is None and not source.ended
        assert source.latest(after=0, timeout=0.0) is newest
    assert source.ended and source.latest(after=newest.number, timeout=PATIENCE) is None


def test_waiting_reader_is_woken_by_the_end():
    hand = Hand()
    source = LiveSource("hand", hand)
    answer = []
    reader = threading.Thread(target=lambda: answer.append(source.latest(after=0, timeout=PATIENCE)))
    reader.start()
    began = time.monotonic()
    source.close()
    reader.join()
    assert answer == [None] and time.monotonic() - began < PATIENCE / 2
    source.close()


def test_fault_of_the_capture_reaches_the_reader(caplog):
    def broken(source):
        yield numbered_picture(1, (160, 96)), 0.0, time.monotonic()
        raise RuntimeError("the lens fell off")

    with LiveSource("broken", broken) as source:
        frames = collect(source)
    assert len(frames) == 1
    assert source.error == "RuntimeError: the lens fell off"


def test_walker_walks():
    with open_source("test") as source:
        frames = [source.latest(after=0, timeout=PATIENCE)]
        frames.append(source.latest(after=frames[0].number, timeout=PATIENCE))
    for frame in frames:
        np.testing.assert_array_equal(frame.image, draw_walker(frame.pts_seconds))
        assert frame.pts_seconds == pytest.approx((frame.number - 1) / 30)
    assert frames[1].captured_at - frames[0].captured_at > 0


def test_file_is_played_at_its_own_pace(tmp_path):
    path = write_video(tmp_path / "v.mp4", 10, fps=20)
    began = time.monotonic()
    with open_source(str(path)) as source:
        frames = collect(source)
    assert source.error is None
    assert len(frames) + source.dropped == 10
    assert read_number(frames[-1].image) == 9
    assert time.monotonic() - began > 9 / 20 - 0.02
    for frame in frames:
        assert read_number(frame.image) == frame.number - 1 == round(frame.pts_seconds * 20)
        assert frame.captured_at - began >= frame.pts_seconds - 0.02


def test_file_is_played_again(tmp_path):
    path = write_video(tmp_path / "v.mp4", 4, fps=50)
    with open_source(f"file://{path}", loop=True) as source:
        frames = [source.latest(after=0, timeout=PATIENCE)]
        while frames[-1].number < 11:
            frames.append(source.latest(after=frames[-1].number, timeout=PATIENCE))
        assert not source.ended
    for frame in frames:
        assert read_number(frame.image) == (frame.number - 1) % 4
        assert frame.pts_seconds == pytest.approx((frame.number - 1) / 50, abs=1e-6)


def test_bad_specs(tmp_path, clip):
    (tmp_path / "notes.mp4").write_text("text")
    for spec, message in (
        (str(tmp_path / "nothing.mp4"), "no such file"),
        (str(tmp_path / "notes.mp4"), "not a video"),
        ("foo://somewhere", "foo://somewhere: cannot be opened"),
    ):
        with pytest.raises(VideoError, match=message):
            open_source(spec)


def test_password_is_not_shown():
    with pytest.raises(VideoError) as caught:
        open_source("rtsp://admin:secret@127.0.0.1:9/stream")
    assert "secret" not in str(caught.value) and "127.0.0.1:9/stream" in str(caught.value)


def test_recording_over_http(serve, tmp_path):
    address, _ = serve
    write_video(tmp_path / "v.mp4", 10, fps=50)
    with open_source(f"{address}/v.mp4") as source:
        frames = collect(source)
    assert source.error is None
    assert len(frames) + source.dropped == 10
    assert read_number(frames[-1].image) == 9


def test_missing_over_http(serve):
    with pytest.raises(VideoError, match="cannot be opened"):
        open_source(f"{serve[0]}/nothing.mp4")


def test_audio_over_http(serve, tmp_path):
    from .test_verdict import write_audio

    write_audio(tmp_path / "song.mp4")
    with pytest.raises(VideoError, match="audio only"):
        open_source(f"{serve[0]}/song.mp4")


def test_turned_picture_over_http(serve, tmp_path):
    write_video(tmp_path / "phone.mp4", 3, rotation=90)
    with open_source(f"{serve[0]}/phone.mp4") as source:
        assert source.latest(after=0, timeout=PATIENCE).image.shape == (160, 96, 3)


class Relay:
    """A TCP server that sends each client the bytes of a transport stream and hangs up, like a camera that restarts."""

    def __init__(self, data: bytes):
        import socket

        self.data, self.clients, self._stop = data, 0, threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.02)
        self.address = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self.socket.accept()
            except TimeoutError:
                continue
            self.clients += 1
            with client:
                try:
                    client.sendall(self.data)
                except OSError:
                    continue

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(write_video(tmp_path / "v.ts", 40, gop=5).read_bytes())
    yield relay
    relay.close()


def test_lost_stream_is_opened_again(relay, monkeypatch):
    monkeypatch.setattr(streams, "RETRY_SECONDS", (0.01, 0.02))
    with open_source(relay.address) as source:
        number, deadline = 0, time.monotonic() + PATIENCE
        while relay.clients < 3 or number < 90:
            assert time.monotonic() < deadline and not source.ended
            frame = source.latest(after=number, timeout=0.1)
            number = frame.number if frame else number


def test_lost_stream_that_stays_away(relay, monkeypatch):
    monkeypatch.setattr(streams, "RETRY_SECONDS", (0.01,))
    with open_source(relay.address) as source:
        relay.close()
        deadline = time.monotonic() + PATIENCE
        while source.error is None or "refused" not in source.error:
            assert time.monotonic() < deadline
            source.latest(after=10**9, timeout=0.01)
        assert not source.ended and relay.address in source.error


def test_without_reconnect_it_ends(relay):
    with open_source(relay.address, reconnect=False) as source:
        frames = collect(source)
    assert frames and "the stream ended" in source.error


def test_camera_that_is_not_there(monkeypatch):
    monkeypatch.setattr(streams, "list_cameras", lambda: ["camera 4", "camera 5"])
    for spec in (93, "93", "/dev/video93"):
        with pytest.raises(VideoError) as caught:
            open_source(spec)
        message = str(caught.value)
        assert message.startswith("camera 93: cannot be opened") and "\n" not in message
        assert "there are camera 4, camera 5" in message and "--source test" in message


def test_camera_through_ffmpeg(monkeypatch):
    """FFmpeg's test pattern device stands for a camera."""
    if "lavfi" not in av.formats_available:
        pytest.skip("this PyAV was built without the test pattern device")
    monkeypatch.setattr(streams, "camera_address", lambda number: ("testsrc=size=320x240:rate=200", "lavfi"))
    with open_source(0) as source:
        first = source.latest(after=0, timeout=PATIENCE)
        second = source.latest(after=first.number + 20, timeout=PATIENCE)
    assert first.image.shape == (240, 320, 3) and second.number > 20


def test_camera_through_opencv(monkeypatch):
    released = []

    class Camera:
        def __init__(self, number):
            assert number == 2
            self.count = 0

        def isOpened(self):
            return True

        def read(self):
            self.count += 1
            return self.count <= 5, np.full((4, 6, 3), (10, 20, 200), np.uint8)

        def release(self):
            released.append(True)

    def nothing(number):
        raise VideoError(f"camera {number}: FFmpeg does not know it")

    monkeypatch.setattr(streams, "camera_address", nothing)
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    with open_source(2) as source:
        frames = collect(source)
    assert tuple(frames[-1].image[0, 0]) == (200, 20, 10)
    assert "camera 2: lost" in source.error and released


def test_camera_that_is_not_ready_yet(monkeypatch):
    """Some drivers answer "try again" between pictures."""
    calls = []

    class Container:
        def demux(self, stream):
            calls.append(True)
            if len(calls) % 2:
                raise av.error.BlockingIOError(11, "Resource temporarily unavailable")
            yield "packet"
            if len(calls) < 6:
                raise av.error.BlockingIOError(11, "Resource temporarily unavailable")

    with LiveSource("hand", Hand()) as source:
        assert list(streams._packets(source, Container(), None)) == ["packet"] * 3
