"""Speed and memory of ingest, beside ffmpeg's bare decoding of the same generated 720p h264 file in the same run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from streampose.video.encode import VideoWriter

pytestmark = pytest.mark.benchmark
WIDTH, HEIGHT, FPS = 1280, 720, 30


def film(path: Path, seconds: float, fps: float = FPS, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A figure walks to and fro before a textured wall, with sensor noise."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(
        rng.integers(40, 210, (45, 80, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    noise = [rng.normal(0, 2.5, (HEIGHT, WIDTH, 1)).round().astype(np.int16) for _ in range(7)]
    with VideoWriter(path, fps, size=size) as writer:
        for t in range(round(seconds * fps)):
            image = wall.copy()
            x = round(WIDTH * (0.5 + 0.4 * np.sin(t / 70)))
            for side in (-1, 1):
                foot = (x + round(side * 50 * np.sin(t / 5)), 650)
                cv2.line(image, (x, 430), foot, (30, 30, 90), 34)
            cv2.ellipse(image, (x, 330), (45, 110), 0, 0, 360, (170, 40, 150), -1)
            cv2.circle(image, (x, 190), 32, (200, 150, 120), -1)
            image = np.clip(image + noise[t % 7], 0, 255).astype(np.uint8)
            writer.write(image if size == (WIDTH, HEIGHT) else cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def run_ingest(
    video: Path, store: Path, masks: str = "mog2", workers: int = 1, rate: float = 10.0
) -> tuple[int, int, int, float]:
    """Frames, clips, peak memory in KiB and seconds of one ingest in a process of its own."""
    shutil.rmtree(store, ignore_errors=True)
    command = [sys.executable, "-m", "streampose.cli", "ingest", str(video), "--store", str(store), "--json"]
    command += ["--masks", masks, "--workers", str(workers), "--rate", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        result = json.loads(run.stdout.read())
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    assert run.returncode == 0
    (source,) = result["sources"]
    return source["frames"], len(source["clips"]), usage.ru_maxrss, result["seconds"]


def test_ingest_beside_bare_decoding(tmp_path, capsys):
    video, short = tmp_path / "walk.mp4", tmp_path / "short.mp4"
    film(short, 60)
    repeat(short, video, 4)
    ffmpeg = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(video), "-f", "null", "-"]
    variants = {
        "masks mog2": {},
        "masks mog2, two workers": {"workers": 2},
        "masks none, two workers": {"masks": "none", "workers": 2},
        "masks mog2, every frame": {"rate": 0.0},
    }
    best: dict[str, float] = {}
    for _ in range(3):  # in turns, so that whatever else the machine does meets all
        started = time.perf_counter()
        subprocess.run(ffmpeg, check=True)
        best["ffmpeg"] = min(best.get("ffmpeg", np.inf), time.perf_counter() - started)
        for name, options in variants.items():
            frames, clips, _, seconds = run_ingest(video, tmp_path / "store.zarr", **options)
            assert clips >= 1 and frames == 4 * 60 * FPS
            best[name] = min(best.get(name, np.inf), seconds)
    with capsys.disabled():
        print(f"\nffmpeg -f null: {frames / best['ffmpeg']:.0f} frames/s")
        for name in variants:
            print(f"ingest, {name}: {frames / best[name]:.0f} frames/s, {best['ffmpeg'] / best[name]:.2f} x")
    assert best["ffmpeg"] / best["masks mog2, two workers"] >= 0.6
    assert best["ffmpeg"] / best["masks none, two workers"] >= 0.7


def repeat(short: Path, long: Path, times: int) -> None:
    """The same film so many times, without encoding it again."""
    listing = short.with_suffix(".txt")
    listing.write_text(f"file '{short.name}'\n" * times)
    join = ["ffmpeg", "-v", "error", "-nostdin", "-f", "concat", "-i", str(listing), "-c", "copy", str(long)]
    subprocess.run(join, check=True)


def test_memory_does_not_grow_with_length(tmp_path, capsys):
    film(tmp_path / "short.mp4", 60)
    repeat(tmp_path / "short.mp4", tmp_path / "long.mp4", 10)
    short = run_ingest(tmp_path / "short.mp4", tmp_path / "short.zarr")
    long = run_ingest(tmp_path / "long.mp4", tmp_path / "long.zarr")
    assert long[0] == 10 * short[0]
    with capsys.disabled():
        print(f"\npeak memory {short[2] / 1024:.0f} MiB, of a file ten times as long {long[2] / 1024:.0f} MiB")
    assert long[2] <= 1.05 * short[2]


def resident_mib(pid: int) -> float:
    """Memory of a process and all that it has started."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / 2**20
    except psutil.Error:  # one of them has just ended
        return float("nan")


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_over_ten_hours(workers, tmp_path, capsys):
    """Few and small frames, so that it takes minutes; what could grow goes by frames, spans and clips."""
    film(tmp_path / "minute.mp4", 60, fps=2.5, size=(320, 180))
    repeat(tmp_path / "minute.mp4", tmp_path / "long.mp4", 10 * 60)
    command = [sys.executable, "-m", "streampose.cli", "ingest", str(tmp_path / "long.mp4"), "--json"]
    command += ["--store", str(tmp_path / "long.zarr"), "--masks", "mog2", "--workers", str(workers)]
    memory = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        while run.poll() is None:
            memory.append(resident_mib(run.pid))
            time.sleep(0.25)
        assert run.stdout is not None
        result = json.loads(run.stdout.read())
    (source,) = result["sources"]
    assert source["frames"] == 10 * 60 * 150 and len(source["clips"]) >= 10
    hours = np.linspace(0, 10, len(memory))
    known = np.isfinite(memory) & (hours > 0.5) & (hours < 9.5)  # not the start, and not the pairs at the end
    slope = float(np.polyfit(hours[known], np.array(memory)[known], 1)[0])
    with capsys.disabled():
        print(
            f"\n{workers} workers: {slope:+.2f} MB an hour of video over ten hours, {np.nanmax(memory):.0f} MB at most"
        )
    assert abs(slope) < 1.0
