"""Numbered pictures, small videos of them, and ways to damage those."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, CELL = 10, 12  # the number stands in a row of black and white cells
SIZE, FPS = (160, 120), 25


@dataclass(frozen=True)
class Case:
    """One file and what is to become of it.

    Attributes:
        path: a file or a folder.
        verdict: the one that is right.
        numbers: {index: number drawn in the frame} of the sound frames; None where the file cannot be opened.
        seconds: {index: time} of the sound frames; None where nobody can know.
        why: part of the reason that the user is told.
        size: (width, height) as displayed.
        origin: (x, y) of the first cell.
        lost_seconds: the only span that is lost; None where that is not looked at.
    """

    path: Path
    verdict: str = "ok"
    numbers: dict[int, int] | None = None
    seconds: dict[int, float] | None = None
    why: str = ""
    size: tuple[int, int] = SIZE
    origin: tuple[int, int] = (0, 0)
    lost_seconds: tuple[float, float] | None = None


def numbered_picture(number: int, size: tuple[int, int] = SIZE, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A coloured gradient with the number written in cells: (H, W, 3) uint8."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(60, 190, width).astype(np.uint8)[None, :]
    image[..., 1] = np.linspace(190, 60, height).astype(np.uint8)[:, None]
    image[..., 2] = 60 + 130 * (number % 20) // 20
    x, y = origin
    for bit in range(BITS):
        image[y : y + CELL, x + bit * CELL : x + (bit + 1) * CELL] = 235 if number >> bit & 1 else 20
    x = 8 + 3 * (number % 40)  # something that moves
    image[60:90, x : x + 12] = (220, 40, 60)
    return image


def read_number(image: np.ndarray, origin: tuple[int, int] = (0, 0)) -> int:
    """The number in a picture; -1 where a cell is neither black nor white, as in a damaged picture."""
    x, y = origin
    cells = image[y : y + CELL, x : x + BITS * CELL].reshape(CELL, BITS, CELL, -1)[3:-3, :, 3:-3].mean((0, 2, 3))
    if ((cells > 90) & (cells < 165)).any():
        return -1
    return int(sum(1 << bit for bit, value in enumerate(cells) if value > 128))


def write(
    path: Path,
    count: int = 40,
    *,
    first: int = 0,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = SIZE,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    container: str | None = None,
    times: Sequence[float] | None = None,
    gop: int = 10,
    draw: Callable[[int], np.ndarray] | None = None,
    turn: tuple[float, bool] | None = None,
    full_range: bool | None = None,
    fps: int = FPS,
) -> Path:
    """Encode numbered pictures with PyAV."""
    draw = draw or (lambda number: numbered_picture(number, size))
    with av.open(str(path), "w", format=container, container_options=muxer or {}) as target:
        stream = target.add_stream(codec, rate=fps, options=QUIET.get(codec, {}) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if full_range is not None:
            stream.codec_context.color_range = 2 if full_range else 1
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        base = Fraction(1, 90_000) if times is not None else Fraction(1, fps)
        if times is not None:
            stream.codec_context.time_base = base
        for i in range(count):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(first + i)), format="rgb24")
            kwargs = {} if full_range is None else {"dst_color_range": 2 if full_range else 1}
            picture = picture.reformat(format=pixel_format, **kwargs)
            picture.pts, picture.time_base = (i if times is None else round(times[i] / base)), base
            picture.duration = 1 if times is None else 0
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


QUIET = {
    "libx264": {"preset": "ultrafast", "bf": "2", "b-pyramid": "normal", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1:bframes=3"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "500k"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "500k", "auto-alt-ref": "1"},
    "libsvtav1": {"preset": "13", "svtav1-params": "lp=1"},
    "mpeg4": {"b": "2M", "bf": "2"},
    "mpeg2video": {"b": "2M", "bf": "2"},
    "mjpeg": {"q": "3"},
}


def sound(path: Path, count: int = 40, first: int = 0, *, at: float = 0.0, times=None, **kwargs) -> Case:
    """All frames are there, in order, at 25 frames a second or at `times`."""
    times = times if times is not None else at + np.arange(count) / FPS
    return Case(
        path, numbers={i: first + i for i in range(count)}, seconds=dict(enumerate(map(float, times))), **kwargs
    )


def some(path: Path, kept: Sequence[int], *, verdict: str = "repaired", at: float = 0.0, **kwargs) -> Case:
    """These frames are left, each with its own number and at its own time."""
    seconds = {i: at + i / FPS for i in kept}
    return Case(path, verdict, numbers={i: i for i in kept}, seconds=seconds, **kwargs)


def bad(path: Path, why: str) -> Case:
    """It cannot be opened."""
    return Case(path, "quarantined", why=why)


def mux(path: Path, kinds: Sequence[str], count: int = 40) -> Path:
    """One file with streams of these kinds, in this order: audio, cover, small, video."""
    with av.open(str(path), "w") as target:
        streams = {}
        for kind in kinds:
            if kind == "audio":
                streams[kind] = target.add_stream("aac", rate=44100)
                continue
            stream = target.add_stream("mjpeg" if kind == "cover" else "libx264", rate=FPS)
            stream.width, stream.height = (80, 60) if kind == "small" else (400, 400) if kind == "cover" else SIZE
            stream.pix_fmt = "yuvj420p" if kind == "cover" else "yuv420p"
            if kind == "cover":
                stream.disposition = av.stream.Disposition.attached_pic
            streams[kind] = stream
        if "cover" in streams:
            picture = av.VideoFrame(400, 400, "yuvj420p")
            picture.pts, picture.time_base = 0, Fraction(1, FPS)
            target.mux(streams["cover"].encode(picture))
        if "audio" in streams:
            write_tone(target, streams["audio"], count / FPS)
        for i in range(count):
            for kind in ("small", "video"):
                if kind in streams:
                    image = numbered_picture(i) if kind == "video" else np.zeros((60, 80, 3), np.uint8)
                    picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
                    picture.pts, picture.time_base = i, Fraction(1, FPS)
                    target.mux(streams[kind].encode(picture))
        for stream in streams.values():
            target.mux(stream.encode(None))
    return path


def write_tone(target: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """Audio of a length."""
    for i in range(int(seconds * 44100 / 1024)):
        wave = np.sin(np.arange(1024) * 0.05 + i * 51.2).astype(np.float32) * 0.1
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, i * 1024
        target.mux(stream.encode(frame))


def packets_of(path: Path) -> list[tuple[int, int, int, bool]]:
    """(position, size, number of the frame in display order, key frame) of the video packets, in the file's order."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.pts, p.is_keyframe) for p in container.demux(container.streams.video[0]) if p.size]
    order = sorted(pts for _, _, pts, _ in packets)
    return [(pos, size, order.index(pts), key) for pos, size, pts, key in packets]


