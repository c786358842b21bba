"""Stores without videos: two sources, one of them with two subjects at once."""

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source

SIZE, FRAMES = 32, 12


def add_clip(store, clip, path, offset, seed):
    rng = np.random.default_rng(seed)
    writer = ClipWriter(store, clip, source=path, fps=12.5)
    for t in range(FRAMES):
        image = np.full((SIZE, SIZE, 3), 40 + 10 * t, np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4:28, 10:22] = 255
        side = 80.0 + 3 * t
        corner = np.array([offset + 2 * t, 20 + t]) + rng.uniform(0, 1, 2)
        writer.append(image, mask, np.array([*corner, *(corner + side)]), 0.08 * t, 2 * t)
    writer.finish()


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.zarr"
    create_store(path, load_skeleton("human17"), crop_size=SIZE, codec="zstd")
    probe = {"width": 640, "height": 480, "fps": 25.0}
    for source, video, offsets in (("walk-1", "videos/walk.mp4", (30, 300)), ("run-2", "videos/run.mp4", (100,))):
        clips = [f"{source}-{n:03d}" for n in range(len(offsets))]
        for n, offset in enumerate(offsets):
            add_clip(path, clips[n], video, offset, n)
        publish_source(path, source, {"path": video, "verdict": "ok", "probe": probe, "clips": clips})
    return path
