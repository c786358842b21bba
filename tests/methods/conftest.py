"""A tiny training set: figures painted from the skeleton file, so that methods are tested without videos."""

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.methods.mask_data import make_frames
from streampose.methods.mask_prior import dolls


@pytest.fixture(scope="session")
def painted():
    """(frames, joints (N, K, 3), skeleton): two clips of twelve frames of 64 pixels."""
    skeleton, rng = load_skeleton("human17"), np.random.default_rng(5)
    backgrounds = np.full((24, 64, 64, 3), 60, np.uint8)
    crops, joints = dolls(skeleton, backgrounds, rng)
    masks = ((np.abs(crops.astype(int) - 60).max(-1) > 12) * 255).astype(np.uint8)
    boxes = np.tile(np.array([10, 20, 138, 148], np.float32), (24, 1))
    clip, seconds = np.repeat([0, 1], 12), np.tile(np.arange(12) / 25, 2)
    return make_frames(crops, masks, boxes, clip, seconds), joints, skeleton
