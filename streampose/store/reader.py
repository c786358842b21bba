"""Read clips, random frames and pairs from a store; tensorstore and `store.jpeg` read, so zarr is not imported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from streampose.config import skeleton_from_dict
from streampose.errors import StoreError
from streampose.store.copy import WorkingCopy, open_copy
from streampose.store.jpeg import Pictures, read_pictures
from streampose.store.labels import Labels, label_names, labels_version, read_labels
from streampose.store.schema import SEGMENT_ARRAYS, SEGMENT_LARGE, WHERE_MISSING, open_store, read_attributes
from streampose.structures import Clip, Skeleton

DECODERS = max(1, min(4, os.cpu_count() or 1))  # threads that decode pictures


@dataclass(frozen=True)
class ClipInfo:
    """One clip, without its frames.

    Attributes:
        id: name in the store.
        source: path of the video as the user named it.
        num_frames, crop_size, fps: what its arrays hold.
        segments: frames in each segment.
        attributes: all that was written about it (track statistics, shot, motion).
    """

    id: str
    source: str
    num_frames: int
    crop_size: int
    fps: float
    segments: tuple[int, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class FrameBatch:
    """Frames picked from anywhere in a store; the arrays are those of `Clip`, with each frame's clip and quality."""

    clip_ids: tuple[str, ...]
    frames: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    pts_seconds: np.ndarray
    frame_index: np.ndarray
    quality: np.ndarray


