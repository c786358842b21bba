"""`streampose ingest`: videos -> shots -> subjects -> crops, masks and frame pairs in a store.

Each video is looked at twice: a few pictures from all over it show the empty scenes (`masks.scenes`), then every frame
is decoded once, masked, and its subjects are followed. A source is published when it is complete; what a crash leaves
is cleared away by the next run, which skips the sources that are done. Memory does not grow with a video's length.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.config import load_skeleton
from streampose.console import logger, progress
from streampose.errors import ConfigError, StoreError, VideoError
from streampose.masks.background import BackgroundModel, model_size, same_view
from streampose.masks.scenes import Scene, find_scenes
from streampose.store.pairs import sample_pairs
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store, locked
from streampose.store.writer import ClipWriter, publish_source, remove_orphans, remove_source, write_pairs
from streampose.tracking.association import Track, Tracker
from streampose.tracking.follow import Follower
from streampose.video.ahead import ahead
from streampose.video.decode import Video, find_videos, open_video
from streampose.video.frame import Frame
from streampose.video.samples import sample_pictures
from streampose.video.shots import ShotDetector, thumbnail_size

MASKS = ("auto", "mog2", "knn", "median", "none")
DECODER_THREADS = max(1, min(4, (os.cpu_count() or 2) - 1))  # masks and crops need the other processors
SAMPLES = 75  # pictures of a short video from which its empty scenes are learnt
SCENE_WIDTH = 640  # the empty scene is kept at this size, finer than the model
LEAST_FRAMES = 12  # of a video
LEAST_CROPS, LEAST_SECONDS = 6, 0.4  # shorter clips are dropped
MISSED_SECONDS, PAUSED_SECONDS = 0.6, 2.5  # a subject may be out of sight; two may be one blob
LEAST_MOTION, LEAST_STILL_AREA = 0.12, 0.012  # what a subject must show that never leaves its place
MOVES = "the camera moves, so there is no background to mask by; film from a tripod, or ingest it with --masks none"


def ingest(
    paths: list[Path],
    *,
    store: Path,
    skeleton: str = "human17",
    masks: str = "auto",
    crop_size: int = 128,
    workers: int = 1,
    max_subjects: int = 4,
    rate: float = 10.0,
    overwrite: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Bring videos into a store.

    Args:
        paths: videos, or folders of them.
        store: made where it is missing; sources that it holds already are skipped.
        skeleton: name or YAML file of the skeleton that the store is for.
        masks: `auto`, `mog2`, `knn`, `median`, or `none` (crops without masks, also from a moving camera).
        crop_size: side of the crops in pixels.
        workers: videos processed at once, each in a process of its own.
        max_subjects: subjects followed at a time.
        rate: frames a second, about, that are looked at for subjects and kept as crops; all are decoded and searched
            for cuts. 0 takes every frame.
        overwrite: ingest the sources again that the store holds already.
        seed: of the frame pairs.

    Returns:
        `store`, `sources` (`source`, `verdict`, `reason`, `frames`, `clips`), `pairs`, `contact_sheet`, `seconds`.

    Raises:
        ConfigError, StoreError, VideoError: a wrong call, a store that cannot be written, no video at all.
    """
    started = time.monotonic()
    if masks not in MASKS:
        raise ConfigError(f"--masks {masks}: unknown; choose one of {', '.join(MASKS)}")
    if crop_size < 16 or workers < 1 or max_subjects < 1 or rate < 0:
        raise ConfigError(
            f"crop_size {crop_size}, workers {workers}, max_subjects {max_subjects}, rate {rate}: too small"
        )
    store = Path(store)
    create_store(store, load_skeleton(skeleton), crop_size=crop_size)
    with locked(store):
        remove_orphans(store)
        options = _Options(store, masks, crop_size, max_subjects, rate)
        jobs, sources = _plan(paths, store, overwrite)
        for job, result in _run(jobs, options, workers):
            sources[job.number] = result
            if result["verdict"] != "ok":
                logger.warning("%s: %s: %s", result["source"], result["verdict"], result["reason"])
        reader = StoreReader(store)
        pairs = sample_pairs(reader, seed)
        write_pairs(store, pairs, {"seed": seed})
        remove_orphans(store)
    sheet = _write_contact_sheet(StoreReader(store))
    return {
        "store": str(store),
        "sources": [sources[number] for number in sorted(sources)],
        "pairs": len(pairs["i"]),
        "contact_sheet": sheet,
        "seconds": round(time.monotonic() - started, 2),
    }


