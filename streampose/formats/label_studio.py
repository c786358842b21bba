"""Labels of Label Studio: the JSON that it exports, and tasks that it imports, with the configuration of a project.

Places are percent of the picture, from edge to edge. Hidden joints carry the choice `hidden`, which is made for each
point (`perRegion`). Annotations count, predictions do not: they are what a person was shown to correct. A picture with
several subjects has one rectangle for each, and every point's `parentID` is its rectangle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from streampose.errors import StreamposeError
from streampose.files import write_text
from streampose.formats.annotations import Annotations, make_annotations

HIDDEN = "hidden"
SERVED = "/data/local-files/?d="  # how Label Studio names files of its own machine


def read_label_studio(path: Path | str) -> Annotations:
    """Read an export of the kind `JSON`.

    Raises:
        StreamposeError: not such an export.
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    joints: dict[str, int] = {}
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
        for task in tasks if isinstance(tasks, list) else [tasks]:
            data = task["data"]
            image = str(data.get("image") or next(iter(data.values()))).removeprefix(SERVED)
            for annotation in task.get("annotations", task.get("completions", ())):
                if annotation.get("was_cancelled"):
                    continue
                for joint in data.get("joints", ()):
                    joints.setdefault(str(joint), len(joints))
                for points, size in _subjects(annotation["result"], joints):
                    row: dict[str, Any] = {"image": image, "points": points, "size": size, "who": _who(annotation)}
                    row |= {key: data.get(key) for key in ("video", "frame_index", "pts_seconds")}
                    rows.append(row)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise StreamposeError(
            f"{path}: not a JSON export of Label Studio ({type(error).__name__}: {error}); export it as JSON"
        ) from None
    xy = np.full((len(rows), len(joints), 2), np.nan)
    seen = np.zeros((len(rows), len(joints)), int)
    for r, row in enumerate(rows):
        for name, (x, y, hidden) in row["points"].items():
            xy[r, joints[name]], seen[r, joints[name]] = (x, y), 1 if hidden else 2
    return make_annotations(
        list(joints), xy, seen, image=[row["image"] for row in rows], video=[str(row["video"] or "") for row in rows],
        frame_index=[-1 if row["frame_index"] is None else int(row["frame_index"]) for row in rows],
        pts_seconds=[np.nan if row["pts_seconds"] is None else float(row["pts_seconds"]) for row in rows],
        size=np.array([row["size"] for row in rows]).reshape(-1, 2), who=[row["who"] for row in rows],
    )  # fmt: skip


def write_label_studio(path: Path | str, annotations: Annotations, who: str = "", predicted: bool = False) -> Path:
    """Write tasks to import, and `label_config.xml` beside them: the project's labelling interface.

    Args:
        predicted: they are a model's: shown to be corrected, and no labels until somebody submits them.

    Raises:
        StreamposeError: the size of a picture is not known.
    """
    path = Path(path)
    tasks: dict[tuple[str, str, int], dict[str, Any]] = {}
    for r in range(len(annotations)):
        width, height = (int(v) for v in annotations.size[r])
        if not width or not height:
            raise StreamposeError(f"{path}: the size of {annotations.image[r] or annotations.video[r]} is not known")
        image, number = str(annotations.image[r]), int(annotations.frame_index[r])
        key = (image, str(annotations.video[r]), number)
        data: dict[str, Any] = {"image": image, "joints": list(annotations.joints)}
        if annotations.video[r]:
            data["video"] = str(annotations.video[r])
        if number >= 0:
            data["frame_index"] = number
        if np.isfinite(annotations.pts_seconds[r]):
            data["pts_seconds"] = float(annotations.pts_seconds[r])
        task = tasks.setdefault(key, {"id": len(tasks) + 1, "data": data, "annotations": [], "predictions": []})
        result = _result(annotations, r, width, height)
        if predicted:
            score = np.nan_to_num(annotations.confidence[r])
            task["predictions"].append({"model_version": "streampose", "score": float(score.mean()), "result": result})
        else:
            name = who or str(annotations.who[r])
            same = [one for one in task["annotations"] if one.get("completed_by", {}).get("email", "") == name]
            if same:  # another subject in the same picture
                same[0]["result"] += result
            else:
                by = {"completed_by": {"email": name}} if name else {}
                task["annotations"].append({**by, "result": result})
    write_text(path, json.dumps(list(tasks.values()), indent=1))
    write_text(path.with_name("label_config.xml"), label_config(annotations.joints))
    return path


