"""What `methods/mask.py` trains on: a store's crops and masks in memory, and augmented views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import TrainingError
from streampose.masks.geodesic import geodesic_weights_batch
from streampose.store.reader import StoreReader
from streampose.store.sessions import read_sessions

SIZE_WINDOW_SECONDS = 3.0  # a subject's size is the largest that its mask reaches about this time


@dataclass(frozen=True)
class Frames:
    """N frames of the clips of a store at training resolution, in the order of clips and time.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB.
        masks: (N, S, S) uint8, 255 where the subject is.
        boxes: (N, 4) edges of the crop in source pixels.
        clip: (N,) number of the frame's clip.
        seconds: (N,) time in the source.
        geodesic: (N, S / 2, S / 2) float16 weights (Eq. 9).
        height: (N,) the subject's size in crop coordinates ([-1, 1] over the crop): of a person, the standing height.
    """

    crops: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    clip: np.ndarray
    seconds: np.ndarray
    geodesic: np.ndarray
    height: np.ndarray

    @property
    def size(self) -> int:
        return self.crops.shape[1]

    def __len__(self) -> int:
        return len(self.crops)


def read_frames(reader: StoreReader, size: int, megabytes: float) -> Frames:
    """Read all clips; of a store that is too large for the memory that is allowed, a frame at every n-th moment.

    The moments are those of one clock for all views of a session, so that they stay simultaneous.

    Raises:
        TrainingError: the store has no frames, or none with a mask.
    """
    clips = reader.clips()
    total = sum(clip.num_frames for clip in clips)
    if total == 0:
        raise TrainingError(f"{reader.name}: no clips to train on; ingest videos first")
    stride = max(1, int(np.ceil(total * size * size * 4.5 / (megabytes * 2**20))))
    clocks = {}
    if stride > 1:
        logger.info("training on every %d-th of %d frames, to stay within %.0f MB", stride, total, megabytes)
        clocks = _clocks(reader)
    parts = []
    for number, clip in enumerate(clips):
        index = np.arange(clip.num_frames)
        if stride > 1:
            offset, fps = clocks[clip.id]
            stored = reader.read_many([(clip.id, int(i)) for i in index], masks=False, frames=False)
            index = at_moments(stored.pts_seconds + offset, stride / fps)
        data = reader.read(clip.id, index)
        kept = (data.masks > 127).mean((1, 2)) > 0.01
        crops = resize_images(data.frames[kept], size)
        masks = resize_images(data.masks[kept], size)
        parts.append((crops, masks, data.boxes[kept], np.full(kept.sum(), number), data.pts_seconds[kept]))
    crops, masks, boxes, clip_of, seconds = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not len(crops):
        raise TrainingError(f"{reader.name}: no frame has a mask; look at it by `streampose inspect`")
    return make_frames(crops, masks, boxes, clip_of, seconds)


def at_moments(seconds: np.ndarray, period: float) -> np.ndarray:
    """Positions of the frames that are nearest to the multiples of a period: increasing times (N,) -> (n,)."""
    tick = np.rint(seconds / period)
    order = np.lexsort((np.abs(seconds - tick * period), tick))
    return np.sort(order[np.unique(tick[order], return_index=True)[1]])


def _clocks(reader: StoreReader) -> dict[str, tuple[float, float]]:
    """Of each clip, what must be added to its times to get its session's, and the lowest rate of the session's views.

    A clip of no session has its own times and rate.
    """
    clocks = {clip.id: (0.0, clip.fps) for clip in reader.clips()}
    clips_of = {source["id"]: source.get("clips", []) for source in reader.sources()}
    for stored in read_sessions(reader.path):
        views = [clips_of.get(source, []) for source in stored.source_ids]
        lowest = min((clocks[clip][1] for clips in views for clip in clips), default=0.0)
        for view, clips in zip(stored.session.views, views, strict=True):
            clocks |= dict.fromkeys(clips, (view.offset_seconds, lowest))
    return clocks


def make_frames(
    crops: np.ndarray, masks: np.ndarray, boxes: np.ndarray, clip: np.ndarray, seconds: np.ndarray
) -> Frames:
    """Complete crops and masks by what is derived from them: geodesic weights and sizes."""
    half = resize_images(masks, masks.shape[1] // 2)
    geodesic = geodesic_weights_batch(half > 127).astype(np.float16)
    return Frames(crops, masks, boxes, clip, seconds, geodesic, subject_sizes(masks, boxes, clip, seconds))


def resize_images(images: np.ndarray, size: int) -> np.ndarray:
    """Resize (N, H, H) or (N, H, H, 3) uint8 images to (size, size)."""
    if images.shape[1] == size:
        return images
    method = cv2.INTER_AREA if images.shape[1] > size else cv2.INTER_LINEAR
    resized = [cv2.resize(image, (size, size), interpolation=method) for image in images]
    return np.stack(resized) if resized else np.zeros((0, size, size, *images.shape[3:]), np.uint8)


def subject_sizes(masks: np.ndarray, boxes: np.ndarray, clip: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The subject's size in crop coordinates: (N,).

    The paper measures bones by the height of the mask's box, which halves when a person sits down. The largest side of
    the box within some seconds is steadier: it is the height of a person who stands upright now and then.
    """
    inside: np.ndarray = np.asarray(masks > 127)
    size = masks.shape[1]
    extent = np.maximum(_extent(inside.any(axis=2)), _extent(inside.any(axis=1))) / size  # (N,) share of the crop
    side = boxes[:, 2] - boxes[:, 0]
    pixels = extent * side
    largest = np.empty(len(pixels))
    for number in np.unique(clip):
        index = np.flatnonzero(clip == number)
        for i in index:
            near = index[np.abs(seconds[index] - seconds[i]) <= SIZE_WINDOW_SECONDS]
            largest[i] = np.percentile(pixels[near], 90)
    return (2 * np.maximum(largest, pixels * 0.9) / side).clip(0.2, 4.0).astype(np.float32)


