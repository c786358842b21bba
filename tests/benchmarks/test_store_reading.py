"""Random frame pairs from a store, beside a numpy memory map of the same frames, and the size of each codec."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.store.reader import StoreReader
from streampose.store.schema import CODECS, DEFAULT_CODEC, create_store
from streampose.store.writer import ClipWriter, publish_source

pytestmark = pytest.mark.benchmark
SIZE, FRAMES, CLIPS, BATCH = 128, 512, 4, 32


def make_crops(seed: int) -> np.ndarray:
    """Crops like those of real video: a smooth and a fine texture that move, with sensor noise."""
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.integers(0, 256, (40, 80, 3), dtype=np.uint8), (1200, 300), interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(rng.integers(0, 256, (300, 1200, 3), dtype=np.uint8), (0, 0), 1.5)
    large = cv2.addWeighted(large, 0.7, fine, 0.6, 0)
    crops = np.stack([large[50 : 50 + SIZE, 2 * t : 2 * t + SIZE] for t in range(FRAMES)])
    return np.clip(crops + rng.normal(0, 1.5, crops.shape), 0, 255).astype(np.uint8)


def pairs_per_second(read, seconds: float = 2.0) -> float:
    rng = np.random.default_rng(0)
    read(rng), read(rng)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        read(rng)
        done += BATCH
    return done / (time.perf_counter() - started)


@pytest.mark.parametrize("codec", CODECS)
def test_random_pairs(codec, tmp_path, capsys):
    crops = [make_crops(seed) for seed in range(CLIPS)]
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(mask, (64, 64), (25, 55), 0, 0, 360, 255, -1)
    create_store(tmp_path / "store.zarr", load_skeleton("human17"), crop_size=SIZE, codec=codec)
    for n, frames in enumerate(crops):
        clip = ClipWriter(tmp_path / "store.zarr", f"clip{n}", source="a.mp4", fps=30.0)
        for t, frame in enumerate(frames):
            clip.append(frame, mask, np.zeros(4), t / 30, t)
        clip.finish()
    publish_source(tmp_path / "store.zarr", "a", {"path": "a.mp4", "clips": [f"clip{n}" for n in range(CLIPS)]})
    reader = StoreReader(tmp_path / "store.zarr")
    flat = np.concatenate(crops)
    np.save(tmp_path / "flat.npy", flat)
    mapped = np.load(tmp_path / "flat.npy", mmap_mode="r")

    def from_store(rng):
        where = rng.integers(CLIPS, size=BATCH)
        at = rng.integers(FRAMES, size=(BATCH, 2))
        return reader.read_many(
            [(f"clip{c}", int(t)) for c, pair in zip(where, at, strict=True) for t in pair], masks=False
        )

    ours = pairs_per_second(from_store)
    map_rate = pairs_per_second(lambda rng: mapped[rng.integers(len(flat), size=2 * BATCH)])
    size = sum(file.stat().st_size for file in (tmp_path / "store.zarr").rglob("*") if file.is_file()) / flat.nbytes
    with capsys.disabled():
        print(f"\n{codec}: {ours:.0f} pairs/s, memory map {map_rate:.0f} pairs/s; {size:.0%} of the raw bytes")
    assert ours >= 3000 or codec != DEFAULT_CODEC
    assert size <= 0.35 or codec != DEFAULT_CODEC
