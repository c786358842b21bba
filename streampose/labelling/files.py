"""Which file is of which labelling tool, and one way to read and write them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from streampose.errors import ConfigError
from streampose.formats.annotations import Annotations, join_annotations
from streampose.formats.coco_labels import read_coco_labels, write_coco_labels
from streampose.formats.cvat import read_cvat, write_cvat
from streampose.formats.dlc_labels import TABLE, read_dlc_labels, write_dlc_labels, write_lightning_pose
from streampose.formats.label_studio import read_label_studio, write_label_studio
from streampose.formats.napari import read_napari, write_napari
from streampose.formats.sleap import read_sleap, write_sleap


class Format(NamedTuple):
    """A tool's files.

    Attributes:
        read, write: the functions of `formats/`.
        shows: what its labels are placed on: frames of the videos, or pictures of the crops that a package brings.
        name: of the file in a folder; empty for tools whose folder is the file.
        each: whether a file holds the labels of one annotator.
    """

    read: Callable[[Path], Annotations]
    write: Callable[..., Path]
    shows: Literal["frames", "pictures"]
    name: str
    each: bool


OURS = ("package.json", "cvat_labels.json", "label_config.xml")  # beside labels in packages, and none themselves
FORMATS: dict[str, Format] = {
    "coco": Format(read_coco_labels, write_coco_labels, "frames", "labels.json", False),
    "dlc": Format(read_dlc_labels, write_dlc_labels, "frames", "", True),
    "lightning-pose": Format(read_dlc_labels, write_lightning_pose, "frames", "", True),
    "sleap": Format(read_sleap, write_sleap, "frames", "labels.slp", True),
    "label-studio": Format(read_label_studio, write_label_studio, "pictures", "tasks.json", False),
    "cvat": Format(read_cvat, write_cvat, "pictures", "annotations.xml", True),
    "napari": Format(read_napari, write_napari, "pictures", "points.csv", False),
}


def read_any(path: Path, kind: str = "auto") -> Annotations:
    """Read a tool's labels.

    Args:
        path: a file, a DeepLabCut project, or a folder of files of one tool.
        kind: one of FORMATS; `auto` looks at the file.

    Raises:
        ConfigError: no such file or tool, or a file that does not say whose it is.
        StreamposeError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    if kind != "auto" and kind not in FORMATS:
        raise ConfigError(f"--format {kind}: unknown; choose auto, {', '.join(FORMATS)}")
    if path.is_dir() and not any(path.rglob(f"{TABLE}*")):
        kinds = (".json", ".xml", ".slp", ".csv")
        files = [file for file in sorted(path.rglob("*")) if file.suffix in kinds and file.name not in OURS]
        if not files:
            raise ConfigError(f"{path}: no labels in it; name the file that the labelling tool exported")
        return join_annotations([read_any(file, kind) for file in files])
    return FORMATS[guess_format(path) if kind == "auto" else kind].read(path)


def guess_format(path: Path) -> str:
    """Which tool's file it is.

    Raises:
        ConfigError: that cannot be told.
    """
    if path.is_dir() or path.suffix in (".h5", ".hdf5"):
        return "dlc"
    if path.suffix == ".slp":
        return "sleap"
    if path.suffix == ".xml":
        return "cvat"
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "napari" if "axis-1" in file.readline() else "dlc"
    if path.suffix == ".json":
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not JSON ({error})") from None
        return "coco" if isinstance(content, dict) and "categories" in content else "label-studio"
    raise ConfigError(f"{path}: cannot tell whose labels these are; give --format, one of {', '.join(FORMATS)}")


def write_any(folder: Path, kind: str, annotations: Annotations, **more: Any) -> list[Path]:
    """Write labels for a tool into a folder, a file an annotator where its files know only one; the files' paths."""
    chosen = FORMATS[kind]
    if not chosen.each or more.get("predicted"):
        return [chosen.write(folder / chosen.name, annotations, **more)]
    written = []
    people = list(dict.fromkeys(annotations.who.tolist())) or [""]
    for who in people:
        rows = annotations.pick([r for r, name in enumerate(annotations.who) if name == who])
        name = Path(chosen.name)
        if chosen.name and len(people) > 1:
            name = name.with_stem(f"{name.stem}-{_safe(who)}")
        written.append(chosen.write(folder / name, rows, who=who, **more))
    return list(dict.fromkeys(written))


def _safe(who: str) -> str:
    return "".join(c if c.isalnum() or c in "._@-" else "-" for c in who) or "nobody"
