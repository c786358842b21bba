"""Put a live session together from a source and a bundle, and run one without a server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from streampose.runtime.predictor import box_from_keypoints, load_predictor
from streampose.server.follow import Follower
from streampose.server.motion import MotionFinder
from streampose.server.session import Names, Session
from streampose.video.live import open_source


def build_session(
    source: str | int,
    model: Path,
    *,
    runtime: str = "auto",
    precision: str = "f32",
    max_subjects: int = 1,
    smooth: bool = True,
    loop: bool = True,
    threads: int | None = None,
) -> Session:
    """A session that was not started yet; the bundle is loaded and has run once, the source is not open.

    Args:
        source: camera number, file, URL, or `test`.
        loop: play a file again when it ends.

    Raises:
        BundleError, ConfigError: the model or the runtime.
    """
    predictor = load_predictor(model, runtime, precision, threads)

    def next_box(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray | None:
        return box_from_keypoints(xy, confidence, predictor.skeleton, predictor.padding)

    follower = Follower(MotionFinder(max_subjects), next_box, padding=predictor.padding, max_subjects=max_subjects)
    name = f"camera {source}" if isinstance(source, int) or source.isdecimal() else _without_password(source)
    bundle = predictor.bundle
    described = " ".join(part for part in (bundle.method, bundle.preset) if part)
    names = Names(name, described or Path(model).name, f"{predictor.runtime.name} {precision}")
    return Session(lambda: open_source(source, loop=loop), predictor, follower, names=names, smooth=smooth)


def run_burst(
    source: str | int,
    model: Path,
    seconds: float,
    *,
    runtime: str = "auto",
    precision: str = "f32",
    max_subjects: int = 1,
    smooth: bool = True,
    loop: bool = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run the live path for some seconds without a server, with one subscriber, and return its numbers.

    Returns:
        {'source', 'runtime', 'frames', 'published', 'dropped', 'seconds', 'fps', 'subjects' (mean number a frame),
        'latency_ms': {'p50', 'p95', 'p99'}, 'stages_ms': {stage: {'p50', 'p95', 'p99'}}}
    """
    session = build_session(
        source, model, runtime=runtime, precision=precision, max_subjects=max_subjects, smooth=smooth, loop=loop,
        threads=threads,
    )  # fmt: skip
    slot = session.subscribe()
    session.start()
    end = time.monotonic() + seconds
    subjects = []
    try:
        while time.monotonic() < end and not session.done.is_set():
            result = slot.take(timeout=0.1)
            if result is not None:
                subjects.append(len(result.ids))
    finally:
        session.stop()
    if session.failure is not None:
        raise session.failure
    stats = session.stats(whole=True)
    return {
        "source": stats.source,
        "runtime": stats.runtime,
        "frames": stats.captured,
        "published": stats.published,
        "dropped": stats.dropped,
        "seconds": stats.seconds,
        "fps": stats.inference_fps,
        "subjects": round(float(np.mean(subjects)), 2) if subjects else 0.0,
        "latency_ms": stats.latency_ms.model_dump(),
        "stages_ms": {name: timing.model_dump() for name, timing in stats.stages_ms.items()},
    }


def _without_password(source: str) -> str:
    """A URL as it may be shown: what stands before the @ in its address stays private."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        return source
    address, slash, path = rest.partition("/")
    return f"{scheme}://{address.rpartition('@')[2]}{slash}{path}"
