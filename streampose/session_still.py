"""The person of a session who stands still: where to look in the views in which motion shows nobody."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from streampose.console import logger, progress
from streampose.errors import VideoError
from streampose.runtime.standing import Standing
from streampose.structures import Session
from streampose.tracking.boxes import steady_square
from streampose.tracking.still_subject import StillSubject, in_picture
from streampose.video.decode import open_video
from streampose.video.moments import moment_stride, moments

RATE = 2.0  # looks a second
LOOKS = 12  # at least, at a recording that is long enough for them
AROUND = 4  # looks before and after, over which a box is steadied


def find_standing(session: Session, waiting: Collection[Path], padding: float) -> dict[Path, Standing]:
    """Look for the person whom calibrated views see at one place, as `ingest` does.

    Args:
        waiting: videos of the views in which it is wanted.
        padding: free space on each side of the subject, as a share of its longer side.

    Returns:
        Where it is, for those of `waiting` that show it; empty where fewer than two views agree on somebody.
    """
    views = [view for view in session.views if view.camera is not None and view.camera.posed]
    if len(views) < 2 or not any(view.video in waiting for view in views):
        return {}
    subject = StillSubject([view.camera for view in views if view.camera is not None])
    seen: dict[int, list[tuple[float, np.ndarray]]] = {}
    try:
        with ExitStack() as files:
            videos = [files.enter_context(open_video(view.video)) for view in views]
            sizes = [(video.probe.width, video.probe.height) for video in videos]
            stride = moment_stride(videos[0], RATE, LOOKS)
            bar = files.enter_context(progress("still subject", None, "moments"))
            for frames in moments(videos, [view.offset_seconds for view in views], stride):
                masks = subject.look([frame.image for frame in frames])
                wanted = [n for n in subject.views if views[n].video in waiting]
                if subject.given_up or (masks and not wanted):
                    break
                for n in wanted:
                    _, tight = in_picture(*masks[n], sizes[n])
                    if tight is not None:
                        seen.setdefault(n, []).append((frames[n].pts_seconds, tight))
                bar.advance(1)
    except VideoError as error:
        logger.warning(f"session {session.name}: its still subject cannot be followed: {error}")
        return {}
    logger.info(f"session {session.name}: {subject.said()}")
    return {
        views[n].video: _standing(looks, padding, f"nothing moves in it; {subject.said()}") for n, looks in seen.items()
    }


def _standing(looks: list[tuple[float, np.ndarray]], padding: float, note: str) -> Standing:
    boxes = np.stack([box for _, box in looks])
    squares = []
    for at in range(len(boxes)):
        first = max(0, at - AROUND)
        squares.append(steady_square(boxes[first : at + AROUND + 1], at - first, padding))
    return Standing(np.array([seconds for seconds, _ in looks]), np.stack(squares), note)
