"""Write clips, sources and pairs into a store, each published by one rename."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from streampose.errors import StoreError
from streampose.store.jpeg import write_pictures
from streampose.store.schema import (
    CODECS,
    SEGMENT_ARRAYS,
    SEGMENT_FRAMES,
    open_store,
    read_attributes,
    write_group,
    writing,
)


class ClipWriter:
    """Collect the frames of one track and write them in segments; memory holds one segment at most.

    The clip exists once its source is published (`publish_source`); until then a crash leaves nothing behind that
    `remove_orphans` would not clear away.
    """

    def __init__(self, store: Path, clip_id: str, *, source: str, fps: float, segment_frames: int = SEGMENT_FRAMES):
        self.id, self.num_frames = clip_id, 0
        self.segments: list[int] = []
        self._store, self._source, self._fps, self._segment_frames = Path(store), source, fps, segment_frames
        attributes = open_store(self._store)
        self._crop_size, self._codec = attributes["crop_size"], attributes["codec"]
        self._folder = self._store / "clips" / clip_id
        self._waiting: dict[str, list[Any]] = {name: [] for name in SEGMENT_ARRAYS}
        self._mask_area = self._quality = 0.0
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def append(
        self,
        frame: np.ndarray,
        mask: np.ndarray,
        box: np.ndarray,
        pts_seconds: float,
        frame_index: int,
        quality: float = 1.0,
    ) -> None:
        """Add one crop (S, S, 3) with its mask (S, S), box (4,) in source pixels, time, frame number and quality."""
        for name, value in zip(SEGMENT_ARRAYS, (frame, mask, box, pts_seconds, frame_index, quality), strict=True):
            self._waiting[name].append(value)
        self._quality += float(quality)
        self._mask_area += float(np.count_nonzero(mask)) / mask.size
        self.num_frames += 1
        if len(self._waiting["frames"]) == self._segment_frames:
            self._write_segment()

    def finish(self, **statistics: Any) -> None:
        """Write what waits and describe the clip; `statistics` become attributes beside the usual ones."""
        if self._waiting["frames"]:
            self._write_segment()
        attributes = {
            "source": self._source,
            "num_frames": self.num_frames,
            "segments": self.segments,
            "crop_size": self._crop_size,
            "fps": self._fps,
            "mask_area": round(self._mask_area / max(self.num_frames, 1), 4),
            "quality": round(self._quality / max(self.num_frames, 1), 4),
            **statistics,
        }
        with writing(self._store):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_group(self._folder, attributes)

    def discard(self) -> None:
        """Forget the clip and remove its segments: the track was not worth keeping."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.num_frames = 0

    def _write_segment(self) -> None:
        number, frames = len(self.segments), len(self._waiting["frames"])
        with writing(self._store):
            temporary = temporary_folder(self._store)
            for name, (dtype, shape) in SEGMENT_ARRAYS.items():
                values = np.asarray(self._waiting[name], dtype)
                self._waiting[name].clear()  # before it is encoded, which takes memory too
                if values.shape[1:] != shape(self._crop_size):
                    raise AssertionError(f"{name} of one frame has shape {values.shape[1:]}")
                if name == "frames" and self._codec == "jpeg":
                    write_pictures(temporary / name, values)
                    continue
                codecs = CODECS[self._codec] if name == "frames" else CODECS["zstd"]
                write_array(temporary / name, values, codecs, chunk_frames=1 if values.ndim > 2 else len(values))
            write_group(temporary, {})
            destination = self._folder / "segments"
            if not destination.is_dir():
                destination.mkdir(parents=True)
                write_group(destination, {})
            os.rename(temporary, destination / str(number))
        self.segments.append(frames)


def publish_source(store: Path, source_id: str, attributes: dict[str, Any]) -> None:
    """Make a source, and with it the clips that `attributes['clips']` lists, exist."""
    with writing(store):
        temporary = temporary_folder(store)
        write_group(temporary, attributes)
        destination = Path(store) / "sources" / source_id
        if destination.exists():
            shutil.rmtree(destination)
        os.rename(temporary, destination)