@dataclass(frozen=True)
class _Options:
    store: Path
    masks: str
    crop_size: int
    max_subjects: int
    rate: float


@dataclass(frozen=True)
class _Job:
    number: int
    path: Path
    name: str
    source_id: str
    content_hash: str


def _plan(paths: list[Path], store: Path, overwrite: bool) -> tuple[list[_Job], dict[int, dict[str, Any]]]:
    """What is to be done, and the results of what is done already or cannot be read."""
    named = [
        (path, path.relative_to(base) if base.is_dir() else Path(path.name))
        for base in map(Path, paths)
        for path in find_videos([base])
    ]
    if not named:
        raise VideoError(f"{', '.join(map(str, paths))}: no videos there; name video files or folders of them")
    there = {source["id"]: source for source in StoreReader(store).sources()}
    jobs: list[_Job] = []
    results: dict[int, dict[str, Any]] = {}
    planned: set[str] = set()
    for number, (path, name) in enumerate(dict.fromkeys(named)):
        try:
            content_hash = _content_hash(path)
        except VideoError as error:
            results[number] = _result(path, "quarantined", _reason(path, error), 0, [])
            logger.warning("%s", error)
            continue
        source_id = _source_id(name, content_hash)
        if source_id in planned:
            continue
        planned.add(source_id)
        if source_id in there and not overwrite:
            old = there[source_id]
            results[number] = _result(path, old["verdict"], old["reason"], old["frames"], old["clips"])
            logger.info("%s: in the store already", path)
            continue
        for old in there.values():
            if old["id"] == source_id or (old["name"] == name.as_posix() and old["path"] == str(path)):
                if old["id"] != source_id:
                    logger.info("%s: has changed since it was ingested; replaced", path)
                remove_source(store, old["id"])
        jobs.append(_Job(number, path, name.as_posix(), source_id, content_hash))
    return jobs, results


def _run(jobs: list[_Job], options: _Options, workers: int) -> Iterator[tuple[_Job, dict[str, Any]]]:
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            with progress(job.path.name, _frames_estimate(job.path)) as bar:
                yield job, _ingest_source(job, options, bar.advance)
        return
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_end_with_parent) as pool,
        progress("videos", len(jobs), "videos") as bar,
    ):
        waiting = {pool.submit(_ingest_source, job, options): job for job in jobs}
        try:
            for done in as_completed(waiting):
                bar.advance(1, waiting[done].path.name)
                yield waiting[done], done.result()
        finally:
            for future in waiting:
                future.cancel()


