"""`streampose inspect`: what is in a store, as numbers, one picture and one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.console import progress
from streampose.errors import StoreError, VideoError
from streampose.files import write_text
from streampose.inspection.gather import disk_use, examples, tell
from streampose.inspection.page import MOST_CLIPS, outline_mask, render
from streampose.inspection.videos import boxes_in_video
from streampose.store.reader import ClipInfo, StoreReader
from streampose.store.remote import url_of
from streampose.video.check import check_source
from streampose.video.decode import DECODERS
from streampose.video.decode_decord import import_decord
from streampose.video.sources import find_videos


def inspect(
    store: Path | str, *, out: Path | None = None, videos: bool = False, decoder: str = "pyav"
) -> dict[str, Any]:
    """Describe a store and leave a contact sheet and an HTML page.

    Args:
        store: the store, a folder or a URL.
        out: folder for `contact_sheet.png` and `index.html`; None for one beside the store, or here for a URL.
        videos: whether to show frames of the videos too, with the boxes of the clips; they are read for it.
        decoder: what fetches these frames, `pyav` or `decord`; decord is left, and that is said, where it errs.

    Returns:
        `store`, `skeleton`, `crop_size`, `sources` (with verdict, reason, frames, clips and what made the masks),
        `clips`, `pairs`, `bytes`, `disk_use` (bytes by kind), `frames_share` (of the raw pixels), `files`.

    Raises:
        StoreError: missing, damaged or newer. VideoError: the decoder is unknown or not installed.
    """
    if decoder not in DECODERS:
        raise VideoError(f"--decoder {decoder}: unknown; choose one of {', '.join(DECODERS)}")
    if decoder == "decord":
        import_decord()
    reader = StoreReader(store)
    name = f"{reader.path.stem}-inspect"
    folder = Path(out) if out is not None else Path(name) if url_of(reader.name) else reader.path.with_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pairs = reader.pairs()
    except StoreError:
        pairs = {}
    use = disk_use(reader.files())
    clips = reader.clips()
    statistics = ("motion", "mask_area", "at_border", "quality", "masks")
    raw = sum(clip.num_frames * clip.crop_size**2 * 3 for clip in clips)
    found: dict[str, Any] = {
        "store": reader.name,
        "skeleton": reader.skeleton_name,
        "crop_size": reader.crop_size,
        "sources": [
            {
                "source": source["path"], "verdict": source["verdict"], "reason": source["reason"],
                "frames": source["frames"], "clips": source["clips"], "lost_spans": source.get("lost_spans", []),
                "masks": source.get("masks"), "masks_reason": source.get("masks_reason"),
                "probe": source.get("probe", {}),
            }
            for source in reader.sources()
        ],
        "clips": [
            {
                "id": clip.id, "source": clip.source, "frames": clip.num_frames,
                "seconds": round(clip.num_frames / clip.fps, 2),
                **{name: clip.attributes.get(name) for name in statistics},
            }
            for clip in clips
        ],
        "pairs": len(pairs["i"]) if pairs else 0,
        "bytes": sum(use.values()),
        "disk_use": use,
        "frames_share": use["frames"] / raw if raw else 0.0,
    }  # fmt: skip
    sheet = write_contact_sheet(reader, folder / "contact_sheet.png")
    with progress("look", min(len(clips), MOST_CLIPS), "clips") as bar:
        stories = []
        for clip in clips[:MOST_CLIPS]:
            stories.append(tell(reader, clip))
            bar.advance(1, clip.id)
    page = folder / "index.html"
    seen = _look_at_videos(reader, decoder) if videos else {}
    write_text(page, render(found, stories, pairs, examples(reader, pairs) if pairs else [], seen))
    found["files"] = {"contact_sheet": sheet, "page": str(page)}
    return found


def _look_at_videos(reader: StoreReader, decoder: str) -> dict[str, np.ndarray]:
    """Pictures of the videos of the clips that the page shows: path of the source -> (H, W, 3) uint8 RGB."""
    numbers = {clip.id: number for number, clip in enumerate(reader.clips())}
    shown = set(list(numbers)[:MOST_CLIPS])
    sources = [source for source in reader.sources() if shown & set(source["clips"])]
    found = {}
    with progress("videos", len(sources), "videos") as bar:
        for source in sources:
            picture = boxes_in_video(reader, source, numbers, decoder)
            if picture is not None:
                found[source["path"]] = picture
            bar.advance(1, source["path"])
    return found


def inspect_sources(path: Path | str) -> dict[str, Any]:
    """The verdicts of a store's sources, or of videos that are no store's yet: these are read from start to end.

    Args:
        path: a store, a video, or a folder of videos.

    Returns:
        `sources`: `source`, `verdict`, `reason`, `frames`, `lost_spans`.

    Raises:
        StoreError, VideoError: a damaged store; neither a store nor any video.
    """
    names = ("verdict", "reason", "frames")
    if url_of(path) is not None or (Path(path) / "zarr.json").is_file():
        found = [
            {"source": source["path"], **{n: source[n] for n in names}, "lost_spans": source.get("lost_spans", [])}
            for source in StoreReader(path).sources()
        ]
        return {"sources": found}
    videos = find_videos([Path(path)])
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
