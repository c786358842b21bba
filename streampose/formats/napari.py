"""Points for napari: one csv of a stack of pictures, as its points layer saves and opens it, with names in columns.

    index,axis-0,axis-1,axis-2,joint,visibility,image

axis-0 is the number of the picture in the stack, axis-1 is y, axis-2 is x; pixel centres are integers. napari keeps the
columns after the axes as the points' properties where the csv is opened by `napari points.csv pictures/`. A csv that
was saved without them still has the order of the points; what was deleted or added then cannot be told, and is refused.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import write_text
from streampose.formats.annotations import Annotations, make_annotations

COLUMNS = ("index", "axis-0", "axis-1", "axis-2", "joint", "visibility", "image", "subject", "who", "video", "frame")


def read_napari(path: Path | str) -> Annotations:
    """Read the csv of a points layer with the columns above.

    Raises:
        StreamposeError: not such a csv, or it has no names of joints.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        subjects: dict[tuple[str, ...], dict[str, tuple[float, float, int]]] = {}
        joints: dict[str, int] = {}
        for row in rows:
            key = (
                row["image"],
                row.get("subject") or "",
                row.get("who") or "",
                row.get("video") or "",
                row.get("frame") or "-1",
            )
            joints.setdefault(row["joint"], len(joints))
            place = float(row["axis-2"]), float(row["axis-1"]), int(float(row.get("visibility") or 2))
            subjects.setdefault(key, {})[row["joint"]] = place
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise StreamposeError(
            f"{path}: not the points of a package ({type(error).__name__}: {error}); columns are {', '.join(COLUMNS)}"
        ) from None
    xy, seen = np.full((len(subjects), len(joints), 2), np.nan), np.zeros((len(subjects), len(joints)), int)
    for r, points in enumerate(subjects.values()):
        for name, (x, y, v) in points.items():
            xy[r, joints[name]], seen[r, joints[name]] = (x, y), v
    xy[seen == 0] = np.nan
    image, _, who, video, frame = zip(*subjects, strict=True) if subjects else ((), (), (), (), ())
    return make_annotations(
        list(joints), xy, seen, image=image, who=who, video=video, frame_index=[int(n) for n in frame]
    )


def write_napari(path: Path | str, annotations: Annotations, who: str = "") -> Path:
    """Write the csv of a points layer; pictures are numbered in the order of their names, as napari stacks them."""
    names = sorted(set(annotations.image.tolist()))
    rows: list[list[object]] = []
    for r in range(len(annotations)):
        image = str(annotations.image[r])
        by = who or str(annotations.who[r])
        for k, joint in enumerate(annotations.joints):
            seen = int(annotations.visibility[r, k])
            if seen:
                x, y = (repr(round(float(v), 5)) for v in annotations.xy[r, k])
                video, frame = str(annotations.video[r]), int(annotations.frame_index[r])
                rows.append([len(rows), names.index(image), y, x, joint, seen, image, r, by, video, frame])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(Path(path), text.getvalue())
    return Path(path)
