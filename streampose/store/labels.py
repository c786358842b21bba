"""Labels in a store: joints that a person, or something that is trusted, placed on frames of its clips.

    labels/<id>/            attributes: name, joints, clips, sources, provenance, and the place of the arrays
    labels/<id>/<place>/    clip, frame, keypoints, visibility, source: one shard an array

A set of labels is written into a new place and exists once `labels/<id>/zarr.json`, one file that is replaced as a
whole, names it; so a set that is replaced is the old one or the new one, whatever ends the program in between. At other
places (`s3://...`) it looks and works alike. Labels of clips that have left the store are left out on reading.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from streampose.console import logger
from streampose.errors import StoreError
from streampose.store.copy import GROUP, WorkingCopy, alone, folders_in, group_text, open_copy
from streampose.store.schema import CODECS, locked, open_store, read_attributes, write_group, writing
from streampose.store.writer import temporary_folder, write_array
from streampose.structures import Skeleton, check_shape

COLUMNS = ("clip", "frame", "keypoints", "visibility", "source")


@dataclass(frozen=True)
class Labels:
    """N labelled frames; two people who label the same frame give two rows.

    Attributes:
        clip: (N,) names of clips.
        frame: (N,) position of the frame in the clip.
        keypoints: (N, K, 2) crop pixels, pixel centres are integers; NaN where a joint was not placed.
        visibility: (N, K) uint8 as in COCO: 2 visible, 1 placed but hidden, 0 not placed.
        source: (N,) who or what made each row.
        joints: K names.
    """

    clip: np.ndarray
    frame: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray
    source: np.ndarray
    joints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        N, K, _ = self.keypoints.shape
        check_shape("Labels.keypoints", self.keypoints, (N, K, 2))
        check_shape("Labels.visibility", self.visibility, (N, K))
        for name in ("clip", "frame", "source"):
            check_shape(f"Labels.{name}", getattr(self, name), (N,))
        if self.joints and len(self.joints) != K:
            raise ValueError(f"Labels.joints has {len(self.joints)} names, keypoints {K} joints")
        placed = np.isfinite(self.keypoints).all(-1)
        if (placed != (self.visibility > 0)).any():
            raise ValueError("Labels: a joint with visibility 1 or 2 needs a place, one with 0 must be NaN")

    def __len__(self) -> int:
        return len(self.clip)

    def pick(self, index: np.ndarray | Sequence[int]) -> Labels:
        """Some of the rows, by their places or by a mask."""
        return Labels(**{name: getattr(self, name)[np.asarray(index)] for name in COLUMNS}, joints=self.joints)

    def for_joints(self, joints: Sequence[str]) -> Labels:
        """The same rows with these joints, by name; joints that were never labelled are not placed."""
        keypoints = np.full((len(self), len(joints), 2), np.nan, np.float32)
        visibility = np.zeros((len(self), len(joints)), np.uint8)
        for k, name in enumerate(joints):
            if name in self.joints:
                keypoints[:, k] = self.keypoints[:, self.joints.index(name)]
                visibility[:, k] = self.visibility[:, self.joints.index(name)]
        return replace(self, keypoints=keypoints, visibility=visibility, joints=tuple(joints))

    def for_skeleton(self, skeleton: Skeleton) -> Labels:
        """The same rows with a skeleton's joints, by name."""
        return self.for_joints(skeleton.joints)

    def merged(self) -> Labels:
        """One row a frame: the median of those who placed a joint; visible where at least half of them saw it."""
        frames: dict[tuple[str, int], list[int]] = {}
        for row, key in enumerate(zip(self.clip.tolist(), self.frame.tolist(), strict=True)):
            frames.setdefault(key, []).append(row)
        merged, who = self.pick([rows[0] for rows in frames.values()]), []
        for n, rows in enumerate(frames.values()):
            who.append(str(self.source[rows[0]]) if len(set(self.source[rows])) == 1 else "several")
            points, seen = self.keypoints[rows], self.visibility[rows]
            for k in np.flatnonzero((seen > 0).any(0)):
                by = seen[:, k] > 0
                merged.keypoints[n, k] = np.median(points[by, k], 0)
                merged.visibility[n, k] = 2 if (seen[by, k] == 2).mean() >= 0.5 else 1
        return replace(merged, source=np.array(who, str))


def empty_labels(joints: Sequence[str]) -> Labels:
    """No rows, of these joints."""
    K = len(joints)
    names = np.zeros(0, str)
    return Labels(
        names, np.zeros(0, int), np.zeros((0, K, 2), np.float32), np.zeros((0, K), np.uint8), names, tuple(joints)
    )


