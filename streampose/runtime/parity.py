"""Does a runtime answer as another one does? Crops to ask both with, and how far their answers are apart."""

from __future__ import annotations

import cv2
import numpy as np

PARITY_CROPS = 8
# In crop pixels, of the median joint; `export` holds f32 to it in every joint.
PARITY_PX = {"f32": 0.1, "bf16": 0.5, "f16": 0.5, "int8": 1.0}


def parity_crops(size: int, count: int = PARITY_CROPS) -> np.ndarray:
    """(count, size, size, 3) uint8: coarse blots of colour under fine noise, always the same."""
    random = np.random.default_rng(0)
    coarse = random.random((count, 8, 8, 3), np.float32)
    smooth = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR) for image in coarse])
    noisy = smooth + random.normal(0, 0.1, smooth.shape)
    return (noisy.clip(0, 1) * 255).astype(np.uint8)


def difference_px(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """How far keypoints (B, K, 3) are from those expected, in crop pixels: {"median", "p95", "max"} over x, y and z."""
    apart = np.abs(found.astype(np.float64) - expected).max(-1)
    apart = np.where(np.isfinite(apart), apart, np.inf)
    return {
        "median": float(np.median(apart)),
        "p95": float(np.quantile(apart, 0.95, method="higher")),
        "max": float(apart.max()),
    }
