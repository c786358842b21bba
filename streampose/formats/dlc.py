"""Keypoints in DeepLabCut's csv: three header rows (scorer, bodyparts, coords), or four with individuals."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import StreamposeError

COORDS = ("x", "y", "likelihood")


@dataclass(frozen=True)
class DlcTable:
    """One video's keypoints as DeepLabCut, Lightning Pose and their like write them.

    Attributes:
        joints: K names of body parts.
        individuals: N names; one empty name for a project with a single animal.
        frame_index: (T,) the rows' numbers; of labelled images, which have names instead, 0, 1, 2...
        xy: (T, N, K, 2) pixels, NaN where missing.
        likelihood: (T, N, K) in [0, 1]; 1 where the file has none (labels), NaN with the point.
    """

    joints: tuple[str, ...]
    individuals: tuple[str, ...]
    frame_index: np.ndarray
    xy: np.ndarray
    likelihood: np.ndarray


def read_dlc_csv(path: Path | str) -> DlcTable:
    """Read a DLC-style csv of predictions (x, y, likelihood) or labels (x, y).

    Raises:
        StreamposeError: no such file, other header rows, or a value that is no number.
    """
    path = Path(path)
    header, rows = read_rows(path)
    if "bodyparts" not in header or "coords" not in header:
        raise StreamposeError(f"{path}: not a DeepLabCut csv; its first rows begin with scorer, bodyparts and coords")
    coords = header["coords"]
    columns = [n for n, coord in enumerate(coords) if coord in COORDS]  # those before are the rows' names
    bodyparts, owners = header["bodyparts"], header.get("individuals", [""] * len(coords))
    if len({len(header[name]) for name in header if name != "scorer"}) > 1 or not {"x", "y"} <= set(coords):
        raise StreamposeError(f"{path}: header rows of different lengths, or without x and y")
    joints = tuple(dict.fromkeys(bodyparts[n] for n in columns))
    individuals = tuple(dict.fromkeys(owners[n] for n in columns))
    values = np.full((len(rows), len(individuals), len(joints), 3), np.nan)
    frame_index = np.arange(len(rows))
    for t, row in enumerate(rows):
        if len(row) != len(coords):
            raise StreamposeError(
                f"{path}: row {t} has {len(row)} values, the header {len(coords)}; the file is cut off?"
            )
        if row[0].isdigit():
            frame_index[t] = int(row[0])
        for n in columns:
            try:
                number = float(row[n] or "nan")
            except ValueError:
                raise StreamposeError(f"{path}: row {t}: {row[n]!r} is not a number") from None
            values[t, individuals.index(owners[n]), joints.index(bodyparts[n]), COORDS.index(coords[n])] = number
    xy = values[..., :2]
    likelihood = values[..., 2] if "likelihood" in coords else np.ones(xy.shape[:-1])
    missing = ~np.isfinite(xy).all(-1)
    return DlcTable(
        joints,
        individuals,
        frame_index,
        np.where(missing[..., None], np.nan, xy),
        np.where(missing, np.nan, likelihood),
    )


def read_rows(path: Path) -> tuple[dict[str, list[str]], list[list[str]]]:
    """The header rows of a table of DeepLabCut by what they begin with, and the others.

    Raises:
        StreamposeError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StreamposeError(f"{path}: cannot be read ({error})") from None
    header: dict[str, list[str]] = {}
    while rows and rows[0][0] in ("scorer", "individuals", "bodyparts", "coords"):
        row = rows.pop(0)
        header[row[0]] = row
    return header, rows
