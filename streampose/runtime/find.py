"""Where the subjects are in each frame of a video, so that the model knows where to look.

Before a static camera they are what differs from the empty scene, followed as `ingest` follows them; elsewhere the
model looks at the whole frame and then follows the box that its own keypoints give. Each shot is judged for itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streampose.geometry.crop import square_box
from streampose.masks.background import BackgroundModel, model_size, same_view
from streampose.masks.scenes import Scene, find_scenes
from streampose.runtime.predictor import Predictor, box_from_keypoints
from streampose.structures import Keypoints
from streampose.tracking.association import Tracker
from streampose.tracking.boxes import steady_square
from streampose.tracking.worth import LEAST_SECONDS, Evidence, Watch, is_subject
from streampose.video.decode import Probe
from streampose.video.frame import Frame
from streampose.video.samples import sample_pictures
from streampose.video.shots import ShotDetector

SAMPLES = 24  # pictures from which the scenes of a short video are learnt
SAMPLE_SECONDS = 2.0  # between those of a long one
LOOK_WIDTH = 240  # pixels of the longer side of the pictures that are looked at
LOOK_SECONDS = 0.1  # between two looks at what moves; boxes in between are interpolated
AHEAD = 3  # looks before and after, over which a box is steadied
LEAST_LOOKS = 3  # a subject seen more rarely among those is noise
MOST_FOREGROUND = 0.5  # share of the picture; more is not subjects but a camera that moved
LOST_LOOKS = 5  # looks with too much foreground in a row after which the shot counts as moving
MIN_CONFIDENCE = 0.1  # mean over the joints, under which a followed subject counts as lost
PATIENCE = 5  # frames that a followed subject may be lost before it is given up
BOX_STEP = 0.4  # how far a followed box moves towards the one that its keypoints give, each frame


@dataclass(frozen=True)
class Found:
    """Where to look in one frame.

    Attributes:
        ids: N track numbers.
        boxes: (N, 4) square boxes, padding included, edges in source pixels.
        proven: those of the tracks that are known to be subjects by now; see `tracking.worth`.
        follower: set where the boxes of the next frame depend on the keypoints of this one, which it must be told; it
            says itself whether it is proven.
    """

    frame: Frame
    ids: list[int]
    boxes: np.ndarray
    proven: frozenset[int] = frozenset()
    follower: Follower | None = None


class Survey:
    """What the views of a static camera look like when they are empty, learnt a little ahead of the frames."""

    def __init__(self, path: Path, probe: Probe):
        seconds = float(np.clip((probe.duration_seconds or 0.0) / SAMPLES, 0.25, SAMPLE_SECONDS))
        size = model_size(probe.width, probe.height, LOOK_WIDTH)
        self._coming = find_scenes(sample_pictures(path, size, seconds))
        self._scenes: deque[Scene] = deque(maxlen=3)

    def newest(self, seconds: float) -> Scene | None:
        """The last scene that is known when the frames are at this time; it may begin later."""
        while not self._scenes or self._scenes[-1].end_seconds < seconds:
            scene = next(self._coming, None)
            if scene is None:
                break
            self._scenes.append(scene)
        return self._scenes[-1] if self._scenes else None

    def scene_at(self, frame: Frame) -> Scene | None:
        """The scene that a frame shows; frames must be asked about in order of time.

        Returns:
            None where the camera moves, or the scene is too short to be known.
        """
        self.newest(frame.pts_seconds)
        small = frame.small(model_size(*frame.size, LOOK_WIDTH))
        for scene in reversed(self._scenes):
            if scene.background is not None:
                image = scene.background.resized((small.shape[1], small.shape[0])).image
                if same_view(image, small):
                    return scene
        return None


class Finder:
    """Finds the subjects of a video.

    Args:
        path: the video.
        max_subjects: how many are followed at once.

    Attributes:
        note: what the user should know about how it went; empty where all is well.
    """

    def __init__(self, path: Path, predictor: Predictor, max_subjects: int = 4):
        self._predictor, self._max_subjects = predictor, max_subjects
        self._path = path
        self._next_id = 0
        self._frames = self._followed = 0
        self._least_frames = 1  # in which a followed subject must be seen
        self._largest = 0.0  # usual area of the largest subject so far, as a share of the picture

    @property
    def found(self) -> str:
        """How the subjects were found in most frames: by `motion`, or by `following` one from the whole picture."""
        return "following" if 2 * self._followed > self._frames else "motion"

    @property
    def note(self) -> str:
        if 10 * self._followed < self._frames:
            return ""
        share = round(100 * self._followed / self._frames)
        return f"the camera moves in {share} % of the frames: one subject was followed there from the whole picture"

    def find(self, frames: Iterator[Frame], probe: Probe) -> Iterator[Found]:
        """Say for each frame, in order, where its subjects are; a few frames are held back to look ahead.

        Args:
            frames: all frames of the video.
        """
        seconds = min(LEAST_SECONDS, 0.5 * (probe.duration_seconds or np.inf))
        self._least_frames = max(1, round(seconds * probe.fps))
        looks = _Looks(frames, max(1, round(LOOK_SECONDS * probe.fps)), probe.fps)
        survey = Survey(self._path, probe)
        while looks.begin_shot():
            scene = survey.scene_at(looks.first)
            yield from self._follow(looks) if scene is None else self._track(looks, scene, survey)

    def _track(self, looks: _Looks, scene: Scene, survey: Survey) -> Iterator[Found]:
        """Static camera: foreground, tracker, and boxes steadied over the looks around."""
        background = self._model(scene, looks.first)
        known = survey.newest(looks.first.pts_seconds)
        tracker = Tracker(self._max_subjects, max_missed=max(3, round(0.5 / LOOK_SECONDS)))
        numbers: dict[int, int] = {}
        watched: dict[int, Watch] = {}
        proven: set[int] = set()
        window: deque[_Look] = deque()
        at, crowded = 0, 0  # which look of the window is to be given out next
        for group in looks:
            small = group[0].small(model_size(*group[0].size, LOOK_WIDTH))
            if (coming := survey.newest(group[0].pts_seconds)) is not known:  # the same view in other light, later on
                known, later = coming, survey.scene_at(group[0])
                background = background if later is None else self._model(later, group[0])
            mask = background.apply(small)
            crowded = crowded + 1 if np.count_nonzero(mask) > MOST_FOREGROUND * mask.size else 0
            boxes: dict[int, np.ndarray] = {}
            if not crowded:
                scale = np.array(group[0].size, np.float32) / (mask.shape[1], mask.shape[0])
                tracks = tracker.update(mask, small, background.steady)
                boxes = {track.id: track.box * np.tile(scale, 2) for track in tracks if track.seen}
                watched = {track.id: watched.get(track.id) or Watch(looks.seconds_apart) for track in tracks}
                for track in tracks:
                    if track.seen:
                        watch = watched[track.id]
                        watch.see(track.mask, track.box, track.firm, group[0].pts_seconds)
                        self._judge(track.id, watch.evidence, proven)
            window.append(_Look(group, boxes))
            if len(window) - at > AHEAD + 1:
                yield from self._give_out(window, at, numbers, proven)
                window[at].frames = []
                at += 1
                if at > AHEAD:
                    window.popleft()
                    at -= 1
            if crowded > LOST_LOOKS:
                break
        for rest in range(at, len(window)):
            yield from self._give_out(window, rest, numbers, proven)
        if crowded > LOST_LOOKS:
            yield from self._follow(looks)

    def _model(self, scene: Scene, frame: Frame) -> BackgroundModel:
        assert scene.background is not None
        size = model_size(*frame.size, LOOK_WIDTH)
        return BackgroundModel("mog2", scene.background.resized(size), scene.samples)

    def _judge(self, track: int, evidence: Evidence, proven: set[int]) -> None:
        """Note a track as a subject when it has proven to be one; from then on it is one."""
        if track in proven or is_subject(evidence, self._largest):
            proven.add(track)
            self._largest = max(self._largest, evidence.area)

    def _give_out(self, window: deque[_Look], at: int, numbers: dict[int, int], proven: set[int]) -> Iterator[Found]:
        """The frames from one look up to the next one."""
        look, after = window[at], window[at + 1] if at + 1 < len(window) else None
        start = self._squares(window, at)
        end = self._squares(window, at + 1) if after else {}
        for n, frame in enumerate(look.frames):
            weight = n / len(look.frames)
            boxes = {}
            for track, square in start.items():
                if track in end:
                    boxes[track] = (1 - weight) * square + weight * end[track]
                elif n == 0 or after is None:
                    boxes[track] = square
            ids = [self._number(track, numbers) for track in boxes]
            self._frames += 1
            known = frozenset(number for number, track in zip(ids, boxes, strict=True) if track in proven)
            yield Found(frame, ids, np.array(list(boxes.values()), np.float32).reshape(-1, 4), known)

    def _squares(self, window: deque[_Look], at: int) -> dict[int, np.ndarray]:
        """Track -> (4,) steady square in source pixels, for the tracks that are seen now and often enough around."""
        around = range(max(0, at - AHEAD), min(len(window), at + AHEAD + 1))
        nothing = np.full(4, np.nan, np.float32)
        squares = {}
        for track in window[at].boxes:
            boxes = np.stack([window[n].boxes.get(track, nothing) for n in around])
            if (~np.isnan(boxes[:, 0])).sum() >= min(LEAST_LOOKS, len(window)):
                squares[track] = steady_square(boxes, at - around.start, self._predictor.padding)
        return squares

    def _number(self, track: int, numbers: dict[int, int]) -> int:
        """The number of a tracker's track in the whole video."""
        if track not in numbers:
            numbers[track] = self._next_id
            self._next_id += 1
        return numbers[track]

    def _follow(self, looks: _Looks) -> Iterator[Found]:
        """Moving camera: the whole frame, then the box of the subject's own keypoints."""
        follower: Follower | None = None
        for group in looks:
            for frame in group:
                if follower is None:
                    follower = Follower(frame.size, self._predictor, self._next_id, self._least_frames)
                self._frames, self._followed = self._frames + 1, self._followed + 1
                yield Found(frame, [follower.track], follower.box[None], follower=follower)
        if follower is not None:
            self._next_id = follower.track + 1


