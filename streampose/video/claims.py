"""Refuse an mp4 whose tables claim more frames than its bytes can hold, before a demuxer allocates memory for them.

FFmpeg expands the sample tables of mp4 and mov when it opens a file, so that a few bytes that claim 10^9 frames would
cost tens of gigabytes. Source of the layout: ISO/IEC 14496-12, sections 8.6 (times), 8.7.3 (sizes), 8.8.8 (fragments).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from streampose.errors import VideoError

CONTAINERS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"))
COUNTS = frozenset((b"stsz", b"stz2", b"stts", b"ctts", b"trun"))
BRANDS = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"moof", b"styp"))
SAMPLES_PER_BYTE = 16  # old audio codecs have several samples in a byte; a frame has at least one byte
SLACK = 100_000
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """How many bytes a mp4, mkv, webm or avi lacks at its end; 0 where it is whole or does not say."""
    size, declared = path.stat().st_size, 0
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in BRANDS:
            while declared + 8 <= size:
                length, _, _ = _read_box(file, declared, size)
                declared = declared + length if length else size
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        declared = 8 + int.from_bytes(head[4:8], "little")
    elif head[:4] == EBML:
        at = 4
        length, at = _read_vint(head, at)
        at += length
        if head[at : at + 4] == SEGMENT:
            length, at = _read_vint(head, at + 4)
            declared = at + length
    return max(0, declared - size)


def _read_vint(data: bytes, at: int) -> tuple[int, int]:
    """A size of EBML (RFC 8794, section 4) and where it ends; a size that is not known reads as 0."""
    first = data[at] if at < len(data) else 0
    if not first:
        return 0, len(data)
    length = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
    return (0 if value == (1 << 7 * length) - 1 else value), at + length


def check_claims(path: Path) -> None:
    """Raise VideoError where an mp4, mov or 3gp claims more samples than it can hold; other files pass."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(8)[4:] not in BRANDS:
                return
            claimed = max(_counts(file, 0, size, 0), default=0)
    except OSError:
        return  # opening it says why
    if claimed > SAMPLES_PER_BYTE * size + SLACK:
        raise VideoError(
            f"{path}: claims {claimed:,} frames in a file of {size:,} bytes; damaged or made to harm; skipped"
        )


def _counts(file: BinaryIO, start: int, stop: int, depth: int) -> Iterator[int]:
    """The numbers of samples that the tables between two places of the file claim."""
    while start + 8 <= stop:
        length, kind, header = _read_box(file, start, stop)
        if not length:
            return
        if kind in CONTAINERS and depth < 8:
            yield from _counts(file, start + header, min(start + length, stop), depth + 1)
        elif kind in COUNTS:
            yield _claimed(file, kind, min(start + length, stop))
        start += length


def _read_box(file: BinaryIO, start: int, stop: int) -> tuple[int, bytes, int]:
    """Length, kind and length of the header of the box at a place; the length is 0 where it makes no sense."""
    file.seek(start)
    length, kind = struct.unpack(">I4s", file.read(8))
    header = 8
    if length == 1:
        length, header = int.from_bytes(file.read(8)), 16
    elif length == 0:
        length = stop - start
    return (length if length >= header else 0), kind, header


def _claimed(file: BinaryIO, kind: bytes, stop: int) -> int:
    """The samples that one table claims; the file stands behind the table's header."""
    fields = file.read(12)
    if len(fields) < 8:
        return 0
    if kind == b"trun":
        return int.from_bytes(fields[4:8])
    if kind in (b"stsz", b"stz2"):
        return int.from_bytes(fields[8:12])
    file.seek(-4, 1)
    entries = min(int.from_bytes(fields[4:8]), max(stop - file.tell(), 0) // 8)
    total = 0
    while entries > 0:  # pairs of (number of samples, duration or shift)
        pairs = file.read(8 * min(entries, 8192))
        if len(pairs) < 8:
            break
        total += sum(struct.unpack(f">{len(pairs) // 8 * 2}I", pairs[: len(pairs) // 8 * 8])[::2])
        entries -= 8192
    return total