def _end_with_parent() -> None:
    """Let a worker die when its parent does, however that dies, so that none writes beside the next ingest."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _ingest_source(job: _Job, options: _Options, advance: Callable[[float], None] | None = None) -> dict[str, Any]:
    """One video, to its verdict; a failure of one video never stops the others."""
    started = time.monotonic()
    maker = _ClipMaker(job, options)
    probe: dict[str, Any] = {}
    verdict, reason = "quarantined", ""
    lost: list[tuple[float, float]] = []
    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures are small: waking others takes longer than the work
    try:
        with open_video(job.path, threads=DECODER_THREADS) as video:
            probe = dict(vars(video.probe))
            maker.run(video, advance)
            lost = list(video.verdict.lost_spans)
            verdict, reason = maker.judge(video.verdict.verdict, video.verdict.reason)
    except VideoError as error:
        reason = _reason(job.path, error)
    except StoreError:
        raise
    except Exception as error:
        logger.debug("%s", job.path, exc_info=True)
        reason = f"failed unexpectedly ({type(error).__name__}: {error}); please report this"
    finally:
        cv2.setNumThreads(cv_threads)
    clips = maker.end(keep=verdict != "quarantined")
    attributes = {
        "path": str(job.path),
        "name": job.name,
        "size_bytes": job.path.stat().st_size,
        "content_hash": job.content_hash,
        "probe": probe,
        "verdict": verdict,
        "reason": reason,
        "lost_spans": [list(span) for span in lost],
        "frames": maker.frames,
        "looks": maker.looks,
        "masked_frames": maker.masked_frames,
        "shots": maker.shots,
        "masks": maker.masks,
        "clips": clips,
    }
    publish_source(options.store, job.source_id, attributes)
    seconds = time.monotonic() - started
    logger.info("%s: %d frames, %d clips, %.0f frames/s", job.path, maker.frames, len(clips), maker.frames / seconds)
    return _result(job.path, verdict, reason, maker.frames, clips)


@dataclass(frozen=True)
class _Made:
    """A finished clip: its median area in the coarse mask, and the shares of frames at the border and kept at all."""

    writer: ClipWriter
    area: float
    at_border: float
    steadiness: float


class _ClipMaker:
    """Cuts the clips of one video."""

    def __init__(self, job: _Job, options: _Options):
        self._job, self._options = job, options
        self.masks = "mog2" if options.masks == "auto" else options.masks
        self.frames = self.looks = self.masked_frames = self.shots = 0
        self._open: dict[int, tuple[Follower, ClipWriter, Track]] = {}
        self._done: list[_Made] = []
        self._tracker: Tracker | None = None
        self._model: BackgroundModel | None = None

    def run(self, video: Video, advance: Callable[[float], None] | None) -> None:
        """Read the whole video."""
        self._stride = max(1, round(video.probe.fps / self._options.rate)) if self._options.rate else 1
        self._fps = video.probe.fps / self._stride
        shown = (video.probe.width, video.probe.height)
        self._size = model_size(*shown)
        apart = float(np.clip((video.probe.duration_seconds or 0.0) / SAMPLES, 0.1, 0.5))
        pictures = sample_pictures(self._job.path, model_size(*shown, SCENE_WIDTH), apart)
        with ahead(find_scenes(pictures), 1) as scenes, ahead(self._frames(video), 8) as frames:
            stage = _Stage(scenes)
            for frame, cut in frames:
                self.frames += 1
                if cut:
                    self._end_shot()
                if stage.advance(frame.pts_seconds, cut) or cut or self.frames == 1:
                    self._enter(stage.scene, frame.small(self._size))
                if frame.index % self._stride == 0:
                    self._look(frame)
                if advance is not None and self.frames % 10 == 0:
                    advance(10)
        self._end_shot()

    def judge(self, verdict: str, reason: str) -> tuple[str, str]:
        """Add what masking found to the decoder's verdict."""
        reasons = [reason] if reason else []
        if self.frames < LEAST_FRAMES:
            reasons.append(f"only {self.frames} frames; at least {LEAST_FRAMES} are needed")
            return "quarantined", "; ".join(reasons)
        if self.masks != "none":
            moving = 1 - self.masked_frames / max(self.looks, 1)
            if moving > 0.8 and not self._done:
                return "quarantined", "; ".join([*reasons, MOVES])
            if moving > 0.05:
                reasons.append(f"{moving:.0%} of it was left out: the camera moves there or the shots are too short")
        if not self._done and verdict != "quarantined":
            reasons.append("nothing that moves was found in it")
        return verdict, "; ".join(reasons)

    def end(self, keep: bool) -> list[str]:
        """Remove the clips that are not kept; the ids of the others."""
        for _, writer, _ in self._open.values():
            writer.discard()
        self._open.clear()
        largest = max((made.area for made in self._done), default=0.0)
        clips = []
        for made in self._done:
            reflection = made.at_border > 0.8 and made.area < 0.5 * largest
            crumb = made.area < 0.3 * largest and made.writer.num_frames < 2 * self._fps
            flicker = made.area < 0.3 * largest and made.steadiness < 0.7
            if keep and not (reflection or crumb or flicker):
                clips.append(made.writer.id)
            else:
                made.writer.discard()
        return clips

    def _frames(self, video: Video) -> Iterator[tuple[Frame, bool]]:
        """Frames, and whether a cut lies before them; the small pictures of those that are looked at are made."""
        shots = ShotDetector(video.probe.fps)
        thumbnail = thumbnail_size(video.probe.width, video.probe.height)
        for frame in video.frames():
            if frame.index % self._stride == 0:
                frame.small(self._size)
            yield frame, shots.update(frame.glance(thumbnail))

    def _enter(self, scene: Scene | None, small: np.ndarray) -> None:
        """Another empty scene: the same view in other light keeps its subjects, another view ends them."""
        kind = "median" if self.masks == "none" else self.masks
        if scene is not None and scene.background is not None:
            background = scene.background.resized(self._size)
            if same_view(background.image, small):
                self._model = BackgroundModel(kind, background, scene.samples)
                self._background = scene.background
                for follower, _, _ in self._open.values():
                    follower.scene = None if self.masks == "none" else scene.background
                return
        if self._model is not None or self.masks != "none":  # whole-frame crops go on while the camera moves
            self._end_shot()
        self._model = None

    def _look(self, frame: Frame) -> None:
        """Find the subjects of one frame."""
        self.looks += 1
        if self._tracker is None:
            self._tracker = Tracker(
                self._options.max_subjects,
                max_missed=max(5, round(MISSED_SECONDS * self._fps)),
                max_paused=round(PAUSED_SECONDS * self._fps),
            )
            self.shots += 1
        if self._model is None:
            if self.masks == "none":
                self._whole_frame(frame)
            return
        self.masked_frames += 1
        small = frame.small(self._size)
        foreground = self._model.apply(small)
        alive = set()
        for track in self._tracker.update(foreground, small, self._model.steady):
            alive.add(track.id)
            if track.seen:
                follower, _, _ = self._open.get(track.id) or self._begin(track)
                follower.see(frame, track.box, track.mask, foreground)
        for gone in set(self._open) - alive:
            self._close(gone)

    def _whole_frame(self, frame: Frame) -> None:
        width, height = self._size
        box = np.array([0, 0, width, height], np.float32)
        everything = np.ones((height, width), bool)
        if -1 not in self._open:
            self._begin(Track(-1, box, everything, width * height, np.zeros(1), firm=True))
        self._open[-1][0].see(frame, box, everything, everything.astype(np.uint8))

    def _begin(self, track: Track) -> tuple[Follower, ClipWriter, Track]:
        clip_id = f"{self._job.source_id}-{self.shots:03d}-{max(track.id, 0):03d}"
        writer = ClipWriter(self._options.store, clip_id, source=str(self._job.path), fps=self._fps)
        scene = None if self.masks == "none" else self._background
        follower = Follower(self._options.crop_size, self._size, scene, writer.append, self._fps, self._stride)
        self._open[track.id] = (follower, writer, track)
        return self._open[track.id]

    def _close(self, track_id: int) -> None:
        follower, writer, track = self._open.pop(track_id)
        follower.finish()
        long_enough = follower.kept >= max(LEAST_CROPS, LEAST_SECONDS * self._fps)
        lively = follower.motion > LEAST_MOTION and follower.area > LEAST_STILL_AREA * self._size[0] * self._size[1]
        if not (long_enough and (track.firm or lively)):
            writer.discard()
            return
        at_border = round(follower.at_border / follower.kept, 4)
        writer.finish(motion=round(follower.motion, 4), at_border=at_border, masks=self.masks)
        self._done.append(_Made(writer, follower.area, at_border, follower.steadiness))

    def _end_shot(self) -> None:
        for track_id in list(self._open):
            self._close(track_id)
        self._tracker = None


