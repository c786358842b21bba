"""COCO keypoints.

    PATH/annotations/person_keypoints_val2017.json, PATH/val2017/000000000139.jpg ...

People with labelled joints count, crowds do not; joints that are labelled as occluded (v = 1) count, those that are not
labelled (v = 0) do not. Boxes are given (x, y, width, height).

Source: Lin et al., Microsoft COCO: common objects in context, ECCV 2014; cocodataset.org, "keypoint evaluation".
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.datasets.labelled import Labelled, Picture, required

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
SPLIT = "val2017"


def read_coco_keypoints(folder: Path) -> Labelled:
    """The people of the validation part.

    Raises:
        ConfigError: another layout.
    """
    path = Path(folder) / "annotations" / f"person_keypoints_{SPLIT}.json"
    required(path, "COCO", f"annotations/person_keypoints_{SPLIT}.json and {SPLIT}/")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: Path(folder) / SPLIT / image["file_name"] for image in content["images"]}
        people = [a for a in content["annotations"] if a.get("num_keypoints", 0) > 0 and not a.get("iscrowd", 0)]
        points = np.array([person["keypoints"] for person in people], float).reshape(-1, len(JOINTS), 3)
        given = np.array([person["bbox"] for person in people], float).reshape(-1, 4)
        pictures = [Picture(images[person["image_id"]]) for person in people]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not the keypoints of COCO ({error!r})") from None
    counts = points[..., 2] > 0
    return Labelled(
        name="COCO", joints=JOINTS, pictures=pictures, xy=np.where(counts[..., None], points[..., :2], np.nan),
        counts=counts, boxes=np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], 1),
        groups=np.array([picture.path.stem for picture in pictures]), activities=np.full(len(people), ""),
        moments=np.full(len(people), ""),
    )  # fmt: skip
