"""Subjects of sessions who stand still: motion finds nobody in some view, but the calibrated cameras agree on somebody.

It is looked for once the sources of a session are published, in those views that gave no clip; the sources are then
published again with the clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import logger, progress
from streampose.errors import VideoError
from streampose.geometry.crop import crop_resize
from streampose.ingestion.clips import LEAST_CROPS
from streampose.ingestion.masking import open_sam_once
from streampose.ingestion.options import Options
from streampose.masks.clip_masks import ClipMasks, Keep
from streampose.masks.quality import Quality
from streampose.store.copy import WorkingCopy
from streampose.store.push import push_source
from streampose.store.schema import read_attributes
from streampose.store.writer import ClipWriter, publish_source
from streampose.structures import Camera, Session, View
from streampose.tracking.boxes import steady_square, touches_border
from streampose.tracking.still_subject import StillSubject, in_picture
from streampose.video.decode import Video, open_video
from streampose.video.frame import Frame
from streampose.video.moments import moment_stride, moments

LOOKS = 12  # at least, at a recording that is long enough for them
WINDOW = 9  # boxes over which a square is steadied
NO_CLIP = "nothing that moves was found in it"


def add_still_subject(
    store: Path, session: Session, options: Options, results: list[dict[str, Any]], copy: WorkingCopy | None
) -> None:
    """As `find_still_subject`; what `ingest` says of the sources is changed, and they are sent where the store is."""
    for source_id in find_still_subject(store, session, options):
        values = read_attributes(store / "sources" / source_id)
        for result in results:
            if result["source"] == values["path"]:
                result |= {name: values[name] for name in ("verdict", "reason", "clips")}
        if copy is not None:
            push_source(copy, source_id, replace=True)


def find_still_subject(store: Path, session: Session, options: Options) -> list[str]:
    """Add clips of the subject to the views of a session that gave none; ids of the sources that were changed.

    Nothing is done where the masks are not chosen automatically, fewer than two views are calibrated, or it was done
    before.
    """
    views = _views(store, session)
    waiting = [view for view in views if not view.attributes["clips"] and "across_views" not in view.attributes]
    if options.masks != "auto" or len(views) < 2 or not waiting:
        return []
    with ExitStack() as open_files:
        videos = [open_files.enter_context(open_video(view.view.video)) for view in views]
        try:
            said, looks = _follow(store, views, waiting, videos, options)
        except VideoError as error:
            logger.warning("session %s: its still subject cannot be followed: %s", session.name, error)
            return []
    logger.info("session %s: %s", session.name, said)
    for view in waiting:
        clip = looks.get(view.source_id)
        attributes = {name: value for name, value in view.attributes.items() if name != "places"}
        attributes["across_views"] = said
        if clip is not None:
            reasons = [reason for reason in attributes["reason"].split("; ") if reason and reason != NO_CLIP]
            attributes |= {"clips": [clip], "masks": "views", "masks_reason": said, "reason": "; ".join(reasons)}
        publish_source(store, view.source_id, attributes)
    return [view.source_id for view in waiting]


@dataclass(frozen=True)
class _View:
    """One calibrated view with the source of its video."""

    view: View
    camera: Camera
    source_id: str
    attributes: dict[str, Any]


def _views(store: Path, session: Session) -> list[_View]:
    """The calibrated views whose videos could be read."""
    there = {}
    for folder in sorted((store / "sources").iterdir()):
        if folder.is_dir():
            attributes = read_attributes(folder)
            there[Path(attributes["path"]).resolve()] = folder.name, attributes
    found = []
    for view in session.views:
        source_id, attributes = there.get(view.video.resolve(), ("", {}))
        posed = view.camera is not None and view.camera.posed
        if posed and attributes.get("frames") and attributes["verdict"] != "quarantined":
            assert view.camera is not None
            found.append(_View(view, view.camera, source_id, attributes))
    return found


def _say(subject: StillSubject, options: Options) -> str:
    if subject.subject is None:
        return subject.said()
    sam = "; Segment Anything draws the masks" if options.sam_checkpoint else ""
    return f"nothing moves in it; {subject.said()}, and its masks are what looks like one body in all of them{sam}"


def _follow(
    store: Path, views: Sequence[_View], waiting: Sequence[_View], videos: Sequence[Video], options: Options
) -> tuple[str, dict[str, str]]:
    """Cut the subject out of the views that wait for it: what is said of it, and source id -> clip id."""
    subject = StillSubject([view.camera for view in views], options.detector, options.detector_class)
    cutters: dict[int, _Cutter] = {}
    stride = moment_stride(videos[0], options.rate, LOOKS)
    with progress("still subjects", (videos[0].probe.frames_estimate or 0) / stride or None, "moments") as bar:
        for frames in moments(videos, [view.view.offset_seconds for view in views], stride):
            bar.advance(1)
            masks = subject.look([frame.image for frame in frames])
            if subject.given_up:
                break
            if masks and not cutters:
                cutters = {
                    n: _Cutter(store, views[n], videos[n], stride, options)
                    for n in subject.views
                    if views[n] in waiting
                }
                if not cutters:  # it is out of the sight of those views that wait for it
                    break
            for n in cutters:
                cutters[n].cut(frames[n], *masks[n])
    made = {n: cutter.finish() for n, cutter in cutters.items()}
    said = _say(subject, options)
    return said, {views[n].source_id: clip for n, clip in made.items() if clip is not None}


class _Cutter:
    """Cuts the clip of one view."""

    def __init__(self, store: Path, view: _View, video: Video, stride: int, options: Options):
        self._options, self._size = options, (video.probe.width, video.probe.height)
        fps = video.probe.fps / stride
        self._writer = ClipWriter(store, f"{view.source_id}-still-000", source=str(view.view.video), fps=fps)
        self._quality, self._boxes = Quality(self._size), np.zeros((0, 4), np.float32)
        self._at_border = 0
        self._keep: Keep = self._write
        self._stage: ClipMasks | None = None
        if options.sam_checkpoint:
            sam = open_sam_once(options.sam_checkpoint, options.sam_precision)
            self._stage = ClipMasks(sam, self._write, every=options.sam_every)
            self._keep = self._stage.append

    def cut(self, frame: Frame, mask: np.ndarray, affine: np.ndarray) -> None:
        """One moment.

        Args:
            mask: (H, W) uint8 in a picture of its own, `affine` (2, 3) maps the frame's pixels to it.
        """
        whole, tight = in_picture(mask, affine, self._size)
        if tight is None:
            return
        self._boxes = np.concatenate([self._boxes[-WINDOW + 1 :], tight[None]])
        square = steady_square(self._boxes, len(self._boxes) - 1)
        size = self._options.crop_size
        cut = (crop_resize(whole, square, size) > 127).astype(np.uint8) * np.uint8(255)
        if not 0.005 < np.count_nonzero(cut) / cut.size < 0.9:
            return
        self._at_border += touches_border(tight, self._size)
        self._keep(frame.crop(square, size), cut, square, frame.pts_seconds, frame.index)

    def finish(self) -> str | None:
        """The clip's id; None where it is too short."""
        if self._stage is not None:
            self._stage.finish()
        if self._writer.num_frames < LEAST_CROPS:
            self._writer.discard()
            return None
        at_border = round(self._at_border / self._writer.num_frames, 4)
        self._writer.finish(motion=0.0, at_border=at_border, masks="views+sam" if self._stage else "views")
        return self._writer.id

    def _write(
        self, crop: np.ndarray, mask: np.ndarray, square: np.ndarray, pts_seconds: float, frame_index: int
    ) -> None:
        quality = self._quality.rate(crop, mask, square)
        self._writer.append(crop, mask, square, pts_seconds, frame_index, quality)
