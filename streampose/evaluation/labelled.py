"""How far a model's joints lie from labels of frames that it was not trained on."""

from __future__ import annotations

import numpy as np

from streampose.evaluation.predicted import Predict
from streampose.methods.mask_data import resize_images
from streampose.store.labels import Labels
from streampose.store.reader import StoreReader

BATCH = 128
FEWEST_FRAMES = 5  # of fewer labelled frames nothing is concluded
FARTHEST = 0.25  # of the crop's side: what is farther is as wrong as can be, so that one joint does not decide
DRAWS = 1000


def label_errors(predict: Predict, input_size: int, reader: StoreReader, labels: Labels) -> np.ndarray:
    """Distance of each predicted joint from its label, as a share of the crop's side: (N, K), NaN where not placed.

    Args:
        labels: of the joints that the model has, in their order.
    """
    errors = [np.zeros((0, labels.keypoints.shape[1]))]
    for start in range(0, len(labels), BATCH):
        part = labels.pick(np.arange(start, min(start + BATCH, len(labels))))
        data = reader.read_many(list(zip(part.clip.tolist(), part.frame.tolist(), strict=True)), masks=False)
        keypoints, _ = predict(resize_images(data.frames, input_size))
        shares = (keypoints[..., :2] + 0.5) / input_size - (part.keypoints + 0.5) / reader.crop_size
        errors.append(np.linalg.norm(shares, axis=-1))
    return np.concatenate(errors)


def compare_label_errors(new: np.ndarray, old: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """How much closer to the labels a model is than another: (difference, low, high) in shares of the crop's side.

    The interval is of 95 %, by drawing labelled frames with replacement, the same ones for both models; of fewer than
    FEWEST_FRAMES nothing is known.
    """
    closer = np.nanmean(np.minimum(old, FARTHEST) - np.minimum(new, FARTHEST), axis=1) if len(new) else np.zeros(0)
    closer = closer[np.isfinite(closer)]
    if len(closer) < FEWEST_FRAMES:
        return float(closer.mean()) if len(closer) else 0.0, -np.inf, np.inf
    rng = np.random.default_rng(seed)
    drawn = closer[rng.integers(0, len(closer), (DRAWS, len(closer)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(closer.mean()), float(low), float(high)
