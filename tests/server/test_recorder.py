"""Recordings of live sessions."""

import json
import os
import subprocess
import threading
import time

import numpy as np
import pytest

from streampose.server import recorder as recorder_module
from streampose.server.recorder import Recorder, RecordingError
from streampose.video.decode import open_video


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_without_a_folder_nothing_is_ever_recorded(make_session, source):
    session = make_session(source)
    with pytest.raises(RecordingError, match="--recordings FOLDER"):
        session.start_recording()
    assert session.stats().recording is None


def test_a_recording_holds_the_pictures_and_the_poses(make_session, source, fakes, tmp_path):
    session = make_session(source, recorder=Recorder(tmp_path / "new"))
    slot = session.subscribe()
    session.start()
    assert session.start_recording().running
    with pytest.raises(RecordingError, match="already"):
        session.start_recording()
    for n in range(12):
        source.push(fakes.dot(4 * n, 20))
        slot.take(timeout=5)
        wait_for(lambda n=n: session.stats().recording.frames == n + 1)
    done = session.stop_recording()
    assert (done.running, done.frames, done.dropped, done.error) == (False, 12, 0, None)
    assert session.stats().recording == done
    (video,) = (tmp_path / "new").glob("*.mp4")
    poses = [json.loads(line) for line in (tmp_path / "new" / f"{done.name}.jsonl").read_text().splitlines()]
    with open_video(video) as opened:
        pictures = [frame.image for frame in opened.frames()]
    assert len(pictures) == len(poses) == 12
    for picture, pose in zip(pictures, poses, strict=True):
        x, y, *_ = pose["subjects"][0]["keypoints"][0]
        assert picture[int(y), int(x)].mean() > 100 > 20 + picture[40, 60].mean()


def test_another_resolution_begins_another_file(make_session, source, fakes, tmp_path):
    session = make_session(source, recorder=Recorder(tmp_path))
    slot = session.subscribe()
    session.start()
    session.start_recording()
    for n, size in enumerate([(64, 48), (64, 48), (96, 64)]):
        source.push(fakes.dot(5, 5, *size))
        slot.take(timeout=5)
        wait_for(lambda n=n: session.stats().recording.frames == n + 1)
    session.stop()
    assert len(list(tmp_path.glob("*.mp4"))) == 2 and not list(tmp_path.glob(".*"))


def test_a_disk_that_is_nearly_full_ends_the_recording_and_keeps_it(
    make_session, source, fakes, tmp_path, monkeypatch
):  # fmt: skip
    monkeypatch.setattr(recorder_module, "CHECK_SECONDS", 0.0)
    session = make_session(source, recorder=Recorder(tmp_path))
    slot = session.subscribe()
    session.start()
    session.start_recording()
    for n in range(1, 4):
        source.push(fakes.dot(5, 5))
        slot.take(timeout=5)
        wait_for(lambda n=n: session.stats().recording.frames == n)
    monkeypatch.setattr(recorder_module, "LEAST_FREE_BYTES", 1 << 60)
    source.push(fakes.dot(5, 5))
    slot.take(timeout=5)
    wait_for(lambda: session.stats().recording.error is not None)
    assert "the disk is nearly full" in session.stats().recording.error
    with pytest.raises(RecordingError, match="nearly full"):
        session.start_recording()
    wait_for(lambda: list(tmp_path.glob("*.mp4")))
    source.push(fakes.dot(6, 6))
    assert slot.take(timeout=5).keypoints.xy[0, 0, 0] == 6  # serving goes on


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = os.name == "posix" and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a file system of its own cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_recording_with_a_clear_message(make_session, source, full_disk, monkeypatch):
    monkeypatch.setattr(recorder_module, "LEAST_FREE_BYTES", 0)
    rng = np.random.default_rng(0)
    session = make_session(source, recorder=Recorder(full_disk))
    slot = session.subscribe()
    session.start()
    session.start_recording()
    end = time.monotonic() + 20
    while session.stats().recording.running:
        assert time.monotonic() < end
        source.push(rng.integers(0, 255, (240, 320, 3), np.uint8))
        slot.take(timeout=5)
    wait_for(lambda: not any(thread.name == "recorder" for thread in threading.enumerate()))
    error = session.stats().recording.error
    assert "cannot be written" in error and "No space left" in error
    source.push(np.zeros((48, 64, 3), np.uint8))
    assert slot.take(timeout=5) is not None and session.failure is None


def test_a_slow_disk_slows_nobody(make_session, source, fakes, tmp_path, monkeypatch):
    hold = threading.Event()
    write = recorder_module.VideoWriter.write

    def slowly(*arguments):
        hold.wait(10)
        write(*arguments)

    monkeypatch.setattr(recorder_module.VideoWriter, "write", slowly)
    session = make_session(source, recorder=Recorder(tmp_path))
    slot = session.subscribe()
    session.start()
    session.start_recording()
    began = time.monotonic()
    for n in range(30):
        source.push(fakes.dot(n, 5))
        assert slot.take(timeout=5).keypoints.xy[0, 0, 0] == n
    assert time.monotonic() - began < 5
    wait_for(lambda: session.stats().recording.dropped >= 30 - recorder_module.MOST_WAITING - 1)
    hold.set()
    session.stop_recording()


def test_the_end_of_the_session_finishes_the_recording(make_session, source, fakes, tmp_path):
    session = make_session(source, recorder=Recorder(tmp_path))
    slot = session.subscribe()
    session.start()
    session.start_recording()
    source.push(fakes.dot(5, 5))
    slot.take(timeout=5)
    wait_for(lambda: session.stats().recording.frames == 1)
    session.stop()
    (video,) = tmp_path.glob("*.mp4")
    with open_video(video) as opened:
        assert len(list(opened.frames())) == 1
