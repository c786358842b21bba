"""The masks of one span of a video: how they are made is chosen for each shot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from streampose.ingestion.options import Options
from streampose.masks.background import Background, BackgroundModel, same_view
from streampose.masks.choose import Choice, choose_masks
from streampose.masks.clip_masks import ClipMasks, Keep
from streampose.masks.moving import MovingForeground, refine_by_colour
from streampose.masks.sam import Segmenter, open_sam
from streampose.masks.scenes import Scene
from streampose.tracking.detectors import Detect, foreground_of, open_detector
from streampose.video.frame import Frame


class Masking:
    """Finds the foreground of each frame.

    Attributes:
        choice: how the masks of this shot are made; None before its first frame.
        scene: the empty scene behind the subjects; None where none is known, or no masks are kept.
        whole_frames: whether frames are kept whole, because no masks were asked for and no scene is known.
        looks: name of what made masks -> frames.
        reasons: why, once each.
        asked, rejected: of Segment Anything, see `ClipMasks`.
    """

    def __init__(self, options: Options):
        self._options = options
        self.begin(30.0, (1, 1))
        self.choice: Choice | None = None
        self.scene: Background | None = None
        self.looks: Counter[str] = Counter()
        self.reasons: dict[str, None] = {}
        self.asked = self.rejected = 0
        self._model: BackgroundModel | MovingForeground | None = None
        self._detect = _detector(options.detector, options.detector_class)

    def begin(self, fps: float, size: tuple[int, int]) -> None:
        """Take over a video: how many frames a second are looked at, and (width, height) of the foregrounds."""
        self._fps, self._size = fps, size

    @property
    def look_ahead(self) -> int:
        """How many later pictures `enter` and `apply` want."""
        may_move = self._options.masks in ("auto", "moving", "sam")
        return MovingForeground(self._fps).look_ahead if may_move else 0

    @property
    def whole_frames(self) -> bool:
        return self._model is None and self._options.masks == "none"

    @property
    def name(self) -> str:
        """What clips that begin now have their masks from."""
        return "none" if self.choice is None else self.choice.name

    @property
    def steady(self) -> bool:
        """Whether the last foreground is to be trusted."""
        return self._model is not None and self._model.steady

    @property
    def refine(self) -> Callable[[np.ndarray, None, np.ndarray], np.ndarray] | None:
        """What refines the masks of crops for want of a scene."""
        return refine_by_colour if isinstance(self._model, MovingForeground) else None

    def reset(self) -> None:
        """A cut: what was chosen is for another shot."""
        self.choice = self.scene = self._model = None

    def enter(self, scene: Scene | None, small: np.ndarray, later: Sequence[np.ndarray]) -> bool:
        """Choose for a shot's first frame, or where another empty scene begins; True where that ends its subjects.

        The same view in other light keeps the subjects, another view or another kind of masks ends them.
        """
        before, model = self.choice, self._model
        known = None if scene is None else scene.background
        background = None if known is None else known.resized(self._size)
        self.choice = choose_masks(
            self._options.masks,
            background,
            [small, *later],
            self._fps,
            sam=bool(self._options.sam_checkpoint),
            before=before,
            scene_seconds=0.0 if scene is None else scene.end_seconds - scene.start_seconds,
        )
        self.reasons[self.choice.reason] = None
        if self.choice.source == "moving":
            self.scene = None
            if not isinstance(model, MovingForeground):
                self._model = MovingForeground(self._fps)
            return self._model is not model
        if scene is not None and background is not None and same_view(background.image, small):
            kept_masks = self.choice.source != "none"
            self._model = BackgroundModel(self.choice.source if kept_masks else "median", background, scene.samples)
            self.scene = known if kept_masks else None
            return isinstance(model, MovingForeground)
        self._model = self.scene = None
        return model is not None or self.choice.source != "none"  # whole-frame crops go on while the camera moves

    def apply(self, frame: Frame, small: np.ndarray, later: Sequence[np.ndarray]) -> np.ndarray | None:
        """Foreground of the next frame that is looked at: (h, w) uint8; None where no masks can be made."""
        if self._model is None or self.choice is None:
            return None
        if isinstance(self._model, MovingForeground):
            foreground = self._model.apply(frame, small, later)
        else:
            foreground = self._model.apply(small)
        if self._detect is not None:
            boxes, _ = self._detect(frame.image)
            foreground = foreground_of(boxes, foreground, frame.size)
        if self.steady or not isinstance(self._model, MovingForeground):
            self.looks[self.choice.name] += 1
        return foreground

    def stage(self, keep: Keep) -> ClipMasks | None:
        """What draws the masks of a new clip between its follower and the store; None where nothing has to."""
        if self.choice is None or not self.choice.sam:
            return None
        sam = open_sam_once(self._options.sam_checkpoint, self._options.sam_precision)
        return ClipMasks(sam, keep, every=self._options.sam_every)

    def count(self, stage: ClipMasks) -> None:
        """Add what a finished clip asked of Segment Anything."""
        self.asked += stage.asked
        self.rejected += stage.rejected


@cache
def open_sam_once(checkpoint: str, precision: str) -> Segmenter:
    """Opened once in each process."""
    return open_sam(Path(checkpoint), precision=precision)


@cache
def _detector(spec: str, number: int | None) -> Detect | None:
    """Opened once in each process."""
    return open_detector(spec, classes=None if number is None else [number])