def label_config(joints: tuple[str, ...]) -> str:
    """The labelling interface of a project: a point a joint, and whether it is hidden."""
    labels = "\n".join(f"    <Label value={quoteattr(joint)}/>" for joint in joints)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <KeyPointLabels name="joints" toName="image" strokeWidth="3">\n{labels}\n  </KeyPointLabels>\n'
        '  <RectangleLabels name="subject" toName="image">\n    <Label value="subject"/>\n  </RectangleLabels>\n'
        '  <Choices name="visibility" toName="image" perRegion="true" choice="single">\n'
        f'    <Choice value="{HIDDEN}"/>\n  </Choices>\n</View>\n'
    )


def _result(annotations: Annotations, r: int, width: int, height: int) -> list[dict[str, Any]]:
    """A subject's rectangle, its points and which of them are hidden."""
    common = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": "image"}
    subject, result = f"subject{r}", []
    box = annotations.boxes[r]
    if np.isfinite(box).all():
        x0, y0, x1, y1 = (float(v) for v in box)
        value = {
            "x": 100 * x0 / width, "y": 100 * y0 / height, "width": 100 * (x1 - x0) / width,
            "height": 100 * (y1 - y0) / height, "rotation": 0, "rectanglelabels": ["subject"],
        }  # fmt: skip
        result.append({**common, "id": subject, "type": "rectanglelabels", "from_name": "subject", "value": value})
    for k, joint in enumerate(annotations.joints):
        if not annotations.visibility[r, k]:
            continue
        x, y = ((annotations.xy[r, k] + 0.5) * 100 / (width, height)).tolist()
        value = {"x": x, "y": y, "width": 0.8, "keypointlabels": [joint]}
        point = {
            **common, "id": f"{subject}-{k}", "type": "keypointlabels", "from_name": "joints", "value": value,
            "parentID": subject,
        }  # fmt: skip
        if np.isfinite(annotations.confidence[r, k]):
            point["score"] = float(annotations.confidence[r, k])
        result.append(point)
        if annotations.visibility[r, k] == 1:
            place = {"x": x, "y": y, "width": 0.8, "choices": [HIDDEN]}
            result.append(
                {**common, "id": f"{subject}-{k}", "type": "choices", "from_name": "visibility", "value": place}
            )
    return result


def _subjects(
    result: list[dict[str, Any]], joints: dict[str, int]
) -> list[tuple[dict[str, tuple[float, float, bool]], tuple[int, int]]]:
    """The points of each subject of an annotation and the picture's size; new names are added to `joints`."""
    hidden = {one["id"] for one in result if one.get("type") == "choices" and HIDDEN in one["value"]["choices"]}
    subjects: dict[str, dict[str, tuple[float, float, bool]]] = {}
    size = (0, 0)
    for one in result:
        names = one.get("value", {}).get("keypointlabels")
        if not names:
            continue
        size = int(one["original_width"]), int(one["original_height"])
        name, value = str(names[0]), one["value"]
        joints.setdefault(name, len(joints))
        x, y = (float(value[axis]) / 100 * side - 0.5 for axis, side in zip("xy", size, strict=True))
        subjects.setdefault(str(one.get("parentID") or ""), {})[name] = (x, y, one.get("id") in hidden)
    return [(points, size) for points in subjects.values()]


def _who(annotation: dict[str, Any]) -> str:
    by = annotation.get("completed_by", "")
    return str(by.get("email") or by.get("id", "")) if isinstance(by, dict) else str(by)
