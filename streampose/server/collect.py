"""Keep hard moments of a live session in a store, for the next `selftrain`: the arrow back.

A moment is hard where the model is unsure, its joints jump or change sides, or it sees the subject where nothing moves.
What is kept is a short clip of crops with masks, as `ingest` would have cut it, with what was hard about it. There is a
budget, and moments that look like one that is kept already are left out. Frames are stored nowhere else.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import StoreError
from streampose.geometry.crop import crop_resize, shrink, square_box
from streampose.masks.background import BackgroundModel, model_size
from streampose.masks.quality import Quality
from streampose.server.motion import same_scene
from streampose.server.results import Result
from streampose.store.pairs import sample_pairs
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store, locked, open_store
from streampose.store.writer import ClipWriter, publish_source, write_pairs
from streampose.structures import Skeleton
from streampose.tracking.boxes import MARGIN, blob_mask, box_iou, find_blobs, join_fragments, touches_border
from streampose.tracking.polish import Polished
from streampose.tracking.worth import LEAST_MOTION, MOTION_SECONDS, SIGNATURE

CROP_SIZE = 128  # of a new store
LOOK_SECONDS = 0.1  # between the frames that are looked at
BEFORE, AFTER = 10, 14  # frames of a moment before and after it was found hard
LEAST_FRAMES = 8
LEARN_FRAMES = 30  # before the background is trusted
ANCHOR_LOOKS = 200  # after which the scene is compared with a newer picture of it
LEAST_MASK = 0.04  # of the crop
WHOLE = 0.7  # share of what moves around a subject that must be one piece
LEAST_SIDE = 0.45  # of the followed box: what is smaller is a part of the subject
STEADY = 1.5  # times: sizes of one subject within a moment
LEAST_KEPT = 0.6  # share of a moment's looks that must be usable
MOST_CLIPS = 200  # of one session
PAUSE_SECONDS = 3.0  # between two moments of one camera
UNSURE = 0.6  # times the usual confidence
HELD = 0.25  # share of the joints that jump
ASTRAY = 0.1  # overlap with what moves below which a subject is where nothing moves
LONG_SECONDS = 0.5  # for so long a subject must be hard
ALIKE = 0.93  # correlation of the middle of a moment with any frame that is kept, from which it is left out
THUMBNAIL = 16


@dataclass(frozen=True)
class _Look:
    """One subject in one frame."""

    crop: np.ndarray
    mask: np.ndarray
    square: np.ndarray
    pts_seconds: float
    number: int
    quality: float


@dataclass
class _Watch:
    """One subject of one camera."""

    usual: float = 0.0
    hard: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=64))
    looks: deque[_Look] = field(default_factory=lambda: deque(maxlen=BEFORE + AFTER))
    reason: str = ""
    left: int = 0  # looks that still belong to the moment
    seen_at: float = 0.0


class Collector:
    """Takes results beside the session, in a thread of its own, and keeps the hard moments.

    Args:
        store: made where there is none.
        most_clips: the budget of this session.

    Attributes:
        kept: clips so far.

    Raises:
        StoreError: something else lies there, or the store is another skeleton's.
    """

    def __init__(self, store: Path, skeleton: Skeleton, *, most_clips: int = MOST_CLIPS):
        self._store, self._most_clips = Path(store), most_clips
        size = open_store(self._store)["crop_size"] if self._store.exists() else CROP_SIZE
        self._attributes = create_store(self._store, skeleton, crop_size=size, margin=MARGIN)
        self._size = int(self._attributes["crop_size"])
        self._began = datetime.now(UTC)
        self._id = f"live-{self._began:%Y%m%d-%H%M%S-%f}"
        self.kept = 0
        self._clips: list[str] = []
        self._reasons: Counter[str] = Counter()
        self._thumbnails: list[np.ndarray] = []
        self._hard: dict[tuple[int, int], tuple[float, str]] = {}  # told by the session, for the thread
        self._usual: dict[tuple[int, int], float] = {}
        self._models: dict[int, _Scene] = {}
        self._watches: dict[tuple[int, int], _Watch] = {}
        self._looked: dict[int, float] = {}
        self._kept_at: dict[int, float] = {}
        self._frames = 0
        self._queue: queue.Queue[tuple[Result, dict[int, str]] | None] = queue.Queue(2)
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def offer(self, result: Result, polished: Polished | None, motion: np.ndarray | None) -> None:
        """A published frame; never blocks.

        Args:
            polished: what became of its keypoints.
            motion: (M, 4) boxes of what moves; None where that is not known.
        """
        if result.captured_at - self._looked.get(result.camera, -np.inf) < LOOK_SECONDS or not self._thread.is_alive():
            return
        reasons = {}
        for n, id_ in enumerate(result.ids):
            reason = self._judge(result, n, id_, polished, motion)
            if reason:
                reasons[id_] = reason
        try:
            self._queue.put_nowait((result, reasons))
            self._looked[result.camera] = result.captured_at
        except queue.Full:
            return

    def close(self) -> None:
        """Finish the last moment, and the pairs that training needs."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=5.0)
            except queue.Full:  # the disk hangs
                return
            self._thread.join(30.0)

    def _judge(
        self, result: Result, n: int, id_: int, polished: Polished | None, motion: np.ndarray | None
    ) -> str:  # fmt: skip
        """What is hard about one subject in one frame; empty where nothing is."""
        key, confidence = (result.camera, id_), float(result.keypoints.confidence[n].mean())
        usual = self._usual.get(key, confidence)
        self._usual[key] = 0.98 * usual + 0.02 * confidence
        if len(self._usual) > 1000:
            self._usual.clear()
        if confidence < UNSURE * max(usual, 0.5):
            return "low confidence"
        if polished is not None and polished.held[n].mean() > HELD:
            return "jumping joints"
        if polished is not None and polished.swapped[n]:
            return "swapped sides"
        if motion is not None and len(motion):
            tight = np.concatenate([result.keypoints.xy[n].min(0), result.keypoints.xy[n].max(0)])
            if float(box_iou(square_box(tight)[None], square_box(motion))[0].max()) < ASTRAY:
                return "mask disagreement"
        return ""

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None and self.kept < self._most_clips:
                self._look(*item)
            for (camera, _), watch in self._watches.items():
                if watch.left:
                    self._keep(camera, watch)
            if self._clips:
                with locked(self._store):
                    write_pairs(self._store, sample_pairs(StoreReader(self._store)))
        except StoreError as error:
            logger.error("hard moments are no longer collected: %s", error)
        except Exception:  # a fault of ours; the live path goes on
            logger.exception("hard moments are no longer collected")

    def _look(self, result: Result, reasons: dict[int, str]) -> None:
        self._frames += 1
        scene = self._models.setdefault(result.camera, _Scene())
        mask = scene.apply(result.image)
        for n, id_ in enumerate(result.ids):
            watch = self._watches.setdefault((result.camera, id_), _Watch())
            watch.seen_at = result.captured_at
            if id_ in reasons:
                watch.hard.append((result.captured_at, reasons[id_]))
            look = self._cut(result, n, mask)
            if look is not None:
                watch.looks.append(look)
            self._advance(result.camera, watch, result.captured_at)
        gone = [k for k, w in self._watches.items() if k[0] == result.camera and result.captured_at - w.seen_at > 1.0]
        for key in gone:
            watch = self._watches.pop(key)
            if watch.left:
                self._keep(result.camera, watch)

    def _advance(self, camera: int, watch: _Watch, now: float) -> None:
        """Begin a moment where the subject has been hard for long enough; keep it when it is complete."""
        if watch.left:
            watch.left -= 1
            if not watch.left:
                self._keep(camera, watch)
            return
        recent = [reason for at, reason in watch.hard if now - at <= 2 * LONG_SECONDS]
        enough = len(recent) * LOOK_SECONDS >= LONG_SECONDS or "swapped sides" in recent
        if enough and now - self._kept_at.get(camera, -np.inf) > PAUSE_SECONDS:
            watch.reason, watch.left = Counter(recent).most_common(1)[0][0], AFTER
            watch.hard.clear()

    def _cut(self, result: Result, n: int, mask: np.ndarray | None) -> _Look | None:
        """The crop of one subject as `ingest` cuts it: around its part of the mask; None where that is not clear."""
        if mask is None:
            return None
        height, width = result.image.shape[:2]
        scale = width / mask.shape[1]
        x0, y0, x1, y1 = (round(float(v) / scale) for v in result.boxes[n])
        window = np.zeros_like(mask)
        inside = np.s_[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        window[inside] = mask[inside]
        labels, blobs = find_blobs(window)
        blobs = join_fragments(blobs)
        if not blobs or blobs[0].area < WHOLE * np.count_nonzero(window):
            return None
        tight = blobs[0].box
        if touches_border(tight, (mask.shape[1], mask.shape[0])) or (tight[2:] - tight[:2]).max() < LEAST_SIDE * (
            x1 - x0
        ):
            return None
        square = square_box(tight * scale, MARGIN)
        own = np.where(blob_mask(labels, blobs[0]), 255, 0).astype(np.uint8)
        own = np.where(crop_resize(own, square / scale, self._size) > 127, 255, 0).astype(np.uint8)
        crop = crop_resize(result.image, square, self._size)
        quality = Quality((width, height)).rate(crop, own, square)
        return _Look(crop, own, square, result.captured_at, result.number, quality)

    def _keep(self, camera: int, watch: _Watch) -> None:
        """Write a moment as a clip, unless it is too short or like another."""
        looks, watch.left = _usable(list(watch.looks)), 0
        watch.looks.clear()
        if len(looks) < LEAST_FRAMES:
            return
        middle = _thumbnail(looks[len(looks) // 2].crop)
        if any(float((middle * other).mean()) > ALIKE for other in self._thumbnails):
            return
        with locked(self._store):
            clip = f"{self._id}-{self.kept:04d}"
            writer = ClipWriter(self._store, clip, source=self._id, fps=1.0 / LOOK_SECONDS)
            for look in looks:
                writer.append(look.crop, look.mask, look.square, look.pts_seconds, look.number, look.quality)
            writer.finish(masks="mog2", hard=watch.reason, camera=camera)
            self._clips.append(clip)
            self._reasons[watch.reason] += 1
            publish_source(self._store, self._id, self._describe())
        self.kept += 1
        self._thumbnails += [_thumbnail(look.crop) for look in looks]
        self._kept_at[camera] = looks[-1].pts_seconds
        if self.kept == self._most_clips:
            logger.info("%s: the budget of %d hard moments is spent", self._store, self._most_clips)

    def _describe(self) -> dict[str, Any]:
        """Attributes of the session as a source of the store."""
        return {
            "path": self._id, "name": self._id, "size_bytes": 0, "content_hash": self._id, "probe": {}, "verdict": "ok",
            "reason": "hard moments of a live session", "lost_spans": [], "frames": self._frames,
            "looks": self._frames, "masked_frames": self._frames, "shots": 1, "detector": "live",
            "collected": self._began.isoformat(timespec="seconds"), "hard": dict(self._reasons),
            "clips": list(self._clips),
        }  # fmt: skip


def _usable(looks: list[_Look]) -> list[_Look]:
    """The looks of one size that show a subject which moves; none where that is a shadow or a torn mask."""
    if not looks:
        return []
    sides = np.array([look.square[2] - look.square[0] for look in looks])
    shares = np.array([np.count_nonzero(look.mask) / look.mask.size for look in looks])
    fits = np.abs(np.log(sides / np.median(sides))) < np.log(STEADY)
    fits &= (shares > LEAST_MASK) & (np.abs(np.log(shares / np.median(shares))) < np.log(2 * STEADY))
    kept = [look for look, fit in zip(looks, fits, strict=True) if fit]
    if len(kept) < LEAST_KEPT * len(looks):
        return []
    small = [cv2.resize(look.mask, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA) > 127 for look in kept]
    apart = max(1, round(MOTION_SECONDS / LOOK_SECONDS))
    changes = [
        1.0 - (a & b).sum() / max((a | b).sum(), 1) for a, b in zip(small, small[apart:], strict=False)
    ]  # fmt: skip
    return kept if changes and float(np.mean(changes)) > LEAST_MOTION else []


class _Scene:
    """The background of one camera, learnt as its pictures come."""

    def __init__(self) -> None:
        self._model = BackgroundModel("mog2")
        self._anchor = np.zeros((0, 0, 3), np.uint8)
        self._seen = 0

    def apply(self, image: np.ndarray) -> np.ndarray | None:
        """(h, w) uint8 mask of what is not background; None while that is not known."""
        small = shrink(image, model_size(image.shape[1], image.shape[0]))
        if small.shape != self._anchor.shape or not same_scene(self._anchor, small):
            self._model, self._anchor, self._seen = BackgroundModel("mog2"), small, 0
        self._seen += 1
        if self._seen % ANCHOR_LOOKS == 0:
            self._anchor = small
        mask = self._model.apply(small)
        return mask if self._seen > LEARN_FRAMES and np.count_nonzero(mask) < 0.6 * mask.size else None


def _thumbnail(crop: np.ndarray) -> np.ndarray:
    """A small grey picture with mean 0 and variance 1."""
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    flat = grey.astype(np.float32) - float(grey.mean())
    return flat / max(float(flat.std()), 1e-3)
