"""Pictures and short videos that a request brings: checked by their first bytes, bounded, and kept in memory only."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from streampose.errors import StreamposeError, VideoError
from streampose.geometry.crop import square_box
from streampose.runtime.find import Finder
from streampose.runtime.predictor import Predictor, box_from_keypoints
from streampose.server.messages import PoseMessage, PosesMessage, SubjectMessage
from streampose.structures import Keypoints
from streampose.video.decode import open_video

PICTURES = ("JPEG", "PNG", "WEBP", "BMP")
MAX_SIDE = 8192  # pixels of a picture's side
MAX_PIXELS = 40_000_000  # of a picture
MAX_VIDEO_PIXELS = 4096 * 2304  # of a frame
MAX_FRAMES = 1800
MAX_SECONDS = 60.0  # of work for one upload
MAX_BOXES = 16
PASSES = 2  # looks at the box that the keypoints themselves give, after the first one
MIN_CONFIDENCE = 0.1  # mean over the joints, under which there is no subject


class Refused(StreamposeError):
    """An upload that is not accepted; `status` is the HTTP status that says so."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


def read_poses(
    data: bytes, predictor: Predictor, boxes: list[np.ndarray], *, model: str, max_subjects: int, in_memory: bool
) -> PoseMessage:
    """Keypoints of a picture or of each frame of a short video.

    Args:
        data: the file's bytes.
        boxes: of the subjects of a picture, (4,) xyxy edges, without padding; none to look at the whole picture.
        in_memory: never write the upload to a temporary file, which only Linux can do without for videos.

    Raises:
        Refused: not one of the accepted formats, damaged, or too large.
    """
    if not data:
        raise Refused(400, "the body is empty; send the bytes of a picture or a video")
    kind = sniff(data)
    if kind is None:
        raise Refused(415, f"neither a picture ({', '.join(PICTURES)}) nor a video (mp4, mov, mkv, webm, avi, gif, ts)")
    if kind == "video" and boxes:
        raise Refused(422, "box: only pictures take boxes; a video is searched for its subjects")
    joints = list(predictor.skeleton.joints)
    if kind == "image":
        image = read_image(data)
        height, width = image.shape[:2]
        subjects = describe(*find_in_image(image, predictor, boxes))
        frames = [PosesMessage(index=0, pts_seconds=0.0, subjects=subjects)]
        return PoseMessage(kind="image", model=model, joints=joints, size=(width, height), frames=frames)
    with as_file(data, in_memory) as path:
        try:
            return _read_video(path, predictor, model, joints, max_subjects)
        except VideoError as error:
            text = str(error).removeprefix(f"{path}: ").removesuffix("; skipped")
            raise Refused(422, f"the video cannot be read: {text}") from None


def sniff(data: bytes) -> str | None:
    """`image` or `video` by the first bytes; None for all else, so that no text that names other files is opened."""
    head = data[:16]
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n" or head[:2] == b"BM":
        return "image"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12])
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp") or head[:4] == b"\x1a\x45\xdf\xa3":
        return "video"
    if head[:6] in (b"GIF87a", b"GIF89a") or head[:4] == b"\0\0\1\xba":
        return "video"
    return "video" if head[:1] == b"G" and data[188:189] == b"G" and data[376:377] == b"G" else None


def read_image(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright; its size is checked before it is decoded.

    Raises:
        Refused: damaged, cut off, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=PICTURES) as picture:
            width, height = picture.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise Refused(
                    413, f"{width} x {height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS // 10**6} million"
                )
            picture.load()
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Image.DecompressionBombError:
        raise Refused(413, f"the picture claims to be enormous; at most {MAX_PIXELS // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise Refused(422, "the picture cannot be read: its header is damaged") from None
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, struct.error, OverflowError,
            ZeroDivisionError, MemoryError, AttributeError) as error:  # fmt: skip
        if isinstance(error, Refused):
            raise
        raise Refused(422, f"the picture cannot be read: {str(error)[:120] or type(error).__name__}") from None


def find_in_image(
    image: np.ndarray, predictor: Predictor, boxes: list[np.ndarray]
) -> tuple[list[int], np.ndarray, Keypoints]:
    """Subjects of one picture: in the given boxes, else the one that the whole picture shows, looked at ever closer.

    Returns:
        (N numbers, (N, 4) the boxes that were looked at, N subjects' keypoints)
    """
    height, width = image.shape[:2]
    if boxes:
        squares = np.stack([square_box(box, predictor.padding) for box in boxes]).astype(np.float32)
        return list(range(len(boxes))), squares, predictor.predict(image, squares)
    square = square_box(np.array([0, 0, width, height], np.float32))[None].astype(np.float32)
    keypoints = predictor.predict(image, square)
    for _ in range(PASSES):
        xy, confidence = keypoints.xy[0], keypoints.confidence[0]
        closer = box_from_keypoints(xy, confidence, predictor.skeleton, predictor.padding)
        if closer is None or confidence.mean() < MIN_CONFIDENCE:
            break
        square = np.asarray(closer, np.float32)[None]
        keypoints = predictor.predict(image, square)
    found = keypoints.confidence.mean(-1) >= MIN_CONFIDENCE
    return [0] * int(found.sum()), square[found], keypoints.pick(found)


