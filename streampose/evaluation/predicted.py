"""Predictions of tracks: made by a model on the clips of a store, or read from what `annotate` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streampose.config import configs_folder, load_skeleton
from streampose.console import progress
from streampose.errors import ConfigError
from streampose.formats.coco import read_coco
from streampose.geometry.crop import crop_from_source, source_from_crop
from streampose.metrics import label_free
from streampose.store.reader import ClipInfo, StoreReader
from streampose.structures import Skeleton

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # crops (B, S, S, 3) -> (B, K, 3) pixels, (B, K)

CHUNK = 128  # frames that are in memory at a time
MIRRORED_EVERY = 4  # frames: what their mirror images show is compared


@dataclass(frozen=True)
class Predicted:
    """Keypoints of one track, and how they lie on its masks.

    Attributes:
        track, source: clip (or track) and the path of its video.
        first: position in the clip of the first of the T frames.
        frame_index, pts_seconds: (T,) of each frame in the source.
        boxes: (T, 4) what the crops show, edges in source pixels.
        xy, z: (T, K, 2) and (T, K) source pixels, z relative to the root; z is None for 2D predictions.
        confidence: (T, K).
        size: (T,) the subject's size in source pixels; None where there were no masks, as are the next two.
        iou: (T,) of the rendered skeleton and the mask.
        inside: (T, K) whether each joint is inside the mask.
        mirror: (T, K) distance to what is found in the mirrored crop, in sizes; NaN in frames that were not mirrored.
        views: (T,) mean distance to what the views of a session say together, in sizes; see `measure_views`.
    """

    track: str
    source: str
    first: int
    frame_index: np.ndarray
    pts_seconds: np.ndarray
    boxes: np.ndarray
    xy: np.ndarray
    z: np.ndarray | None
    confidence: np.ndarray
    size: np.ndarray | None = None
    iou: np.ndarray | None = None
    inside: np.ndarray | None = None
    mirror: np.ndarray | None = None
    views: np.ndarray | None = None


def predict_clips(
    predict: Predict,
    input_size: int,
    skeleton: Skeleton,
    reader: StoreReader,
    ranges: Sequence[tuple[ClipInfo, int, int]] | None = None,
    *,
    show_progress: bool = True,
) -> Iterator[Predicted]:
    """Run a model over a store's clips; frames are read a chunk at a time.

    Args:
        predict: crops (B, S, S, 3) uint8 -> keypoints (B, K, 3) in their pixels, confidence (B, K).
        input_size: side S of the crops that it takes.
        ranges: (clip, first, end) parts of clips; None for all of them.
        show_progress: False where another bar is running.
    """
    if ranges is None:
        ranges = [(clip, 0, clip.num_frames) for clip in reader.clips()]
    total = sum(end - first for _, first, end in ranges)
    with progress("Predicting", total) if show_progress else nullcontext() as bar:
        for clip, first, end in ranges:
            parts = []
            for start in range(first, end, CHUNK):
                data = reader.read(clip.id, slice(start, min(start + CHUNK, end)))
                crops = resize_crops(data.frames, input_size)
                keypoints, confidence = predict(crops)
                side = (data.boxes[:, 2] - data.boxes[:, 0])[:, None]
                xy = source_from_crop(keypoints[..., :2].astype(np.float64), data.boxes, input_size)
                sizes = label_free.subject_sizes(data.masks, data.boxes, data.pts_seconds)
                crop = data.frames.shape[1]
                crop_xy = crop_from_source(xy, data.boxes, crop)
                drawn = label_free.render_skeletons(crop_xy, sizes * crop / side[:, 0], skeleton, crop)
                parts.append(
                    (
                        data.frame_index, data.pts_seconds, data.boxes, xy, keypoints[..., 2] * side / input_size,
                        confidence, sizes, label_free.mask_iou(drawn, data.masks),
                        label_free.inside_mask(crop_xy, data.masks),
                        _mirror_distances(predict, crops, data.boxes, xy, sizes, skeleton),
                    )
                )  # fmt: skip
                if bar is not None:
                    bar.advance(len(data.frames))
            if parts:
                arrays = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
                yield Predicted(clip.id, clip.source, first, *arrays)


def _mirror_distances(
    predict: Predict, crops: np.ndarray, boxes: np.ndarray, xy: np.ndarray, sizes: np.ndarray, skeleton: Skeleton
) -> np.ndarray:
    """(T, K) distances to what is found in the mirror image, of every few frames; NaN in the others."""
    some = slice(None, None, MIRRORED_EVERY)
    keypoints, _ = predict(np.ascontiguousarray(crops[some, :, ::-1]))
    back = keypoints[..., :2].astype(np.float64)
    back[..., 0] = crops.shape[1] - 1 - back[..., 0]
    mirrored = source_from_crop(back, boxes[some], crops.shape[1])
    distances = np.full(xy.shape[:2], np.nan)
    distances[some] = label_free.mirror_distance(xy[some], mirrored, sizes[some], skeleton.flip_index)
    return distances


def resize_crops(crops: np.ndarray, size: int) -> np.ndarray:
    """Crops at the size that a model takes: (N, H, H, 3) uint8 -> (N, size, size, 3)."""
    if crops.shape[1] == size:
        return crops
    method = cv2.INTER_AREA if crops.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(crop, (size, size), interpolation=method) for crop in crops])


def read_predictions(folder: Path, model: Path) -> tuple[list[Predicted], Skeleton]:
    """What `annotate` wrote, one `Predicted` a track, and the skeleton with exactly these joints.

    Raises:
        ConfigError: no keypoint files, or joints that neither a shipped skeleton nor the model has.
    """
    files = sorted(Path(folder).glob("*.keypoints.json"))
    if not files:
        raise ConfigError(f"{folder}: no *.keypoints.json in it; `streampose annotate` writes them")
    found, joints = [], None
    for file in files:
        rows, name = read_coco(file), file.name.removesuffix(".keypoints.json")
        if joints not in (None, rows["joints"]):
            raise ConfigError(f"{file}: other joints than {files[0]}; measure the folders of each model apart")
        joints = rows["joints"]
        for track in np.unique(rows["track_id"]):
            index = np.flatnonzero(rows["track_id"] == track)
            index = index[np.argsort(rows["image_id"][index], kind="stable")]
            times = np.full(len(index), np.nan)
            frames, boxes, xy = rows["image_id"][index], rows["boxes"][index], rows["xy"][index]
            found.append(
                Predicted(f"{name}/{track}", name, 0, frames, times, boxes, xy, None, rows["confidence"][index])
            )
    for path in sorted((configs_folder() / "skeletons").glob("*.yaml")):
        skeleton = load_skeleton(path)
        if list(skeleton.joints) == joints:
            return found, skeleton
    if (Path(model) / "bundle.json").is_file():
        from streampose.runtime.bundle import load_bundle

        skeleton = load_bundle(model).skeleton
        if list(skeleton.joints) == joints:
            return found, skeleton
    raise ConfigError(f"{files[0]}: no known skeleton has these joints; name the model that made them with --model")
