"""The damaged and hostile part of the corpus; see `corpus`."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .drawing import FPS, Case, bad, copy_from, mux, numbered_picture, overwrite, packets_of, patch_table, some, write


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


DAMAGE = (make_damaged, make_truncated, make_headless, make_backwards, make_hostile)
