"""Videos as people have them: small files with every trait and every kind of damage, made on the spot.

`build(folder)` makes them; each `Case` says what is to become of its file. Every frame carries its number in its
pixels, so that what a decoder gives can be told from what it should give.

Adding a case: write a function that takes the folder and returns a `Case`, and add it to CASES. Draw with
`numbered_picture`, keep the file below 50 frames of 160 x 120, and say in `why` what the user should be told.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

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


# ---- traits -----------------------------------------------------------------------------------------------------


FORMATS: dict[str, dict] = {
    "h264-b-frames.mp4": {},
    "h264-no-b-frames.mov": {"options": {"bf": "0"}},
    "h264-one-key-frame.mp4": {"gop": 250},
    "h264-intra-refresh.mp4": {"options": {"intra-refresh": "1", "bf": "0"}},
    "h264-open-gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "h264-open-gop.mkv": {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "h264-fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}, "at": 0.08},
    "h264.flv": {"options": {"bf": "0"}},
    "h264-full-chroma.mkv": {"pixel_format": "yuv444p"},
    "h264-ten-bit.mp4": {"pixel_format": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265"},
    "hevc-open-gop.mkv": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:pools=1:frame-threads=1:open-gop=1:bframes=3:keyint=10"},
    },
    "hevc-ten-bit.mkv": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9.mp4": {"codec": "libvpx-vp9"},
    "av1.mp4": {"codec": "libsvtav1"},
    "av1.webm": {"codec": "libsvtav1"},
    "mpeg4-b-frames.avi": {"codec": "mpeg4", "at": 0.04},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj422p"},
    "mjpeg.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "grey.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "grey.mp4": {"pixel_format": "gray"},
    "grey-ten-bit.mkv": {"codec": "ffv1", "pixel_format": "gray10le"},
    "alpha.mov": {"codec": "png", "pixel_format": "rgba"},
    "alpha-animation.mov": {"codec": "qtrle", "pixel_format": "argb"},
    "alpha-yuv.mkv": {"codec": "ffv1", "pixel_format": "yuva420p"},
    "odd.mkv": {"codec": "ffv1", "size": (161, 121)},
    "odd-full-chroma.mp4": {"pixel_format": "yuv444p", "size": (161, 121)},
    "portrait.mp4": {"size": (126, 224)},
    "full-range.mp4": {"full_range": True},
    "limited-range.mp4": {"full_range": False},
    "no-index.mkv": {"muxer": {"live": "1"}},
}  # fmt: skip


def make_formats(folder: Path) -> list[Case]:
    """Each codec, container and kind of pixel that plays from 0 s."""
    return [
        sound(
            write(folder / name, **{k: v for k, v in kwargs.items() if k != "at"}),
            size=kwargs.get("size", SIZE),
            at=kwargs.get("at", 0.0),
        )
        for name, kwargs in FORMATS.items()
    ]


def make_streams(folder: Path) -> list[Case]:
    """Containers whose time does not begin at 0, or that know no time."""
    return [
        Case(write(folder / name, codec=codec, options=options), numbers={i: i for i in range(40)})
        for name, codec, options in (
            ("h264.ts", "libx264", {}),
            ("h264-open-gop.ts", "libx264", {"x264-params": "open-gop=1:bframes=3:scenecut=0"}),
            ("hevc.ts", "libx265", {}),
            ("bare.h264", "libx264", {}),
            ("h264.avi", "libx264", {"bf": "0"}),
        )
    ] + [
        sound(write(folder / "mpeg2.mpg", codec="mpeg2video", options={"bf": "0"}), at=0.54),
        some(write(folder / "mpeg2-b-frames.mpg", codec="mpeg2video"), range(40), at=0.54, why="fell back"),
    ]


def make_times(folder: Path) -> list[Case]:
    """Variable frame rate, a late start, a repeated time, long pauses."""
    rng = np.random.default_rng(3)
    uneven = np.round(np.cumsum(rng.integers(10, 90, 40)), 0) / 1000
    pause = np.arange(40) / FPS + 5.0 * (np.arange(40) >= 20)
    cases = [
        sound(write(folder / name, times=times), times=times)
        for name, times in (
            ("uneven.mp4", uneven), ("uneven.mkv", uneven), ("late.mkv", 5 + np.arange(40) / FPS), ("pause.mp4", pause)
        )
    ]  # fmt: skip
    path = write(folder / "same-time.mp4", options={"bf": "0"})
    patch_table(path, b"stts", [(19, 512), (1, 0), (20, 512)])
    times = [i / FPS if i < 20 else (i - 1) / FPS for i in range(40)]
    return [*cases, Case(path, numbers={i: i for i in range(40)}, seconds=dict(enumerate(times)))]


def make_edits(folder: Path) -> list[Case]:
    """A cut without encoding anew: the frames before it are in the file and must not be shown."""
    whole = write(folder / "edit-list.whole.mp4", 50)
    path = folder / "edit-list.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", container_options={"avoid_negative_ts": "0"}) as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        shift = int(Fraction(14, FPS) / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, out
                target.mux(packet)
    whole.unlink()
    return [sound(path, 36, first=14)]


def make_turned(folder: Path) -> list[Case]:
    """Phones: the picture is stored on its side, upside down or mirrored."""
    cases = []
    for degrees in (0, 90, 180, 270):
        for mirrored in (False, True):
            if degrees == 0 and not mirrored:
                continue
            shown = SIZE if degrees % 180 == 0 else (126, 160)
            stored = shown if degrees % 180 == 0 else shown[::-1]

            def draw(number, shown=shown, degrees=degrees, mirrored=mirrored):
                upright = numbered_picture(number, shown)
                return np.rot90(upright[:, ::-1] if mirrored else upright, -degrees // 90)

            path = folder / f"turned-{degrees}{'-mirrored' if mirrored else ''}.mp4"
            write(path, 20, size=stored, draw=draw, turn=(degrees, mirrored))
            cases.append(sound(path, 20, size=shown))
    return cases


def make_shapes(folder: Path) -> list[Case]:
    """Black bars, interlacing, a size that changes."""

    def barred(number):
        image = np.zeros((120, 160, 3), np.uint8)
        image[16:104, 20:140] = numbered_picture(number, (120, 88))
        return image

    def woven(number):
        first, second = numbered_picture(2 * number), numbered_picture(2 * number + 1)
        first[1::2] = second[1::2]
        first[:CELL] = numbered_picture(number)[:CELL]
        return first

    bars = write(folder / "black-bars.mp4", draw=barred)
    h264 = write(folder / "interlaced.mp4", 20, draw=woven, options={"x264-params": "tff=1", "preset": "veryfast"})
    h264_ts = write(folder / "interlaced.ts", 20, draw=woven, options={"x264-params": "bff=1", "preset": "veryfast"})
    joined = folder / "size-changes.ts"
    parts = [write(folder / "part-a.ts", 20), write(folder / "part-b.ts", 20, first=20, size=(240, 180), draw=larger)]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return [
        sound(bars, origin=(20, 16)),
        sound(h264, 20, why="20 interlaced frames were deinterlaced"),
        Case(h264_ts, numbers={i: i for i in range(20)}, why="interlaced"),
        Case(joined, "repaired", {i: i for i in range(40)}, why="changes to 240 x 180"),
    ]


def larger(number: int) -> np.ndarray:
    """A picture of 240 x 180, 1.5 times as large."""
    return np.asarray(Image.fromarray(numbered_picture(number)).resize((240, 180)))


def make_containers(folder: Path) -> list[Case]:
    """Audio first, several video streams, cover art beside the video, a wrong suffix, one frame."""
    audio_first = mux(folder / "audio-first.mp4", ["audio", "video"])
    audio_first_mkv = mux(folder / "audio-first.mkv", ["audio", "video"])
    cover = mux(folder / "cover-and-video.mp4", ["cover", "video", "audio"])
    two = mux(folder / "two-videos.mkv", ["small", "video", "audio"])
    wrong = write(folder / "truly-mp4.avi.mp4").rename(folder / "truly-mp4.avi")
    text = write(folder / "truly-mkv.mkv").rename(folder / "truly-mkv.txt")
    one = write(folder / "one-frame.mp4", 1, first=7)
    return [
        sound(audio_first), sound(audio_first_mkv), sound(cover),
        sound(two, why="the largest of 2 video streams"), sound(wrong), sound(text), sound(one, 1, first=7),
    ]  # fmt: skip


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


def make_pictures(folder: Path) -> list[Case]:
    """Animated pictures and folders of frames."""
    gif = write(folder / "animation.gif", 20, codec="gif", pixel_format="rgb8")
    webp = folder / "animation.webp"
    images = [Image.fromarray(numbered_picture(i)) for i in range(20)]
    images[0].save(webp, save_all=True, append_images=images[1:], duration=40, quality=90, method=0)
    whole, holes = folder / "frames", folder / "frames-with-holes"
    for place in (whole, holes):
        place.mkdir()
        (place / "fps.txt").write_text("25\n")
    for i in range(20):
        images[i].save(whole / f"take2_{i + 7}.png")
        images[i].save(holes / f"frame_{i * 10:06d}.jpg", quality=95)
    (holes / "frame_000050.jpg").unlink()
    broken = holes / "frame_000120.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    kept = [i for i in range(20) if i not in (5, 12)]
    return [
        sound(gif, 20), sound(webp, 20), sound(whole, 20),
        some(holes, kept, why="2 damaged frames were left out"),
    ]  # fmt: skip


# ---- damage -----------------------------------------------------------------------------------------------------


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


def make_damaged(folder: Path) -> list[Case]:
    """Overwritten packets: what was struck and what builds on it is lost, and nothing else."""
    cases = []
    one = write(folder / "damaged-p-frame.mp4", options={"bf": "0"})
    overwrite(one, [packets_of(one)[15][:2]])
    kept = [i for i in range(40) if not 15 <= i < 20]
    why = "1 damaged frame was left out, and 4 that build on it"
    cases.append(some(one, kept, why=why, lost_seconds=(0.6, 0.8)))
    with_b = write(folder / "damaged-reference.mp4", options={"x264-params": "bframes=2:scenecut=0:b-adapt=0"})
    struck = next(i for i, p in enumerate(packets_of(with_b)) if p[2] == 13)
    overwrite(with_b, [packets_of(with_b)[struck][:2]])
    before = {p[2] for p in packets_of(with_b)[:struck]}
    cases.append(some(with_b, [i for i in range(40) if i in before or i >= 20], why="build on"))
    key = write(folder / "damaged-key-frame.mp4", options={"bf": "0"})
    overwrite(key, [packets_of(key)[10][:2]])
    cases.append(some(key, [i for i in range(40) if not 10 <= i < 20], why="and 9 that build on it"))
    head = write(folder / "damaged-first-key-frame.mp4", options={"bf": "0"})
    overwrite(head, [packets_of(head)[0][:2]])
    cases.append(some(head, range(10, 40), why="left out"))
    intra = write(folder / "damaged-mjpeg.avi", codec="mjpeg", pixel_format="yuvj422p")
    overwrite(intra, [packets_of(intra)[i][:2] for i in (3, 30)], skip=2)
    cases.append(some(intra, [i for i in range(40) if i not in (3, 30)], why="2 damaged frames were left out"))
    for name, codec in (
        ("vp9.webm", "libvpx-vp9"),
        ("hevc.mp4", "libx265"),
        ("mpeg4.mp4", "mpeg4"),
        ("av1.mp4", "libsvtav1"),
    ):
        path = write(folder / f"damaged-{name}", codec=codec, options=NO_REORDERING.get(codec, {}))
        packets = packets_of(path)
        keys = [i for i, p in enumerate(packets) if p[3]]
        overwrite(path, [packets[keys[1] + 3][:2]], skip=2 if codec in ("libvpx-vp9", "libsvtav1") else 8)
        kept = [i for i in range(40) if not keys[1] + 3 <= i < keys[2]]
        cases.append(some(path, kept, why="7 frames are missing" if codec == "libvpx-vp9" else "left out"))
    most = write(folder / "mostly-damaged.mp4", options={"bf": "0"}, gop=1)
    overwrite(most, [p[:2] for p in packets_of(most)[5:35]])
    kept = [i for i in range(40) if not 5 <= i < 35]
    cases.append(some(most, kept, verdict="quarantined", why="30 damaged frames"))
    return cases


NO_REORDERING = {
    "libx265": {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0:keyint=10:min-keyint=10:scenecut=0"},
    "mpeg4": {"b": "2M", "bf": "0"},
}


def make_truncated(folder: Path) -> list[Case]:
    """Recordings and downloads that stopped: what is whole is kept."""
    cases = []
    for percent in (15, 50, 85):
        path = write(folder / f"truncated-{percent}.mp4", options={"bf": "0"}, muxer={"movflags": "+faststart"})
        packets = packets_of(path)
        first = packets[0][0]
        end = first + (path.stat().st_size - first) * percent // 100
        kept = [number for pos, size, number, _ in packets if pos + size <= end]
        path.write_bytes(path.read_bytes()[:end])
        verdict = "repaired"
        cases.append(some(path, kept, verdict=verdict, why="cut off", lost_seconds=((max(kept) + 1) / FPS, 1.6)))
    for suffix, codec in ((".mkv", "libx264"), (".webm", "libvpx-vp9")):
        path = write(folder / f"truncated{suffix}", codec=codec, options={"bf": "0"} if codec == "libx264" else {})
        packets = packets_of(path)
        end = packets[25][0] + packets[25][1] // 2
        path.write_bytes(path.read_bytes()[:end])
        cases.append(some(path, range(25), why="cut off"))
    path = write(folder / "truncated.avi", codec="mjpeg", pixel_format="yuvj422p")
    packets = packets_of(path)
    path.write_bytes(path.read_bytes()[: packets[25][0]])
    cases.append(some(path, range(25), why="cut off"))
    path = write(folder / "truncated.gif", 20, codec="gif", pixel_format="rgb8")
    packets = packets_of(path)
    path.write_bytes(path.read_bytes()[: packets[12][0] + 10])
    cases.append(Case(path, "repaired", {i: i for i in range(12)}, {i: i / FPS for i in range(12)}, why=""))
    path = write(folder / "no-moov.mp4")
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b"moov") - 4])
    cases.append(bad(path, "header is damaged or missing"))
    path = write(folder / "header-only.mp4", muxer={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"mdat") + 4])
    cases.append(bad(path, "no frame can be decoded"))
    path = write(folder / "lost-in-transit.ts", options={"bf": "0"})
    data = path.read_bytes()
    pieces = [data[i : i + 188] for i in range(0, len(data), 188)]
    with av.open(str(path)) as container:
        places = [p.pos for p in container.demux(video=0) if p.size]
    gone = places[23] // 188 + 1
    path.write_bytes(b"".join(pieces[:gone] + pieces[gone + 1 :]))
    kept = [i for i in range(40) if not 23 <= i < 30]
    cases.append(Case(path, "repaired", {i: i for i in kept}, why="left out"))
    return cases


def make_headless(folder: Path) -> list[Case]:
    """Streams that begin in the middle of a group of pictures, and one without any key frame."""
    cases = []
    for name, options in (("starts-late.ts", {"bf": "0"}), ("starts-late-mpeg2.mpg", {"bf": "0", "b": "2M"})):
        codec = "mpeg2video" if name.endswith("mpg") else "libx264"
        path = write(folder / name, codec=codec, options=options)
        copy_from(path, 5)
        cases.append(Case(path, "repaired", {i - 5: i for i in range(10, 40)}, why="missing key frame"))
    path = write(folder / "no-key-frame.mkv", options={"bf": "0"}, gop=250)
    copy_from(path, 1)
    cases.append(bad(path, "no frame can be decoded"))
    return cases


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


def make_backwards(folder: Path) -> list[Case]:
    """Times that fall back: two broadcasts in one file."""
    joined = folder / "two-broadcasts.ts"
    parts = [write(folder / "cast-a.ts", 40), write(folder / "cast-b.ts", 40, first=40)]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return [Case(joined, "repaired", {i: i for i in range(80)}, why="1 timestamp fell back")]


def make_hostile(folder: Path) -> list[Case]:
    """What is no video, names other files, or asks for more memory than there is."""
    files = {
        "empty.mp4": (b"", "empty (0 bytes)"),
        "zeros.mp4": (bytes(20_000), "not a video"),
        "noise.mkv": (np.random.default_rng(0).bytes(20_000), "not a video"),
        "notes.mp4": (b"these are my notes, not a video\n" * 50, "not a video"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", ""),
        "list.txt": (b"ffconcat version 1.0\nfile h264-b-frames.mp4\n", ""),
        "huge.y4m": (b"YUV4MPEG2 W30000 H20000 F25:1 C420jpeg\nFRAME\n" + bytes(1000), ""),
        "wide.y4m": (b"YUV4MPEG2 W2000000000 H2 F25:1 C420jpeg\nFRAME\n" + bytes(1000), ""),
        "huge.gif": (
            b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;",
            "",
        ),
    }
    cases = []
    for name, (data, why) in files.items():
        (folder / name).write_bytes(data)
        cases.append(bad(folder / name, why))
    still = folder / "photo.jpg"
    Image.fromarray(numbered_picture(3)).save(still)
    cases.append(bad(still, "a still picture"))
    cases.append(bad(mux(folder / "song.mp4", ["audio"]), "audio only"))
    cases.append(bad(mux(folder / "song-with-cover.m4a.mp4", ["cover", "audio"]), "audio only"))
    for name, table, pairs in (
        ("bomb-times.mp4", b"stts", [(1_000_000_000, 512)]),
        ("bomb-shifts.mp4", b"ctts", [(1_000_000_000, 512)]),
    ):
        path = write(folder / name)
        patch_table(path, table, pairs)
        cases.append(bad(path, "claims 1,000,000,000 frames"))
    path = write(folder / "bomb-sizes.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"stsz") + 8
    data[at : at + 8] = struct.pack(">II", 1, 1_000_000_000)
    path.write_bytes(data)
    cases.append(bad(path, "claims 1,000,000,000 frames"))
    path = write(folder / "bomb-fragment.mp4", muxer={"movflags": "frag_keyframe+empty_moov"})
    data = bytearray(path.read_bytes())
    at = data.index(b"trun") + 8
    data[at : at + 4] = struct.pack(">I", 1_000_000_000)
    path.write_bytes(data)
    cases.append(bad(path, "claims 1,000,000,000 frames"))
    path = write(folder / "claims-much.avi", codec="mjpeg", pixel_format="yuvj422p")
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16
    data[at : at + 4] = struct.pack("<I", 1_000_000_000)
    at = data.index(b"strh") + 8 + 32
    data[at : at + 4] = struct.pack("<I", 1_000_000_000)
    path.write_bytes(data)
    cases.append(some(path, range(40), why="claims 40000000.00 s"))
    return cases


MAKERS = (
    make_formats, make_streams, make_times, make_edits, make_turned, make_shapes, make_containers, make_pictures,
    make_damaged, make_truncated, make_headless, make_backwards, make_hostile,
)  # fmt: skip


def build(folder: Path) -> list[Case]:
    """Make the whole corpus in an empty folder."""
    return [case for maker in MAKERS for case in maker(folder)]
