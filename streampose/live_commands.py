"""`streampose serve` and `streampose bridge`: parses, then calls the verb of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.options import (
    Calibration,
    Collect,
    Host,
    Json,
    Lifter,
    LogLevel,
    Model,
    Offer,
    Precision,
    Recordings,
    Runtime,
    Token,
)
from streampose.run_verb import run_verb
from streampose.say import say_values


def serve(
    camera: Annotated[list[int] | None, typer.Option(help="Camera number; may be given several times.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A file, a folder of images, an RTSP/HTTP/UDP URL, or the word test; several for several."),
    ] = None,
    model: Model = None,
    runtime: Runtime = "auto",
    precision: Precision = "f32",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8765,
    max_subjects: Annotated[int, typer.Option(help="Subjects followed at once.")] = 1,
    smooth: Annotated[bool, typer.Option(help="Mend and smooth the keypoints; else what the model says.")] = True,
    smoothing: Annotated[str, typer.Option(help="one-euro, kalman or none.")] = "one-euro",
    detector: Annotated[
        str, typer.Option(help="Who finds people: motion, hog, torchvision:NAME=FILE or onnx:FILE.")
    ] = "motion",
    detect_every: Annotated[int, typer.Option(help="Frames between looks for further people.")] = 10,
    calibration: Calibration = None,
    recordings: Recordings = None,
    collect: Collect = None,
    lifter: Lifter = None,
    private: Annotated[
        bool, typer.Option("--private", help="Pictures are neither stored nor sent; only poses are.")
    ] = False,
    token: Token = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM certificate, for TLS (https).")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, where the certificate file does not hold it.")] = None,
    offer: Offer = None,
    max_upload_mb: Annotated[float, typer.Option(help="Size of pictures and videos that may be uploaded.")] = 32.0,
    loop: Annotated[bool, typer.Option(help="Play a file again when it ends.")] = True,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Serve live pose from a camera, file or stream."""
    if camera and source:
        raise typer.BadParameter("--camera and --source exclude each other")

    def verb() -> dict[str, Any]:
        from streampose.ingestion.memory import share_memory_among_threads

        share_memory_among_threads()  # before the libraries that start threads
        from streampose.serve import serve as run

        return run(
            source=source or camera or 0, model=model, runtime=runtime, precision=precision,
            host=host, port=port, max_subjects=max_subjects, smooth=smooth, loop=loop, seconds=seconds,
            smoothing=smoothing, detector=detector, detect_every=detect_every, calibration=calibration,
            recordings=recordings, collect=collect, private=private, token=token, certificate=certificate, key=key,
            offer=offer or (), max_upload_mb=max_upload_mb, open_browser=open_browser, lifter=lifter,
        )  # fmt: skip

    run_verb(verb, say_values, as_json, log_level)


def bridge(
    to: Annotated[str, typer.Argument(help="osc://HOST:PORT, mqtt://[USER@]HOST[:PORT] or mqtts://...")],
    url: Annotated[str, typer.Option(help="Where the page of the server is.")] = "http://127.0.0.1:8765",
    token: Token = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM certificate to trust, if it is its own.")] = None,
    prefix: Annotated[str, typer.Option(help="First part of all addresses or topics.")] = "streampose",
    fps: Annotated[float, typer.Option(help="The most frames a second.")] = 30.0,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Pass live poses on by OSC or MQTT."""

    def verb() -> dict[str, Any]:
        from streampose.bridge import bridge as run

        return run(to, url=url, token=token, certificate=certificate, prefix=prefix, fps=fps, seconds=seconds)

    run_verb(verb, say_values, as_json, log_level)
