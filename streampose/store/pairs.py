"""Pairs of frames of one clip that differ in pose, for methods that learn from what changes and what stays."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from streampose.errors import StoreError
from streampose.store.reader import ClipInfo, StoreReader

READ_AT_ONCE = 64
LOOKED_AT = 512  # frames of a clip, evenly spread, among which pairs are sought
PAIRS_PER_CLIP = 1000
CANDIDATES = 6  # of so many partners for a frame the one that differs most is taken
LEAST_SECONDS, MOST_SECONDS = 0.2, 30.0
SIGNATURE = 24  # pixels a side of the small mask that two frames are compared by
LEAST_WEIGHT = 0.1  # of the clip's best frame: what its worst ones still count when frames are chosen


def sample_pairs(reader: StoreReader, seed: int = 0) -> dict[str, np.ndarray]:
    """Frame pairs of every clip; those of clips that have some already are kept.

    Motion is how much the two masks disagree inside their crops (1 - IoU), so it counts a changed pose and not a
    changed place. Several partners are tried for each frame, so slow clips give large changes too.

    Returns:
        The columns that `writer.write_pairs` takes. The same store and seed give the same pairs.
    """
    try:
        known = reader.pairs()
    except StoreError:
        known = None
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("clip", "i", "j", "seconds", "motion")}
    for clip in reader.clips():
        if known is not None and (known["clip"] == clip.id).any():
            chosen = {name: values[known["clip"] == clip.id] for name, values in known.items()}
        else:
            chosen = clip_pairs(reader, clip, seed)
        for name, values in chosen.items():
            columns[name].append(values)
    empty = {"clip": "U1", "i": "i8", "j": "i8", "seconds": "f4", "motion": "f4"}
    return {name: np.concatenate(parts) if parts else np.zeros(0, empty[name]) for name, parts in columns.items()}


def clip_pairs(reader: StoreReader, clip: ClipInfo, seed: int) -> dict[str, np.ndarray]:
    """Frame pairs of one clip, by time gap, motion and quality; random, but the same for the same clip and seed."""
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(clip.id.encode()).digest()[:8], "little")])
    places = np.unique(np.linspace(0, clip.num_frames - 1, min(LOOKED_AT, clip.num_frames)).round().astype(np.int64))
    times = reader.times(clip.id)[places]
    small = [
        cv2.resize(mask, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA)
        for some in np.array_split(places, -(-len(places) // READ_AT_ONCE))
        for mask in reader.read_many([(clip.id, int(place)) for place in some], frames=False).masks
    ]
    signature = np.stack(small).reshape(len(places), -1) > 127

    weight = _weights(reader.quality(clip.id)[places])
    wanted = min(PAIRS_PER_CLIP, 4 * len(places))
    first = rng.choice(len(places), size=wanted, p=weight / weight.sum())
    partners = rng.integers(len(places), size=(wanted, CANDIDATES))
    gap = np.abs(times[partners] - times[first][:, None])
    pixels = signature.astype(np.float32)
    shared = (pixels @ pixels.T).astype(np.int64)  # that each two have in common
    area = shared.diagonal()
    both = shared[first[:, None], partners]
    motion = 1.0 - both / np.maximum(area[first][:, None] + area[partners] - both, 1)
    motion[(gap < LEAST_SECONDS) | (gap > MOST_SECONDS)] = -1.0
    best = (motion * weight[partners]).argmax(1)
    rows = np.flatnonzero(motion[np.arange(wanted), best] >= 0)
    second = partners[rows, best[rows]]
    return {
        "clip": np.full(len(rows), clip.id),
        "i": places[first[rows]],
        "j": places[second],
        "seconds": np.abs(times[second] - times[first[rows]]).astype(np.float32),
        "motion": motion[rows, best[rows]].astype(np.float32),
    }


def _weights(quality: np.ndarray) -> np.ndarray:
    """How readily each frame is taken, so that sharp and whole ones with steady masks go before: (T,) in (0, 1]."""
    best = float(quality.max(initial=0.0))
    return (
        LEAST_WEIGHT + (1 - LEAST_WEIGHT) * np.asarray(quality, np.float64) / best
        if best > 0
        else np.ones(len(quality))
    )