class Follower:
    """One subject, found in the whole frame and then followed by its own keypoints.

    Attributes:
        track: the subject's number.
        box: (4,) where to look next.
        proven: whether it has been seen often enough to be a subject.
    """

    def __init__(self, size: tuple[int, int], predictor: Predictor, track: int, least_frames: int = 1):
        self._predictor, self._least_frames = predictor, least_frames
        self._whole = square_box(np.array([0, 0, *size], np.float32))
        self.track, self.box = track, self._whole
        self._has_subject, self._seen_frames, self._lost_frames = False, 0, 0

    @property
    def proven(self) -> bool:
        return self._seen_frames >= self._least_frames

    def update(self, keypoints: Keypoints) -> bool:
        """Take the keypoints that were found in `box`; whether they show a subject."""
        xy, confidence = keypoints.xy[0], keypoints.confidence[0]
        found = None
        if confidence.mean() >= MIN_CONFIDENCE:
            found = box_from_keypoints(xy, confidence, self._predictor.skeleton, self._predictor.padding)
        if found is not None:
            self.box = self.box + BOX_STEP * (found - self.box) if self._has_subject else found
            self._has_subject, self._seen_frames, self._lost_frames = True, self._seen_frames + 1, 0
            return True
        self._lost_frames += 1
        if self._has_subject and self._lost_frames > PATIENCE:
            self.track, self.box, self._has_subject, self._seen_frames = self.track + 1, self._whole, False, 0
        return False