def _extent(lines: Any) -> np.ndarray:
    """Distance from the first to the last true entry: (N, S) bool -> (N,)."""
    first = lines.argmax(1)
    last = lines.shape[1] - lines[:, ::-1].argmax(1)
    return np.where(lines.any(1), last - first, 0)


@dataclass(frozen=True)
class Augmentation:
    """How far views of a frame stray from it; all are odds or widths."""

    rotation_degrees: float
    scale: float
    shift: float
    flip: float
    colour: float
    background: float
    cutout: float
    empty: float


def random_views(
    frames: Frames,
    index: np.ndarray,
    rng: np.random.Generator,
    how: Augmentation,
    backgrounds: Frames | None = None,
) -> dict[str, np.ndarray]:
    """Augmented views of frames.

    Args:
        backgrounds: frames whose surroundings subjects are put on, now and then; None for the frames themselves.

    Returns:
        images (B, S, S, 3) uint8, masks (B, S, S) uint8, geodesic (B, S / 2, S / 2) float32, matrix (B, 2, 3) float32
        that maps crop coordinates to the view's, flipped (B,) bool, empty (B,) bool (the subject was taken out),
        height (B,) float32.
    """
    B, S = len(index), frames.size
    flipped = rng.random(B) < how.flip
    empty = rng.random(B) < how.empty
    angle = np.radians(how.rotation_degrees) * rng.uniform(-1, 1, B)
    scale = np.exp(np.log1p(how.scale) * rng.uniform(-1, 1, B))
    shift = how.shift * rng.uniform(-1, 1, (B, 2))
    matrix = np.zeros((B, 2, 3), np.float32)
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle) * scale
    matrix[:, 0, 1] = -np.sin(angle) * scale
    matrix[:, 1, 0] = np.sin(angle) * scale
    matrix[:, :, 0] *= np.where(flipped, -1, 1)[:, None]
    matrix[:, :, 2] = shift

    images = np.empty((B, S, S, 3), np.uint8)
    masks = np.empty((B, S, S), np.uint8)
    geodesic = np.empty((B, S // 2, S // 2), np.float32)
    for b, i in enumerate(index):
        crop, mask = frames.crops[i], frames.masks[i]
        if empty[b]:
            crop, mask = without_subject(crop, mask), np.zeros_like(mask)
        elif rng.random() < how.background:
            crop = _on_background(crop, mask, frames if backgrounds is None else backgrounds, rng)
        images[b] = cv2.warpAffine(
            crop, pixel_matrix(matrix[b], S), (S, S), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        masks[b] = cv2.warpAffine(mask, pixel_matrix(matrix[b], S), (S, S), flags=cv2.INTER_LINEAR)
        geodesic[b] = cv2.warpAffine(
            frames.geodesic[i].astype(np.float32),
            pixel_matrix(matrix[b], S // 2),
            (S // 2, S // 2),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        disturb(images[b], rng, how)
    return {
        "images": images,
        "masks": masks,
        "geodesic": geodesic,
        "matrix": matrix,
        "flipped": flipped,
        "empty": empty,
        "height": (frames.height[index] * scale).astype(np.float32),
    }


def random_backgrounds(frames: Frames, count: int, rng: np.random.Generator) -> np.ndarray:
    """What surrounds the subjects of random frames: (B, S, S, 3)."""
    index = rng.integers(0, len(frames), count)
    return np.stack([without_subject(frames.crops[i], frames.masks[i]) for i in index])


def disturb(image: np.ndarray, rng: np.random.Generator, how: Augmentation) -> None:
    """Change colours and hide parts of an image, in place."""
    if rng.random() < how.colour:
        image[:] = _recolour(image, rng)
    if rng.random() < how.cutout:
        _cut_out(image, rng)


def pixel_matrix(matrix: np.ndarray, size: int) -> np.ndarray:
    """An affine map of [-1, 1] coordinates as one of pixel coordinates whose centres are integers: (2, 3) -> (2, 3)."""
    linear, offset = matrix[:, :2].astype(np.float64), matrix[:, 2].astype(np.float64)
    centre = (size - 1) / 2
    return np.column_stack([linear, offset * size / 2 + centre - linear @ [centre, centre]])


def without_subject(crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the subject by a blur of what surrounds it: (S, S, 3), (S, S) -> (S, S, 3)."""
    size = len(mask)
    inside = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 127
    outside = (~inside).astype(np.float32)
    reach = (size // 2 * 2 + 1, size // 2 * 2 + 1)
    weight = cv2.blur(outside, reach)[..., None]
    fill = cv2.blur(crop * outside[..., None], reach) / np.maximum(weight, 1e-3)
    return np.where(inside[..., None], fill, crop).astype(np.uint8)


def _on_background(crop: np.ndarray, mask: np.ndarray, frames: Frames, rng: np.random.Generator) -> np.ndarray:
    """Put the subject on what surrounds another one, or on noise."""
    size = len(mask)
    if rng.random() < 0.75:
        other = int(rng.integers(len(frames)))
        background = without_subject(frames.crops[other], frames.masks[other]).astype(np.float32)
        if rng.random() < 0.5:
            background = background[:, ::-1]
    else:
        coarse = int(rng.integers(2, 12))
        noise = rng.uniform(0, 255, (coarse, coarse, 3)).astype(np.float32)
        background = np.asarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    alpha = cv2.blur(cv2.dilate(mask, np.ones((3, 3), np.uint8)), (3, 3))[..., None] / np.float32(255)
    return (crop * alpha + background * (1 - alpha)).clip(0, 255).astype(np.uint8)


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random gain, tint, gamma, greyness, blur and noise."""
    x = image.astype(np.float32)
    if rng.random() < 0.15:
        x[:] = x.mean(-1, keepdims=True)
    elif rng.random() < 0.15:
        x[:] = x[..., rng.permutation(3)]
    mean = x.mean()
    x = np.asarray((x - mean) * rng.uniform(0.6, 1.4) + mean * rng.uniform(0.6, 1.4), np.float32)
    x *= rng.uniform(0.8, 1.2, 3).astype(np.float32)
    if rng.random() < 0.2:
        x[:] = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.0))
    if rng.random() < 0.4:
        x += rng.normal(0, rng.uniform(1, 12), x.shape).astype(np.float32)
    return x.clip(0, 255).astype(np.uint8)


def _cut_out(image: np.ndarray, rng: np.random.Generator) -> None:
    """Hide a part of the image behind a flat patch, in place."""
    size = len(image)
    w, h = (int(v) for v in rng.integers(size // 10, size // 3, 2))
    x, y = int(rng.integers(0, size - w)), int(rng.integers(0, size - h))
    image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
