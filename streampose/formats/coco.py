"""COCO keypoints JSON, written as it comes in, so that ten hours of video need no more memory than ten seconds.

The file is an ordinary COCO annotation file, with a few more fields: `images` carry `frame_index` and `pts_seconds`,
`annotations` carry `track_id`, `score` and each joint's `confidence`; `info` says which video it is about. Pixel
centres are integers. A joint is visible (2), a guess of low confidence (1) or missing (0, with x = y = 0).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import whole_file
from streampose.structures import Keypoints, Skeleton

VISIBLE_CONFIDENCE = 0.5


@contextmanager
def open_coco(path: Path, skeleton: Skeleton, *, source: str, size: tuple[int, int]) -> Iterator[CocoWriter]:
    """Begin one video's file; it appears under its name when the `with` block ends without an error.

    Args:
        source: the video's name, for `info` and for the images' file names.
        size: (width, height) of the frames in pixels.
    """
    with (
        whole_file(path) as partial,
        partial.open("w", encoding="utf-8") as images,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as annotations,
    ):
        writer = CocoWriter(images, annotations, skeleton, source, size)
        yield writer
        writer.finish()


class CocoWriter:
    """Writes one video's keypoints; `open_coco` makes it. The annotations wait in a file until all images are there."""

    def __init__(self, images: IO[str], annotations: IO[str], skeleton: Skeleton, source: str, size: tuple[int, int]):
        self.skeleton, self.source, self.size = skeleton, source, size
        self._images, self._annotations = images, annotations
        self._num_images = self._num_annotations = 0
        info = {"description": f"streampose keypoints of {source}", "source": source}
        self._images.write('{"info": ' + json.dumps(info) + ',\n"images": [')

    def write(
        self, frame_index: int, pts_seconds: float, keypoints: Keypoints, track_ids: list[int], boxes: np.ndarray
    ) -> None:
        """Add a frame with its N subjects (none is fine).

        Args:
            frame_index: number of the frame in display order, from 0.
            keypoints: N subjects in source pixels; NaN where a joint is missing.
            boxes: (N, 4) xyxy edges in source pixels.
        """
        width, height = self.size
        image = {
            "id": frame_index, "file_name": f"{Path(self.source).name}#{frame_index}", "width": width, "height": height,
            "frame_index": frame_index, "pts_seconds": round(pts_seconds, 6),
        }  # fmt: skip
        self._images.write((",\n" if self._num_images else "\n") + json.dumps(image))
        self._num_images += 1
        for xy, confidence, track_id, box in zip(keypoints.xy, keypoints.confidence, track_ids, boxes, strict=True):
            annotation = self._annotation(frame_index, xy, confidence, track_id, box)
            self._annotations.write((",\n" if self._num_annotations else "\n") + json.dumps(annotation))
            self._num_annotations += 1

    def _annotation(
        self, frame_index: int, xy: np.ndarray, confidence: np.ndarray, track_id: int, box: np.ndarray
    ) -> dict[str, Any]:
        seen = np.isfinite(xy).all(-1) & np.isfinite(confidence)
        visibility = np.where(seen, np.where(confidence >= VISIBLE_CONFIDENCE, 2, 1), 0)
        points: list[float] = []
        for (x, y), v in zip(np.where(seen[:, None], xy, 0).tolist(), visibility.tolist(), strict=True):
            points += [round(x, 2), round(y, 2), v]
        x0, y0, x1, y1 = (float(v) for v in box)
        return {
            "id": self._num_annotations + 1,
            "image_id": frame_index,
            "category_id": 1,
            "track_id": int(track_id),
            "keypoints": points,
            "num_keypoints": int(seen.sum()),
            "confidence": [round(c, 4) for c in np.where(seen, confidence, 0.0).tolist()],
            "score": round(float(confidence[seen].mean()), 4) if seen.any() else 0.0,
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": round((x1 - x0) * (y1 - y0), 2),
            "iscrowd": 0,
        }

    def finish(self) -> None:
        """Write what follows the images."""
        category = {
            "id": 1,
            "name": self.skeleton.name,
            "supercategory": "subject",
            "keypoints": list(self.skeleton.joints),
            "skeleton": [[bone.parent + 1, bone.child + 1] for bone in self.skeleton.bones],  # COCO counts from 1
        }
        self._images.write('\n],\n"annotations": [')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._images)
        self._images.write('\n],\n"categories": ' + json.dumps([category]) + "}\n")


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read COCO keypoints as arrays, one row an annotation.

    Returns:
        `joints`: K names; `image_id` (R,) int; `file_name`: R names; `track_id` (R,) int, -1 where there is none;
        `xy` (R, K, 2) pixels, NaN where missing; `visibility` (R, K) 0, 1 or 2; `confidence` (R, K), NaN where the
        file has none; `boxes` (R, 4) xyxy.

    Raises:
        StreamposeError: not a COCO keypoints file.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        joints = list(content["categories"][0]["keypoints"])
        names = {image["id"]: image["file_name"] for image in content["images"]}
        rows = content["annotations"]
        K = len(joints)
        points = np.array([row["keypoints"] for row in rows], float).reshape(len(rows), K, 3)
        boxes = np.array([row["bbox"] for row in rows], float).reshape(len(rows), 4)
        confidence = np.array([row.get("confidence", [np.nan] * K) for row in rows], float).reshape(len(rows), K)
        image_id = np.array([row["image_id"] for row in rows], int)
        file_name = [names[row["image_id"]] for row in rows]
        track_id = np.array([row.get("track_id", -1) for row in rows], int)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise StreamposeError(f"{path}: not a COCO keypoints file ({type(error).__name__}: {error})") from None
    visibility = points[..., 2].astype(int)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "joints": joints,
        "image_id": image_id,
        "file_name": file_name,
        "track_id": track_id,
        "xy": np.where(visibility[..., None] > 0, points[..., 0:2], np.nan),
        "visibility": visibility,
        "confidence": confidence,
        "boxes": boxes,
    }
