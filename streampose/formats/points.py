"""Subjects in space: a Parquet table with one row for each moment, subject and joint, and the same as JSON.

| column | type | meaning |
|---|---|---|
| `frame_index` | int64 | number of the moment on the clock of the session's first view |
| `seconds` | float64 | time of the session |
| `subject_id` | int32 | which subject, the same in all views |
| `joint` | dictionary of strings | the joint's name |
| `x`, `y`, `z` | float32 | metres in the calibration's world; null where missing |
| `uncertainty` | float32 | metres, one standard deviation of the place |
| `error_px` | float32 | median distance of the views that were used from the re-projected point |
| `views` | int8 | how many views made the point; 0 where it was filled in from the moments around |

The schema's metadata holds `streampose.session`, `streampose.skeleton` and `streampose.cameras` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streampose.config import skeleton_from_dict, skeleton_to_dict
from streampose.errors import StreamposeError
from streampose.files import whole_file
from streampose.geometry.camera import camera_to_dict
from streampose.structures import Camera, Skeleton

ROWS_PER_GROUP = 1 << 17


@dataclass(frozen=True)
class Points:
    """Subjects in space, one row for each moment and subject, in order of time.

    Attributes:
        frame_index, seconds, subject_id: (R,).
        xyz: (R, K, 3) metres; NaN where missing.
        uncertainty: (R, K) metres.
        error_px: (R, K).
        views: (R, K) int.
    """

    frame_index: np.ndarray
    seconds: np.ndarray
    subject_id: np.ndarray
    xyz: np.ndarray
    uncertainty: np.ndarray
    error_px: np.ndarray
    views: np.ndarray

    def __len__(self) -> int:
        return len(self.frame_index)

    def pick(self, rows: np.ndarray) -> Points:
        """Some of the rows, by number or mask."""
        return Points(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def join_points(parts: list[Points]) -> Points:
    """The rows of several, one after the other; at least one part."""
    return Points(*(np.concatenate([getattr(p, name) for p in parts]) for name in Points.__dataclass_fields__))


@contextmanager
def open_points(path: Path, skeleton: Skeleton, session: str, cameras: Mapping[str, Camera]) -> Iterator[PointsWriter]:
    """Begin a table; it appears under its name when the `with` block ends without an error."""
    schema = pa.schema(
        [
            ("frame_index", pa.int64()), ("seconds", pa.float64()), ("subject_id", pa.int32()),
            ("joint", pa.dictionary(pa.int16(), pa.string())), *((name, pa.float32()) for name in "xyz"),
            ("uncertainty", pa.float32()), ("error_px", pa.float32()), ("views", pa.int8()),
        ],
        metadata={
            "streampose.session": session,
            "streampose.skeleton": json.dumps(skeleton_to_dict(skeleton)),
            "streampose.cameras": json.dumps({name: camera_to_dict(camera) for name, camera in cameras.items()}),
        },
    )  # fmt: skip
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as file:
        writer = PointsWriter(file, skeleton)
        yield writer
        writer.flush()


class PointsWriter:
    """Writes one session's points; `open_points` makes it."""

    def __init__(self, file: pq.ParquetWriter, skeleton: Skeleton):
        self._file, self._skeleton = file, skeleton
        self._parts: list[Points] = []

    def write(self, points: Points) -> None:
        """Add rows, later ones than those before."""
        if len(points):
            self._parts.append(points)
        if sum(map(len, self._parts)) * self._skeleton.num_joints >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that have come since the last group."""
        if not self._parts:
            return
        points, K = join_points(self._parts), self._skeleton.num_joints
        joint = pa.DictionaryArray.from_arrays(
            pa.array(np.tile(np.arange(K, dtype=np.int16), len(points))),
            pa.array(list(self._skeleton.joints), pa.string()),
        )
        values = [*points.xyz.reshape(-1, 3).T, points.uncertainty.ravel(), points.error_px.ravel()]
        frame_index, seconds, subject_id = (
            np.repeat(v, K) for v in (points.frame_index, points.seconds, points.subject_id)
        )
        arrays = [
            pa.array(frame_index, pa.int64()), pa.array(seconds, pa.float64()), pa.array(subject_id, pa.int32()), joint,
            *(pa.array(column.astype(np.float32), pa.float32(), from_pandas=True) for column in values),
            pa.array(points.views.ravel().astype(np.int8), pa.int8()),
        ]  # fmt: skip
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._file.schema))
        self._parts = []


def iter_points(path: Path | str) -> Iterator[Points]:
    """The rows of a table in parts of some thousands, in order.

    Raises:
        StreamposeError: no such file, or not a table of points.
    """
    try:
        with pq.ParquetFile(path) as file:
            K = len(json.loads(file.schema_arrow.metadata[b"streampose.skeleton"])["joints"])
            for number in range(file.num_row_groups):
                yield _points(file.read_row_group(number), K)
    except (OSError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from None


def read_points(path: Path | str) -> tuple[Points, Skeleton]:
    """A whole table and the skeleton that it is about.

    Raises:
        StreamposeError: no such file, or not a table of points.
    """
    try:
        table = pq.read_table(path)
        skeleton = skeleton_from_dict(json.loads(table.schema.metadata[b"streampose.skeleton"]))
        return _points(table, skeleton.num_joints), skeleton
    except (OSError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from None


@contextmanager
def open_points_json(
    path: Path, skeleton: Skeleton, session: str, cameras: Mapping[str, Camera]
) -> Iterator[JsonWriter]:
    """Begin `{"session", "unit", "skeleton", "cameras", "moments": [{"frame", "seconds", "subjects": [...]}]}`."""
    head = {
        "session": session,
        "unit": "m",
        "skeleton": skeleton_to_dict(skeleton),
        "cameras": {name: camera_to_dict(camera) for name, camera in cameras.items()},
    }
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "moments": [')
        yield JsonWriter(file)
        file.write("\n]}\n")


class JsonWriter:
    """Writes one session's points as they come; `open_points_json` makes it."""

    def __init__(self, file):
        self._file, self._first = file, True

    def write(self, points: Points) -> None:
        """Add rows, later ones than those before; the subjects of one moment together."""
        for rows in np.split(np.arange(len(points)), np.flatnonzero(np.diff(points.frame_index)) + 1):
            if not len(rows):
                continue
            subjects = [
                {
                    "id": int(points.subject_id[r]),
                    "points": [_rounded(xyz, 5) for xyz in points.xyz[r]],
                    "uncertainty": _rounded(points.uncertainty[r], 5),
                    "error_px": _rounded(points.error_px[r], 2),
                    "views": points.views[r].tolist(),
                }
                for r in rows
            ]
            moment = {"frame": int(points.frame_index[rows[0]]), "seconds": round(float(points.seconds[rows[0]]), 6)}
            self._file.write(("\n" if self._first else ",\n") + json.dumps(moment | {"subjects": subjects}))
            self._first = False


def _rounded(values: np.ndarray, digits: int) -> list[float | None]:
    return [round(float(v), digits) if np.isfinite(v) else None for v in values]


def _damaged(path: Path | str, error: Exception) -> StreamposeError:
    return StreamposeError(f"{path}: not a table of points in space ({' '.join(str(error).split())[:120]})")


def _points(table: pa.Table, K: int) -> Points:
    columns = {name: table[name].to_numpy().reshape(-1, K) for name in table.column_names if name != "joint"}
    return Points(
        columns["frame_index"][:, 0], columns["seconds"][:, 0], columns["subject_id"][:, 0],
        np.stack([columns[name] for name in "xyz"], -1).astype(float), columns["uncertainty"].astype(float),
        columns["error_px"].astype(float), columns["views"].astype(int),
    )  # fmt: skip
