"""Labels of DeepLabCut and Lightning Pose: `CollectedData_<who>.csv` (or .h5) beside the frames that were labelled.

    <project>/labeled-data/<video>/CollectedData_<who>.csv   and .h5      DeepLabCut
    <folder>/CollectedData_<who>.csv                                       Lightning Pose: all videos in one table
    .../labeled-data/<video>/img000123.png                                 a row's name; the number is the frame's

Both have a place or none, no visibility: `CollectedData_<who>.visibility.csv` beside the table keeps it, one row a row,
one column a joint; other tools do not look at it. Lightning Pose knows one subject a frame.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import whole_file, write_text
from streampose.formats.annotations import Annotations, join_annotations, make_annotations
from streampose.formats.dlc import read_rows

TABLE = "CollectedData_"
PREFIX = "subject"  # of individuals that we name


def read_dlc_labels(path: Path | str) -> Annotations:
    """Read a DeepLabCut project folder, a folder of labelled frames, or one table (csv, h5).

    Raises:
        StreamposeError: there is no table, or it is not one of labels.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_table(path)
    found = {file.with_suffix(""): file for file in sorted(path.rglob(f"{TABLE}*.h5"))}
    found |= {
        file.with_suffix(""): file for file in sorted(path.rglob(f"{TABLE}*.csv")) if ".visibility" not in file.name
    }
    if not found:
        raise StreamposeError(f"{path}: no {TABLE}*.csv or .h5 in it; name a DeepLabCut project or such a table")
    return join_annotations([_read_table(found[name]) for name in sorted(found)])


def write_dlc_labels(path: Path | str, annotations: Annotations, who: str = "", h5: bool = True) -> Path:
    """Write the `labeled-data` of a DeepLabCut project, a folder a video, for one annotator.

    Args:
        path: the project's folder.
        h5: write DeepLabCut's own h5 table too, where pandas and pytables are installed.
    """
    folder, who = Path(path), who or _one(annotations.who)
    for video in dict.fromkeys(_stem(row) for row in _videos(annotations)):
        rows = annotations.pick([r for r, name in enumerate(_videos(annotations)) if _stem(name) == video])
        table = folder / "labeled-data" / video / f"{TABLE}{_safe(who)}.csv"
        names = [("labeled-data", video, _picture(rows, r)) for r in range(len(rows))]
        header, body = _write_tables(table, rows, names, who)
        if h5:
            _write_h5(table.with_suffix(".h5"), header, body)
    return folder


def write_lightning_pose(path: Path | str, annotations: Annotations, who: str = "") -> Path:
    """Write the one table of a Lightning Pose project, for one annotator.

    Raises:
        StreamposeError: a frame shows several subjects.
    """
    who = who or _one(annotations.who)
    names = [("labeled-data", _stem(video), _picture(annotations, r)) for r, video in enumerate(_videos(annotations))]
    if len(set(names)) < len(names):
        raise StreamposeError(f"{path}: a frame shows several subjects, Lightning Pose knows one; write dlc or coco")
    table = Path(path) / f"{TABLE}{_safe(who)}.csv"
    _write_tables(table, annotations, ["/".join(name) for name in names], who)
    return Path(path)