def describe(ids: list[int], boxes: np.ndarray, keypoints: Keypoints) -> list[SubjectMessage]:
    """Subjects as messages carry them."""
    z = np.zeros_like(keypoints.confidence) if keypoints.z is None else keypoints.z
    rows = np.concatenate([keypoints.xy, z[..., None], keypoints.confidence[..., None]], -1).astype(float)
    rows[..., :3], rows[..., 3] = np.round(rows[..., :3], 2), np.round(rows[..., 3], 3)
    return [
        SubjectMessage(id=id_, box=np.round(box.astype(float), 1).tolist(), keypoints=points.tolist())
        for id_, box, points in zip(ids, boxes, rows, strict=True)
    ]


@contextlib.contextmanager
def as_file(data: bytes, in_memory: bool) -> Iterator[Path]:
    """The bytes under a path of our own making: a file in memory where the system has such, else a temporary one.

    Raises:
        Refused: there are no files in memory, and nothing else is allowed.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("upload")
        with open(descriptor, "wb", buffering=0) as file:
            file.write(data)
            yield Path(f"/proc/self/fd/{descriptor}")
        return
    if in_memory:
        raise Refused(415, "videos are not accepted: this private server would have to store them for a moment")
    with tempfile.TemporaryDirectory(prefix="streampose-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        yield path


def _read_video(path: Path, predictor: Predictor, model: str, joints: list[str], max_subjects: int) -> PoseMessage:
    """Find and follow the subjects as `annotate` does, without smoothing."""
    deadline = time.monotonic() + MAX_SECONDS
    rows: list[tuple[int, float, list[int], np.ndarray, Keypoints]] = []
    subjects: frozenset[int] = frozenset()
    with open_video(path, threads=1) as video:
        probe = video.probe
        if probe.width * probe.height > MAX_VIDEO_PIXELS or max(probe.width, probe.height) > MAX_SIDE:
            raise Refused(413, f"frames of {probe.width} x {probe.height} pixels; at most 4096 x 2304")
        if (probe.frames_estimate or 0) > MAX_FRAMES:
            raise Refused(413, f"{probe.frames_estimate} frames; at most {MAX_FRAMES}, cut the video")
        finder = Finder(path, predictor, max_subjects)
        try:
            for found in finder.find(video.frames(), probe):
                boxes, ids, subjects = found.boxes, list(found.ids), subjects | found.proven
                crops = [found.frame.crop(box, predictor.input_size) for box in boxes]
                keypoints = _predict(predictor, crops, boxes)
                if found.follower is not None:
                    if not found.follower.update(keypoints):
                        ids, boxes, keypoints = [], boxes[:0], keypoints.pick([])
                    elif found.follower.proven:
                        subjects |= frozenset(ids)
                rows.append((found.frame.index, found.frame.pts_seconds, ids, boxes, keypoints))
                if len(rows) > MAX_FRAMES or time.monotonic() > deadline:
                    raise Refused(413, f"too long: at most {MAX_FRAMES} frames and {MAX_SECONDS:.0f} s of work")
        except av.error.FFmpegError as error:
            raise Refused(422, f"the video cannot be read: {error.strerror or error}") from None
    verdict = video.verdict
    if not rows or verdict.verdict == "quarantined":
        raise Refused(422, f"the video cannot be read: {verdict.reason or 'it has no frames'}")
    frames = []
    for index, pts_seconds, ids, boxes, keypoints in rows:
        keep = [n for n, track in enumerate(ids) if track in subjects]
        found_here = describe([ids[n] for n in keep], boxes[keep], keypoints.pick(keep))
        frames.append(PosesMessage(index=index, pts_seconds=round(pts_seconds, 4), subjects=found_here))
    return PoseMessage(
        kind="video", model=model, joints=joints, size=(probe.width, probe.height), frames=frames,
        verdict="ok" if verdict.verdict == "ok" else "repaired", reason=verdict.reason,
    )  # fmt: skip


def _predict(predictor: Predictor, crops: list[np.ndarray], boxes: np.ndarray) -> Keypoints:
    shape = (0, predictor.input_size, predictor.input_size, 3)
    return predictor.to_source(*predictor.predict_crops(np.stack(crops) if crops else np.zeros(shape, np.uint8)), boxes)
