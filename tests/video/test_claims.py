"""Claims that cannot be: found by reading a few tables, without opening the file."""

from __future__ import annotations

import struct

import pytest

from streampose.errors import VideoError
from streampose.video.claims import check_claims, missing_bytes

from .conftest import write_video


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def nested(table: bytes) -> bytes:
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        table = box(kind, table)
    return box(b"ftyp", b"isom\0\0\0\0") + table


def table(kind: bytes, *numbers: int) -> bytes:
    return box(kind, struct.pack(f">{1 + len(numbers)}I", 0, *numbers))


@pytest.mark.parametrize(
    "tables",
    [
        table(b"stsz", 1, 1_000_000_000),
        table(b"stts", 1, 1_000_000_000, 512),
        table(b"stts", 2, 500_000_000, 512, 500_000_000, 512),
        table(b"ctts", 1, 1_000_000_000, 0),
    ],
)
def test_more_frames_than_bytes(tmp_path, tables):
    path = tmp_path / "bomb.mp4"
    path.write_bytes(nested(tables))
    with pytest.raises(VideoError, match=r"claims 1,000,000,000 frames in a file of \d+ bytes"):
        check_claims(path)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"abc", bytes(100), box(b"moov", b"\xff" * 40), nested(b"\0\0\0\x01stsz" + b"\xff" * 3),
        nested(struct.pack(">I4sQ", 1, b"stts", 2**63)), nested(table(b"stts", 2**32 - 1)), nested(table(b"stsz")),
    ],
)  # fmt: skip
def test_nonsense_is_left_to_the_demuxer(tmp_path, data):
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    check_claims(path)
    assert missing_bytes(path) >= 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_bytes_that_are_missing_at_the_end(tmp_path, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    options = {"b": "1M"} if codec == "mpeg4" else {}
    path = write_video(tmp_path / name, 30, codec=codec, options=options)
    check_claims(path)
    assert missing_bytes(path) == 0
    path.write_bytes(path.read_bytes()[:-100])
    assert missing_bytes(path) == 100
