"""What the live server says: the documented messages of `WS /v1/stream` and of `/v1/*`.

README.md beside this file tells how to talk to it; `GET /v1/schema` and `GET /openapi.json` give the same to machines;
`packing.py` holds the binary layouts.

Schema 1. Keypoints are [x, y, z, confidence] in pixels of the source (`size`), pixel centres are integers; z is the
depth relative to the skeleton's root, away from the camera, in the same pixels (0 for a 2D model). Boxes are
[x0, y0, x1, y1] edges. Fields that are null may be left out.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    """Several poses that explain a subject: [x, y, z] a joint, None where it is not lifted, and their weights.

    `spread` is how far off each joint may be in space: one standard deviation, in the same pixels.
    """

    model_config = ConfigDict(frozen=True)
    poses: list[list[tuple[float, float, float] | None]]
    weights: list[float]
    spread: list[float | None]


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
    looked at), `find` (where is the subject), `infer`, `smooth`, and with a lifter `lift`. `dropped` counts frames that
    were captured and never looked at because a newer one came; `reconnects` how often the source was opened again.
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
    cameras: list[str] = []
    pictures: bool = True
    """Whether pictures are sent to those who ask for them; a private server keeps them to itself."""
    recordings: bool = False
    """Whether `POST /v1/recording` is allowed."""


class ListingMessage(Message):
    """Names that may be chosen, and the one that is on; None where what is on has none."""

    current: str | None
    names: list[str]


class SwitchMessage(BaseModel):
    """What to serve from now on: names of the listings; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str | None = Field(None, max_length=1000)
    model: str | None = Field(None, max_length=1000)


class PosesMessage(BaseModel):
    """The subjects of one frame of an upload."""

    model_config = ConfigDict(frozen=True)
    index: int
    pts_seconds: float
    subjects: list[SubjectMessage]


class PoseMessage(Message):
    """The answer to an upload; `size` is the width and height of its pictures as displayed.

    `verdict` is `ok`, or `repaired` where frames of a video were lost, which `reason` tells.
    """

    kind: Literal["image", "video"]
    model: str
    joints: list[str]
    size: tuple[int, int]
    frames: list[PosesMessage]
    verdict: Literal["ok", "repaired"] = "ok"
    reason: str = ""


class StateMessage(BaseModel):
    """Health or readiness in a word."""

    model_config = ConfigDict(frozen=True)
    status: str
    error: str | None = None


class ProblemMessage(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(frozen=True)
    detail: str


def describe_skeleton(skeleton: Skeleton) -> SkeletonMessage:
    """The skeleton as clients see it."""
    return SkeletonMessage(
        name=skeleton.name,
        joints=list(skeleton.joints),
        bones=[(bone.parent, bone.child) for bone in skeleton.bones],
        flip_pairs=[(left, right) for left, right in skeleton.flip_pairs],
        root=skeleton.root,
    )