def _write_tables(
    table: Path, rows: Annotations, names: Sequence[tuple[str, ...] | str], who: str
) -> tuple[list[list[str]], list[list[str]]]:
    """Write a table and its visibility; rows of one name are the subjects of one frame."""
    order = list(dict.fromkeys(names))
    of = [[r for r, name in enumerate(names) if name == one] for one in order]
    several = max((len(rows_of) for rows_of in of), default=1) > 1
    subjects = [f"{PREFIX}{n + 1}" for n in range(max((len(rows_of) for rows_of in of), default=1))]
    columns = [(subject, joint, coord) for subject in subjects for joint in rows.joints for coord in "xy"]
    index_columns = len(order[0]) if order and isinstance(order[0], tuple) else 1
    blank = [""] * (index_columns - 1)
    header = [["scorer", *blank, *[who or "labels"] * len(columns)]]
    if several:
        header.append(["individuals", *blank, *(subject for subject, _, _ in columns)])
    header += [["bodyparts", *blank, *(joint for _, joint, _ in columns)]]
    header += [["coords", *blank, *(coord for _, _, coord in columns)]]
    body, seen = [], [["frame", *(joint if not several else f"{s}:{joint}" for s in subjects for joint in rows.joints)]]
    for name, rows_of in zip(order, of, strict=True):
        values = np.full((len(subjects), len(rows.joints), 2), np.nan)
        visibility = np.zeros((len(subjects), len(rows.joints)), int)
        values[: len(rows_of)], visibility[: len(rows_of)] = rows.xy[rows_of], rows.visibility[rows_of]
        text = ["" if np.isnan(v) else repr(round(float(v), 5)) for v in values.ravel()]
        body.append([*(name if isinstance(name, tuple) else (name,)), *text])
        seen.append(["/".join(name) if isinstance(name, tuple) else name, *map(str, visibility.ravel().tolist())])
    write_text(table, _csv([*header, *body]))
    write_text(table.with_suffix(".visibility.csv"), _csv(seen))
    return header, body


def _read_table(path: Path) -> Annotations:
    header, body = _read_h5(path) if path.suffix in (".h5", ".hdf5") else read_rows(path)
    if "bodyparts" not in header or "coords" not in header:
        raise StreamposeError(f"{path}: not a table of labels; its first rows begin with scorer, bodyparts and coords")
    coords, parts = header["coords"], header["bodyparts"]
    owners = header.get("individuals", [""] * len(coords))
    columns = [n for n, coord in enumerate(coords) if coord in ("x", "y")]
    if "likelihood" in coords:
        raise StreamposeError(
            f"{path}: a model's predictions (it has likelihoods), no labels; export what people placed"
        )
    joints = list(dict.fromkeys(parts[n] for n in columns))
    subjects = list(dict.fromkeys(owners[n] for n in columns))
    if not columns or len({len(values) for values in header.values()}) > 1:
        raise StreamposeError(f"{path}: header rows of different lengths, or without x and y")
    xy = np.full((len(body), len(subjects), len(joints), 2), np.nan)
    names = []
    for t, row in enumerate(body):
        if len(row) != len(coords):
            raise StreamposeError(f"{path}: row {t} has {len(row)} values, the header {len(coords)}; it is cut off?")
        names.append("/".join(part for part in row[: columns[0]] if part))
        for n in columns:
            try:
                value = float(row[n] or "nan")
            except ValueError:
                raise StreamposeError(f"{path}: row {t}: {row[n]!r} is not a number") from None
            xy[t, subjects.index(owners[n]), joints.index(parts[n]), "xy".index(coords[n])] = value
    xy[~np.isfinite(xy).all(-1)] = np.nan
    visibility = _read_visibility(path.with_suffix(".visibility.csv"), names, xy.shape[:3])
    rows = [(t, n) for t in range(len(body)) for n in range(len(subjects)) if np.isfinite(xy[t, n]).any()]
    who = header.get("scorer", [""] * len(coords))[columns[0]]
    at, of = (np.array([row[side] for row in rows], int) for side in (0, 1))
    images = [names[i].replace("\\", "/") for i in at.tolist()]
    return make_annotations(
        joints, xy[at, of], visibility[at, of], image=images, video=[_video_of(name) for name in images],
        frame_index=[_number_of(name) for name in images], who=["" if who == "labels" else who] * len(rows),
    )  # fmt: skip