def join_labels(parts: Sequence[Labels]) -> Labels:
    """The rows of several, with all their joints in the order in which they first come."""
    joints = tuple(dict.fromkeys(name for part in parts for name in part.joints))
    alike = [part.for_joints(joints) for part in parts]
    if not alike:
        return empty_labels(joints)
    columns = {name: np.concatenate([getattr(part, name) for part in alike]) for name in COLUMNS}
    return Labels(**columns, joints=joints)


def write_labels(
    store: Path | str | WorkingCopy,
    name: str,
    labels: Labels,
    joints: Sequence[str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> str:
    """Write a set of labels, or replace the one of the same name.

    Args:
        store: folder or URL.
        joints: K names; None for `labels.joints`.
        provenance: what is kept beside it (the file that it came from, when).

    Returns:
        The set's id, the name of its folder.

    Raises:
        StoreError: no store, a clip or frame that is not in it, an ingest is writing to it, or it cannot be written.
    """
    joints = tuple(labels.joints if joints is None else joints)
    if len(joints) != labels.keypoints.shape[1]:
        raise ValueError(f"labels {name}: {len(joints)} names for {labels.keypoints.shape[1]} joints")
    if twice := sorted({joint for joint in joints if joints.count(joint) > 1}):
        raise StoreError(f"labels {name}: two joints are called {', '.join(twice)}; give each its own name")
    copy = open_copy(store)
    folder = Path(str(store)) if copy is None else copy.path
    open_store(folder)
    _check_frames(folder, labels)
    identity = labels_id(name)
    with locked(folder if copy is None else copy.guard()):
        place = f"{uuid.uuid4().hex[:12]}"
        attributes = {"name": name, "joints": list(joints), "rows": len(labels), "place": place}
        with writing(folder):
            temporary = temporary_folder(folder)
            for column, (values, names) in _columns(labels).items():
                write_array(temporary / column, values, CODECS["zstd"], chunk_frames=max(len(values), 1))
                if names is not None:
                    attributes[f"{column}_names"] = names
            attributes["provenance"] = provenance or {}
            write_group(temporary, {})
            group = folder / "labels"
            if not (group / GROUP).is_file():
                group.mkdir(exist_ok=True)
                write_group(group, {})
            (group / identity).mkdir(exist_ok=True)
            os.rename(temporary, group / identity / place)
        if copy is not None:
            copy.remote.upload(group / identity / place, f"labels/{identity}/{place}")
            copy.remote.write(f"labels/{identity}/{GROUP}", group_text(attributes))
        with writing(folder):
            write_group(group / identity, attributes)
        for old in folders_in(group / identity):
            if old.name != place:
                shutil.rmtree(old, ignore_errors=True)
        if copy is not None:
            for other in copy.remote.folders(f"labels/{identity}"):
                if other != place:
                    copy.remote.remove(f"labels/{identity}/{other}")
    return identity


def remove_labels(store: Path | str | WorkingCopy, name: str) -> None:
    """Take a set of labels out of a store: what names it first, so that a crash leaves nothing that counts.

    Raises:
        StoreError: no such set.
    """
    copy = open_copy(store)
    folder = (Path(str(store)) if copy is None else copy.path) / "labels" / labels_id(name)
    if not (folder / GROUP).is_file():
        raise StoreError(f"{store}: no labels {name}; there are {', '.join(label_names(store)) or 'none'}")
    if copy is not None:
        copy.remote.remove(f"labels/{folder.name}/{GROUP}")
        copy.remote.remove(f"labels/{folder.name}")
    (folder / GROUP).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def read_labels(store: Path | str | WorkingCopy, names: Sequence[str] | None = None) -> Labels:
    """Labels of a store, all sets or those of these names, as one.

    Returns:
        The rows of the sets in the order asked for (all: by id), with all joints that any of them has.

    Raises:
        StoreError: no store, no set of that name, or it is damaged.
    """
    copy = open_copy(store)
    folder = Path(str(store)) if copy is None else copy.path
    open_store(folder)
    if names is None:
        folders = _sets(folder)
    else:
        folders = [folder / "labels" / labels_id(name) for name in names]
        for name, wanted in zip(names, folders, strict=True):
            if not (wanted / GROUP).is_file():
                there = ", ".join(label_names(store)) or "none; `streampose labels import` brings some in"
                raise StoreError(f"{store}: no labels {name}; there are {there}")
    parts = [_read_set(wanted, copy) for wanted in folders]
    labels = join_labels(parts)
    lengths = _clip_lengths(folder)
    known = np.array(
        [frame < lengths.get(clip, 0) for clip, frame in zip(labels.clip, labels.frame, strict=True)], bool
    )
    if not known.all():
        logger.warning("%s: %d labels are of clips that are no longer there; left out", store, int((~known).sum()))
    return labels.pick(known)


def list_labels(store: Path | str | WorkingCopy) -> list[dict[str, Any]]:
    """The sets of labels of a store: `name`, `rows`, `joints`, `provenance` of each, by id."""
    copy = open_copy(store)
    folder = Path(str(store)) if copy is None else copy.path
    open_store(folder)
    found = [read_attributes(one) for one in _sets(folder)]
    return [{key: values[key] for key in ("name", "rows", "joints", "provenance")} for values in found]


def labels_version(store: Path | str | WorkingCopy, names: Sequence[str]) -> str:
    """A mark of what sets of labels hold: it changes when one of them is written again."""
    copy = open_copy(store)
    folder = (Path(str(store)) if copy is None else copy.path) / "labels"
    places = [str(read_attributes(folder / labels_id(name)).get("place")) for name in names]
    return hashlib.sha256(" ".join(places).encode()).hexdigest()[:12]


def label_names(store: Path | str | WorkingCopy) -> list[str]:
    """Names of the sets of labels of a store."""
    return [values["name"] for values in list_labels(store)]


def labels_id(name: str) -> str:
    """The name of a set's group: its own name where that can be a folder's, else one made from it."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    return slug if slug and slug == name else f"{slug or 'labels'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _columns(labels: Labels) -> dict[str, tuple[np.ndarray, list[str] | None]]:
    """What is written of labels: numbers, and the names that they stand for."""
    columns: dict[str, tuple[np.ndarray, list[str] | None]] = {
        "frame": (np.asarray(labels.frame, np.int64), None),
        "keypoints": (np.asarray(labels.keypoints, np.float32), None),
        "visibility": (np.asarray(labels.visibility, np.uint8), None),
    }
    for column in ("clip", "source"):
        names, index = np.unique(np.asarray(getattr(labels, column), str), return_inverse=True)
        columns[column] = (index.astype(np.int32), [str(name) for name in names])
    return columns


def _read_set(folder: Path, copy: WorkingCopy | None) -> Labels:
    attributes = read_attributes(folder)
    try:
        place = folder / attributes["place"]
        if copy is not None and not place.is_dir():
            _fetch(copy, folder.name, place)
        read = {}
        for column in COLUMNS:
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{os.path.abspath(place / column)}/"}}
            read[column] = np.asarray(ts.open(spec, read=True, open=True).result().read().result())
        for column in ("clip", "source"):
            names = np.array(attributes[f"{column}_names"], str)
            read[column] = names[read[column]] if len(names) else np.zeros(0, str)
        return Labels(**read, joints=tuple(attributes["joints"]))
    except (KeyError, ValueError, IndexError, OSError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{folder}: damaged labels ({line}); delete it and import them again") from None


def _fetch(copy: WorkingCopy, identity: str, place: Path) -> None:
    """Have the arrays of a set here."""
    under = f"labels/{identity}/{place.name}"
    found = copy.remote.read(f"{under}/{name}" for name in copy.remote.sizes(under))
    with alone(copy.folder), writing(copy.path):
        temporary = temporary_folder(copy.path)
        for path, content in found.items():
            target = temporary / path[len(under) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if not place.is_dir():
            os.rename(temporary, place)


def _sets(folder: Path) -> list[Path]:
    """Folders of the sets that exist: what a crash left before its zarr.json does not."""
    return [one for one in folders_in(folder / "labels") if (one / GROUP).is_file()]


def _clip_lengths(folder: Path) -> dict[str, int]:
    """Number of frames of every clip that a source lists."""
    clips = [clip for source in folders_in(folder / "sources") for clip in read_attributes(source).get("clips", [])]
    return {clip: int(read_attributes(folder / "clips" / clip)["num_frames"]) for clip in clips}


def _check_frames(folder: Path, labels: Labels) -> None:
    lengths = _clip_lengths(folder)
    for clip, frame in zip(labels.clip.tolist(), labels.frame.tolist(), strict=True):
        if not 0 <= frame < lengths.get(clip, 0):
            what = f"clip {clip} has {lengths[clip]} frames, none at {frame}" if clip in lengths else f"no clip {clip}"
            raise StoreError(f"{folder}: {what}, so that it cannot be labelled")
