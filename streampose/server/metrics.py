"""Prometheus metrics, in the text format that it scrapes (version 0.0.4)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

from streampose.server.messages import LatencyMessage, StatsMessage
from streampose.server.stream import LATENCY_BUCKETS, Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Samples = Iterable[tuple[Mapping[str, str], float | int | None]]


def write_metrics(stats: StatsMessage, counts: Counts, *, ready: bool, version: str, answers: Mapping[int, int]) -> str:
    """All metrics as text.

    Args:
        stats: the session's numbers; its counters begin anew when the session is exchanged, as Prometheus expects.
        counts: the server's own.
        answers: HTTP status -> how often it was given.
    """
    lines: list[str] = []

    def add(name: str, kind: str, help_text: str, samples: Samples) -> None:
        lines.append(f"# HELP streampose_{name} {help_text}")
        lines.append(f"# TYPE streampose_{name} {kind}")
        for labels, value in samples:
            if value is not None:
                lines.append(f"streampose_{name}{_labels(labels)} {value}")

    def one(name: str, kind: str, help_text: str, value: float | int | None) -> None:
        add(name, kind, help_text, [({}, value)])

    names = {"version": version, "source": stats.source, "model": stats.model, "runtime": stats.runtime}
    add("info", "gauge", "What is being served.", [(names, 1)])
    one("ready", "gauge", "1 while poses are being published.", int(ready))
    one("frames_captured_total", "counter", "Frames that the sources gave.", stats.captured)
    one("frames_published_total", "counter", "Frames whose poses were published.", stats.published)
    one("frames_dropped_total", "counter", "Frames that a newer one replaced unseen.", stats.dropped)
    one("source_reconnects_total", "counter", "How often a lost source was opened again.", stats.reconnects)
    one("capture_fps", "gauge", "Frames captured a second.", stats.capture_fps)
    one("inference_fps", "gauge", "Frames published a second.", stats.inference_fps)
    one("session_seconds", "gauge", "Age of the session.", stats.seconds)
    _histogram(lines, counts)
    quantiles = [({"stage": name, **q}, value) for name, timing in stats.stages_ms.items() for q, value in _of(timing)]
    add("stage_seconds", "summary", "Time in each stage, over the last ten seconds.", quantiles)
    one("clients", "gauge", "Open streams.", stats.clients)
    one("clients_refused_total", "counter", "Streams that were turned away as too many.", counts.refused)
    one("clients_cut_off_total", "counter", "Streams that took nothing any more, or sent too much.", counts.cut_off)
    one("frames_sent_total", "counter", "Frames sent, over all streams.", counts.frames_sent)
    one("frames_skipped_total", "counter", "Frames that slow streams did not get.", counts.frames_skipped)
    one("bytes_sent_total", "counter", "Bytes of messages sent, over all streams.", counts.bytes_sent)
    add("http_responses_total", "counter", "Answers to requests.",
        [({"status": str(status)}, number) for status, number in sorted(answers.items())])  # fmt: skip
    if stats.collected is not None:
        one("frames_collected_total", "counter", "Hard moments that were stored for training.", stats.collected)
    if stats.recording is not None:
        one("recording", "gauge", "1 while a recording runs.", int(stats.recording.running))
    if stats.cameras:
        for field, name, kind in (("capture_fps", "fps", "gauge"), ("dropped", "frames_dropped_total", "counter")):
            values = [({"camera": camera.name}, getattr(camera, field)) for camera in stats.cameras]
            add(f"camera_{name}", kind, f"{field.replace('_', ' ')} of each camera.".capitalize(), values)
    one("process_cpu_seconds_total", "counter", "Processor time of this process.", round(time.process_time(), 3))
    one("process_resident_bytes", "gauge", "Memory of this process.", _resident_bytes())
    return "\n".join(lines) + "\n"


def _of(timing: LatencyMessage) -> list[tuple[dict[str, str], float | None]]:
    named = (("0.5", timing.p50), ("0.95", timing.p95), ("0.99", timing.p99))
    return [({"quantile": q}, None if value is None else round(value / 1000, 6)) for q, value in named]


def _histogram(lines: list[str], counts: Counts) -> None:
    name = "streampose_latency_seconds"
    lines += [f"# HELP {name} From the capture of a frame to its publication.", f"# TYPE {name} histogram"]
    total = 0
    for bound, number in zip((*LATENCY_BUCKETS, None), counts.latency_buckets, strict=True):
        total += number
        le = "+Inf" if bound is None else f"{bound / 1000:g}"
        lines.append(f'{name}_bucket{{le="{le}"}} {total}')
    lines += [f"{name}_sum {counts.latency_ms / 1000:.6f}", f"{name}_count {total}"]


def _labels(labels: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # only Linux tells it so
        return None