class _Stage:
    """The scene of each moment, from scenes in order of time."""

    def __init__(self, scenes: Iterator[Scene]):
        self._scenes = scenes
        self.scene, self._next = next(scenes, None), next(scenes, None)

    def advance(self, seconds: float, cut: bool) -> bool:
        """Go on to this moment; True where another scene begins."""
        changed = False
        while self._next is not None and self.scene is not None:
            if seconds < self._next.start_seconds and not (cut and seconds > self.scene.end_seconds):
                break
            self.scene, self._next, changed, cut = self._next, next(self._scenes, None), True, False
        return changed


def _result(path: Path, verdict: str, reason: str, frames: int, clips: list[str]) -> dict[str, Any]:
    return {"source": str(path), "verdict": verdict, "reason": reason, "frames": frames, "clips": clips}


def _reason(path: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _source_id(name: Path, content_hash: str) -> str:
    """The same file under the same name is the same source, on every machine and in every run."""
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", name.stem).strip("-").lower()[:40] or "video"
    digest = hashlib.sha256(f"{name.as_posix()}|{content_hash}".encode()).hexdigest()
    return f"{stem}-{digest[:10]}"


def _content_hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file; skipped") from None
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; skipped") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror or error}); skipped") from None
    return digest.hexdigest()


def _frames_estimate(path: Path) -> int | None:
    try:
        with open_video(path) as video:
            return video.probe.frames_estimate
    except VideoError:
        return None


def _write_contact_sheet(reader: StoreReader) -> str | None:
    """Leave a picture of the crops with their masks beside the store, so that people look."""
    from streampose.inspect import write_contact_sheet

    return write_contact_sheet(reader, reader.path.with_name(f"{reader.path.stem}-contact-sheet.png"))
