"""Marker files of OpenSim and Pose2Sim (.trc): text, one row a frame, tabs between values, y up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import whole_file


def write_trc(
    path: Path, joints: Sequence[str], rate: float, num_frames: int, rows: Iterable[tuple[float, np.ndarray]]
) -> None:
    """Write one subject's joints as markers; rows are taken as they come, so that long files need no memory.

    Args:
        joints: K names.
        rate: frames a second.
        num_frames: how many rows there will be.
        rows: times in seconds and (K, 3) metres; NaN is written as an empty cell, which OpenSim reads as missing.

    Raises:
        ValueError: another number of rows.
    """
    K = len(joints)
    head = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate:g}\t{rate:g}\t{num_frames}\t{K}\tm\t{rate:g}\t1\t{num_frames}",
        "Frame#\tTime\t" + "\t\t\t".join(joints) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{k}" for k in range(1, K + 1) for axis in "XYZ"),
        "",
    ]
    written = 0
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(head) + "\n")
        for written, (seconds, points) in enumerate(rows, 1):
            cells = [f"{value:.6f}" if np.isfinite(value) else "" for value in np.ravel(points)]
            file.write(f"{written}\t{seconds:.6f}\t" + "\t".join(cells) + "\n")
        if written != num_frames:
            raise ValueError(f"{path}: {written} rows, but {num_frames} were announced")


def read_trc(path: Path) -> tuple[tuple[str, ...], float, np.ndarray, np.ndarray]:
    """Read a marker file.

    Returns:
        names of K markers, frames a second, times (T,) in seconds, and (T, K, 3) metres, NaN where missing.

    Raises:
        StreamposeError: no such file, or not one of markers.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        values = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
        rate, metres = float(values["DataRate"]), {"m": 1.0, "mm": 0.001}[values["Units"].strip()]
        joints = tuple(name for name in lines[3].rstrip().split("\t")[2:] if name)
        rows = [line.rstrip("\r").split("\t") for line in lines[5:] if line.strip()]
        cells = [[float(cell) if cell.strip() else np.nan for cell in row[1 : 2 + 3 * len(joints)]] for row in rows]
        table = np.array(cells, float).reshape(len(rows), 1 + 3 * len(joints))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StreamposeError(f"{path}: not a .trc file of markers ({type(error).__name__}: {error})") from None
    return joints, rate, table[:, 0], table[:, 1:].reshape(len(rows), len(joints), 3) * metres
