"""Speed and memory of ingest, beside ffmpeg's bare decoding of the same generated 720p h264 file in the same run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.video.encode import VideoWriter

pytestmark = pytest.mark.benchmark
WIDTH, HEIGHT, FPS = 1280, 720, 30
INGEST = """
import resource, sys
from pathlib import Path
from streampose.ingest import ingest
result = ingest([Path(sys.argv[1])], store=Path(sys.argv[2]))
(source,) = result["sources"]
print(source["frames"], len(source["clips"]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, result["seconds"])
"""


def film(path: Path, seconds: float) -> None:
    """A figure walks to and fro before a textured wall, with sensor noise."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(
        rng.integers(40, 210, (45, 80, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    noise = [rng.normal(0, 2.5, (HEIGHT, WIDTH, 1)).round().astype(np.int16) for _ in range(7)]
    with VideoWriter(path, FPS, size=(WIDTH, HEIGHT)) as writer:
        for t in range(round(seconds * FPS)):
            image = wall.copy()
            x = round(WIDTH * (0.5 + 0.4 * np.sin(t / 70)))
            for side in (-1, 1):
                foot = (x + round(side * 50 * np.sin(t / 5)), 650)
                cv2.line(image, (x, 430), foot, (30, 30, 90), 34)
            cv2.ellipse(image, (x, 330), (45, 110), 0, 0, 360, (170, 40, 150), -1)
            cv2.circle(image, (x, 190), 32, (200, 150, 120), -1)
            writer.write(np.clip(image + noise[t % 7], 0, 255).astype(np.uint8))


def run_ingest(video: Path, store: Path) -> tuple[int, int, int, float]:
    shutil.rmtree(store, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", INGEST, str(video), str(store)], check=True, capture_output=True, text=True
    )
    frames, clips, peak_kib, seconds = done.stdout.split()
    return int(frames), int(clips), int(peak_kib), float(seconds)


def test_ingest_is_at_least_two_fifths_as_fast_as_bare_decoding(tmp_path, capsys):
    video = tmp_path / "walk.mp4"
    film(video, 60)
    ffmpeg = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(video), "-f", "null", "-"]
    decode_seconds, ingest_seconds, frames = [], [], 0
    for _ in range(3):  # in turns, so that whatever else the machine does meets both
        started = time.perf_counter()
        subprocess.run(ffmpeg, check=True)
        decode_seconds.append(time.perf_counter() - started)
        frames, clips, _, seconds = run_ingest(video, tmp_path / "store.zarr")
        ingest_seconds.append(seconds)
        assert clips >= 1
    decode, ours = frames / min(decode_seconds), frames / min(ingest_seconds)
    with capsys.disabled():
        print(f"\nffmpeg -f null {decode:.0f} frames/s, ingest {ours:.0f} frames/s: {ours / decode:.2f}")
    assert ours / decode >= 0.4


def test_memory_does_not_grow_with_length(tmp_path, capsys):
    film(tmp_path / "short.mp4", 40)
    listing = tmp_path / "list.txt"
    listing.write_text("file 'short.mp4'\n" * 10)
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-nostdin",
            "-f",
            "concat",
            "-i",
            str(listing),
            "-c",
            "copy",
            str(tmp_path / "long.mp4"),
        ],
        check=True,
    )
    short = run_ingest(tmp_path / "short.mp4", tmp_path / "short.zarr")
    long = run_ingest(tmp_path / "long.mp4", tmp_path / "long.zarr")
    assert long[0] == 10 * short[0]
    with capsys.disabled():
        print(f"\npeak memory {short[2] / 1024:.0f} MiB, of a file ten times as long {long[2] / 1024:.0f} MiB")
    assert long[2] <= 1.05 * short[2]
