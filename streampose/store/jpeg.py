"""Crops as JPEG pictures in a Zarr v3 shard: a fifth of the bytes, and no difference that can be seen.

Files and metadata are those of any sharded array, with `jpeg` as the codec of the inner chunks. Tensorstore does not
know that codec, so the shard is written and read here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from streampose.store.schema import CODECS

ENCODING = [
    cv2.IMWRITE_JPEG_QUALITY, CODECS["jpeg"][0]["configuration"]["quality"],
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip


def write_pictures(folder: Path, frames: np.ndarray) -> None:
    """Write frames (T, S, S, 3) uint8 RGB as one Zarr v3 array in one shard; the folder must not exist."""
    pictures = [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), ENCODING)[1] for frame in frames]
    lengths = np.array([len(picture) for picture in pictures], "<u8")
    index = np.stack([np.cumsum(lengths) - lengths, lengths], 1)
    shard = folder / "c" / "0" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"".join([*(picture.tobytes() for picture in pictures), index.astype("<u8").tobytes()]))
    sharding = {
        "chunk_shape": [1, *frames.shape[1:]],
        "codecs": CODECS["jpeg"],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "index_location": "end",
    }
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": frames.shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": frames.shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "fill_value": 0,
    }
    (folder / "zarr.json").write_text(json.dumps(metadata), encoding="utf-8")


class Pictures:
    """Reads what `write_pictures` wrote.

    Args:
        count: frames that the array holds.

    Raises:
        OSError, ValueError: missing or damaged; also later.
    """

    def __init__(self, folder: Path, count: int):
        self._shard = folder / "c" / "0" / "0" / "0" / "0"
        size = os.path.getsize(self._shard)
        with self._shard.open("rb") as file:
            file.seek(max(0, size - 16 * count))
            index = np.frombuffer(file.read(), "<u8")
        if len(index) != 2 * count or int(index.reshape(-1, 2).sum(1).max(initial=0)) > size - 16 * count:
            raise ValueError(f"{self._shard.name}: its index does not fit")
        self._index = index.reshape(-1, 2)

    def read(self, position: int) -> np.ndarray:
        """One frame: (S, S, 3) uint8 RGB."""
        start, length = (int(value) for value in self._index[position])
        with self._shard.open("rb", buffering=0) as file:
            file.seek(start)
            picture = cv2.imdecode(np.frombuffer(file.read(length), np.uint8), cv2.IMREAD_COLOR_RGB)
        if picture is None:
            raise ValueError(f"picture {position} cannot be decoded")
        return picture


def read_pictures(wanted: Sequence[tuple[Pictures, int, int]], out: np.ndarray) -> None:
    """Read (array, position, row) into the rows of `out` (N, S, S, 3)."""
    for pictures, position, row in wanted:
        out[row] = pictures.read(position)
