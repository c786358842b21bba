"""What the live server says: the documented messages of `WS /v1/stream` and `GET /v1/*`, and their binary packing.

Schema 1; `GET /v1/schema` gives it as JSON Schema. A client opens `WS /v1/stream?video=jpeg|none&ack=0|1` and receives

1. one `hello` (text) with the skeleton, so that it can draw what follows;
2. a `frame` for every published frame it is quick enough to take. With `video=none` (the default) it is a text message;
   with `video=jpeg` it is a binary one that carries the same JSON and the very picture the keypoints were found in:
   `uint32 big-endian length of the JSON | JSON (UTF-8) | JPEG`;
3. `stats` (text) once a second, also while no frames flow, with the state of the source.

With `ack=1` the client sends `{"type": "ack", "number": n}` after it has shown frame n (`"shown": false` if it skipped
it); the server then keeps at most two frames under way to it, so no lag builds up in network buffers, and reports the
capture-to-shown latency.

Keypoints are [x, y, z, confidence] in pixels of the source (`size`), pixel centres are integers; z is the depth
relative to the skeleton's root, away from the camera, in the same pixels (0 for a 2D model). Boxes are [x0, y0, x1, y1]
edges.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from streampose.structures import Skeleton

MESSAGE_SCHEMA = 1

State = Literal["starting", "searching", "following", "reconnecting", "ended", "failed"]


class Message(BaseModel):
    """Base of all messages; readers must ignore fields they do not know, so that fields can be added."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = MESSAGE_SCHEMA


class SkeletonMessage(Message):
    """Joint names and the index pairs between which bones are drawn."""

    name: str
    joints: list[str]
    bones: list[tuple[int, int]]
    flip_pairs: list[tuple[int, int]]
    root: int


class HypothesesMessage(BaseModel):
    """Several poses that explain a subject: [x, y, z] a joint, likeliest first; their weights; the joints' spread."""

    model_config = ConfigDict(frozen=True)
    poses: list[list[tuple[float, float, float]]]
    weights: list[float]
    spread: list[float]


class SubjectMessage(BaseModel):
    """One followed subject; `id` stays the same while it is followed.

    `visibility` says of each joint: 2 visible, 1 occluded, 0 absent.
    """

    model_config = ConfigDict(frozen=True)
    id: int
    box: tuple[float, float, float, float]
    keypoints: list[tuple[float, float, float, float]]
    visibility: list[int] | None = None
    hypotheses: HypothesesMessage | None = None


class SceneSubjectMessage(BaseModel):
    """One subject in space, None where fewer than two cameras agree; `views`: which subject it is in which camera."""

    model_config = ConfigDict(frozen=True)
    id: int
    points: list[tuple[float, float, float] | None]
    errors_px: list[float | None]
    views: dict[int, int]


class SceneMessage(BaseModel):
    """The subjects in the world of the calibration, in metres; `skew_ms` between the frames that were used."""

    model_config = ConfigDict(frozen=True)
    subjects: list[SceneSubjectMessage]
    skew_ms: float


class CameraMessage(BaseModel):
    """One of the session's cameras; `error` is what is wrong with it at present."""

    model_config = ConfigDict(frozen=True)
    name: str
    state: State
    error: str | None = None
    size: tuple[int, int] | None = None
    capture_fps: float
    captured: int
    published: int
    dropped: int
    reconnects: int


class RecordingMessage(BaseModel):
    """The recording that was asked for last; `error` says why it ended before it was told to."""

    model_config = ConfigDict(frozen=True)
    running: bool
    name: str
    seconds: float
    frames: int
    dropped: int
    error: str | None = None


class LatencyMessage(BaseModel):
    """Percentiles in milliseconds; None before anything was measured."""

    model_config = ConfigDict(frozen=True)
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class StatsMessage(Message):
    """Numbers of the last ten seconds, counts since the start.

    `latency_ms` runs from the capture of a frame to its publication; `stages_ms` divides it: `wait` (captured, not yet
    looked at), `find` (where is the subject), `infer` and `smooth`. `dropped` counts frames that were captured and
    never looked at because a newer one came; `reconnects` how often the source was opened again.
    """

    type: Literal["stats"] = "stats"
    state: State
    source: str
    model: str
    runtime: str
    error: str | None = None
    capture_fps: float
    inference_fps: float
    latency_ms: LatencyMessage
    stages_ms: dict[str, LatencyMessage]
    captured: int
    published: int
    dropped: int
    reconnects: int
    clients: int
    seconds: float
    shown_latency_ms: LatencyMessage | None = None
    skipped: int | None = None
    cameras: list[CameraMessage] = []
    recording: RecordingMessage | None = None
    collected: int | None = None


class FrameMessage(Message):
    """One published frame of one camera; `pts_seconds` is the source's own clock, `latency_ms` capture to publication.

    `scene` holds the subjects in space where the cameras are calibrated.
    """

    type: Literal["frame"] = "frame"
    number: int
    camera: int = 0
    pts_seconds: float
    latency_ms: float
    size: tuple[int, int]
    state: State
    subjects: list[SubjectMessage]
    scene: SceneMessage | None = None
    stages_ms: dict[str, float] = {}


class HelloMessage(Message):
    """The first message of a stream."""

    type: Literal["hello"] = "hello"
    version: str
    source: str
    model: str
    runtime: str
    skeleton: SkeletonMessage


def describe_skeleton(skeleton: Skeleton) -> SkeletonMessage:
    """The skeleton as clients see it."""
    return SkeletonMessage(
        name=skeleton.name,
        joints=list(skeleton.joints),
        bones=[(bone.parent, bone.child) for bone in skeleton.bones],
        flip_pairs=[(left, right) for left, right in skeleton.flip_pairs],
        root=skeleton.root,
    )


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
