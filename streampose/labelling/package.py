"""A folder for a labelling tool: pictures of crops, what the model says of them, and what the tool needs to know.

pictures/<clip>__<frame>__<side>.png      each shows one crop; the name says which, so that labels find their way
package.json                              what was chosen, and why
README.txt                                what to do with it
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np

from streampose.console import logger, progress
from streampose.errors import ConfigError, VideoError
from streampose.files import whole_file, write_text
from streampose.formats.annotations import Annotations
from streampose.formats.label_studio import SERVED
from streampose.geometry.crop import crop_resize
from streampose.labelling.files import FORMATS, write_any
from streampose.labelling.match import annotate_pictures, picture_name
from streampose.store.labels import Labels
from streampose.store.reader import StoreReader
from streampose.structures import Skeleton
from streampose.video.decode import open_video

SIDE = 512  # of the pictures in pixels
PICTURES = "pictures"
TOOLS = ("label-studio", "cvat", "sleap", "napari", "coco")

STEPS = {
    "label-studio": """1. Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
   LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to this folder.
2. Make a project with the labelling interface in label_config.xml, add pictures/ as local storage, import tasks.json.
3. Correct each picture and submit it; a joint that is hidden gets the choice `hidden`. Export as JSON.
""",
    "cvat": """1. Make a task with the labels of cvat_labels.json (Raw) and the pictures in pictures/.
2. Upload annotations.xml as `CVAT 1.1`, correct it, export `CVAT for images 1.1` without pictures.
""",
    "sleap": """1. Open labels.slp; its suggestions are the pictures. Double-click a prediction and correct it.
2. Save. Only what you made a label counts.
""",
    "napari": """1. `napari points.csv pictures/*.png --stack`; move the points, save the points layer as csv.
""",
    "coco": """1. Open labels.json and pictures/ with any tool that knows COCO keypoints, correct them, export the same.
""",
}


def write_package(
    folder: Path,
    reader: StoreReader,
    labels: Labels,
    tool: str,
    *,
    side: int = SIDE,
    confidence: np.ndarray | None = None,
    notes: dict | None = None,
) -> dict[str, str]:
    """Write the package of some frames for a tool.

    Args:
        labels: what the pictures show, of people or a model.
        confidence: (N, K) in [0, 1]: the labels are a model's, and count only once a person has confirmed them.
        notes: for package.json.

    Returns:
        Name of each file or folder -> its path.

    Raises:
        ConfigError: unknown tool, or the folder holds something.
    """
    folder = Path(folder)
    if tool not in TOOLS:
        raise ConfigError(f"--for {tool}: unknown; choose {', '.join(TOOLS)}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not empty; name another --out, what people corrected in it would be lost")
    folder.mkdir(parents=True, exist_ok=True)
    frames = list(dict.fromkeys(zip(labels.clip.tolist(), labels.frame.tolist(), strict=True)))
    write_pictures(folder / PICTURES, reader, frames, side)
    annotations = _in_folder(annotate_pictures(reader, labels, side, confidence), tool)
    more = {"predicted": True} if confidence is not None and tool in ("label-studio", "sleap") else {}
    files = {path.name: str(path) for path in write_any(folder, tool, annotations, **more)}
    if tool == "label-studio":
        files["label_config.xml"] = str(folder / "label_config.xml")
    if tool == "cvat":
        write_text(folder / "cvat_labels.json", json.dumps(cvat_labels(reader.skeleton), indent=1))
        files["cvat_labels.json"] = str(folder / "cvat_labels.json")
    about = {
        "tool": tool, "store": reader.name, "side": side, "pictures": [picture_name(c, f, side) for c, f in frames],
        **(notes or {}),
    }  # fmt: skip
    write_text(folder / "package.json", json.dumps(about, indent=1))
    last = f"Then: streampose labels import {FORMATS[tool].name} --store {reader.name} --name NAME\n"
    write_text(folder / "README.txt", f"{len(frames)} pictures to label with {tool}.\n\n{STEPS[tool]}\n{last}")
    return files | {PICTURES: str(folder / PICTURES), "README.txt": str(folder / "README.txt")}


def write_pictures(folder: Path, reader: StoreReader, frames: list[tuple[str, int]], side: int) -> int:
    """Write pictures of crops: cut from the videos where they are still there, else the stored crops enlarged.

    Returns:
        How many are from the videos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = {clip: source for source in reader.sources() for clip in source.get("clips", ())}
    by_source: dict[str, list[tuple[str, int]]] = {}
    for clip, frame in frames:
        by_source.setdefault(sources[clip]["id"], []).append((clip, frame))
    sharp = 0
    with progress("cut pictures", len(frames), "pictures") as bar:
        for wanted in by_source.values():
            fetch = _from_video(reader, str(sources[wanted[0][0]].get("path", "")), wanted)
            for clip, frame in wanted:
                image = None if fetch is None else fetch(int(reader.numbers(clip)[frame]))
                if image is not None:
                    shown = crop_resize(image, reader.boxes(clip)[frame], side)
                    sharp += 1
                else:
                    crop = reader.read(clip, [frame]).frames[0]
                    shown = np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC))
                _write_png(folder / picture_name(clip, frame, side), shown)
                bar.advance(1)
    if sharp < len(frames):
        logger.info(
            "%s: %d of %d pictures are enlarged crops of the store, because their videos are no longer there",
            folder, len(frames) - sharp, len(frames),
        )  # fmt: skip
    return sharp


