"""The binary frames of the stream: a JSON header with a picture behind it, and the compact layout.

Needs numpy only, so that `streampose.client` stays light. Compact frames (`format=compact`), all little-endian, each
block at a multiple of four bytes, so that typed arrays can look at it without copying:

| offset | type | field |
|---|---|---|
| 0 | 4 bytes | `SPF1` |
| 4 | uint32 | number |
| 8 | float64 | pts_seconds |
| 16 | float32 | latency_ms |
| 20 | uint16 x 2 | width, height of the source |
| 24 | uint8 | state: its place in STATES |
| 25 | uint8 | camera |
| 26 | uint16 | N subjects |
| 28 | uint16 | K joints |
| 30 | uint16 | M subjects in space |
| 32 | uint32 | bytes of the picture behind all else, 0 for none |
| 36 | N subjects | int32 id, float32 box x 4, float32 x y z confidence x K, uint8 visibility x K, padded to 4 bytes |
| | M subjects in space | int32 id, float32 x y z in metres x K (NaN where unknown), float32 error_px x K |
| | bytes | JPEG |

Visibility is 2 visible, 1 occluded, 0 absent, 255 where nobody judged it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

MAGIC = b"SPF1"
HEADER = struct.Struct("<4sIdfHHBBHHHI")
STATES = ("starting", "searching", "following", "reconnecting", "ended", "failed")
UNJUDGED = 255


def pack_frame(header: str, jpeg: bytes) -> bytes:
    """A binary frame message: uint32 big-endian length of the JSON, the JSON, the JPEG."""
    encoded = header.encode()
    return struct.pack(">I", len(encoded)) + encoded + jpeg


def unpack_frame(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of `pack_frame`: (the frame message, JPEG bytes).

    Raises:
        ValueError: the message is shorter than it says, or its header is not JSON.
    """
    if len(message) < 4 or len(message) < 4 + struct.unpack_from(">I", message)[0]:
        raise ValueError(f"frame message of {len(message)} bytes is shorter than its header says")
    (length,) = struct.unpack_from(">I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def pack_compact(
    *,
    number: int,
    pts_seconds: float,
    latency_ms: float,
    size: tuple[int, int],
    state: str,
    camera: int,
    ids: tuple[int, ...],
    boxes: np.ndarray,
    keypoints: np.ndarray,
    visibility: np.ndarray | None = None,
    scene_ids: tuple[int, ...] = (),
    points: np.ndarray | None = None,
    errors_px: np.ndarray | None = None,
    jpeg: bytes = b"",
) -> bytes:
    """A compact frame.

    Args:
        size: (width, height) of the source.
        boxes: (N, 4) edges in source pixels.
        keypoints: (N, K, 4) x, y, z, confidence.
        visibility: (N, K) 0, 1 or 2; None where nobody judged it.
        points: (M, K, 3) metres, of the subjects `scene_ids`.
        errors_px: (M, K).
    """
    N, K, _ = keypoints.shape
    parts = [
        HEADER.pack(
            MAGIC, number & 0xFFFFFFFF, pts_seconds, latency_ms, *size, STATES.index(state), camera, N, K,
            len(scene_ids), len(jpeg),
        )
    ]  # fmt: skip
    seen = np.full((N, -(-K // 4) * 4), UNJUDGED, np.uint8)
    if visibility is not None:
        seen[:, :K] = visibility
    for n, id_ in enumerate(ids):
        parts += [struct.pack("<i", id_), _floats(boxes[n]), _floats(keypoints[n]), seen[n].tobytes()]
    if points is not None and errors_px is not None:
        for m, id_ in enumerate(scene_ids):
            parts += [struct.pack("<i", id_), _floats(points[m]), _floats(errors_px[m])]
    return b"".join([*parts, jpeg])


def unpack_compact(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of `pack_compact`: (the frame with arrays for boxes, keypoints, ..., JPEG bytes).

    Raises:
        ValueError: not a compact frame, or shorter than it says.
    """
    if len(message) < HEADER.size or message[:4] != MAGIC:
        raise ValueError(f"{len(message)} bytes that are not a compact frame (they must begin with {MAGIC.decode()})")
    _, number, pts_seconds, latency_ms, width, height, state, camera, N, K, M, jpeg_bytes = HEADER.unpack_from(message)
    padded = -(-K // 4) * 4
    subject, scene = 4 + 16 + 16 * K + padded, 4 + 16 * K
    if len(message) != HEADER.size + N * subject + M * scene + jpeg_bytes or state >= len(STATES):
        raise ValueError(f"compact frame of {len(message)} bytes does not have the size that its header says")
    subjects = np.frombuffer(
        message,
        np.dtype([("id", "<i4"), ("box", "<f4", 4), ("keypoints", "<f4", (K, 4)), ("visibility", "u1", padded)]),
        N,
        HEADER.size,
    )
    space = np.frombuffer(
        message,
        np.dtype([("id", "<i4"), ("points", "<f4", (K, 3)), ("errors_px", "<f4", K)]),
        M,
        HEADER.size + N * subject,
    )
    visibility = subjects["visibility"][:, :K]
    frame = {
        "number": number,
        "pts_seconds": pts_seconds,
        "latency_ms": latency_ms,
        "size": (width, height),
        "state": STATES[state],
        "camera": camera,
        "ids": tuple(subjects["id"].tolist()),
        "boxes": subjects["box"],
        "keypoints": subjects["keypoints"],
        "visibility": None if (visibility == UNJUDGED).any() else visibility,
        "scene_ids": tuple(space["id"].tolist()),
        "points": space["points"],
        "errors_px": space["errors_px"],
    }
    return frame, message[len(message) - jpeg_bytes :] if jpeg_bytes else b""


def _floats(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()
