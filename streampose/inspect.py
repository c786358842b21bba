"""`streampose inspect`: what is in a store, as numbers, one picture and one page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.console import progress
from streampose.errors import StoreError, VideoError
from streampose.store.reader import ClipInfo, StoreReader
from streampose.video.check import check_source
from streampose.video.sources import find_videos

OUTLINE = (255, 64, 64)


def inspect(store: Path, *, out: Path | None = None) -> dict[str, Any]:
    """Describe a store and leave a contact sheet and an HTML page.

    Args:
        store: the store.
        out: folder for `contact_sheet.png` and `index.html`; beside the store where it is None.

    Returns:
        `store`, `skeleton`, `crop_size`, `sources` (with verdict, reason, frames and clips), `clips`, `pairs`, `bytes`,
        `files`.

    Raises:
        StoreError: missing, damaged or newer.
    """
    reader = StoreReader(store)
    folder = Path(out) if out is not None else reader.path.with_name(f"{reader.path.stem}-inspect")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pairs = len(reader.pairs()["i"])
    except StoreError:
        pairs = 0
    found: dict[str, Any] = {
        "store": str(reader.path),
        "skeleton": reader.skeleton_name,
        "crop_size": reader.crop_size,
        "sources": [
            {
                "source": source["path"], "verdict": source["verdict"], "reason": source["reason"],
                "frames": source["frames"], "clips": source["clips"], "lost_spans": source.get("lost_spans", []),
            }
            for source in reader.sources()
        ],
        "clips": [
            {
                "id": clip.id, "source": clip.source, "frames": clip.num_frames,
                "seconds": round(clip.num_frames / clip.fps, 2),
                **{name: clip.attributes.get(name) for name in ("motion", "mask_area", "at_border")},
            }
            for clip in reader.clips()
        ],
        "pairs": pairs,
        "bytes": sum(file.stat().st_size for file in reader.path.rglob("*") if file.is_file()),
    }  # fmt: skip
    sheet = write_contact_sheet(reader, folder / "contact_sheet.png")
    page = folder / "index.html"
    page.write_text(_page(found, Path(sheet) if sheet else None), encoding="utf-8")
    found["files"] = {"contact_sheet": sheet, "page": str(page)}
    return found


def inspect_sources(path: Path) -> dict[str, Any]:
    """The verdicts of a store's sources, or of videos that are no store's yet: these are read from start to end.

    Args:
        path: a store, a video, or a folder of videos.

    Returns:
        `sources`: `source`, `verdict`, `reason`, `frames`, `lost_spans`.

    Raises:
        StoreError, VideoError: a damaged store; neither a store nor any video.
    """
    path = Path(path)
    names = ("verdict", "reason", "frames")
    if (path / "zarr.json").is_file():
        found = [
            {"source": source["path"], **{n: source[n] for n in names}, "lost_spans": source.get("lost_spans", [])}
            for source in StoreReader(path).sources()
        ]
        return {"sources": found}
    videos = find_videos([path])
    if not videos:
        raise VideoError(f"{path}: neither a store nor a folder with videos")
    with progress("check", len(videos), "videos") as bar:
        checked = []
        for video in videos:
            result = check_source(video)
            checked.append({name: result[name] for name in ("source", *names, "lost_spans")})
            bar.advance(1, video.name)
    return {"sources": checked}


def contact_sheet(reader: StoreReader, columns: int = 12, most_clips: int = 40) -> np.ndarray:
    """One row of crops a clip, spread over its time, with the outline of each mask: (H, W, 3) uint8 RGB."""
    rows = [_clip_row(reader, clip, columns) for clip in reader.clips()[:most_clips]]
    if not rows:
        return np.full((reader.crop_size, reader.crop_size * columns, 3), 40, np.uint8)
    return np.concatenate(rows)


def write_contact_sheet(reader: StoreReader, path: Path) -> str | None:
    """Write `contact_sheet` as a PNG; its path, or None where the store holds no clips."""
    if not reader.clips():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(contact_sheet(reader)))
    return str(path)


def outline_mask(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = OUTLINE) -> np.ndarray:
    """A copy of an image (H, W, 3) with the outline of a mask (H, W) drawn into it."""
    image = np.ascontiguousarray(image).copy()
    outlines, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, colour, 1)
    return image


def _clip_row(reader: StoreReader, clip: ClipInfo, columns: int) -> np.ndarray:
    places = np.linspace(0, clip.num_frames - 1, columns).round().astype(int)
    read = reader.read(clip.id, places)
    row = np.concatenate([outline_mask(f, m) for f, m in zip(read.frames, read.masks, strict=True)], 1)
    label = f"{clip.id}  {clip.num_frames} frames"
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(row, label, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, width, cv2.LINE_AA)
    return row


def _png(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def _page(found: dict[str, Any], sheet: Path | None) -> str:
    from jinja2 import Environment

    picture = base64.b64encode(sheet.read_bytes()).decode() if sheet else ""
    return (
        Environment(autoescape=True).from_string(PAGE).render(picture=picture, megabytes=found["bytes"] / 1e6, **found)
    )


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ store }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
img { max-width: 100% } .quarantined { color: #b00020 } .repaired { color: #9a6700 } .ok { color: #1a7f37 }
</style>
<h1>{{ store }}</h1>
<p>{{ sources|length }} sources, {{ clips|length }} clips, {{ pairs }} frame pairs,
{{ "%.1f"|format(megabytes) }} MB, skeleton {{ skeleton }}, crops of {{ crop_size }} pixels.</p>
{% if picture %}
<img alt="Crops with mask outlines, one row a clip" src="data:image/png;base64,{{ picture }}">
{% endif %}
<h2>Sources</h2>
<table><tr><th>Source<th>Verdict<th>Why<th>Frames<th>Clips</tr>
{% for s in sources %}
<tr><td>{{ s.source }}<td class="{{ s.verdict }}">{{ s.verdict }}<td>{{ s.reason }}
<td>{{ s.frames }}<td>{{ s.clips|length }}</tr>
{% endfor %}
</table>
<h2>Clips</h2>
<table><tr><th>Clip<th>Frames<th>Seconds<th>Motion<th>Mask area<th>At the border</tr>
{% for c in clips %}
<tr><td>{{ c.id }}<td>{{ c.frames }}<td>{{ c.seconds }}<td>{{ c.motion }}<td>{{ c.mask_area }}<td>{{ c.at_border }}</tr>
{% endfor %}
</table>
</html>
"""
