"""Choose for each shot how its masks are made, and say why in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampose.masks.background import Background, same_view
from streampose.masks.moving import camera_shift

SETTLED_SECONDS = 3.0  # a pause of a moving camera that is longer is a new beginning
STILL = 0.003  # of the picture's longer side a second: less is a tripod in the wind


@dataclass(frozen=True)
class Choice:
    """How the masks of one shot are made.

    Attributes:
        source: what finds the subjects: `mog2`, `knn` or `median` (a `BackgroundModel`), `moving` (a
            `MovingForeground`) or `none`.
        sam: whether Segment Anything then draws the masks (`masks.clip_masks`).
        reason: one sentence for people.
    """

    source: str
    sam: bool
    reason: str

    @property
    def name(self) -> str:
        """What a clip is said to have its masks from."""
        return f"{self.source}+sam" if self.sam else self.source


def choose_masks(
    asked: str,
    background: Background | None,
    pictures: Sequence[np.ndarray],
    fps: float,
    *,
    sam: bool = False,
    before: Choice | None = None,
    scene_seconds: float = 0.0,
) -> Choice:
    """Choose for a shot, or again where another empty scene begins within it.

    Args:
        asked: `auto`, `mog2`, `knn`, `median`, `moving`, `sam` or `none`, as `--masks` says.
        background: the shot's empty scene where one was learnt (`masks.scenes`), at the pictures' size.
        pictures: (h, w, 3) uint8 RGB, the shot's first frame and some that follow it (`masks.moving.look_ahead`).
        fps: how many of the pictures there are a second.
        sam: whether a checkpoint of Segment Anything is at hand.
        before: what was chosen for this shot until now; None after a cut. A moving camera that pauses goes on as one,
            because its subjects are followed already.
        scene_seconds: how long the camera stands still in this empty scene.
    """
    if asked == "none":
        return Choice("none", False, "no masks were asked for")
    static = background is not None and same_view(background.image, pictures[0])
    if asked in ("mog2", "knn", "median", "moving"):
        return Choice(asked, False, f"{asked} was asked for")
    if before is not None and before.source == "moving" and not (static and scene_seconds >= SETTLED_SECONDS):
        return before
    if asked == "sam":
        return Choice(
            "mog2" if static else "moving", True, "sam was asked for; " + _why(static, background, pictures, fps)
        )
    why = _why(static, background, pictures, fps)
    if static:
        return Choice("mog2", False, why)
    return Choice("moving", sam, why + ("; the checkpoint of Segment Anything draws the masks" if sam else ""))


def _why(static: bool, background: Background | None, pictures: Sequence[np.ndarray], fps: float) -> str:
    if static:
        return "the camera stands still and its empty scene is known"
    shift = camera_shift(pictures)
    if shift is None:
        return "the camera's motion cannot be seen (too few details), and no empty scene fits"
    speed = shift * fps / max(1, len(pictures) - 1)
    if speed > STILL:
        return f"the camera moves by {speed:.1%} of the picture a second"
    if background is None:
        return "the camera stands still, but the shot is too short to learn its empty scene"
    return "the camera stands still for now, but elsewhere than the scene that was learnt"
