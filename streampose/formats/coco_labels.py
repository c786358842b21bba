"""COCO keypoints as labels: whole frames or cut-out pictures, several annotators, visibility as it is.

Beyond COCO's own fields an image may carry `video`, `frame_index` and `pts_seconds`, an annotation `annotator` and
`confidence`; other tools leave them alone. A frame's name may also be `video.mp4#17`, as `annotate` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import write_text
from streampose.formats.annotations import Annotations, make_annotations


def read_coco_labels(path: Path | str) -> Annotations:
    """Read a COCO keypoints file.

    Raises:
        StreamposeError: not a COCO keypoints file.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        category = next(one for one in content["categories"] if one.get("keypoints"))
        images = {image["id"]: image for image in content["images"]}
        rows = [
            row for row in content["annotations"]
            if row.get("category_id", category["id"]) == category["id"] and row.get("keypoints")
        ]  # fmt: skip
        K = len(category["keypoints"])
        points = np.array([row["keypoints"] for row in rows], float).reshape(len(rows), K, 3)
        boxes = np.array([row.get("bbox") or [np.nan] * 4 for row in rows], float).reshape(len(rows), 4)
        boxes[:, 2:] += boxes[:, :2]
        confidence = [row.get("confidence", [np.nan] * K) for row in rows]
        of = [images[row["image_id"]] for row in rows]
        video_of_all = content.get("info", {}).get("source", "") if isinstance(content.get("info"), dict) else ""
        names = [_place(image, video_of_all) for image in of]
        return make_annotations(
            category["keypoints"],
            np.where(points[..., 2:] > 0, points[..., :2], np.nan),
            points[..., 2].astype(int),
            image=[str(image["file_name"]) for image in of],
            video=[video for video, _ in names],
            frame_index=[number for _, number in names],
            pts_seconds=[float(image.get("pts_seconds", np.nan)) for image in of],
            boxes=boxes,
            size=np.array([[image.get("width", 0), image.get("height", 0)] for image in of]),
            who=[str(row.get("annotator", "")) for row in rows],
            confidence=np.array(confidence, float),
            edges=[(a - 1, b - 1) for a, b in category.get("skeleton", ()) if 0 < a <= K and 0 < b <= K],
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        raise StreamposeError(f"{path}: not a COCO keypoints file ({type(error).__name__}: {error})") from None


def write_coco_labels(path: Path | str, annotations: Annotations, name: str = "subject") -> Path:
    """Write a COCO keypoints file, whole or not at all."""
    path = Path(path)
    images: dict[tuple[str, str, int], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for r in range(len(annotations)):
        image, video, number = annotations.image[r], annotations.video[r], int(annotations.frame_index[r])
        key = (str(image), str(video), number)
        if key not in images:
            width, height = (int(v) for v in annotations.size[r])
            images[key] = {
                "id": len(images) + 1, "file_name": str(image) or f"{Path(str(video)).name}#{number}",
                "width": width, "height": height,
            }  # fmt: skip
            if video:
                images[key]["video"] = str(video)
            if number >= 0:
                images[key]["frame_index"] = number
            if np.isfinite(annotations.pts_seconds[r]):
                images[key]["pts_seconds"] = float(annotations.pts_seconds[r])
        rows.append(_row(annotations, r, len(rows) + 1, images[key]["id"]))
    category = {
        "id": 1, "name": name, "supercategory": "subject", "keypoints": list(annotations.joints),
        "skeleton": [[a + 1, b + 1] for a, b in annotations.edges],
    }  # fmt: skip
    content = {
        "info": {"description": "streampose labels"}, "images": list(images.values()), "annotations": rows,
        "categories": [category],
    }  # fmt: skip
    write_text(path, json.dumps(content, indent=1))
    return path


def _row(annotations: Annotations, r: int, identity: int, image_id: int) -> dict[str, Any]:
    xy, seen = annotations.xy[r], annotations.visibility[r]
    points: list[float] = []
    for (x, y), v in zip(np.nan_to_num(xy).tolist(), seen.tolist(), strict=True):
        points += [round(x, 4), round(y, 4), v]
    row: dict[str, Any] = {
        "id": identity, "image_id": image_id, "category_id": 1, "iscrowd": 0, "keypoints": points,
        "num_keypoints": int((seen > 0).sum()),
    }  # fmt: skip
    box = annotations.boxes[r]
    if not np.isfinite(box).all() and (seen > 0).any():
        box = np.concatenate([np.nanmin(xy, 0) - 0.5, np.nanmax(xy, 0) + 0.5])
    if np.isfinite(box).all():
        x0, y0, x1, y1 = (float(v) for v in box)
        row |= {"bbox": [round(v, 4) for v in (x0, y0, x1 - x0, y1 - y0)], "area": round((x1 - x0) * (y1 - y0), 2)}
    if annotations.who[r]:
        row["annotator"] = str(annotations.who[r])
    if np.isfinite(annotations.confidence[r]).any():
        row["confidence"] = [round(c, 4) for c in np.nan_to_num(annotations.confidence[r]).tolist()]
    return row


def _place(image: dict[str, Any], video_of_all: str) -> tuple[str, int]:
    """Video and number of an image, where it says them."""
    name = str(image["file_name"])
    video, separator, number = name.rpartition("#")
    if not (separator and number.isdigit()):
        video, number = "", ""
    index = image.get("frame_index", int(number) if number else -1)
    return str(image.get("video") or video or video_of_all), int(index)
