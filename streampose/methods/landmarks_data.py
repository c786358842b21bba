"""What `methods/landmarks.py` trains on: a store's crops in memory, and pairs of frames of one clip."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import StoreError, TrainingError
from streampose.methods.mask_data import pixel_matrix, resize_images
from streampose.store.reader import StoreReader

LEAST_SECONDS = 0.2  # between the two frames of a pair, where the store says no pairs
READ_AT_ONCE = 512


@dataclass(frozen=True)
class Crops:
    """N frames of the clips of a store at training resolution, in the order of clips and time.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB.
        clip: (N,) number of the frame's clip.
        pairs: (P, 2) frames of one clip that differ in pose.
    """

    crops: np.ndarray
    clip: np.ndarray
    pairs: np.ndarray

    @property
    def size(self) -> int:
        return self.crops.shape[1]

    def __len__(self) -> int:
        return len(self.crops)


def read_crops(reader: StoreReader, size: int, megabytes: float, seed: int = 0) -> Crops:
    """Read all clips without their masks; of a store too large for the memory that is allowed, every n-th frame.

    Raises:
        TrainingError: the store has no frames, or no clip of two different ones.
    """
    clips = reader.clips()
    total = sum(clip.num_frames for clip in clips)
    if total == 0:
        raise TrainingError(f"{reader.name}: no clips to train on; ingest videos first")
    stride = max(1, int(np.ceil(total * size * size * 3 / (megabytes * 2**20))))
    if stride > 1:
        logger.info("training on every %d-th of %d frames, to stay within %.0f MB", stride, total, megabytes)
    crops: list[np.ndarray] = []
    clip_of: list[np.ndarray] = []
    seconds: list[np.ndarray] = []
    place: dict[tuple[str, int], int] = {}
    for number, clip in enumerate(clips):
        wanted = np.arange(0, clip.num_frames, stride)
        for n in range(0, len(wanted), READ_AT_ONCE):
            items = [(clip.id, int(i)) for i in wanted[n : n + READ_AT_ONCE]]
            crops.append(resize_images(reader.read_many(items, masks=False).frames, size))
        first = sum(map(len, clip_of))
        place |= {(clip.id, int(i)): first + n for n, i in enumerate(wanted)}
        clip_of.append(np.full(len(wanted), number))
        seconds.append(reader.times(clip.id)[wanted])
    try:
        known = reader.pairs()
        named = [(place.get((c, int(i))), place.get((c, int(j)))) for c, i, j in zip(
            known["clip"], known["i"], known["j"], strict=True)]  # fmt: skip
        pairs = np.array([pair for pair in named if None not in pair], int).reshape(-1, 2)
    except StoreError:
        pairs = np.zeros((0, 2), int)
    return make_crops(np.concatenate(crops), np.concatenate(clip_of), np.concatenate(seconds), pairs, seed)


def make_crops(
    crops: np.ndarray, clip: np.ndarray, seconds: np.ndarray, pairs: np.ndarray | None = None, seed: int = 0
) -> Crops:
    """Complete crops by pairs where there are none: of every frame and four others of its clip, drawn at random.

    Raises:
        TrainingError: no clip has two frames that are far enough apart.
    """
    if pairs is None or not len(pairs):
        rng = np.random.default_rng((seed, len(crops)))
        parts = []
        for number in np.unique(clip):
            index = np.flatnonzero(clip == number)
            one, other = np.repeat(index, 4), rng.choice(index, 4 * len(index))
            apart = np.abs(seconds[one] - seconds[other]) >= LEAST_SECONDS
            parts.append(np.stack([one[apart], other[apart]], 1))
        pairs = np.concatenate(parts) if parts else np.zeros((0, 2), int)
    if not len(pairs):
        raise TrainingError(
            f"no two frames of one clip are {LEAST_SECONDS} seconds apart, and this method learns from such pairs; "
            "ingest longer videos, or train with --method mask"
        )
    return Crops(crops, clip, pairs)


@dataclass(frozen=True)
class Change:
    """How far views of a frame stray from it; see `landmarks_config.AugmentationConfig`."""

    flip: float
    rotation_degrees: float
    scale: float
    shift: float
    colour: float


def random_pairs(data: Crops, count: int, rng: np.random.Generator, how: Change) -> dict[str, np.ndarray]:
    """Pairs of frames, alike in colours and mirroring, each a little turned, shifted and scaled by itself.

    Returns:
        images, others (B, S, S, 3) uint8: the frame and what lends its appearance, in random roles.
    """
    chosen = data.pairs[rng.integers(0, len(data.pairs), count)]
    swap = rng.random(count) < 0.5
    chosen[swap] = chosen[swap][:, ::-1]
    flips = rng.random(count) < how.flip
    views = np.empty((2, count, *data.crops.shape[1:]), np.uint8)
    for b, pair in enumerate(chosen):
        recolour = _random_colours(rng) if rng.random() < how.colour else None
        for n, frame in enumerate(pair):
            view = warp(data.crops[frame], random_matrix(rng, how, flip=bool(flips[b])))
            views[n, b] = view if recolour is None else recolour[np.arange(3), view]
    return {"images": views[0], "others": views[1]}


def random_again(images: np.ndarray, rng: np.random.Generator, how: Change) -> dict[str, np.ndarray]:
    """Other views of images, turned, shifted, scaled and recoloured anew, but not mirrored.

    Returns:
        again (B, S, S, 3) uint8, and matrix (B, 2, 3) float32 that maps coordinates of the images to theirs.
    """
    matrix = np.stack([random_matrix(rng, how) for _ in images])
    again = np.stack([warp(image, m) for image, m in zip(images, matrix, strict=True)])
    for image in again:
        if rng.random() < how.colour:
            image[:] = _random_colours(rng)[np.arange(3), image]
    return {"again": again, "matrix": matrix}


def random_matrix(rng: np.random.Generator, how: Change, *, flip: bool = False) -> np.ndarray:
    """A random map of [-1, 1] coordinates, mirrored where `flip`: (2, 3)."""
    angle = np.radians(how.rotation_degrees) * rng.uniform(-1, 1)
    scale = np.exp(np.log1p(how.scale) * rng.uniform(-1, 1))
    matrix = np.zeros((2, 3), np.float32)
    matrix[:, :2] = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        matrix[:, 0] *= -1
    matrix[:, 2] = how.shift * rng.uniform(-1, 1, 2)
    return matrix


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """An image (S, S, 3) after a map of its [-1, 1] coordinates; what comes in from outside is mirrored."""
    size = len(image)
    return cv2.warpAffine(
        image, pixel_matrix(matrix, size), (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def random_backgrounds(data: Crops, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures without a subject, as well as one can without masks: the borders of crops, and noise: (B, S, S, 3)."""
    S = data.size
    out = np.empty((count, S, S, 3), np.uint8)
    for b in range(count):
        crop = data.crops[rng.integers(len(data))]
        width = int(S * rng.uniform(0.12, 0.25))
        strips = [crop[:, :width], crop[:, S - width :]]
        if rng.random() < 0.5:
            both = _mirrored(strips, S, rng)
        else:
            both = np.concatenate(strips, 1)
            if rng.random() < 0.3:
                coarse = int(rng.integers(2, 12))
                both = rng.integers(0, 256, (coarse, coarse, 3)).astype(np.uint8)
            both = cv2.resize(both, (S, S), interpolation=cv2.INTER_CUBIC)
        out[b] = both[:, :: int(rng.choice((-1, 1)))]
        if rng.random() < 0.2:  # where a crop reaches beyond its picture
            beyond = max(1, int(S * rng.uniform(0.03, 0.3)))
            out[b, :, slice(beyond) if rng.random() < 0.5 else slice(-beyond, None)] = 0
    return out


def _mirrored(strips: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """The left and the right strip (S, w, 3) as sharp as they are, each repeated back and forth: (S, S, 3)."""
    parts, width = [], int(size * rng.uniform(0.2, 0.8))
    for strip, wanted in zip(strips, (width, size - width), strict=True):
        times = -(-wanted // strip.shape[1])
        parts.append(np.concatenate([strip if n % 2 == 0 else strip[:, ::-1] for n in range(times)], 1))
    return np.concatenate([parts[0][:, :width], parts[1][:, ::-1][:, width - size :]], 1)


def _random_colours(rng: np.random.Generator) -> np.ndarray:
    """A table for each channel, (3, 256): gain, gamma and offset, now and then with channels exchanged."""
    x = np.arange(256) / 255
    tables = [(x ** rng.uniform(0.7, 1.4) * rng.uniform(0.7, 1.2) + rng.uniform(-0.1, 0.1)) for _ in range(3)]
    return (np.stack(tables).clip(0, 1) * 255).astype(np.uint8)
