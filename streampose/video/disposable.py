"""Which coded pictures no other picture builds on, told without decoding.

PyAV does not hand on FFmpeg's own flag for it, and FFmpeg sets that only where the container says so.
"""

from __future__ import annotations

import av

SLICE, HINTS, DELIMITER = 1, 6, 9  # nal_unit_type of H.264: part of a picture that is no key frame, SEI, AUD


def nal_length_bytes(context: av.CodecContext) -> int:
    """Of how many bytes the length before each part of a packet is; 0 where packets are not H.264 as mp4 holds it.

    Source: ISO/IEC 14496-15, AVCDecoderConfigurationRecord.
    """
    header = context.extradata or b""
    return (header[4] & 3) + 1 if context.name == "h264" and len(header) > 6 and header[0] == 1 else 0


def is_disposable(packet: av.Packet, length_bytes: int) -> bool:
    """Whether a packet is sound in its parts and holds nothing but a picture that no other builds on.

    Args:
        length_bytes: of `nal_length_bytes`.

    Source: ITU-T H.264, 7.4.1: nal_ref_idc is 0.
    """
    data, at, found = memoryview(packet), 0, False
    while at + length_bytes < len(data):
        kind, importance = data[at + length_bytes] & 31, data[at + length_bytes] >> 5 & 3
        if importance or kind not in (SLICE, HINTS, DELIMITER):
            return False
        found |= kind == SLICE
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
    return found and at == len(data)
