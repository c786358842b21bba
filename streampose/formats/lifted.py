"""3D poses lifted from 2D joints, and how sure they are, as a Parquet table: one row for each frame, subject and joint.

| column | type | meaning |
|---|---|---|
| `frame_index`, `pts_seconds`, `track_id`, `joint` | | as in `formats/parquet.py` |
| `x`, `y`, `z` | float32 | metres from the root joint: right, down and forward of the camera; null where not lifted |
| `xx`, `xy`, `xz`, `yy`, `yz`, `zz` | float32 | covariance in square metres, see below |
| `confidence` | float32 | probability that the true joint is within 150 mm; 0 where not lifted |
| `pixels_per_metre`, `root_x`, `root_y` | float32 | where the pose is seen in the picture, in source pixels |

Calibrated: 9 times in 10 the true joint is inside the ellipsoid d^T C^-1 d <= 6.251 about its stated place.
Metres are those of a subject as large as the prior's: one camera does not tell how large somebody is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streampose.config import skeleton_from_dict, skeleton_to_dict
from streampose.errors import StreamposeError
from streampose.files import whole_file
from streampose.formats.parquet import write_joints
from streampose.structures import Skeleton

ROWS_PER_GROUP = 1 << 17
AXES = ("x", "y", "z")
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
VALUES = (
    *AXES, *(AXES[i] + AXES[j] for i, j in PAIRS), "confidence", "pixels_per_metre", "root_x", "root_y",
)  # fmt: skip


class Poses(Protocol):
    """The part of `runtime.lifter.Lifted` that is written, of N subjects."""

    @property
    def pose(self) -> np.ndarray:
        """(N, K, 3) metres."""

    @property
    def covariance(self) -> np.ndarray:
        """(N, K, 3, 3)."""

    @property
    def confidence(self) -> np.ndarray:
        """(N, K)."""

    @property
    def placement(self) -> np.ndarray:
        """(N, 3)."""


@contextmanager
def open_lifted(path: Path, skeleton: Skeleton, *, source: str) -> Iterator[LiftedWriter]:
    """Begin one video's table; it appears under its name when the `with` block ends without an error."""
    schema = pa.schema(
        [
            ("frame_index", pa.int64()), ("pts_seconds", pa.float64()), ("track_id", pa.int32()),
            ("joint", pa.dictionary(pa.int16(), pa.string())), *((name, pa.float32()) for name in VALUES),
        ],
        metadata={"streampose.source": source, "streampose.skeleton": json.dumps(skeleton_to_dict(skeleton))},
    )  # fmt: skip
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as file:
        writer = LiftedWriter(file, skeleton)
        yield writer
        writer.flush()


class LiftedWriter:
    """Writes one video's 3D poses; `open_lifted` makes it."""

    def __init__(self, file: pq.ParquetWriter, skeleton: Skeleton):
        self._file = file
        self._joints = pa.array(list(skeleton.joints), pa.string())
        self._frames: list[tuple[int, float, int]] = []
        self._values: list[np.ndarray] = []

    def write(self, frame_index: int, pts_seconds: float, lifted: Poses, track_ids: Sequence[int]) -> None:
        """Add a frame's N subjects; a frame without subjects leaves no row."""
        N, K, _ = lifted.pose.shape
        upper = np.stack([lifted.covariance[..., i, j] for i, j in PAIRS], -1)
        place = np.broadcast_to(lifted.placement[:, None], (N, K, 3))
        values = np.concatenate([lifted.pose, upper, lifted.confidence[..., None], place], -1)
        self._frames += [(frame_index, pts_seconds, track_id) for track_id in track_ids]
        self._values += list(values.astype(np.float32))
        if len(self._frames) * K >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that have come since the last group."""
        if not self._frames:
            return
        write_joints(self._file, self._joints, self._frames, self._values)
        self._frames, self._values = [], []


@dataclass(frozen=True)
class LiftedTable:
    """A table of lifted poses, one row for each frame and subject.

    Attributes:
        source: the video's name.
        frame_index, pts_seconds, track_id: (R,).
        pose: (R, K, 3); covariance: (R, K, 3, 3); confidence: (R, K); placement: (R, 3); NaN where not lifted.
    """

    source: str
    skeleton: Skeleton
    frame_index: np.ndarray
    pts_seconds: np.ndarray
    track_id: np.ndarray
    pose: np.ndarray
    covariance: np.ndarray
    confidence: np.ndarray
    placement: np.ndarray


def read_lifted(path: str | Path) -> LiftedTable:
    """Read what `LiftedWriter` wrote.

    Raises:
        StreamposeError: no such file, or not a table of lifted poses.
    """
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        skeleton = skeleton_from_dict(json.loads(metadata[b"streampose.skeleton"]))
        K = skeleton.num_joints
        columns = {name: table[name].to_numpy().reshape(-1, K) for name in table.column_names if name != "joint"}
        covariance = np.empty((*columns["x"].shape, 3, 3), np.float32)
        for i, j in PAIRS:
            covariance[..., i, j] = covariance[..., j, i] = columns[AXES[i] + AXES[j]]
        return LiftedTable(
            source=metadata[b"streampose.source"].decode(),
            skeleton=skeleton,
            frame_index=columns["frame_index"][:, 0],
            pts_seconds=columns["pts_seconds"][:, 0],
            track_id=columns["track_id"][:, 0],
            pose=np.stack([columns[axis] for axis in AXES], -1),
            covariance=covariance,
            confidence=columns["confidence"],
            placement=np.stack([columns[name][:, 0] for name in VALUES[-3:]], -1),
        )
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        message = " ".join(str(error).split())[:120]
        raise StreamposeError(f"{path}: not a table of lifted poses ({message})") from None
