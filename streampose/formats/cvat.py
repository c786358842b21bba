"""Labels of CVAT: `CVAT for images 1.1` XML, skeletons or plain points; `CVAT for video 1.1` is read too.

CVAT counts from the picture's corner, so that the centre of its first pixel is 0.5. `occluded` is hidden, `outside`
not placed. The file knows no annotator of a shape; its task's owner stands for all of it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import write_text
from streampose.formats.annotations import Annotations, make_annotations

HALF = 0.5


def read_cvat(path: Path | str) -> Annotations:
    """Read an annotations.xml.

    Raises:
        StreamposeError: not one of CVAT's, or it is not plain (entities are refused).
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text or b"<!DOCTYPE" in text:
            raise ValueError("it defines entities")
        root = ET.fromstring(text)
        if root.tag != "annotations":
            raise ValueError(f"its root is <{root.tag}>")
        joints = {name: k for k, name in enumerate(_declared(root))}
        who = root.findtext("./meta/task/owner/username") or root.findtext("./meta/job/assignee/username") or ""
        rows = [
            {"image": str(image.get("name", "")), "size": (_int(image, "width"), _int(image, "height")), **row}
            for image in root.iter("image")
            for row in _subjects(image, joints)
        ]
        rows += _from_tracks(root, joints)
        xy, seen = np.full((len(rows), len(joints), 2), np.nan), np.zeros((len(rows), len(joints)), int)
        for r, row in enumerate(rows):
            for name, (x, y, v) in row["points"].items():
                if v:
                    xy[r, joints[name]], seen[r, joints[name]] = (x - HALF, y - HALF), v
        placed = [r for r in range(len(rows)) if seen[r].any()]
        return make_annotations(
            list(joints), xy[placed], seen[placed], image=[rows[r]["image"] for r in placed],
            video=[rows[r].get("video", "") for r in placed],
            frame_index=[rows[r].get("frame", -1) for r in placed],
            size=np.array([rows[r]["size"] for r in placed]).reshape(-1, 2), who=[who] * len(placed),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError, TypeError, ET.ParseError) as error:
        raise StreamposeError(f"{path}: not annotations of CVAT ({type(error).__name__}: {error})") from None


def write_cvat(path: Path | str, annotations: Annotations, who: str = "", label: str = "subject") -> Path:
    """Write an annotations.xml of the kind `CVAT for images 1.1`, with one skeleton a subject.

    Raises:
        StreamposeError: the picture of a subject has no name.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    if who:
        ET.SubElement(ET.SubElement(task, "owner"), "username").text = who
    labels = ET.SubElement(task, "labels")
    _declare(labels, label, "skeleton")
    for joint in annotations.joints:
        _declare(labels, joint, "points", label)
    images: dict[str, ET.Element] = {}
    for r in range(len(annotations)):
        name = str(annotations.image[r])
        if not name:
            raise StreamposeError(f"{path}: CVAT names pictures, and that of {annotations.video[r]} has no name")
        if name not in images:
            width, height = (str(int(v)) for v in annotations.size[r])
            images[name] = ET.SubElement(root, "image", id=str(len(images)), name=name, width=width, height=height)
        skeleton = ET.SubElement(images[name], "skeleton", label=label, source="manual", occluded="0", z_order="0")
        for k, joint in enumerate(annotations.joints):
            seen = annotations.visibility[r, k]
            x, y = np.nan_to_num(annotations.xy[r, k] + HALF).tolist()
            ET.SubElement(
                skeleton, "points", label=joint, source="manual", outside=str(int(seen == 0)),
                occluded=str(int(seen == 1)), points=f"{x:.4f},{y:.4f}",
            )  # fmt: skip
    ET.indent(root)
    write_text(Path(path), ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n")
    return Path(path)


def _declare(labels: ET.Element, name: str, kind: str, parent: str = "") -> None:
    label = ET.SubElement(labels, "label")
    for tag, text in (("name", name), ("type", kind), ("attributes", ""), *((("parent", parent),) if parent else ())):
        ET.SubElement(label, tag).text = text


def _declared(root: ET.Element) -> list[str]:
    """Names of the joints, in the order of the project's labels."""
    labels = list(root.iter("label"))
    joints = [
        label.findtext("name") or "" for label in labels if label.findtext("type") in ("points", None) and len(label)
    ]
    return list(dict.fromkeys(name for name in joints if name))


def _subjects(parent: ET.Element, joints: dict[str, int]) -> list[dict[str, Any]]:
    """The points of each skeleton in a picture, and of all loose points by their group."""
    rows = []
    loose: dict[str, dict[str, tuple[float, float, int]]] = {}
    for shape in parent:
        if shape.tag == "skeleton":
            points = dict(_point(one, joints) for one in shape.findall("points"))
            if points:
                rows.append({"points": points})
        elif shape.tag == "points" and ";" not in shape.get("points", ";"):
            name, value = _point(shape, joints)
            loose.setdefault(shape.get("group_id", ""), {})[name] = value
    return rows + [{"points": points} for points in loose.values()]


def _point(shape: ET.Element, joints: dict[str, int]) -> tuple[str, tuple[float, float, int]]:
    name = shape.attrib["label"]
    joints.setdefault(name, len(joints))
    x, y = (float(v) for v in shape.attrib["points"].split(","))
    return name, (x, y, 0 if shape.get("outside") == "1" else 1 if shape.get("occluded") == "1" else 2)


def _from_tracks(root: ET.Element, joints: dict[str, int]) -> list[dict[str, Any]]:
    """Keyframes of the skeleton tracks of `CVAT for video`; what CVAT put between them is no label."""
    video = root.findtext("./meta/task/source") or root.findtext("./meta/source") or ""
    size = root.find("./meta/task/original_size")
    sides = (0, 0) if size is None else (int(size.findtext("width") or 0), int(size.findtext("height") or 0))
    rows = []
    for track in root.iter("track"):
        for shape in track.findall("skeleton"):
            points = dict(_point(one, joints) for one in shape.findall("points"))
            if shape.get("keyframe") == "1" and shape.get("outside") != "1" and points:
                rows.append(
                    {"image": "", "video": video, "frame": _int(shape, "frame"), "size": sides, "points": points}
                )
    return rows


def _int(element: ET.Element, name: str) -> int:
    return int(element.get(name) or 0)
