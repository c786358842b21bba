"""What every reader of label files returns and every writer takes: labelled subjects in pictures.

Adding a format: `formats/<name>.py` with `read_<name>(path) -> Annotations` and `write_<name>(path, annotations)`, one
line each in the dicts of `labelling/files.py`, and a round trip in tests/formats/test_label_formats.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from streampose.structures import check_shape


@dataclass(frozen=True)
class Annotations:
    """R labelled subjects; two people who label the same subject give two rows.

    Attributes:
        joints: K names as the file has them.
        image: (R,) name of the picture as the file has it: a path, a file's name, or empty where only a video is named.
        video: (R,) name or path of the video that the picture is a frame of; empty where the file does not say.
        frame_index: (R,) number of the frame in display order, from 0; -1 where the file does not say.
        pts_seconds: (R,) time of the frame; NaN where the file does not say.
        xy: (R, K, 2) pixels of the picture, centres are integers; NaN where a joint was not placed.
        visibility: (R, K) uint8: 2 visible, 1 placed but hidden, 0 not placed.
        boxes: (R, 4) xyxy edges around the subject in the picture; NaN where the file has none.
        size: (R, 2) width and height of the picture; 0 where the file does not say.
        who: (R,) who or what made each row; empty where the file does not say.
        confidence: (R, K) in [0, 1] of predictions; NaN for labels.
        edges: pairs of joints that tools draw lines between.
    """

    joints: tuple[str, ...]
    image: np.ndarray
    video: np.ndarray
    frame_index: np.ndarray
    pts_seconds: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    boxes: np.ndarray
    size: np.ndarray
    who: np.ndarray
    confidence: np.ndarray
    edges: tuple[tuple[int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        R, K = len(self.image), len(self.joints)
        for name, shape in SHAPES.items():
            check_shape(f"Annotations.{name}", getattr(self, name), (R, *(K if n == "K" else n for n in shape)))

    def __len__(self) -> int:
        return len(self.image)

    def pick(self, index: np.ndarray | Sequence[int]) -> Annotations:
        """Some of the rows, by their places."""
        rows = {name: getattr(self, name)[np.asarray(index, int)] for name in SHAPES}
        return Annotations(joints=self.joints, edges=self.edges, **rows)


SHAPES: dict[str, tuple] = {
    "image": (), "video": (), "frame_index": (), "pts_seconds": (), "xy": ("K", 2), "visibility": ("K",),
    "boxes": (4,), "size": (2,), "who": (), "confidence": ("K",),
}  # fmt: skip
assert {name.name for name in fields(Annotations)} == {*SHAPES, "joints", "edges"}


def make_annotations(
    joints: Sequence[str],
    xy: np.ndarray,
    visibility: np.ndarray | None = None,
    *,
    image: Sequence[str] = (),
    video: Sequence[str] = (),
    frame_index: Sequence[int] | np.ndarray = (),
    pts_seconds: Sequence[float] | np.ndarray = (),
    boxes: np.ndarray | None = None,
    size: np.ndarray | None = None,
    who: Sequence[str] = (),
    confidence: np.ndarray | None = None,
    edges: Sequence[tuple[int, int]] = (),
) -> Annotations:
    """Annotations of (R, K, 2) points; what is not given is not known, and a joint without a place has none."""
    xy = np.asarray(xy, float)
    xy = xy.reshape(len(xy), len(joints), 2)
    R, K, _ = xy.shape
    placed = np.isfinite(xy).all(-1)
    seen = np.full((R, K), 2) if visibility is None else np.asarray(visibility).reshape(R, K)
    seen = np.where(placed, np.maximum(seen, 0), 0).astype(np.uint8)
    names = {"image": image, "video": video, "who": who}
    return Annotations(
        joints=tuple(joints),
        frame_index=np.full(R, -1) if not len(frame_index) else np.asarray(frame_index, int),
        pts_seconds=np.full(R, np.nan) if not len(pts_seconds) else np.asarray(pts_seconds, float),
        xy=np.where((seen > 0)[..., None], xy, np.nan),
        visibility=seen,
        boxes=np.full((R, 4), np.nan) if boxes is None else np.asarray(boxes, float).reshape(R, 4),
        size=np.zeros((R, 2), int) if size is None else np.asarray(size, int).reshape(R, 2),
        confidence=np.full((R, K), np.nan) if confidence is None else np.asarray(confidence, float).reshape(R, K),
        edges=tuple(edges),
        **{name: np.array(list(values) if len(values) else [""] * R, str) for name, values in names.items()},
    )


def join_annotations(parts: Sequence[Annotations]) -> Annotations:
    """The rows of several files, with all their joints in the order in which they first come."""
    joints = tuple(dict.fromkeys(name for part in parts for name in part.joints))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in SHAPES}
    for part in parts:
        index = [part.joints.index(name) if name in part.joints else -1 for name in joints]
        for name, shape in SHAPES.items():
            values = getattr(part, name)
            if "K" in shape:
                empty = (
                    np.zeros((len(part), 1, *shape[1:]), values.dtype)
                    if name == "visibility"
                    else np.full((len(part), 1, *shape[1:]), np.nan)
                )
                values = np.concatenate([values, empty], 1)[:, index]
            rows[name].append(values)
    if not parts:
        return make_annotations((), np.zeros((0, 0, 2)))
    named = {name: k for k, name in enumerate(joints)}
    edges = dict.fromkeys((named[part.joints[a]], named[part.joints[b]]) for part in parts for a, b in part.edges)
    return Annotations(
        joints=joints, edges=tuple(edges), **{name: np.concatenate(values) for name, values in rows.items()}
    )


def plain_name(joint: str) -> str:
    """A joint's name as it is compared: `Left Knee`, `leftKnee`, `LKnee`, `knee_L` and `left_knee` are one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", joint)
    words = [word.lower() for word in re.split(r"[^0-9A-Za-z]+", spaced) if word]
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    side = [sides[word] for word in words if word in sides]
    return "_".join([*side, *(word for word in words if word not in sides)]) or joint


def match_names(theirs: Sequence[str], ours: Sequence[str], renamed: dict[str, str] | None = None) -> dict[str, str]:
    """Their joint -> ours, where one has the same name but for its spelling; `renamed` (theirs -> ours) goes first."""
    known = {plain_name(name): name for name in ours}
    found = {}
    for name in theirs:
        if renamed and name in renamed:
            found[name] = renamed[name]
        elif name in ours:
            found[name] = name
        elif plain_name(name) in known:
            found[name] = known[plain_name(name)]
    return found