def overwrite(path: Path, packets: Sequence[tuple[int, int]], skip: int = 6) -> None:
    """Replace packets, given as (position, size), by noise, all but their first bytes."""
    data = bytearray(path.read_bytes())
    for position, size in packets:
        data[position + skip : position + size] = b"\xa5" * (size - skip)
    path.write_bytes(data)


def patch_table(path: Path, kind: bytes, pairs: Sequence[tuple[int, int]]) -> None:
    """Replace the pairs of a table of an mp4; the box keeps its size, or is made larger within an mp4 whose moov is
    last."""
    data = path.read_bytes()
    at = data.index(kind) - 4
    length = int.from_bytes(data[at : at + 4])
    body = struct.pack(">I", 0) + struct.pack(">I", len(pairs)) + b"".join(struct.pack(">II", *pair) for pair in pairs)
    new = struct.pack(">I", 8 + len(body)) + kind + body
    data = bytearray(data[:at] + new + data[at + length :])
    grown = len(new) - length
    for box in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = data.rindex(box, 0, at) - 4
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4]) + grown)
    path.write_bytes(data)


def copy_from(path: Path, packet: int) -> None:
    """Leave out the first packets of a file without encoding anew."""
    copy = path.with_stem(f"{path.stem}-copy")
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        for number, item in enumerate(p for p in source.demux(stream) if p.size):
            if number >= packet:
                item.stream = out
                target.mux(item)
    copy.replace(path)
