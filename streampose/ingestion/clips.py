"""Cut the clips of one stretch of a video: masks, subjects, crops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.ingestion.spans import Span
from streampose.masks.background import BackgroundModel, model_size, same_view
from streampose.masks.scenes import Scene, find_scenes
from streampose.store.writer import ClipWriter
from streampose.tracking.association import Track, Tracker
from streampose.tracking.follow import Follower
from streampose.tracking.worth import Evidence, is_subject
from streampose.video.ahead import ahead
from streampose.video.decode import Video
from streampose.video.frame import Frame
from streampose.video.samples import sample_pictures
from streampose.video.shots import ShotDetector, thumbnail_size

DECODER_THREADS = max(1, min(4, (os.cpu_count() or 2) - 1))  # masks and crops need the other processors
SAMPLES = 75  # pictures of a short video from which its empty scenes are learnt
SCENE_WIDTH = 640  # the empty scene is kept at this size, finer than the model
LEAST_CROPS = 6  # shorter clips are dropped
MISSED_SECONDS, PAUSED_SECONDS = 0.6, 2.5  # a subject may be out of sight; two may be one blob


@dataclass(frozen=True)
class Options:
    """How videos are cut; the same options and the same video give the same clips."""

    store: Path
    masks: str
    crop_size: int
    max_subjects: int
    rate: float


@dataclass(frozen=True)
class Made:
    """A finished clip, and what speaks for its being a subject."""

    clip: str
    evidence: Evidence


class ClipMaker:
    """Cuts the clips of one span of a video.

    Attributes:
        frames, looks, masked_frames, shots: how many there were.
        made: the finished clips.
    """

    def __init__(self, path: Path, source_id: str, span: Span, options: Options):
        self._path, self._span, self._options = path, span, options
        self._prefix = f"{source_id}-{span.number:03d}"
        self.masks = "mog2" if options.masks == "auto" else options.masks
        self.frames = self.looks = self.masked_frames = self.shots = 0
        self._open: dict[int, tuple[Follower, ClipWriter, Track]] = {}
        self.made: list[Made] = []
        self._tracker: Tracker | None = None
        self._model: BackgroundModel | None = None

    def run(self, video: Video, advance: Callable[[float], None] | None) -> None:
        """Read the span."""
        self._stride = max(1, round(video.probe.fps / self._options.rate)) if self._options.rate else 1
        self._fps = video.probe.fps / self._stride
        shown = (video.probe.width, video.probe.height)
        self._size = model_size(*shown)
        seconds = self._span.seconds or video.probe.duration_seconds or 0.0
        apart = float(np.clip(seconds / SAMPLES, 0.1, 0.5))
        pictures = sample_pictures(
            self._path, model_size(*shown, SCENE_WIDTH), apart, self._span.start_seconds, self._span.end_seconds
        )
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

    def discard_unfinished(self) -> None:
        """Remove the clips that were begun: the reading has failed."""
        for _, writer, _ in self._open.values():
            writer.discard()
        self._open.clear()

    def _frames(self, video: Video) -> Iterator[tuple[Frame, bool]]:
        """Frames, and whether a cut lies before them; the small pictures of those that are looked at are made."""
        shots = ShotDetector(video.probe.fps)
        thumbnail = thumbnail_size(video.probe.width, video.probe.height)
        for frame in video.frames(self._span.start_seconds):
            if frame.pts_seconds >= self._span.end_seconds:
                return
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
        clip_id = f"{self._prefix}-{self.shots:03d}-{max(track.id, 0):03d}"
        writer = ClipWriter(self._options.store, clip_id, source=str(self._path), fps=self._fps)
        scene = None if self.masks == "none" else self._background
        follower = Follower(self._options.crop_size, self._size, scene, writer.append, self._fps, self._stride)
        self._open[track.id] = (follower, writer, track)
        return self._open[track.id]

    def _close(self, track_id: int) -> None:
        follower, writer, track = self._open.pop(track_id)
        follower.finish()
        evidence = Evidence(
            seconds=follower.kept / self._fps,
            firm=track.firm,
            motion=follower.motion,
            area=follower.area / (self._size[0] * self._size[1]),
            at_border=follower.at_border / max(follower.kept, 1),
            steadiness=follower.steadiness,
        )
        if follower.kept < LEAST_CROPS or not is_subject(evidence):
            writer.discard()
            return
        writer.finish(motion=round(evidence.motion, 4), at_border=round(evidence.at_border, 4), masks=self.masks)
        self.made.append(Made(writer.id, evidence))

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
