"""The verb `load`: a bundle as a function of pictures, for programs of one's own. Needs no torch.

    model = streampose.load()                      # ./models/current, else the shipped model
    poses = model(frame)                           # one picture: (H, W, 3) uint8 RGB
    many = model(frames)                           # pictures that have nothing to do with each other, in batches
    poses = model.track(frame, pts_seconds)        # the next picture of a stream: followed, numbered and smoothed

One picture is treated as `POST /v1/pose` treats it, a stream as `serve` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streampose.geometry.crop import square_box
from streampose.runtime.bundle import default_bundle
from streampose.runtime.lifter import Lifted, Lifting, load_lifter
from streampose.runtime.predictor import Predictor, box_from_keypoints, load_predictor
from streampose.server.follow import Follower
from streampose.server.motion import MotionFinder
from streampose.server.uploads import MIN_CONFIDENCE, PASSES
from streampose.structures import Keypoints, Skeleton
from streampose.tracking.identities import Identities
from streampose.tracking.polish import Polish

BATCH = 16  # pictures that go through the network together


@dataclass(frozen=True)
class Poses:
    """The N subjects of one picture.

    Attributes:
        xy: (N, K, 2) pixels of the picture; pixel centres are integers.
        confidence: (N, K) in [0, 1].
        z: (N, K) depth relative to the root joint, in pixels of the picture; None for a 2D model.
        boxes: (N, 4) square xyxy edges that the model looked at.
        ids: N numbers; they stay the same along a stream.
        visibility: (N, K) 2 visible, 1 occluded, 0 absent; None where nothing was followed or smoothing is off.
        lifted: 3D poses with their uncertainty, see `runtime.lifter.Lifted`; None where no lifter was loaded.
    """

    xy: np.ndarray
    confidence: np.ndarray
    z: np.ndarray | None
    boxes: np.ndarray
    ids: tuple[int, ...]
    visibility: np.ndarray | None = None
    lifted: Lifted | None = None

    def __len__(self) -> int:
        return len(self.xy)


class Model:
    """A loaded bundle; made by `load_model`. Several threads may share one, each with a `tracker` of its own."""

    def __init__(self, predictor: Predictor, max_subjects: int, smoothing: str | None, lifting: Lifting | None = None):
        self.predictor, self._max_subjects, self._smoothing = predictor, max_subjects, smoothing
        self.lifting = lifting
        self._tracker = self.tracker()

    @property
    def skeleton(self) -> Skeleton:
        return self.predictor.skeleton

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the K joints."""
        return self.predictor.skeleton.joints

    def __call__(
        self, frames: np.ndarray | Sequence[np.ndarray], boxes: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> Poses | list[Poses]:
        """Poses in one picture, or in each of several.

        Args:
            frames: (H, W, 3) uint8 RGB; or (T, H, W, 3), or a sequence of pictures of any sizes.
            boxes: (N, 4) xyxy edges around the subjects, without padding; for several pictures a sequence of such. None
                looks at the whole picture and then ever closer at the one subject that it shows.

        Returns:
            Poses for one picture, a list for several.

        Raises:
            ValueError: something else than pictures.
        """
        if isinstance(frames, np.ndarray) and frames.ndim == 3:
            return self([frames], None if boxes is None else [np.asarray(boxes)])[0]  # type: ignore[index, return-value]
        pictures = [_checked(frame) for frame in frames]
        if boxes is None:
            squares = [square_box(np.array([[0, 0, *picture.shape[1::-1]]], np.float32)) for picture in pictures]
        else:
            tight = [np.asarray(some, np.float32).reshape(-1, 4) for some in boxes]
            squares = [square_box(some, self.predictor.padding) for some in tight]
        if len(squares) != len(pictures):
            raise ValueError(f"boxes for {len(squares)} pictures, but {len(pictures)} pictures")
        found: list[Poses] = []
        for start in range(0, len(pictures), BATCH):
            part = slice(start, start + BATCH)
            look = self._in_boxes if boxes is not None else self._ever_closer
            found += [_lift(poses, self.lifting, self.skeleton) for poses in look(pictures[part], squares[part])]
        return found

    def track(self, frame: np.ndarray, pts_seconds: float) -> Poses:
        """Poses in the next picture of a stream: subjects are found, followed, numbered and smoothed.

        Args:
            frame: (H, W, 3) uint8 RGB.
            pts_seconds: when it was taken; never decreases.
        """
        return _lift(self._tracker.track(frame, pts_seconds), self.lifting, self.skeleton)

    def tracker(self, max_subjects: int | None = None) -> Tracker:
        """What follows a further stream, beside the one of `track`."""
        return Tracker(self.predictor, max_subjects or self._max_subjects, self._smoothing)

    def reset(self) -> None:
        """Forget the stream of `track`; the next picture begins another."""
        self._tracker = self.tracker()

    def _in_boxes(self, pictures: list[np.ndarray], squares: list[np.ndarray]) -> list[Poses]:
        answers = self.predictor.predict_views(pictures, squares)
        return [_poses(answer, some, range(len(some))) for answer, some in zip(answers, squares, strict=True)]

    def _ever_closer(self, pictures: list[np.ndarray], squares: list[np.ndarray]) -> list[Poses]:
        """As `server.uploads.find_in_image`, many pictures at a time."""
        answers = self.predictor.predict_views(pictures, squares)
        going = list(range(len(pictures)))
        for _ in range(PASSES):
            closer = {}
            for n in going:
                xy, confidence = answers[n].xy[0], answers[n].confidence[0]
                box = box_from_keypoints(xy, confidence, self.skeleton, self.predictor.padding)
                if box is not None and confidence.mean() >= MIN_CONFIDENCE:
                    closer[n] = np.asarray(box, np.float32)[None]
            going = list(closer)
            if not going:
                break
            again = self.predictor.predict_views([pictures[n] for n in going], list(closer.values()))
            for n, answer in zip(going, again, strict=True):
                answers[n], squares[n] = answer, closer[n]
        poses = []
        for answer, square in zip(answers, squares, strict=True):
            found = answer.confidence.mean(-1) >= MIN_CONFIDENCE
            poses.append(_poses(answer.pick(found), square[found], range(int(found.sum()))))
        return poses


class Tracker:
    """Follows the subjects of one stream, as a session of `serve` does."""

    def __init__(self, predictor: Predictor, max_subjects: int, smoothing: str | None):
        skeleton = predictor.skeleton

        def next_box(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray | None:
            return box_from_keypoints(xy, confidence, skeleton, predictor.padding)

        self._predictor = predictor
        self._follower = Follower(
            MotionFinder(), next_box, padding=predictor.padding, max_subjects=max_subjects,
            identities=Identities(skeleton),
        )  # fmt: skip
        self._polish = None if smoothing is None else Polish(skeleton, smoothing=smoothing)

    def track(self, frame: np.ndarray, pts_seconds: float) -> Poses:
        """See `Model.track`."""
        image = _checked(frame)
        boxes = self._follower.boxes(image)
        answer = self._predictor.predict(image, boxes)
        kept = self._follower.update(answer, image)
        ids = tuple(subject.id for subject in self._follower.subjects)
        keypoints, boxes, visibility = answer.pick(kept), boxes[kept], None
        if self._polish is not None:
            size = (image.shape[1], image.shape[0])
            polished = self._polish.apply(keypoints, ids, boxes, size, pts_seconds)
            keypoints, visibility = polished.keypoints, polished.visibility
        self._follower.learn(image)
        return _poses(keypoints, boxes, ids, visibility)


def load_model(
    bundle: str | Path | None = None,
    *,
    runtime: str = "auto",
    precision: str = "f32",
    threads: int | None = None,
    max_subjects: int = 1,
    smoothing: str | None = "one-euro",
    lifter: str | Path | None = None,
) -> Model:
    """Open a bundle as a function of pictures.

    Args:
        bundle: its folder; None for ./models/current, else the model shipped with the package.
        runtime, precision, threads: see `runtime.predictor.load_predictor`.
        max_subjects: how many `track` follows at once.
        lifter: a bundle that lifts 2D joints, as models/lifter; poses then have `lifted`, too.
        smoothing: of `track`, one of `tracking.polish.SMOOTHINGS`; None gives what the model says.

    Raises:
        BundleError, ConfigError: the bundle, the runtime or an option.
    """
    predictor = load_predictor(default_bundle() if bundle is None else bundle, runtime, precision, threads)
    lifting = None if lifter is None else load_lifter(lifter)
    if lifting is not None:
        lifting.match(predictor.skeleton.joints)
    return Model(predictor, max_subjects, smoothing, lifting)


def _lift(poses: Poses, lifting: Lifting | None, skeleton: Skeleton) -> Poses:
    if lifting is None:
        return poses
    return replace(poses, lifted=lifting.lift_keypoints(Keypoints(poses.xy, poses.confidence), skeleton))


def _poses(keypoints: Keypoints, boxes: np.ndarray, ids: Sequence[int], visibility: np.ndarray | None = None) -> Poses:
    return Poses(keypoints.xy, keypoints.confidence, keypoints.z, boxes, tuple(ids), visibility)


def _checked(frame: np.ndarray) -> np.ndarray:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        told = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"a picture is {told}, expected a numpy array uint8 (H, W, 3) RGB")
    if not frame.size:
        raise ValueError(f"a picture is empty: {frame.shape}")
    return frame
