"""The verb `serve`: live pose from a camera, a file or a stream, with a page to watch it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streampose.console import logger
from streampose.errors import StreamposeError
from streampose.runtime.bundle import default_bundle


def serve(
    *,
    source: str | int | Sequence[str | int] = 0,
    model: Path | None = None,
    runtime: str = "auto",
    precision: str = "f32",
    host: str = "127.0.0.1",
    port: int = 8765,
    max_subjects: int = 1,
    smooth: bool = True,
    open_browser: bool = False,
    seconds: float | None = None,
    loop: bool = True,
    token: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    private: bool = False,
    offer: Sequence[str | int] = (),
    max_upload_mb: float = 32.0,
    smoothing: str = "one-euro",
    detector: str = "motion",
    detect_every: int = 10,
    calibration: Path | None = None,
    recordings: Path | None = None,
    collect: Path | None = None,
    lifter: Path | None = None,
) -> dict[str, Any]:
    """Serve until Ctrl-C or SIGTERM, the end of the source, or for some seconds.

    Args:
        source: camera number, file, folder of images, RTSP/HTTP/UDP URL, or `test`; several for several cameras.
        model: a bundle; None for ./models/current, else the model shipped with the package.
        host: address to listen at; any other than loopback needs a token.
        port: 0 takes any free one.
        loop: play a file again when it ends.
        token: what clients must show, 16 characters or more; None for none on loopback and a random one elsewhere.
        certificate, key: PEM files, for TLS.
        private: pictures are neither stored nor sent, only poses are.
        offer: further sources that the page may switch to; on loopback the cameras and `test` are offered anyway.
        max_upload_mb: size of pictures and videos that may be uploaded.
        smoothing: `one-euro`, `kalman` or `none`.
        detector: `motion`, or one of `tracking.detectors`.
        detect_every: frames between looks for further subjects.
        calibration: of several cameras, by their names or in the order of the sources; gives the subjects in space.
        recordings: folder for what the page records; None refuses recordings.
        collect: store for hard moments; None keeps nothing.
        lifter: a bundle that lifts 2D joints, as models/lifter: depth, and several poses with their spread.

    Returns:
        {'url', 'frames', 'published', 'dropped', 'latency_ms': {'p50', 'p95', 'p99'}, 'seconds', 'runtime'}

    Raises:
        StreamposeError: the port is in use, the address is not this machine's, or the token or certificate is no good.
        BundleError, ConfigError: the model or the runtime.
        VideoError: the source cannot be opened.
    """
    from streampose.runtime.predictor import Predictor, load_predictor
    from streampose.server.guard import Limits, is_loopback
    from streampose.server.listen import bind, check_access, page_address, running, warn
    from streampose.server.session import Session, build_session
    from streampose.server.stage import Stage, list_models, name_of
    from streampose.video.streams import list_cameras

    if max_subjects < 1:
        raise StreamposeError(f"--max-subjects {max_subjects}: at least 1")
    if not 0 < max_upload_mb <= 1024:
        raise StreamposeError(f"--max-upload-mb {max_upload_mb}: between 0 and 1024")
    if private and (recordings or collect):
        raise StreamposeError("--private stores no pictures; leave out --recordings and --collect")
    if detect_every < 1:
        raise StreamposeError(f"--detect-every {detect_every}: at least 1")
    given = [source] if isinstance(source, str | int) else list(source)
    watched: Any = given[0] if len(given) == 1 else tuple(given)
    name = ", ".join(map(_name, given))
    access = check_access(host, token, certificate, key)
    folder = Path(model) if model is not None else default_bundle()
    sources: dict[str, Any] = {name: watched, **{_name(spec): spec for spec in (*given, *offer)}}
    if is_loopback(host):
        sources |= {camera: int(camera.split()[-1]) for camera in list_cameras() if camera.split()[-1].isdecimal()}
        sources["test"] = "test"

    def build(spec: Any, bundle: Path) -> Session:
        return build_session(
            spec, bundle, runtime=runtime, precision=precision, max_subjects=max_subjects, smooth=smooth, loop=loop,
            smoothing=smoothing, detector=detector, detect_every=detect_every,
            calibration=calibration if spec == watched else None, recordings=recordings, collect=collect,
            lifter=lifter,
        )  # fmt: skip

    def load_for_uploads(bundle: Path) -> Predictor:
        return load_predictor(bundle, runtime, precision, 1)

    listener = bind(host, port)
    with contextlib.closing(listener):
        session = build(watched, folder)
        session.start()
        stage = Stage(
            session, build=build, sources=sources, models=lambda: list_models(folder), source=name,
            model=name_of(folder, list_models(folder)), private=private, recordings=recordings,
        )  # fmt: skip
        url = page_address(access, listener.getsockname()[1])
        warn(access, given=token is not None)
        logger.info("%s: live at %s (Ctrl-C ends it)", session.names.source, url)
        limits = Limits(upload_bytes=int(max_upload_mb * (1 << 20)))
        most = max(max_subjects, 4)
        answering = running(stage, access, listener, limits=limits, load_predictor=load_for_uploads, max_subjects=most)
        with answering, _end_on_signal() as ended:
            if open_browser:
                webbrowser.open(url if access.token is None else f"{url}?token={access.token}")
            deadline = None if seconds is None else time.monotonic() + seconds
            while not (ended.is_set() or stage.wait(0.1) or (deadline and time.monotonic() >= deadline)):
                continue
    session = stage.session
    if session.failure is not None:
        raise session.failure
    stats = session.stats(whole=True)
    logger.info(
        "%d frames published in %.1f s, %d dropped, latency p50 %s ms, p95 %s ms",
        stats.published, stats.seconds, stats.dropped, stats.latency_ms.p50, stats.latency_ms.p95,
    )  # fmt: skip
    return {
        "url": url,
        "frames": stats.captured,
        "published": stats.published,
        "dropped": stats.dropped,
        "latency_ms": stats.latency_ms.model_dump(),
        "seconds": stats.seconds,
        "runtime": stats.runtime,
    }


def _name(spec: str | int) -> str:
    """A source as others may read it: a URL without its password."""
    from streampose.video.streams import shown

    return shown(str(spec)) if "://" in str(spec) else str(spec)


@contextlib.contextmanager
def _end_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; outside of the main thread, which alone gets signals, nothing sets it."""
    ended = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield ended
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: ended.set()) for number in signals]
    try:
        yield ended
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
