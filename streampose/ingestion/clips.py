"""Cut the clips of one stretch of a video: masks, subjects, crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streampose.ingestion.masking import Masking
from streampose.ingestion.options import Options
from streampose.ingestion.spans import Span
from streampose.masks.background import MODEL_WIDTH, model_size
from streampose.masks.clip_masks import ClipMasks, Keep
from streampose.masks.moving import look_ahead
from streampose.masks.quality import Quality
from streampose.masks.scenes import Scene, find_scenes
from streampose.store.writer import ClipWriter
from streampose.tracking.association import Track, Tracker
from streampose.tracking.follow import Follower
from streampose.tracking.worth import Evidence, is_subject
from streampose.video.ahead import ahead
from streampose.video.decode import PassedOver, Video
from streampose.video.frame import Frame
from streampose.video.samples import sample_pictures
from streampose.video.shots import ShotDetector, thumbnail_size

SAMPLES = 75  # pictures of a short video from which its empty scenes are learnt
BOXES_WIDTH = 160  # in pictures so wide subjects are found whose masks are not kept
SCENE_WIDTH = 640  # the empty scene is kept at this size, finer than the model
LEAST_CROPS = 6  # shorter clips are dropped
MISSED_SECONDS, PAUSED_SECONDS = 0.6, 2.5  # a subject may be out of sight; two may be one blob


@dataclass(frozen=True)
class Made:
    """A finished clip, and what speaks for its being a subject."""

    clip: str
    evidence: Evidence


@dataclass(frozen=True)
class _Open:
    """A clip that is being cut; `stage` draws its masks anew before `writer` gets them, where it must."""

    follower: Follower
    writer: ClipWriter
    track: Track
    stage: ClipMasks | None
    masks: str


class _Look(NamedTuple):
    """A frame that is looked at, and how many frames went by since the look before; None after the last."""

    frame: Frame | None
    passed: int


class ClipMaker:
    """Cuts the clips of one span of a video.

    Args:
        processors: how many there are for it.

    Attributes:
        frames, looks, shots: how many there were.
        masking: how the masks are made.
        made: the finished clips.
    """

    def __init__(self, path: Path, source_id: str, span: Span, options: Options, processors: int = 2):
        self._path, self._span, self._options, self._processors = path, span, options, processors
        self._prefix = f"{source_id}-{span.number:03d}"
        self.masking = Masking(options)
        self.frames = self.looks = self.shots = 0
        self._open: dict[int, _Open] = {}
        self.made: list[Made] = []
        self._tracker: Tracker | None = None

    def run(self, video: Video, advance: Callable[[float], None] | None) -> None:
        """Read the span."""
        self._stride = max(1, round(video.probe.fps / self._options.rate)) if self._options.rate else 1
        self._fps = video.probe.fps / self._stride
        shown = (video.probe.width, video.probe.height)
        width = MODEL_WIDTH if self._options.masks != "none" else BOXES_WIDTH
        self._shown, self._size = shown, model_size(*shown, width)
        self.masking.begin(self._fps, self._size)
        seconds = self._span.seconds or video.probe.duration_seconds or 0.0
        apart = float(np.clip(seconds / SAMPLES, 0.1, 0.5))
        pictures = sample_pictures(
            self._path, model_size(*shown, SCENE_WIDTH), apart, self._span.start_seconds, self._span.end_seconds
        )
        if self._options.masks == "moving":
            pictures = iter(())
        reading = self._with_later(video)
        alone = self._processors < 2  # then a second thread would only take this one's place, again and again
        with (
            ahead(find_scenes(pictures), 1) as scenes,
            nullcontext(reading) if alone else ahead(reading, 4) as looks,
        ):
            stage = _Stage(scenes)
            for (frame, passed), cut, later in looks:
                self.frames += passed
                if frame is None:
                    continue
                self.looks += 1
                if cut:
                    self._end_shot()
                    self.masking.reset()
                if stage.advance(frame.pts_seconds, cut) or cut or self.looks == 1:
                    self._enter(stage.scene, frame.small(self._size), later)
                self._look(frame, later)
                if advance is not None:
                    advance(passed)
        self._end_shot()

    def discard_unfinished(self) -> None:
        """Remove the clips that were begun: the reading has failed."""
        for clip in self._open.values():
            clip.writer.discard()
        self._open.clear()

    def _with_later(self, video: Video) -> Iterator[tuple[_Look, bool, list[np.ndarray]]]:
        """Looks, whether a cut lies before them, and small pictures of those that follow where masks need them."""
        count = self.masking.look_ahead
        if count:
            yield from look_ahead(self._looks(video), self._picture, count)
            return
        for look, cut in self._looks(video):
            yield look, cut, []

    def _picture(self, look: _Look) -> np.ndarray | None:
        return None if look.frame is None else look.frame.small(self._size)

    def _looks(self, video: Video) -> Iterator[tuple[_Look, bool]]:
        """Looks, and whether a cut lies between each and the one before; their small pictures are made."""
        shots = ShotDetector(video.probe.fps)
        thumbnail = thumbnail_size(video.probe.width, video.probe.height)
        passed, cut = 0, False
        for frame in video.frames_every(self._stride, self._span.start_seconds):
            if frame.pts_seconds >= self._span.end_seconds:
                break
            passed += 1
            if isinstance(frame, PassedOver):
                continue
            cut |= not shots.skim(frame.skim(thumbnail)) and shots.update(frame.glance(thumbnail))
            if frame.index % self._stride == 0:
                frame.small(self._size)
                yield _Look(frame, passed), cut
                passed, cut = 0, False
        yield _Look(None, passed), False

    def _enter(self, scene: Scene | None, small: np.ndarray, later: list[np.ndarray]) -> None:
        """A shot or another empty scene begins."""
        if self.masking.enter(scene, small, later):
            self._end_shot()
        for clip in self._open.values():
            clip.follower.scene = self.masking.scene

    def _look(self, frame: Frame, later: list[np.ndarray]) -> None:
        """Find the subjects of one frame."""
        if self._tracker is None:
            self._tracker = Tracker(
                self._options.max_subjects,
                max_missed=max(5, round(MISSED_SECONDS * self._fps)),
                max_paused=round(PAUSED_SECONDS * self._fps),
            )
            self.shots += 1
        if self.masking.whole_frames:
            self._whole_frame(frame)
            return
        small = frame.small(self._size)
        foreground = self.masking.apply(frame, small, later)
        if foreground is None:
            return
        alive = set()
        for track in self._tracker.update(foreground, small, self.masking.steady):
            alive.add(track.id)
            if track.seen:
                clip = self._open.get(track.id) or self._begin(track)
                clip.follower.see(frame, track.box, track.mask, foreground)
        for gone in set(self._open) - alive:
            self._close(gone)

    def _whole_frame(self, frame: Frame) -> None:
        width, height = self._size
        box = np.array([0, 0, width, height], np.float32)
        everything = np.ones((height, width), bool)
        if -1 not in self._open:
            self._begin(Track(-1, box, everything, width * height, np.zeros(1), firm=True))
        self._open[-1].follower.see(frame, box, everything, everything.astype(np.uint8))

    def _begin(self, track: Track) -> _Open:
        clip_id = f"{self._prefix}-{self.shots:03d}-{max(track.id, 0):03d}"
        writer = ClipWriter(self._options.store, clip_id, source=str(self._path), fps=self._fps)
        keep = _rated(writer, self._shown)
        stage = self.masking.stage(keep)
        follower = Follower(
            self._options.crop_size,
            self._size,
            self.masking.scene,
            keep if stage is None else stage.append,
            self._fps,
            self._stride,
            self.masking.refine,
        )
        self._open[track.id] = _Open(follower, writer, track, stage, self.masking.name)
        return self._open[track.id]

    def _close(self, track_id: int) -> None:
        clip = self._open.pop(track_id)
        follower, writer, track = clip.follower, clip.writer, clip.track
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
        if clip.stage is not None:
            clip.stage.finish()
            self.masking.count(clip.stage)
        writer.finish(motion=round(evidence.motion, 4), at_border=round(evidence.at_border, 4), masks=clip.masks)
        self.made.append(Made(writer.id, evidence))

    def _end_shot(self) -> None:
        for track_id in list(self._open):
            self._close(track_id)
        self._tracker = None


def _rated(writer: ClipWriter, shown: tuple[int, int]) -> Keep:
    """Writes frames with their quality; `shown` is (width, height) of the video."""
    quality = Quality(shown)

    def keep(crop: np.ndarray, mask: np.ndarray, square: np.ndarray, pts_seconds: float, frame_index: int) -> None:
        writer.append(crop, mask, square, pts_seconds, frame_index, quality.rate(crop, mask, square))

    return keep


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
