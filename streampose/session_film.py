"""A film of all views of a session side by side, with the joints of its people re-projected into them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from streampose.console import progress
from streampose.formats.points import Points
from streampose.geometry.camera import resize_camera
from streampose.geometry.distortion import project
from streampose.runtime.draw import draw_skeletons
from streampose.structures import Keypoints, Skeleton, View
from streampose.video.ahead import ahead
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter
from streampose.video.frame import Frame

MOST_WIDTH, MOST_HEIGHT = 1920, 1440  # of the film
UNSURE_METRES = 0.15  # joints less sure than this are drawn faintly
PICTURES = 3  # that are kept for the report
EVERY_SECONDS = 1.0  # between the pictures among which those are chosen


def film_session(
    path: Path, views: Sequence[View], points: Iterator[Points], skeleton: Skeleton, rate: float
) -> list[np.ndarray]:
    """Write the film.

    Args:
        views: with their cameras.
        points: people in space, in order of time.
        rate: frames a second of the first view, which gives the film its frames.

    Returns:
        A few of its frames, spread over those that show somebody.
    """
    tiles, columns = _tiles(views)
    rows = -(-len(views) // columns)
    size = (columns * tiles[0], rows * tiles[1])
    kept: list[np.ndarray] = []
    people = _People(points, 0.5 / rate)
    with contextlib.ExitStack() as stack:
        readers = []
        for view in views:
            video = stack.enter_context(open_video(view.video))
            readers.append(_Reader(stack.enter_context(ahead(video.frames(), 4)), view.offset_seconds))
        estimate = stack.enter_context(open_video(views[0].video, threads=1)).probe.frames_estimate
        bar = stack.enter_context(progress("overlay", estimate))
        film = stack.enter_context(VideoWriter(path, rate, size, preset="superfast", crf=23))
        start, last, kept_at, spacing = None, -1.0, -np.inf, EVERY_SECONDS
        for frame in readers[0].all():
            seconds = frame.pts_seconds + views[0].offset_seconds
            pictures = [frame, *(reader.at(seconds, 0.5 / rate) for reader in readers[1:])]
            here = people.at(seconds)
            canvas = np.zeros((size[1], size[0], 3), np.uint8)
            for n, (view, picture) in enumerate(zip(views, pictures, strict=True)):
                top, left = n // columns * tiles[1], n % columns * tiles[0]
                canvas[top : top + tiles[1], left : left + tiles[0]] = _tile(view, picture, here, skeleton, tiles)
            start = frame.pts_seconds if start is None else start
            if frame.pts_seconds - start > last:
                last = frame.pts_seconds - start
                film.write(canvas, last)
            if here is not None and len(here) and seconds - kept_at >= spacing:
                kept_at = seconds
                kept.append(canvas)
                if len(kept) == 4 * PICTURES:
                    kept, spacing = kept[::2], 2 * spacing
            bar.advance()
    chosen = np.linspace(0, len(kept) - 1, min(PICTURES, len(kept))).round().astype(int)
    return [kept[n] for n in chosen]


class _Reader:
    """One view's frames, asked for by time of the session, later and later."""

    def __init__(self, frames: Iterator[Frame], offset_seconds: float):
        self._frames, self._offset = frames, offset_seconds
        self._next: Frame | None = next(frames, None)
        self._now: Frame | None = None

    def all(self) -> Iterator[Frame]:
        if self._next is not None:
            yield self._next
        yield from self._frames

    def at(self, seconds: float, tolerance: float) -> Frame | None:
        """The latest frame that began by then; None before the first one."""
        while self._next is not None and self._next.pts_seconds + self._offset <= seconds + tolerance:
            self._now, self._next = self._next, next(self._frames, None)
        return self._now


class _People:
    """The people at a time, asked for later and later."""

    def __init__(self, points: Iterator[Points], tolerance: float):
        self._parts, self._tolerance = points, tolerance
        self._part: Points | None = next(points, None)

    def at(self, seconds: float) -> Points | None:
        while self._part is not None and self._part.seconds[-1] < seconds - self._tolerance:
            self._part = next(self._parts, None)
        if self._part is None:
            return None
        return self._part.pick(np.abs(self._part.seconds - seconds) <= self._tolerance)


def _tiles(views: Sequence[View]) -> tuple[tuple[int, int], int]:
    """(width, height) of each view in the film, and the number of columns."""
    width = max(view.camera.size[0] for view in views if view.camera)
    height = max(view.camera.size[1] for view in views if view.camera)
    columns = min(
        range(1, len(views) + 1),
        key=lambda c: -min(MOST_WIDTH / (c * width), MOST_HEIGHT / (-(-len(views) // c) * height)),
    )
    scale = min(1.0, MOST_WIDTH / (columns * width), MOST_HEIGHT / (-(-len(views) // columns) * height))
    return (2 * round(width * scale / 2), 2 * round(height * scale / 2)), columns


def _tile(
    view: View, frame: Frame | None, people: Points | None, skeleton: Skeleton, size: tuple[int, int]
) -> np.ndarray:
    assert view.camera is not None
    tile = np.zeros((size[1], size[0], 3), np.uint8)
    scale = min(size[0] / view.camera.size[0], size[1] / view.camera.size[1])
    inner = (round(view.camera.size[0] * scale), round(view.camera.size[1] * scale))
    if frame is not None:
        picture = cv2.resize(frame.image, inner, interpolation=cv2.INTER_AREA)
        if people is not None and len(people):
            xy = project(people.xyz, resize_camera(view.camera, inner))
            sure = np.nan_to_num(1 - 0.8 * np.clip(people.uncertainty / UNSURE_METRES, 0, 1))
            picture = draw_skeletons(picture, Keypoints(xy, sure), skeleton)
        tile[: inner[1], : inner[0]] = picture
    cv2.putText(tile, view.name, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(tile, view.name, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return tile