def _read_h5(path: Path) -> tuple[dict[str, list[str]], list[list[str]]]:
    """DeepLabCut's pandas table, as the rows of its csv; without pandas, which would unpickle what is in the file."""
    try:
        import h5py
    except ImportError:
        raise StreamposeError(
            f"{path}: needs h5py; pip install 'streampose[dlc]', or name the .csv beside it"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            group = file[next(iter(file))]
            names, columns = _levels(group, "axis0")
            _, index = _levels(group, "axis1")
            table = np.asarray(group["block0_values"], float)
    except (OSError, ValueError, KeyError, StopIteration, TypeError, AttributeError, IndexError) as error:
        why = " ".join(str(error).split())
        raise StreamposeError(f"{path}: not a table of DeepLabCut ({why}); name the .csv beside it") from None
    if table.shape != (len(index), len(columns)):
        raise StreamposeError(f"{path}: {table.shape[0]} x {table.shape[1]} values, but other names; it is damaged")
    width = max((len(name) for name in index), default=1)
    header = {level: [*[""] * width, *(column[n] for column in columns)] for n, level in enumerate(names)}
    body = [
        [*name, *[""] * (width - len(name)), *("" if np.isnan(v) else repr(float(v)) for v in values)]
        for name, values in zip(index, table, strict=True)
    ]
    return header, body


def _levels(group: Any, axis: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Names of the levels of a pandas axis in its fixed layout, and the label of each row or column."""
    if axis in group:
        return [""], [(_text(value),) for value in group[axis]]
    count = int(group.attrs[f"{axis}_nlevels"])
    levels = [[_text(value) for value in group[f"{axis}_level{n}"]] for n in range(count)]
    codes = [np.asarray(group[f"{axis}_label{n}"], int) for n in range(count)]
    names = [_text(group[f"{axis}_level{n}"].attrs["name"]) for n in range(count)]
    return names, [tuple(levels[n][code] for n, code in enumerate(row)) for row in zip(*codes, strict=True)]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _write_h5(path: Path, header: list[list[str]], body: list[list[str]]) -> None:
    try:
        import pandas as pd
        import tables  # noqa: F401  what pandas writes it by
    except ImportError:
        return
    names = [row[0] for row in header]
    columns = pd.MultiIndex.from_arrays([row[3:] for row in header], names=names)
    index = pd.MultiIndex.from_tuples([tuple(row[:3]) for row in body])
    values = [[float(v or "nan") for v in row[3:]] for row in body]
    with whole_file(path) as partial:
        pd.DataFrame(values, index=index, columns=columns).to_hdf(partial, key="df_with_missing", mode="w")


def _read_visibility(path: Path, names: list[str], shape: tuple[int, ...]) -> np.ndarray:
    """(T, N, K) of the table beside, by the rows' names; 2 where there is none."""
    visibility = np.full(shape, 2)
    if not path.is_file():
        return visibility
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row[0]: row[1:] for row in csv.reader(file) if row}
    for t, name in enumerate(names):
        if len(row := rows.get(name, [])) == visibility[t].size:
            visibility[t] = np.array([int(v) if v.isdigit() else 2 for v in row]).reshape(visibility[t].shape)
    return visibility


def _picture(rows: Annotations, r: int) -> str:
    """Name of a frame's picture, as DeepLabCut names them."""
    number = int(rows.frame_index[r])
    return f"img{number:06d}.png" if number >= 0 else Path(str(rows.image[r])).name


def _videos(annotations: Annotations) -> list[str]:
    return [
        str(video or Path(str(image)).parent.name)
        for video, image in zip(annotations.video, annotations.image, strict=True)
    ]


def _video_of(name: str) -> str:
    """The video of `labeled-data/<video>/img000123.png`; empty where there is no folder."""
    return Path(name).parent.name


def _number_of(name: str) -> int:
    """The number in `img000123.png`, else in a name that ends in one; -1 where there is none."""
    stem = Path(name).stem if not name.isdigit() else name
    found = re.search(r"(\d+)$", stem)
    return int(found.group(1)) if found else -1


def _one(who: np.ndarray) -> str:
    names = sorted(set(who.tolist()))
    return names[0] if len(names) == 1 else ""


def _stem(video: str) -> str:
    return Path(video.replace("\\", "/")).stem


def _safe(who: str) -> str:
    return re.sub(r"[^\w.@-]+", "-", who).strip("-") or "labels"


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
