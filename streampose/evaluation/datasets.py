"""A model on a dataset of labelled pictures: cut out, predicted, beside their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from streampose.console import progress
from streampose.errors import ConfigError
from streampose.evaluation.compared import Compared, crop_features, match_joints
from streampose.evaluation.predicted import Predict
from streampose.formats.datasets.labelled import Labelled, Picture
from streampose.geometry.crop import crop_resize, source_from_crop, square_box
from streampose.metrics.keypoints_3d import metric_from_pixels
from streampose.structures import Skeleton
from streampose.video.decode import open_video

BATCH = 64


def predict_people(
    predict: Predict, input_size: int, padding: float, labelled: Labelled
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a model over the people of a dataset; each picture is opened once.

    Args:
        predict: crops (B, S, S, 3) uint8 -> keypoints (B, K, 3) in their pixels, confidence (B, K).
        input_size: side S of the crops that it takes.
        padding: share of a box that is added on each side.

    Returns:
        keypoints (N, K, 3) in source pixels, confidence (N, K), and the boxes (N, 4) that were cut out.

    Raises:
        ConfigError: a picture is missing or cannot be read. VideoError: a video cannot.
    """
    boxes = square_box(labelled.boxes, padding).astype(np.float64)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    waiting: list[tuple[int, np.ndarray]] = []

    def flush() -> None:
        index = np.array([number for number, _ in waiting])
        keypoints, confidence = predict(np.stack([crop for _, crop in waiting]))
        xy = source_from_crop(keypoints[..., :2].astype(np.float64), boxes[index], input_size)
        side = (boxes[index, 2] - boxes[index, 0])[:, None]
        found.append((index, np.concatenate([xy, (keypoints[..., 2] * side / input_size)[..., None]], -1), confidence))
        waiting.clear()

    order = sorted(range(labelled.num_people), key=lambda i: (str(labelled.pictures[i].path), labelled.pictures[i][1:]))
    with progress("Predicting", labelled.num_people) as bar:
        for number, image in read_pictures([labelled.pictures[i] for i in order]):
            waiting.append((order[number], crop_resize(image, boxes[order[number]], input_size)))
            if len(waiting) == BATCH:
                flush()
            bar.advance(1)
        if waiting:
            flush()
    back = np.argsort(np.concatenate([index for index, _, _ in found]))
    return *(np.concatenate([part[column] for part in found])[back] for column in (1, 2)), boxes  # type: ignore[return-value]


def read_pictures(pictures: Sequence[Picture]) -> Iterator[tuple[int, np.ndarray]]:
    """Number and RGB image of each picture; those of one file must follow each other, frames ascending.

    Raises:
        ConfigError: an image is missing or cannot be read, or a video ends before a frame. VideoError: a video cannot.
    """
    first = 0
    while first < len(pictures):
        path = pictures[first].path
        end = first
        while end < len(pictures) and pictures[end].path == path:
            end += 1
        frames = [picture.frame for picture in pictures[first:end] if picture.frame is not None]
        if not frames:
            image = _read_image(path)
            yield from ((number, image) for number in range(first, end))
        else:
            with open_video(path) as video:
                for start in range(0, len(frames), BATCH):
                    part = frames[start : start + BATCH]
                    for number, frame in enumerate(video.read(part), first + start):
                        yield number, frame.image
        first = end


def compare_labels(labelled: Labelled, keypoints: np.ndarray, boxes: np.ndarray, skeleton: Skeleton) -> Compared:
    """Predictions (N, K, 3) in source pixels beside a dataset's labels.

    Raises:
        ConfigError: the dataset has none of the skeleton's joints.
    """
    joints, columns, order = match_joints(skeleton, labelled.joints, labelled.name)
    xy = keypoints[:, columns, :2]
    pose_mm = true_mm = None
    if labelled.xyz_mm is not None and labelled.focal_px is not None and skeleton.root in columns:
        root = columns.tolist().index(skeleton.root)
        true_mm = labelled.xyz_mm[:, order]
        pose_mm = metric_from_pixels(keypoints[:, columns], root, true_mm[:, root, 2] / labelled.focal_px)
    return Compared(
        joints=joints, columns=columns, skeleton=skeleton, xy=xy, true_xy=labelled.xy[:, order],
        counts=labelled.counts[:, order], boxes=boxes, groups=labelled.groups, activities=labelled.activities,
        moments=labelled.moments, features=crop_features(keypoints[..., :2], keypoints[..., 2], boxes),
        pose_mm=pose_mm, true_mm=true_mm, head_px=labelled.head_px, left_out=labelled.left_out,
    )  # fmt: skip


def crops_of(labelled: Labelled, boxes: np.ndarray, size: int) -> Callable[[int], tuple[np.ndarray, None]]:
    """A function that cuts the N-th person out of its picture: (size, size, 3), and no mask."""

    def fetch(number: int) -> tuple[np.ndarray, None]:
        _, image = next(read_pictures([labelled.pictures[number]]))
        return crop_resize(image, boxes[number], size), None

    return fetch


def _read_image(path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        state = "cannot be read" if path.exists() else "not there"
        raise ConfigError(f"{path}: {state}; the labels name this picture, so copy the dataset again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
