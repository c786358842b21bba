"""Keypoints as a Parquet table, one row for each frame, subject and joint.

| column | type | meaning |
|---|---|---|
| `frame_index` | int64 | number of the frame in display order, from 0 |
| `pts_seconds` | float64 | its time in the container |
| `track_id` | int32 | which subject; numbers are not used twice in a video |
| `joint` | dictionary of strings | the joint's name |
| `x`, `y` | float32 | source pixels, pixel centres are integers; null where missing |
| `z` | float32 | depth relative to the root joint in source pixels, away from the camera; null for 2D models |
| `confidence` | float32 | in [0, 1] |

The schema's metadata holds `streampose.source` and `streampose.skeleton` (JSON, as in a skeleton file). Long tables are
what data frames group and pivot best; repeated columns cost next to nothing on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streampose.config import skeleton_from_dict, skeleton_to_dict
from streampose.errors import StreamposeError
from streampose.files import whole_file
from streampose.structures import Keypoints, Skeleton

ROWS_PER_GROUP = 1 << 17


@contextmanager
def open_parquet(path: Path, skeleton: Skeleton, *, source: str) -> Iterator[ParquetWriter]:
    """Begin one video's table; it appears under its name when the `with` block ends without an error."""
    schema = pa.schema(
        [
            ("frame_index", pa.int64()), ("pts_seconds", pa.float64()), ("track_id", pa.int32()),
            ("joint", pa.dictionary(pa.int16(), pa.string())),
            ("x", pa.float32()), ("y", pa.float32()), ("z", pa.float32()), ("confidence", pa.float32()),
        ],
        metadata={"streampose.source": source, "streampose.skeleton": json.dumps(skeleton_to_dict(skeleton))},
    )  # fmt: skip
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as file:
        writer = ParquetWriter(file, skeleton)
        yield writer
        writer.flush()


class ParquetWriter:
    """Writes one video's keypoints; `open_parquet` makes it."""

    def __init__(self, file: pq.ParquetWriter, skeleton: Skeleton):
        self._file = file
        self._joints = pa.array(list(skeleton.joints), pa.string())
        self._num_joints = skeleton.num_joints
        self._frames: list[tuple[int, float, int]] = []
        self._values: list[np.ndarray] = []

    def write(self, frame_index: int, pts_seconds: float, keypoints: Keypoints, track_ids: list[int]) -> None:
        """Add a frame's N subjects; a frame without subjects leaves no row.

        Args:
            keypoints: N subjects in source pixels; NaN where a joint is missing.
        """
        z = np.full_like(keypoints.confidence, np.nan) if keypoints.z is None else keypoints.z
        values = np.concatenate([keypoints.xy, z[..., None], keypoints.confidence[..., None]], -1)  # (N, K, 4)
        self._frames += [(frame_index, pts_seconds, track_id) for track_id in track_ids]
        self._values += list(values.astype(np.float32))
        if len(self._frames) * self._num_joints >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that have come since the last group."""
        if not self._frames:
            return
        write_joints(self._file, self._joints, self._frames, self._values)
        self._frames, self._values = [], []


def write_joints(
    file: pq.ParquetWriter, joints: pa.Array, frames: list[tuple[int, float, int]], values: list[np.ndarray]
) -> None:
    """Write a row for each joint of each subject and frame, in one group.

    Args:
        joints: (K,) names.
        frames: (frame index, pts_seconds, track id) of each subject and frame.
        values: (K, V) float32 for each of them.
    """
    R, K = len(frames), len(joints)
    frame_index, pts_seconds, track_id = (np.repeat(column, K) for column in zip(*frames, strict=True))
    joint = pa.DictionaryArray.from_arrays(pa.array(np.tile(np.arange(K, dtype=np.int16), R)), joints)
    arrays = [
        pa.array(frame_index, pa.int64()), pa.array(pts_seconds, pa.float64()), pa.array(track_id, pa.int32()),
        joint, *(pa.array(column, pa.float32(), from_pandas=True) for column in np.concatenate(values).T),
    ]  # fmt: skip
    file.write_table(pa.Table.from_arrays(arrays, schema=file.schema))


@dataclass(frozen=True)
class KeypointTable:
    """A Parquet file of keypoints, one row for each frame and subject.

    Attributes:
        source: the video's name.
        frame_index, pts_seconds, track_id: (R,).
        xyz: (R, K, 3) source pixels, NaN where missing.
        confidence: (R, K).
    """

    source: str
    skeleton: Skeleton
    frame_index: np.ndarray
    pts_seconds: np.ndarray
    track_id: np.ndarray
    xyz: np.ndarray
    confidence: np.ndarray


def read_parquet(path: str | Path) -> KeypointTable:
    """Read what `ParquetWriter` wrote.

    Raises:
        StreamposeError: no such file, or not a table of keypoints.
    """
    try:
        table = pq.read_table(path)
        return _keypoints(table, *_header(table.schema))
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from None


def iter_parquet(path: str | Path) -> Iterator[KeypointTable]:
    """Read what `ParquetWriter` wrote in parts of some thousands of rows, in order; a frame is never divided.

    Raises:
        StreamposeError: as `read_parquet`.
    """
    try:
        with pq.ParquetFile(path) as file:
            header = _header(file.schema_arrow)
            for number in range(file.num_row_groups):
                yield _keypoints(file.read_row_group(number), *header)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from None


def _header(schema: pa.Schema) -> tuple[str, Skeleton]:
    metadata = schema.metadata or {}
    return metadata[b"streampose.source"].decode(), skeleton_from_dict(json.loads(metadata[b"streampose.skeleton"]))


def _damaged(path: str | Path, error: Exception) -> StreamposeError:
    return StreamposeError(f"{path}: not a table of keypoints ({' '.join(str(error).split())[:120]})")


def _keypoints(table: pa.Table, source: str, skeleton: Skeleton) -> KeypointTable:
    K = skeleton.num_joints
    columns = {name: table[name].to_numpy().reshape(-1, K) for name in table.column_names if name != "joint"}
    return KeypointTable(
        source=source,
        skeleton=skeleton,
        frame_index=columns["frame_index"][:, 0],
        pts_seconds=columns["pts_seconds"][:, 0],
        track_id=columns["track_id"][:, 0],
        xyz=np.stack([columns["x"], columns["y"], columns["z"]], -1),
        confidence=columns["confidence"],
    )
