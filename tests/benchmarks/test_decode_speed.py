"""How fast videos are decoded, as a share of `ffmpeg -f null -` on the same file in the same run.

Run it with `pytest -m benchmark -s tests/benchmarks/test_decode_speed.py`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.video.decode import Frame, open_video
from streampose.video.encode import VideoWriter
from streampose.video.shots import ShotDetector

pytestmark = pytest.mark.benchmark

FRAMES = 200
ROUNDS = 3
SUBJECT = np.array([500.0, 200.0, 820.0, 520.0])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 seconds of 720p h264 at about 5 Mbit/s: a textured room, camera noise, two moving shapes."""
    path = tmp_path_factory.mktemp("decode") / "clip.mp4"
    rng = np.random.default_rng(0)
    room = cv2.GaussianBlur(rng.integers(0, 255, (720, 1280, 3), np.uint8), (0, 0), 2)
    noise = rng.normal(0, 5, (760, 1320, 1))
    with VideoWriter(path, 30, (1280, 720), crf=21) as writer:
        for i in range(FRAMES):
            image = room.copy()
            cv2.ellipse(image, (100 + 3 * i % 1100, 360), (70, 220), 2 * i, 0, 360, (200, 90, 60), -1, cv2.LINE_AA)
            cv2.circle(image, (640 + int(400 * np.sin(i / 15)), 300), 90, (60, 180, 90), -1, cv2.LINE_AA)
            y, x = rng.integers(0, 40, 2)
            writer.write(np.clip(image + noise[y : y + 720, x : x + 1280], 0, 255).astype(np.uint8))
    return path


def time_ffmpeg(path: Path) -> tuple[float, float]:
    """(elapsed, processor) seconds of the ffmpeg command, its start-up left out."""
    command = ["ffmpeg", "-hide_banner", "-benchmark", "-i", str(path), "-map", "0:v", "-f", "null", "-"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    user, system, elapsed = map(float, re.findall(r"utime=([\d.]+)s stime=([\d.]+)s rtime=([\d.]+)s", report)[-1])
    return elapsed, user + system


def time_reading(path: Path, use: Callable[[Frame], object]) -> tuple[float, float]:
    """(elapsed, processor) seconds to open, decode and use every frame."""
    elapsed, processor, count = time.perf_counter(), time.process_time(), 0
    with open_video(path) as video:
        for frame in video.frames():
            use(frame)
            count += 1
    assert count == FRAMES
    return time.perf_counter() - elapsed, time.process_time() - processor


def test_decode_speed(clip: Path):
    """Each way is timed right beside ffmpeg, because other work on the machine comes and goes."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg command to compare with")
    detector = ShotDetector(30)
    ways: dict[str, Callable[[Frame], object]] = {
        "decode": lambda frame: None,
        "decode + 360p RGB": lambda frame: frame.small((640, 360)),
        "decode + 360p grey": lambda frame: frame.small((640, 360), gray=True),
        "decode + full RGB": lambda frame: frame.image,
        "decode + crop": lambda frame: frame.crop(SUBJECT, 128),
        "decode + cuts": lambda frame: detector.update(frame.small((64, 36))),
    }
    speeds = {}
    print(f"\n{'':20s} frames/s   speed / ffmpeg   speed / ffmpeg by processor time")
    for name, use in ways.items():
        pairs = np.array([(*time_ffmpeg(clip), *time_reading(clip, use)) for _ in range(ROUNDS)])
        elapsed, processor = np.median(pairs[:, 0] / pairs[:, 2]), np.median(pairs[:, 1] / pairs[:, 3])
        speeds[name] = processor
        print(f"{name:20s} {FRAMES / pairs[:, 2].min():8.0f}   {elapsed:14.2f}   {processor:14.2f}")
    assert speeds["decode"] > 0.8
    assert speeds["decode + 360p RGB"] > 0.5
