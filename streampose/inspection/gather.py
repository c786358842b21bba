"""What the page about a store shows of each clip, of the frame pairs and of the space that all takes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streampose.store.reader import ClipInfo, StoreReader

CROPS = 12  # a clip
MOMENTS = 60  # of a clip, at which its mask is looked at
MOTION_SECONDS = 0.4  # two masks are compared over so long, as `tracking.worth` does
EXAMPLES = 6  # pairs that are shown
SIGNATURE = 24


@dataclass(frozen=True)
class Story:
    """A clip over its time.

    Attributes:
        seconds: (T,) when each frame is shown; `quality` (T,) in [0, 1] and `centres` (T, 2) source pixels, `sides`
            (T,) of the boxes.
        moments: (M,) seconds at which `area` (M,), the mask's share of the crop, and `motion` (M,), 1 - IoU of the
            masks of two moments, are known; NaN where not.
        crops, masks: (CROPS, S, S, 3) and (CROPS, S, S) uint8, spread over the clip; `at` (CROPS,) their seconds.
    """

    clip: ClipInfo
    seconds: np.ndarray
    quality: np.ndarray
    centres: np.ndarray
    sides: np.ndarray
    moments: np.ndarray
    area: np.ndarray
    motion: np.ndarray
    crops: np.ndarray
    masks: np.ndarray
    at: np.ndarray


def tell(reader: StoreReader, clip: ClipInfo) -> Story:
    """Look through one clip."""
    seconds, boxes = reader.times(clip.id), reader.boxes(clip.id)
    shown = np.linspace(0, clip.num_frames - 1, CROPS).round().astype(int)
    first = np.unique(np.linspace(0, clip.num_frames - 1, min(MOMENTS, clip.num_frames)).round().astype(int))
    later = np.minimum(np.searchsorted(seconds, seconds[first] + MOTION_SECONDS), clip.num_frames - 1)
    wanted, place = np.unique(np.concatenate([shown, first, later]), return_inverse=True)
    read = reader.read(clip.id, wanted)
    small = np.stack([cv2.resize(m, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA) for m in read.masks]) > 127
    area = (read.masks > 127).mean((1, 2))
    one, two = small[place[CROPS : CROPS + len(first)]], small[place[CROPS + len(first) :]]
    either = (one | two).sum((1, 2))
    motion = np.where(either > 0, 1 - (one & two).sum((1, 2)) / np.maximum(either, 1), np.nan)
    apart = seconds[later] - seconds[first]
    motion[(apart < 0.5 * MOTION_SECONDS) | (apart > 2.5 * MOTION_SECONDS)] = np.nan
    crops = place[:CROPS]
    return Story(
        clip, seconds, reader.quality(clip.id), (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0],
        seconds[first], area[place[CROPS : CROPS + len(first)]], motion,
        read.frames[crops], read.masks[crops], seconds[shown],
    )  # fmt: skip


@dataclass(frozen=True)
class Example:
    """Two frames of a pair, (S, S, 3) with their masks (S, S), how far apart they are and how much they differ."""

    clip: str
    frames: np.ndarray
    masks: np.ndarray
    seconds: float
    motion: float


def examples(reader: StoreReader, pairs: dict[str, np.ndarray]) -> list[Example]:
    """Pairs from the most alike to the most different."""
    order = np.argsort(pairs["motion"], kind="stable")
    if not len(order):
        return []
    found = []
    for n in dict.fromkeys(order[np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int)].tolist()):
        clip, i, j = str(pairs["clip"][n]), int(pairs["i"][n]), int(pairs["j"][n])
        read = reader.read(clip, [i, j])
        found.append(Example(clip, read.frames, read.masks, float(pairs["seconds"][n]), float(pairs["motion"][n])))
    return found


def disk_use(files: dict[str, int]) -> dict[str, int]:
    """Bytes of a store's files by what they hold."""
    use = {"frames": 0, "masks": 0, "boxes and times": 0, "frame pairs": 0, "descriptions": 0}
    for path, size in files.items():
        parts = path.split("/")
        if parts[-1] == "zarr.json":
            kind = "descriptions"
        elif parts[0] == "pairs":
            kind = "frame pairs"
        elif parts[0] == "clips" and len(parts) > 4:
            kind = parts[4] if parts[4] in ("frames", "masks") else "boxes and times"
        else:
            kind = "descriptions"
        use[kind] += size
    return use
