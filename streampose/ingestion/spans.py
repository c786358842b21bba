"""Long videos in spans that are ingested apart, by several processes and again after a crash only where unfinished.

How a video is divided depends on the video alone, so that the store is the same whoever works on it. What a span gave
is noted under the store's `.spans` until the whole source is published.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streampose.store.schema import writing
from streampose.video.decode import Video

SPAN_SECONDS = 120.0
MOST_SPANS = 999  # of a file; they are numbered with three digits


@dataclass(frozen=True)
class Span:
    """A stretch of a video, in the container's time; the first has no beginning and the last no end."""

    number: int = 0
    start_seconds: float = 0.0
    end_seconds: float = math.inf
    seconds: float | None = None


def plan_spans(video: Video) -> list[Span]:
    """Divide a video; one span where it is short, cannot be sought in, or does not say how long it is."""
    duration = video.probe.duration_seconds
    if duration is None or duration < 2 * SPAN_SECONDS or not video.seekable:
        return [Span(seconds=duration)]
    count = min(MOST_SPANS, round(duration / SPAN_SECONDS))
    edges = [duration * n / count for n in range(count)]
    ends = [*edges[1:], math.inf]
    return [Span(n, start, end, duration / count) for n, (start, end) in enumerate(zip(edges, ends, strict=True))]


@dataclass(frozen=True)
class SpanRecord:
    """What a span gave.

    Attributes:
        failure: why it could not be read at all; empty where it could.
        lost_spans: seconds from and to, damaged or missing.
        sam_asked, sam_rejected: frames, see `masks.clip_masks.ClipMasks`.
        masks: what made masks, and of how many frames; `mask_reasons` say why.
        made: `clip` ids with their `evidence`, as in `ingestion.clips.Made`.
    """

    failure: str
    verdict: str
    reason: str
    lost_spans: list[list[float]]
    frames: int
    looks: int
    masked_frames: int
    shots: int
    sam_asked: int
    sam_rejected: int
    masks: dict[str, int]
    mask_reasons: list[str]
    made: list[dict[str, Any]]


def record_path(store: Path, source_id: str, span: Span) -> Path:
    """Where what a span gave is noted."""
    return Path(store) / ".spans" / source_id / f"{span.number:03d}.json"


def write_record(store: Path, source_id: str, span: Span, record: SpanRecord, options: dict[str, Any]) -> None:
    """Note what a span gave, whole or not at all; its clips count as listed from then on."""
    path = record_path(store, source_id, span)
    with writing(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        temporary.write_text(json.dumps({**asdict(record), "options": _made_for(span, options)}), encoding="utf-8")
        os.replace(temporary, path)


def read_record(store: Path, source_id: str, span: Span, options: dict[str, Any]) -> SpanRecord | None:
    """What an earlier run noted of the same span with the same options; None where there is nothing."""
    try:
        values = json.loads(record_path(store, source_id, span).read_text(encoding="utf-8"))
        return SpanRecord(**values) if values.pop("options", None) == _made_for(span, options) else None
    except (OSError, ValueError, TypeError, AttributeError):  # damaged, or of a version that noted other things
        return None


def _made_for(span: Span, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the span's edges: another version may divide the video in another way."""
    return {**options, "edges": [span.start_seconds, span.end_seconds]}


def forget_records(store: Path, source_id: str) -> None:
    """Remove the notes of a source: it is published."""
    with writing(store):
        shutil.rmtree(Path(store) / ".spans" / source_id, ignore_errors=True)
        spans = Path(store) / ".spans"
        if spans.is_dir() and not any(spans.iterdir()):
            spans.rmdir()
