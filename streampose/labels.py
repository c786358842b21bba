"""Labels of other tools into the store and out of it again: `streampose labels import | export | list | remove`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError, StoreError
from streampose.formats.annotations import join_annotations
from streampose.labelling.files import FORMATS, read_any, write_any
from streampose.labelling.match import annotate_frames, match_annotations
from streampose.labelling.package import SIDE, write_package
from streampose.store import labels as stored
from streampose.store.labels import Labels, join_labels, read_labels, write_labels
from streampose.store.reader import StoreReader


def import_labels(
    paths: Sequence[Path],
    *,
    store: Path | str = Path("store.zarr"),
    name: str | None = None,
    kind: str = "auto",
    joints: Sequence[str] = (),
    who: str = "",
    tolerance_seconds: float | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Bring labels into a store, joints by name, pictures by what they show.

    A set that is there already is added to: a frame that the same person labelled again is replaced.

    Args:
        paths: files or folders of labelling tools; of several, joints of one name are one.
        name: of the set; None for the first path's.
        kind: one of `labelling.files.FORMATS`, or `auto`.
        joints: `THEIRS=OURS` for joints whose names differ in more than their spelling.
        who: who made them, where the files do not say.
        tolerance_seconds: how far a time may be from a frame's; None for half a frame.
        replace: forget what the set held before.

    Returns:
        {"store", "labels": the set, "rows", "matched", "frames", "annotators", "joints": theirs -> ours, "unmatched":
        reason -> rows, "examples", "total": rows of the set now, "seconds"}

    Raises:
        StoreError: no store. ConfigError: no such file, or two joints are one. StreamposeError: a file cannot be read,
            or nothing of it is in the store.
    """
    began = time.monotonic()
    renamed = dict(_renamed(one) for one in joints)
    reader = StoreReader(store)
    annotations = join_annotations([read_any(Path(path), kind) for path in paths])
    if not len(annotations):
        raise ConfigError(f"{paths[0]}: no labels in it; predictions that nobody confirmed are none")
    if said := int(np.isfinite(annotations.confidence).any(1).sum()):
        logger.warning("%d labels carry a model's confidence: count them only if a person has looked at them", said)
    name = name or _name_of(Path(paths[0]))
    labels, report = match_annotations(
        reader, annotations, renamed=renamed, tolerance_seconds=tolerance_seconds, who=who
    )
    if not len(labels):
        reasons = ", ".join(f"{reason} ({count})" for reason, count in report["unmatched"].items())
        raise StoreError(f"{reader.name}: none of the {len(annotations)} labels is of a frame in it: {reasons}")
    before = None if replace or name not in stored.label_names(store) else read_labels(store, [name])
    labels = _latest(labels if before is None else join_labels([before, labels]))
    provenance = {
        "files": [str(path) for path in paths], "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        "unmatched": report["unmatched"],
    }  # fmt: skip
    write_labels(store, name, labels, provenance=provenance)
    unknown = [theirs for theirs, ours in report["joints"].items() if ours is None]
    if unknown:
        logger.warning(
            "%s: skeleton %s has no joint %s; kept under that name, not learnt; --joint THEIRS=OURS renames one",
            name, reader.skeleton_name, ", ".join(unknown),
        )  # fmt: skip
    for example in report["examples"]:
        logger.warning("left out: %s", example)
    return {
        "store": reader.name, "labels": name, **report, "total": len(labels),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def export_labels(
    *,
    store: Path | str = Path("store.zarr"),
    names: Sequence[str] = (),
    kind: str = "coco",
    out: Path = Path("labels"),
    side: int = SIDE,
) -> dict[str, Any]:
    """Write labels of a store for another tool.

    Args:
        names: of the sets; none for all.
        kind: one of `labelling.files.FORMATS`.
        out: folder; must be empty for tools that are given pictures.
        side: of those pictures in pixels.

    Returns:
        {"out", "format", "rows", "frames", "annotators", "files": name -> path, "seconds"}

    Raises:
        StoreError: no store, or no labels in it. ConfigError: unknown format, or the folder holds something.
    """
    began = time.monotonic()
    if kind not in FORMATS:
        raise ConfigError(f"--format {kind}: unknown; choose {', '.join(FORMATS)}")
    reader = StoreReader(store)
    labels = reader.labels(list(names) or None)
    if not len(labels):
        raise StoreError(f"{reader.name}: no labels in it; bring some in with `streampose labels import FILE`")
    if FORMATS[kind].shows == "pictures":
        files = write_package(Path(out), reader, labels, kind, side=side)
    else:
        files = {path.name: str(path) for path in write_any(Path(out), kind, annotate_frames(reader, labels))}
    frames = set(zip(labels.clip.tolist(), labels.frame.tolist(), strict=True))
    return {
        "out": str(out), "format": kind, "rows": len(labels), "frames": len(frames),
        "annotators": sorted(set(labels.source.tolist())), "files": files,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def list_labels(*, store: Path | str = Path("store.zarr")) -> dict[str, Any]:
    """The sets of labels of a store.

    Returns:
        {"store", "labels": [{"name", "rows", "frames", "annotators", "joints": joint -> how often it was placed,
        "provenance"}]}
    """
    reader = StoreReader(store)
    sets = []
    for entry in stored.list_labels(store):
        labels = read_labels(store, [entry["name"]])
        placed = (labels.visibility > 0).sum(0).tolist()
        sets.append(
            {
                "name": entry["name"],
                "rows": len(labels),
                "frames": len(set(zip(labels.clip.tolist(), labels.frame.tolist(), strict=True))),
                "annotators": sorted(set(labels.source.tolist())),
                "joints": dict(zip(labels.joints, placed, strict=True)),
                "provenance": entry["provenance"],
            }
        )
    return {"store": reader.name, "labels": sets}


def remove_labels(names: Sequence[str], *, store: Path | str = Path("store.zarr")) -> dict[str, Any]:
    """Take sets of labels out of a store: {"store", "removed"}."""
    for name in names:
        stored.remove_labels(store, name)
    return {"store": str(store), "removed": list(names)}


def _latest(labels: Labels) -> Labels:
    """One row for each frame and annotator: the last one."""
    last = {key: r for r, key in enumerate(zip(labels.clip, labels.frame, labels.source, strict=True))}
    return labels.pick(np.array(sorted(last.values()), int))


def _renamed(text: str) -> tuple[str, str]:
    theirs, separator, ours = text.partition("=")
    if not (separator and theirs and ours):
        raise ConfigError(f"--joint {text}: expected THEIRS=OURS, for example --joint snout=nose")
    return theirs, ours


def _name_of(path: Path) -> str:
    """A set's name from its file; files that are called alike everywhere take their folder's."""
    common = {one.name for one in FORMATS.values() if one.name}
    return (path.resolve().parent.name if path.name in common else path.stem) or "labels"