def remove_source(store: Path, source_id: str) -> None:
    """Take a source and its clips out of the store: the source first, so that a crash leaves orphans only."""
    folder = Path(store) / "sources" / source_id
    clips = read_attributes(folder).get("clips", [])
    with writing(store):
        grave = temporary_folder(store)
        os.rename(folder, grave / "source")
        for clip in clips:
            shutil.rmtree(Path(store) / "clips" / clip, ignore_errors=True)
        shutil.rmtree(grave)


def remove_clip(store: Path, clip_id: str) -> None:
    """Take a clip that no source lists out of the store."""
    with writing(store):
        shutil.rmtree(Path(store) / "clips" / clip_id, ignore_errors=True)


def remove_orphans(store: Path) -> int:
    """Remove what a crash left: temporary folders and clips that neither a source nor a finished span lists.

    Call it with the store locked.

    Returns:
        The number of clips removed.
    """
    store = Path(store)
    with writing(store):
        shutil.rmtree(store / ".tmp", ignore_errors=True)
        listed = {
            clip
            for folder in (store / "sources").iterdir()
            if folder.is_dir()
            for clip in read_attributes(folder).get("clips", [])
        }
        for record in (store / ".spans").glob("*/*.json"):
            try:
                listed.update(made["clip"] for made in json.loads(record.read_text(encoding="utf-8"))["made"])
            except (ValueError, KeyError):  # a power cut: its span is done again
                record.unlink()
        orphans = [folder for folder in (store / "clips").iterdir() if folder.is_dir() and folder.name not in listed]
        for folder in orphans:
            shutil.rmtree(folder)
    return len(orphans)


def write_pairs(store: Path, pairs: dict[str, np.ndarray], attributes: dict[str, Any] | None = None) -> None:
    """Replace the store's frame pairs.

    Args:
        pairs: `clip` (N,) names, `i` and `j` (N,) positions in the clip, `seconds` (N,) apart, `motion` (N,) in [0, 1].
    """
    names, index = np.unique(pairs["clip"], return_inverse=True)
    with writing(store):
        temporary = temporary_folder(store)
        columns: dict[str, np.ndarray] = {
            "clip": index.astype(np.int32),
            "i": np.asarray(pairs["i"], np.int64),
            "j": np.asarray(pairs["j"], np.int64),
            "seconds": np.asarray(pairs["seconds"], np.float32),
            "motion": np.asarray(pairs["motion"], np.float32),
        }
        for name, values in columns.items():
            write_array(temporary / name, values, CODECS["zstd"], chunk_frames=max(len(values), 1))
        write_group(temporary, {"clips": [str(name) for name in names], **(attributes or {})})
        destination = Path(store) / "pairs"
        if destination.exists():
            os.rename(destination, temporary_folder(store) / "pairs")
        os.rename(temporary, destination)


def write_array(folder: Path, values: np.ndarray, codecs: list[dict[str, Any]], chunk_frames: int) -> None:
    """Write one Zarr v3 array in one shard whose inner chunks hold `chunk_frames` frames each."""
    if 0 in values.shape:
        shard = chunk = tuple(max(n, 1) for n in values.shape)
    else:
        shard, chunk = values.shape, (chunk_frames, *values.shape[1:])
    endian = {"name": "bytes", "configuration": {"endian": "little"}} if values.itemsize > 1 else {"name": "bytes"}
    inner = [endian, *codecs]
    if chunk != shard:
        inner = [{"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": inner}}]
    metadata = {
        "shape": values.shape,
        "data_type": str(values.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": inner,
        "fill_value": 0,
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{os.path.abspath(folder)}/"},
        "metadata": metadata,
    }
    array = ts.open(spec, create=True, open=False).result()
    if values.size:
        array.write(values).result()


def temporary_folder(store: Path) -> Path:
    """A new empty folder inside the store's `.tmp`, on the same disk, so that a rename can publish it."""
    folder = Path(store) / ".tmp" / uuid.uuid4().hex
    try:
        folder.mkdir(parents=True)
    except FileNotFoundError:
        raise StoreError(f"{store}: no store there any more") from None
    return folder
