"""Videos as people have them: small files with every trait and every kind of damage, made on the spot.

`build(folder)` makes them; each `Case` says what is to become of its file. Every frame carries its number in its
pixels, so that what a decoder gives can be told from what it should give.

Adding a case: write a function that takes the folder and returns a list of `Case`, and add it to TRAITS or to
`corpus_damage.DAMAGE`. Draw with `drawing.numbered_picture`, keep the file below 50 frames of 160 x 120, and say in
`why` what the user should be told.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .corpus_damage import DAMAGE
from .drawing import CELL, FPS, SIZE, Case, mux, numbered_picture, patch_table, some, sound, write

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


TRAITS = (
    make_formats, make_streams, make_times, make_edits, make_turned, make_shapes, make_containers, make_pictures,
)  # fmt: skip


def build(folder: Path) -> list[Case]:
    """Make the whole corpus in an empty folder."""
    return [case for maker in TRAITS + DAMAGE for case in maker(folder)]