@dataclass
class _Look:
    """A frame that was looked at, those up to the next look, and what was seen: track -> (4,) tight box."""

    frames: list[Frame]
    boxes: dict[int, np.ndarray] = field(default_factory=dict)


class _Looks:
    """Cuts the frames into shots, and those into groups that begin with the frame to look at.

    Iterating gives the groups of the current shot; `begin_shot` goes on to the next one. Cuts are looked for from look
    to look, and only where there is one, from frame to frame.
    """

    def __init__(self, frames: Iterator[Frame], stride: int, fps: float):
        self._frames, self._stride, self._fps = frames, stride, fps
        self.seconds_apart = stride / fps
        self._cuts = ShotDetector(fps / stride)
        self._ahead: deque[Frame] = deque()  # read, not given out; begins with a frame that was looked at
        self._cut: int | None = None  # where in `_ahead` the next shot begins

    @property
    def first(self) -> Frame:
        """The frame that the shot begins with."""
        return self._ahead[0]

    def begin_shot(self) -> bool:
        """Whether there is another shot."""
        self._cut = None
        if not self._ahead and (frame := next(self._frames, None)) is not None:
            self._ahead.append(frame)
            self._cuts.update(_thumbnail(frame))
        return bool(self._ahead)

    def __iter__(self) -> Iterator[list[Frame]]:
        while self._ahead and self._cut != 0:
            self._read_on()
            count = min(self._stride, len(self._ahead) if self._cut is None else self._cut)
            group = [self._ahead.popleft() for _ in range(count)]
            if self._cut is not None:
                self._cut -= count
            yield group

    def _read_on(self) -> None:
        """Read up to the next frame to look at, and look for a cut on the way."""
        if self._cut is not None:
            return
        while len(self._ahead) <= self._stride and (frame := next(self._frames, None)) is not None:
            self._ahead.append(frame)
        if len(self._ahead) > 1 and self._cuts.update(_thumbnail(self._ahead[-1])):
            closely = ShotDetector(self._fps)
            found = [closely.update(_thumbnail(frame)) for frame in self._ahead]
            self._cut = found.index(True) if True in found else None


def _thumbnail(frame: Frame) -> np.ndarray:
    """A small grey picture of the frame, at least 32 pixels a side."""
    width, height = frame.size
    scale = 64 / max(width, height)
    return frame.small((max(32, round(width * scale)), max(32, round(height * scale))), gray=True)
