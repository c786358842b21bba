"""MPII Human Pose.

    PATH/mpii_human_pose_v1_u12_1.mat (or in annot/, or in mpii_human_pose_v1_u12_2/), PATH/images/*.jpg
    PATH/annot/valid.json    optional: [{"image", "center"}, ...], who belongs to the validation part

The labels of the test part are not public, so people of the training images are compared: all of them, or those of
`valid.json`, the split of Tompson et al. as it comes with most detectors. All labelled joints count, occluded ones too.
The mean of PCKh leaves out pelvis and thorax, as the official evaluation does. A person's box is the square of
200 px x scale that the dataset defines, moved down by 15 px x scale as is usual. Matlab counts pixels from one.

Source: Andriluka et al., 2D human pose estimation: new benchmark and state of the art analysis, CVPR 2014.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.datasets.labelled import Labelled, Picture, read_mat, required

JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck",
    "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
LABELS = "mpii_human_pose_v1_u12_1.mat"
LEFT_OUT = {"pckh@0.5": ("pelvis", "thorax")}
HEAD_SHARE = 0.6  # of the diagonal of the head's box
PERSON_PX, DOWN_PX = 200.0, 15.0  # at scale 1
SAME_PERSON_PX = 2.0


def read_mpii(folder: Path) -> Labelled:
    """The labelled people of MPII, or those of its validation part.

    Raises:
        ConfigError: another layout.
    """
    folder = Path(folder)
    places = [folder, folder / "annot", folder / LABELS.replace("_1.mat", "_2")]
    path = next((place / LABELS for place in places if (place / LABELS).is_file()), folder / LABELS)
    required(path, "MPII", f"{LABELS} and images/")
    release: Any = read_mat(path, "the labels of MPII", struct_as_record=False, squeeze_me=True).get("RELEASE")
    if not hasattr(release, "annolist") or not hasattr(release, "img_train"):
        raise ConfigError(f"{path}: not the labels of MPII (no RELEASE with annolist and img_train in it)")
    chosen = _read_split(folder / "annot" / "valid.json")
    pictures, points, boxes, heads, activities = [], [], [], [], []
    acts = _listed(getattr(release, "act", []))
    training = np.atleast_1d(release.img_train)
    for number, image in enumerate(_listed(release.annolist)):
        if not training[number]:
            continue
        name = str(image.image.name)
        if chosen is not None and name not in chosen:
            continue
        for person in _listed(image.annorect):
            xy = _points(person)
            if xy is None or not hasattr(person, "objpos") or not hasattr(person.objpos, "x"):
                continue
            centre, scale = np.array([person.objpos.x, person.objpos.y], float), float(person.scale)
            if chosen is not None and np.linalg.norm(chosen[name] - centre, axis=1).min() > SAME_PERSON_PX:
                continue
            middle = centre - 1 + [0, DOWN_PX * scale] + 0.5
            boxes.append([*(middle - PERSON_PX / 2 * scale), *(middle + PERSON_PX / 2 * scale)])
            heads.append(HEAD_SHARE * np.hypot(float(person.x2) - person.x1, float(person.y2) - person.y1))
            pictures.append(Picture(folder / "images" / name))
            points.append(xy - 1)
            category = getattr(acts[number], "cat_name", "") if number < len(acts) else ""
            activities.append(category if isinstance(category, str) else "")
    xy = np.array(points).reshape(-1, len(JOINTS), 2)
    return Labelled(
        name="MPII", joints=JOINTS, pictures=pictures, xy=xy, counts=np.isfinite(xy).all(-1),
        boxes=np.array(boxes).reshape(-1, 4), groups=np.array([picture.path.stem for picture in pictures]),
        activities=np.array(activities), moments=np.full(len(pictures), ""), head_px=np.array(heads),
        left_out=LEFT_OUT,
    )  # fmt: skip


def _points(person: Any) -> np.ndarray | None:
    """(16, 2) labelled joints, NaN where there is none; None for a person without labels."""
    if not hasattr(getattr(person, "annopoints", None), "point") or not hasattr(person, "scale"):
        return None
    xy = np.full((len(JOINTS), 2), np.nan)
    for point in _listed(person.annopoints.point):
        xy[int(point.id)] = float(point.x), float(point.y)
    return xy


def _read_split(path: Path) -> dict[str, np.ndarray] | None:
    """Image -> (M, 2) centres of the people that belong to the split; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        people = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, list[list[float]]] = {}
        for person in people:
            found.setdefault(person["image"], []).append([float(value) for value in person["center"]])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a list of people with image and center ({error!r})") from None
    return {name: np.array(centres) for name, centres in found.items()}


def _listed(values: Any) -> list[Any]:
    """A Matlab struct array, which may hold one element or none, as a list."""
    return list(np.atleast_1d(values)) if np.size(values) else []
