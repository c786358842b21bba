"""Open a media file safely and choose its video stream; what asks for too much is refused before it is allocated."""

from __future__ import annotations

import errno
from pathlib import Path

import av
from av.codec.context import Flags

from streampose.errors import VideoError
from streampose.video.claims import check_claims

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        "mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "ts", "mts", "m2ts", "wmv", "flv", "ogv", "3gp",
        "mxf", "gif", "mjpeg", "mjpg", "h264", "h265", "y4m",
    )
)  # fmt: skip
MAX_PIXELS = 8192 * 8192  # a frame that claims more is refused before anything is allocated
OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}  # a file may not make us open other addresses
ATTACHED = av.stream.Disposition.attached_pic  # cover art of music
PLAYLISTS = frozenset(("hls", "concat", "dash", "tty", "imf", "sdp", "rtsp"))  # text that names other files, or is text
STILLS = frozenset(("image2", "image2pipe"))  # may open other files whose names are numbered alike
SEQUENTIAL = frozenset(("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "gif", "apng", "mjpeg", "obu", "av1"))
"""Containers in which seeking is not exact, or a picture is drawn onto the one before: they are read from the start."""

STRICT = {"h264": "aggressive", "hevc": "explode", "mjpeg": "explode", "png": "crccheck", "apng": "crccheck"}
"""Settings of FFmpeg's err_detect with which more of the damaged pictures are found: of 60 that were struck at random,
h264 60 instead of 51, hevc 26 instead of 19, mjpeg 54 instead of 18, png 60 instead of 56. Others find no more."""


def check_file(path: Path) -> None:
    """Raise VideoError with one clear line where `path` is no file that can be read, or is empty."""
    try:
        if path.is_dir():
            raise VideoError(f"{path}: a folder, not a video; name the files in it; skipped")
        if not path.exists():
            raise VideoError(f"{path}: no such file; skipped")
        if not path.is_file():
            raise VideoError(f"{path}: not an ordinary file; skipped")
        with path.open("rb") as file:
            if not file.read(1):
                raise VideoError(f"{path}: empty (0 bytes); skipped")
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; skipped") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({message_of(error)}); skipped") from None


def open_container(
    path: Path, threads: int = 0, strict: bool = True
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and set up the decoder of its video stream.

    Args:
        threads: decoder threads, 0 for as many as there are processors.
        strict: report damage that the decoder would else hide (see STRICT).

    Raises:
        VideoError: not a video, or one that claims what cannot be.
    """
    check_claims(path)
    try:
        container = av.open(str(path), options=OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: {_explain(error)}; skipped") from None
    try:
        formats = set(container.format.name.split(","))
        if formats & PLAYLISTS:
            raise VideoError(f"{path}: text, not a video ({container.format.long_name}); skipped")
        if formats & STILLS or container.format.name.endswith("_pipe"):
            raise VideoError(f"{path}: a still picture, not a video; name the folder of a numbered sequence; skipped")
        stream = choose_stream(str(path), container)
    except VideoError:
        container.close()
        raise
    stream.codec_context.thread_type = "AUTO"  # type: ignore[assignment]  # the stub knows the flag only
    stream.codec_context.thread_count = threads
    options = {"max_pixels": str(MAX_PIXELS)}  # pictures may grow later on
    if strict and stream.codec_context.name in STRICT:
        options["err_detect"] = STRICT[stream.codec_context.name]
    stream.codec_context.options = options
    stream.codec_context.flags |= Flags.copy_opaque  # tells which packet a picture was made of
    return container, stream


def choose_stream(name: str, container: av.container.InputContainer) -> av.VideoStream:
    """The largest video stream that is not cover art; `name` is what a VideoError calls the source."""
    streams = [s for s in container.streams.video if not s.disposition & ATTACHED]
    if not streams:
        what = "audio only" if container.streams.audio else "nothing that can be shown"
        raise VideoError(f"{name}: no video stream ({what}); skipped")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise VideoError(f"{name}: no decoder for its codec; convert it to h264 first; skipped")
    stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
    width, height = stream.width, stream.height
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{name}: claims frames of {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million; skipped"
        )
    return stream


def count_video_streams(container: av.container.InputContainer) -> int:
    """How many video streams a container holds, cover art left out."""
    return sum(not s.disposition & ATTACHED for s in container.streams.video)


def packet_seconds(packet: av.Packet) -> float | None:
    """A packet's time, None where it has none."""
    return None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


def message_of(error: Exception) -> str:
    """What went wrong, without numbers and file names."""
    return str(getattr(error, "strerror", None) or error)


def _explain(error: Exception) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "not a video, or its header is damaged or missing (an mp4 whose recording was cut off has no 'moov')"
    if getattr(error, "errno", None) == errno.EBUSY:  # FFmpeg's word for pictures that it will not hold
        return "its header makes no sense (pictures of an impossible size)"
    return f"cannot be opened ({message_of(error)})"