class StoreReader:
    """A store as it was when opened: sources that finish later appear in a new reader.

    Args:
        path: folder or URL; of a store at another place a working copy is read, see `store.copy`. A working copy that
            is given itself is read as it is.

    Attributes:
        path: the folder that is read.
        name: the store as its user names it.

    Raises:
        StoreError: missing, damaged or newer; also later, where a segment cannot be read.
    """

    def __init__(self, path: Path | str | WorkingCopy, cache_bytes: int = 64 << 20):
        self._copy = open_copy(path)
        self.path = Path(str(path)) if self._copy is None else self._copy.path
        self.name = str(path) if self._copy is None else self._copy.url
        self.attributes = open_store(self.path)
        self._sources = [
            {"id": folder.name, **read_attributes(folder)}
            for folder in sorted((self.path / "sources").iterdir())
            if folder.is_dir()
        ]
        self._clips: dict[str, ClipInfo] = {}
        for source in self._sources:
            for clip_id in source.get("clips", []):
                values = read_attributes(self.path / "clips" / clip_id)
                self._clips[clip_id] = ClipInfo(
                    id=clip_id,
                    source=values["source"],
                    num_frames=values["num_frames"],
                    crop_size=values["crop_size"],
                    fps=values["fps"],
                    segments=tuple(values["segments"]),
                    attributes=values,
                )
        self._ends = {clip.id: np.cumsum(clip.segments) for clip in self._clips.values()}
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="crops")
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
        self._arrays: dict[tuple[str, int, str], Any] = {}
        self._small: dict[str, dict[str, np.ndarray]] = {}

    @property
    def skeleton_name(self) -> str:
        """Name of the skeleton that the store is made for."""
        return self.attributes["skeleton"]["name"]

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton that the store is made for."""
        return skeleton_from_dict(self.attributes["skeleton"], f"{self.name}: skeleton")

    @property
    def crop_size(self) -> int:
        """Side of every crop in pixels."""
        return self.attributes["crop_size"]

    def sources(self) -> list[dict[str, Any]]:
        """Attributes of every source with its `id`, sorted by id: path, verdict, reason, frames, clips, probe."""
        return self._sources

    def clips(self) -> list[ClipInfo]:
        """Every clip that a source lists, sorted by source and track."""
        return list(self._clips.values())

    def read(self, clip_id: str, indices: Sequence[int] | np.ndarray | slice | None = None) -> Clip:
        """Read a clip, or the frames of it at these positions (0 .. num_frames - 1; negative ones count from the end).

        Raises:
            StoreError: no such clip or position, or a damaged segment.
        """
        info = self._clip(clip_id)
        if indices is None:
            indices = slice(None)
        if isinstance(indices, slice):
            indices = np.arange(info.num_frames)[indices]
        batch = self.read_many([(clip_id, int(i)) for i in indices])
        return Clip(clip_id, info.source, batch.frames, batch.masks, batch.boxes, batch.pts_seconds, batch.frame_index)

    def read_many(self, items: Sequence[tuple[str, int]], masks: bool = True, frames: bool = True) -> FrameBatch:
        """Read frames from anywhere, all requests in flight at once: the training loop's access.

        Args:
            items: N (clip id, position in the clip) pairs, in any order.
            masks, frames: False leaves them out (zeros) and saves their reading.

        Raises:
            StoreError: no such clip or position, or a damaged segment.
        """
        size = self.crop_size
        out = {name: np.zeros((len(items), *shape(size)), dtype) for name, (dtype, shape) in SEGMENT_ARRAYS.items()}
        where: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        for n, (clip_id, position) in enumerate(items):
            info = self._clip(clip_id)
            if not -info.num_frames <= position < info.num_frames:
                raise StoreError(f"{self.name}: clip {clip_id} has {info.num_frames} frames, none at {position}")
            position %= info.num_frames
            segment = int(np.searchsorted(self._ends[clip_id], position, side="right"))
            start = int(self._ends[clip_id][segment]) - info.segments[segment]
            rows, offsets = where.setdefault((clip_id, segment), ([], []))
            rows.append(n)
            offsets.append(position - start)
        large = [name for name, wanted in (("frames", frames), ("masks", masks)) if wanted]
        read = partial(self._read_segments, where, large, out)
        if self._copy is None:
            read()
        else:
            self._copy.read_held([(clip, segment, name) for clip, segment in where for name in large], read)
        return FrameBatch(clip_ids=tuple(clip_id for clip_id, _ in items), **out)

    def _read_segments(
        self,
        where: dict[tuple[str, int], tuple[list[int], list[int]]],
        large: Sequence[str],
        out: dict[str, np.ndarray],
    ) -> None:
        """Fill rows of `out` from segments: (clip, segment) -> rows and the frames of the segment that belong there."""
        waiting: list[tuple[str, int | list[int], Any]] = []
        pictures: list[tuple[Pictures, int, int]] = []
        for (clip_id, segment), (rows, offsets) in where.items():
            for name in large:
                array = self._array(clip_id, segment, name)
                if isinstance(array, Pictures):
                    pictures += [(array, at, row) for row, at in zip(rows, offsets, strict=True)]
                elif len(rows) > 1 and offsets == list(range(offsets[0], offsets[0] + len(offsets))):
                    waiting.append((name, rows, array[offsets[0] : offsets[-1] + 1].read()))
                else:  # one request a frame: fifteen times as fast as one request with a list of frames
                    waiting += [(name, row, array[at].read()) for row, at in zip(rows, offsets, strict=True)]
            start = int(self._ends[clip_id][segment]) - self._clips[clip_id].segments[segment]
            small = self._small_arrays(clip_id)
            for name, values in small.items():
                out[name][rows] = values[np.asarray(offsets) + start]
        parts = [pictures[n::DECODERS] for n in range(min(DECODERS, len(pictures)))]
        for decoded in [self._decoders.submit(read_pictures, part, out["frames"]) for part in parts]:
            self._result(decoded)
        for name, row, future in waiting:
            out[name][row] = self._result(future)

    def pairs(self) -> dict[str, np.ndarray]:
        """Frame pairs: clip (N,) names, i and j (N,) positions in the clip, seconds (N,) apart, motion (N,) in [0, 1].

        Raises:
            StoreError: none were written.
        """
        folder = self.path / "pairs"
        if not folder.is_dir():
            raise StoreError(f"{self.name}: no frame pairs; run the same `streampose ingest` again to finish it")
        names = np.array(read_attributes(folder)["clips"], dtype=str)
        columns = {
            name: self._result(self._open(folder / name).read()) for name in ("clip", "i", "j", "seconds", "motion")
        }
        columns["clip"] = names[columns["clip"]] if len(names) else np.zeros(0, "U1")
        known = np.isin(columns["clip"], list(self._clips))
        return {name: values[known] for name, values in columns.items()}

    def times(self, clip_id: str) -> np.ndarray:
        """Time in seconds of each frame of a clip: (T,) float64."""
        self._clip(clip_id)
        return self._small_arrays(clip_id)["pts_seconds"]

    def boxes(self, clip_id: str) -> np.ndarray:
        """The square that each crop of a clip shows, in source pixels: (T, 4) float32 edges."""
        self._clip(clip_id)
        return self._small_arrays(clip_id)["boxes"]

    def numbers(self, clip_id: str) -> np.ndarray:
        """The number in its video of each frame of a clip: (T,) int64."""
        self._clip(clip_id)
        return self._small_arrays(clip_id)["frame_index"]

    def labels(self, names: Sequence[str] | None = None) -> Labels:
        """Labels of the clips and frames that are read here: all sets, or those of these names, as one.

        Raises:
            StoreError: no set of that name, or it is damaged.
        """
        labels = read_labels(self._copy or self.path, names)
        lengths = {clip.id: clip.num_frames for clip in self.clips()}
        rows = zip(labels.clip.tolist(), labels.frame.tolist(), strict=True)
        return labels.pick(np.array([frame < lengths.get(clip, 0) for clip, frame in rows], bool))

    def labels_version(self, names: Sequence[str]) -> str:
        """A mark of what sets of labels hold: it changes when one of them is written again."""
        return labels_version(self._copy or self.path, names)

    def label_names(self) -> list[str]:
        """Names of the sets of labels."""
        return label_names(self._copy or self.path)

    def files(self) -> dict[str, int]:
        """Every file of the store, as a path inside it, and its bytes."""
        if self._copy is not None:
            return self._copy.remote.sizes()
        return {
            file.relative_to(self.path).as_posix(): file.stat().st_size
            for file in self.path.rglob("*")
            if file.is_file()
        }

    def quality(self, clip_id: str) -> np.ndarray:
        """How good each frame of a clip is for training (`masks.quality`): (T,) float32 in [0, 1], 1 is best."""
        self._clip(clip_id)
        return self._small_arrays(clip_id)["quality"]

    def _clip(self, clip_id: str) -> ClipInfo:
        try:
            return self._clips[clip_id]
        except KeyError:
            raise StoreError(f"{self.name}: no clip {clip_id}; `streampose inspect {self.name}` lists them") from None

    def _small_arrays(self, clip_id: str) -> dict[str, np.ndarray]:
        if clip_id not in self._small:
            lengths, segments = self._clips[clip_id].segments, self.path / "clips" / clip_id / "segments"
            names = [name for name in SEGMENT_ARRAYS if name not in SEGMENT_LARGE]
            if self._copy is not None:
                self._copy.fetch(clip_id, [(n, name) for n in range(len(lengths)) for name in names])
            known = [name for name in names if name not in WHERE_MISSING or (segments / "0" / name).is_dir()]
            parts = {name: [self._array(clip_id, n, name).read() for n in range(len(lengths))] for name in known}
            self._small[clip_id] = {
                name: np.concatenate([self._result(future) for future in futures]) for name, futures in parts.items()
            } | {
                name: np.full(sum(lengths), WHERE_MISSING[name], SEGMENT_ARRAYS[name][0])
                for name in names
                if name not in known
            }
        return self._small[clip_id]

    def _array(self, clip_id: str, segment: int, name: str) -> Any:
        key = (clip_id, segment, name)
        if key not in self._arrays:
            folder = self.path / "clips" / clip_id / "segments" / str(segment) / name
            if name == "frames" and self.attributes.get("codec") == "jpeg":
                frames = self._clips[clip_id].segments[segment]
                with self._damage_told():
                    self._arrays[key] = Pictures(folder, frames)
            else:
                self._arrays[key] = self._open(folder)
        return self._arrays[key]

    def _open(self, folder: Path) -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{os.path.abspath(folder)}/"}}
        return self._result(ts.open(spec, read=True, open=True, context=self._context))

    def _result(self, future: Any) -> Any:
        with self._damage_told():
            return future.result()

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, KeyError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{self.name}: a segment is damaged ({line}); run `streampose ingest --overwrite` for its source"
            ) from None