def _from_video(
    reader: StoreReader, path: str, wanted: list[tuple[str, int]]
) -> Callable[[int], np.ndarray | None] | None:
    """Pictures of a source's frames by number; None where its video cannot be read."""
    for place in (Path(path), Path(reader.name).parent / path):
        if not path or not place.exists():
            continue
        numbers = sorted({int(reader.numbers(clip)[frame]) for clip, frame in wanted})
        try:
            with open_video(place) as video:
                return {frame.index: frame.image for frame in video.read(numbers)}.get
        except VideoError as error:
            logger.warning("%s", error)
    return None


def _in_folder(annotations: Annotations, tool: str) -> Annotations:
    """The same with the pictures' paths as the tool needs them."""
    before = {"label-studio": f"{SERVED}{PICTURES}/", "sleap": f"{PICTURES}/"}.get(tool, "")
    names = np.array([before + name for name in annotations.image.tolist()], str)
    return Annotations(**{**annotations.__dict__, "image": names})


def _write_png(path: Path, image: np.ndarray) -> None:
    done, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    with whole_file(path) as partial:
        partial.write_bytes(png.tobytes())


def cvat_labels(skeleton: Skeleton, label: str = "subject") -> list[dict]:
    """The labels of a CVAT project, for the `Raw` tab of its constructor: a skeleton, drawn in its rest pose."""
    places = np.zeros((skeleton.num_joints, 2))
    for bone in skeleton.bones:
        places[bone.child] = places[bone.parent] + bone.length * np.array(bone.direction[:2])
    extent = max(float(np.ptp(places, axis=0).max()), 1e-6)
    places = (places - places.min(0)) / extent * 90 + 5
    lines = [
        f'<line x1="{places[b.parent, 0]:.2f}" y1="{places[b.parent, 1]:.2f}" x2="{places[b.child, 0]:.2f}" '
        f'y2="{places[b.child, 1]:.2f}" stroke="black" data-type="edge" data-node-from="{b.parent + 1}" '
        f'stroke-width="0.5" data-node-to="{b.child + 1}"></line>'
        for b in skeleton.bones
    ]
    circles = [
        f'<circle r="1.5" stroke="black" fill="#b3b3b3" cx="{x:.2f}" cy="{y:.2f}" stroke-width="0.1" '
        f'data-type="element node" data-element-id="{k + 1}" data-node-id="{k + 1}" '
        f"data-label-name={quoteattr(name)}></circle>"
        for k, (name, (x, y)) in enumerate(zip(skeleton.joints, places.tolist(), strict=True))
    ]
    parts = [{"name": name, "type": "points", "attributes": []} for name in skeleton.joints]
    drawing = "".join(lines + circles)
    return [{"name": label, "type": "skeleton", "attributes": [], "svg": drawing, "sublabels": parts}]
