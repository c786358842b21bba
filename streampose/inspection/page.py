"""The page about a store: one file that needs no network, in the light or dark scheme of who reads it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.inspection.gather import Example, Story
from streampose.inspection.plots import bar, colour, curves, paths, scatter, timeline

MOST_CLIPS = 60  # that are shown one by one; the numbers are of all
OUTLINE = (255, 64, 64)


def render(
    found: dict[str, Any],
    stories: list[Story],
    pairs: dict[str, np.ndarray],
    shown: list[Example],
    videos: dict[str, np.ndarray] | None = None,
) -> str:
    """The page as HTML.

    Args:
        found: what `inspect` returns.
        stories: of the clips that are shown, in the order of `found["clips"]`.
        pairs: as `StoreReader.pairs` gives them; shown: some of them.
        videos: path of a source -> pictures of it, (H, W, 3) uint8 RGB.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    numbers = {clip["id"]: number for number, clip in enumerate(found["clips"])}
    told = {story.clip.id: story for story in stories}
    videos = videos or {}
    sources = [_source(source, numbers, told, videos.get(source["source"])) for source in found["sources"]]
    verdicts = {name: sum(s["verdict"] == name for s in found["sources"]) for name in ("ok", "repaired", "quarantined")}
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(template).render(
        svg=Markup, megabytes=megabytes, duration=duration,
        found=found, sources=sources, verdicts=verdicts,
        clips_shown=len(stories),
        frames=sum(clip["frames"] for clip in found["clips"]),
        seconds=sum(clip["seconds"] for clip in found["clips"]),
        scatter=scatter(pairs["seconds"], pairs["motion"]) if pairs else "",
        examples=[_example(example) for example in shown],
        use=[(name, size, colour(n)) for n, (name, size) in enumerate(found["disk_use"].items())],
        use_bar=bar(list(found["disk_use"].items())),
    )  # fmt: skip


def strip(frames: np.ndarray, masks: np.ndarray, quality: int = 85) -> str:
    """Crops (N, S, S, 3) side by side with the outlines of their masks, as the source of an <img>."""
    return _embedded(np.concatenate([outline_mask(f, m) for f, m in zip(frames, masks, strict=True)], 1), quality)


def _embedded(image: np.ndarray, quality: int = 85) -> str:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def outline_mask(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = OUTLINE) -> np.ndarray:
    """A copy of an image (H, W, 3) with the outline of a mask (H, W) drawn into it."""
    image = np.ascontiguousarray(image).copy()
    outlines, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, colour, 1)
    return image


def megabytes(size: float) -> str:
    """Bytes for people."""
    for unit, amount in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= amount:
            return f"{size / amount:.3g} {unit}"
    return f"{size:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _source(
    source: dict[str, Any], numbers: dict[str, int], told: dict[str, Story], video: np.ndarray | None
) -> dict[str, Any]:
    """A row of the table of sources, and its plots where some of its clips are shown."""
    stories = [told[clip] for clip in source["clips"] if clip in told]
    probe = source.get("probe") or {}
    size = (int(probe.get("width") or 0), int(probe.get("height") or 0))
    lost = source["lost_spans"]
    ends = [float(story.seconds[-1]) for story in stories] + [float(end) for _, end in lost]
    end = float(probe.get("duration_seconds") or max(ends, default=0.0)) or 1.0
    return {
        **source,
        "video": None if video is None else _embedded(video),
        "clips_shown": [_clip(story, numbers[story.clip.id]) for story in stories],
        "timeline": timeline(
            [(s.clip.id, s.seconds, s.quality, numbers[s.clip.id]) for s in stories], lost, max([end, *ends])
        )
        if stories
        else "",
        "paths": paths(size, [(s.clip.id, s.centres, s.sides, numbers[s.clip.id]) for s in stories])
        if stories and min(size) > 0
        else "",
    }


def _clip(story: Story, number: int) -> dict[str, Any]:
    clip, attributes = story.clip, story.clip.attributes
    span = (float(story.seconds[0]), float(story.seconds[-1]))
    lines = [
        ("quality", story.seconds, story.quality),
        ("area", story.moments, story.area),
        ("motion", story.moments, story.motion),
    ]
    return {
        "id": clip.id,
        "colour": colour(number),
        "picture": strip(story.crops, story.masks),
        "curves": curves(span, lines),
        "start": span[0],
        "end": span[1],
        "facts": [
            ("frames", clip.num_frames),
            ("seconds", round(clip.num_frames / clip.fps, 2)),
            ("motion", attributes.get("motion")),
            ("quality", attributes.get("quality")),
            ("mask area", attributes.get("mask_area")),
            ("at the border", attributes.get("at_border")),
            ("masks by", attributes.get("masks")),
        ],
    }


def _example(example: Example) -> dict[str, Any]:
    return {
        "picture": strip(example.frames, example.masks),
        "clip": example.clip,
        "text": f"{example.seconds:.2f} s apart, motion {example.motion:.2f}",
    }
