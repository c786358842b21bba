"""What a store looks like on disk (Zarr v3) and how one is made, opened and locked.

    store.zarr/                      attributes: schema version, skeleton, crop size, codec, creation time
      sources/<id>/                  attributes: path, size, content hash, probe, verdict, clip ids; written LAST
      clips/<id>/                    attributes: source, frames, segments, frame rate, statistics
      clips/<id>/segments/<n>/       frames, masks, boxes, pts_seconds, frame_index, quality: one shard an array
      pairs/                         clip, i, j, seconds, motion
      labels/<id>/                   joints that people placed: `store.labels`
      .spans/<source>/<n>.json       what the finished spans of an unfinished source gave
      .tmp/                          what is being written; worth nothing after a crash

At other places (`s3://...`) it looks a little different, see `copy`.

A clip that no source lists does not exist. Nothing is ever changed in place: every group is written under `.tmp` and
published by a rename, so that a reader, or the next run after a crash, sees it whole or not at all.

Adding an array to a segment: name it in `SEGMENT_ARRAYS`, fill it in `writer.ClipWriter`, read it in `reader`, say in
`WHERE_MISSING` what older stores are taken to hold, and raise `SCHEMA_VERSION` if an old reader would misunderstand it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streampose.config import skeleton_to_dict
from streampose.errors import StoreError
from streampose.structures import Skeleton

SCHEMA_VERSION = 2  # 1 knew no JPEG
SEGMENT_FRAMES = 256

# Size on disk and random pairs a second on 128-pixel crops of real video: tests/benchmarks/test_store_reading.py.
CODECS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "zstd": [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
    "jpeg": [{"name": "jpeg", "configuration": {"quality": 95, "subsampling": "4:4:4"}}],  # of frames alone: store.jpeg
}
DEFAULT_CODEC = "jpeg"  # of what is ingested

# name -> (dtype, shape of one frame as a function of the crop size)
SEGMENT_ARRAYS: dict[str, tuple[str, Any]] = {
    "frames": ("uint8", lambda size: (size, size, 3)),
    "masks": ("uint8", lambda size: (size, size)),
    "boxes": ("float32", lambda size: (4,)),
    "pts_seconds": ("float64", lambda size: ()),
    "frame_index": ("int64", lambda size: ()),
    "quality": ("float32", lambda size: ()),  # in [0, 1], 1 is best: masks.quality
}
SEGMENT_LARGE = ("frames", "masks")  # read frame by frame; the others are read whole with their clip
WHERE_MISSING = {"quality": 1.0}  # name -> value of the frames of clips that were written before the array was


def create_store(
    path: Path,
    skeleton: Skeleton,
    *,
    crop_size: int,
    margin: float | None = None,
    codec: str = "zstd",
    draft: bool = False,
) -> dict[str, Any]:
    """Make an empty store, or open the one that is there and check that it is made for the same thing.

    Args:
        margin: how much is kept free around the subject in the crops, as a share of its longer side.
        draft: the store is made for something else than clips; who brings clips decides about skeleton and crops.

    Returns:
        The store's attributes.

    Raises:
        StoreError: something else lies there, or the store has another skeleton, crop size or margin, or is newer.
    """
    path = Path(path)
    if codec not in CODECS:
        raise StoreError(f"codec {codec}: unknown; choose one of {', '.join(CODECS)}")
    if not path.exists() or _is_unborn(path):
        attributes: dict[str, Any] = {
            "streampose_schema": SCHEMA_VERSION,
            "skeleton": skeleton_to_dict(skeleton),
            "crop_size": crop_size,
            **({} if margin is None else {"margin": margin}),
            "codec": codec,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **({"draft": True} if draft else {}),
        }
        with writing(path):
            for group in ("sources", "clips"):
                (path / group).mkdir(parents=True, exist_ok=True)
                write_group(path / group, {})
            write_group(path, attributes)  # last: a store without it is not one yet
        return attributes
    attributes = open_store(path)
    if attributes.get("draft") and not draft:  # made for priors alone: what its crops are like was not decided yet
        del attributes["draft"]
        attributes |= {"skeleton": skeleton_to_dict(skeleton), "crop_size": crop_size, "codec": codec}
        attributes |= {} if margin is None else {"margin": margin}
        with writing(path):
            write_group(path, attributes)
        return attributes
    if attributes["skeleton"]["name"] != skeleton.name:
        raise StoreError(
            f"{path}: made for skeleton {attributes['skeleton']['name']}, not {skeleton.name}; "
            f"name another --store or give --skeleton {attributes['skeleton']['name']}"
        )
    if attributes["crop_size"] != crop_size:
        raise StoreError(
            f"{path}: holds crops of {attributes['crop_size']} pixels, not {crop_size}; "
            f"name another --store or give --crop-size {attributes['crop_size']}"
        )
    if margin is not None and attributes.get("margin", margin) != margin:
        raise StoreError(
            f"{path}: holds crops with a margin of {attributes['margin']:g}, this version cuts them with {margin:g}; "
            "name another --store"
        )
    return attributes


def open_store(path: Path) -> dict[str, Any]:
    """Attributes of an existing store.

    Raises:
        StoreError: no store there, not one of ours, damaged, or written by a newer version.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path}: no store there; make it with `streampose ingest VIDEOS --store {path}`")
    attributes = read_attributes(path)
    version = attributes.get("streampose_schema")
    if not isinstance(version, int):
        raise StoreError(f"{path}: not a store of streampose; name the store.zarr that `streampose ingest` made")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written by a newer streampose (schema {version}, this one reads up to {SCHEMA_VERSION}); "
            "update streampose"
        )
    return attributes


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Write a group's zarr.json whole or not at all; the folder must exist."""
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1)
    temporary = folder / f"zarr.json.{uuid.uuid4().hex}.partial"
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / "zarr.json")
    finally:
        temporary.unlink(missing_ok=True)


def read_attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a group.

    Raises:
        StoreError: no such group, or its zarr.json is damaged.
    """
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder}: not a store of streampose (no zarr.json)") from None
    except PermissionError:
        raise StoreError(f"{folder}: no permission to read it") from None
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{folder}/zarr.json: damaged ({error}); delete it and ingest again") from None
    return attributes


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk and missing permission inside the block into one clear line."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError) as error:  # tensorstore reports the system's errors as ValueError
        text = str(error)
        if getattr(error, "errno", None) in (28, 122) or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
            raise StoreError(
                f"{path}: the disk is full; free some space and run the same command again, finished sources are kept"
            ) from None
        if isinstance(error, PermissionError) or "PERMISSION_DENIED" in text:
            raise StoreError(f"{path}: no permission to write there; name another place with --store") from None
        if isinstance(error, OSError):
            raise StoreError(f"{path}: cannot be written ({error.strerror or text})") from None
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers out of a store; the system frees the lock when the process ends, however it ends.

    Raises:
        StoreError: another process is writing to the store.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows, where two ingests into one store are the user's care
        yield
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{path}: another ingest is writing to it; wait for it or name another --store") from None
        yield
    finally:
        os.close(folder)


def _is_unborn(path: Path) -> bool:
    """Whether a folder is empty, or a crash left it before the store's own zarr.json was written."""
    return path.is_dir() and all(
        child.name in ("sources", "clips") or ".partial" in child.name for child in path.iterdir()
    )
