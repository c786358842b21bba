"""The verb `annotate`: videos -> COCO keypoints JSON, Parquet and overlay videos, at constant memory.

Decoding, inference and writing run in three threads with short queues between them. For `park.mp4` there will be
`park.keypoints.json`, `park.keypoints.parquet`, `park.overlay.mp4` and, written last, `park.annotation.json`: what was
done with which model, by which a later call knows that the video is finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import logger, progress
from streampose.errors import VideoError
from streampose.files import write_text
from streampose.formats.coco import open_coco
from streampose.formats.lifted import open_lifted
from streampose.formats.parquet import open_parquet
from streampose.runtime.bundle import default_bundle
from streampose.runtime.draw import draw_skeletons
from streampose.runtime.find import Finder, Found
from streampose.runtime.hold import Hold, Row
from streampose.runtime.lifter import Lifting, load_lifter
from streampose.runtime.predictor import Predictor, available_cores, load_predictor
from streampose.runtime.smoother import Smoother
from streampose.runtime.standing import Standing
from streampose.tracking.hypothesis_path import LivePaths
from streampose.video.ahead import ahead
from streampose.video.decode import Video, find_videos, open_video
from streampose.video.encode import VideoWriter
from streampose.video.frame import Frame

QUEUE_BYTES = 32 << 20  # of decoded frames that wait for inference, and again of those that wait for writing
OVERLAY_SUFFIX = ".overlay.mp4"


def annotate(
    paths: list[Path] | list[str],
    *,
    out: Path = Path("annotations"),
    model: Path | None = None,
    runtime: str = "auto",
    precision: str = "f32",
    overlay: bool = True,
    batch: int = 16,
    smooth: bool = True,
    overwrite: bool = False,
    max_subjects: int = 4,
    threads: int | None = None,
    lifter: Path | None = None,
    standing: Mapping[Path, Standing] | None = None,
) -> dict[str, Any]:
    """Annotate videos; one that cannot be read gets its verdict and the others go on.

    Args:
        paths: videos, or folders of videos.
        out: folder of the results.
        model: a bundle; None for ./models/current, else the model shipped with the package.
        overlay: also write each video with the skeletons drawn in.
        batch: crops an inference.
        smooth: smooth the keypoints along each track, by what comes before and after; see `runtime/smoother.py`.
        overwrite: do again what is finished; without it, a video is done again only if it, the model or what is asked
            for has changed.
        max_subjects: how many subjects are followed at once.
        threads: cores that the runtime uses; None for half of them, because decoding and finding need the others.
        lifter: a bundle that lifts 2D joints (models/lifter, by `selftrain --method hypotheses`): 3D poses with their
            uncertainty are written as `park.lifted.parquet`, too; see `formats/lifted.py`. With `smooth`, the
            hypotheses of each track are connected from frame to frame (`tracking.hypothesis_path`).
        standing: where the one subject is in some of the videos, which are done again; else it is looked for.

    Returns:
        {"out", "sources": [{"source", "verdict", "reason", "frames", "people", "found", "files": {format: path}}],
        "seconds"}; subjects are `found` by `motion`, by `following` one from the whole picture, or by `views`

    Raises:
        VideoError: there is no video at all.
        BundleError, ConfigError: the model or the runtime.
    """
    began = time.monotonic()
    out = Path(out)
    videos = [path for path in find_videos(paths) if not path.name.endswith(OVERLAY_SUFFIX)]
    if not videos:
        raise VideoError(f"{', '.join(map(str, paths))}: no videos here; name a video or a folder that holds some")
    model = model or default_bundle()
    predictor = load_predictor(model, runtime, precision, threads or max(1, available_cores() // 2))
    lifting = None if lifter is None else load_lifter(lifter)
    if lifting is not None:
        lifting.match(predictor.skeleton.joints)
    bundle = predictor.bundle
    named = f"{bundle.method or 'model'} {bundle.preset}".strip()
    logger.info(f"{model}: {named} at {predictor.input_size} px, {predictor.runtime.name} {predictor.precision}")
    out.mkdir(parents=True, exist_ok=True)
    sources = []
    for number, path in enumerate(videos, 1):
        job = _Job(path, out, predictor, overlay=overlay, smooth=smooth, max_subjects=max_subjects, lifting=lifting)
        finder = (standing or {}).get(path) or Finder(path, predictor, max_subjects)
        if not overwrite and isinstance(finder, Finder) and (done := job.finished()) is not None:
            logger.info(f"{path}: finished before; --overwrite does it again")
            sources.append({**done, "skipped": True})
            continue
        job.clear()
        label = f"{path.name} ({number}/{len(videos)})"
        entry = _annotate_video(job, finder, label, batch)
        if entry["verdict"] != "ok":
            logger.warning(f"{path}: {entry['verdict']}: {entry['reason']}")
        sources.append(entry)
    return {"out": str(out), "sources": sources, "seconds": round(time.monotonic() - began, 3)}


def _annotate_video(job: _Job, finder: Finder | Standing, label: str, batch: int) -> dict[str, Any]:
    """Annotate one video and return its entry; the files are there only if all went well."""
    entry: dict[str, Any] = {
        "source": str(job.path), "verdict": "quarantined", "reason": "", "frames": 0, "people": 0, "found": "",
        "files": {},
    }  # fmt: skip
    frames = 0
    try:
        with open_video(job.path) as video, contextlib.ExitStack() as stack:
            depth = _queue_depth(video)
            hold = Hold(*_open_writers(job, video, stack), depth)
            decoded = stack.enter_context(ahead(video.frames(), depth))
            found = finder.find(decoded, video.probe)
            annotated = stack.enter_context(ahead(find_poses(found, job.predictor, batch), depth))
            smoother = Smoother(depth) if job.smooth else None
            bar = stack.enter_context(progress(label, video.probe.frames_estimate))
            for item in annotated:
                for frame, row, proven in smoother.add(*item) if smoother else [item]:
                    hold.add(frame, row, proven)
                frames += 1
                bar.advance()
            for frame, row, proven in smoother.finish() if smoother else []:
                hold.add(frame, row, proven)
            hold.finish()
        verdict = video.verdict
        entry.update(frames=frames, people=len(hold.subjects), verdict=verdict.verdict, reason=verdict.reason)
        entry["reason"] = "; ".join(text for text in (verdict.reason, finder.note) if text)
        entry["found"] = finder.found
        if entry["verdict"] == "quarantined":
            job.clear()
        else:
            entry["files"] = {name: str(file) for name, file in job.files.items()}
            job.finish(entry)
    except VideoError as error:
        entry.update(reason=str(error).removeprefix(f"{job.path}: "))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        entry.update(reason=f"{where}cannot be written ({error.strerror or error}); check space and permissions")
    return entry


def find_poses(found: Iterator[Found], predictor: Predictor, batch: int) -> Iterator[tuple[Frame, Row, frozenset[int]]]:
    """Each frame, in order, with its subjects' keypoints, and those tracks that are known to be subjects by now.

    Frames wait until `batch` crops are together, unless the next boxes depend on these keypoints.
    """
    waiting: list[Found] = []
    crops: list[np.ndarray] = []

    def infer() -> Iterator[tuple[Frame, Row, frozenset[int]]]:
        shape = (0, predictor.input_size, predictor.input_size, 3)
        keypoints, confidence = predictor.predict_crops(np.stack(crops) if crops else np.zeros(shape, np.uint8))
        at = 0
        for item in waiting:
            part = slice(at, at + len(item.ids))
            at += len(item.ids)
            poses = predictor.to_source(keypoints[part], confidence[part], item.boxes)
            row = Row(item.frame.index, item.frame.pts_seconds, poses, item.ids, item.boxes)
            proven = item.proven
            if item.follower is not None:
                if not item.follower.update(poses):
                    row = row.only(set())
                elif item.follower.proven:
                    proven = frozenset(item.ids)
            yield item.frame, row, proven
        waiting.clear()
        crops.clear()

    for item in found:
        waiting.append(item)
        crops += [item.frame.crop(box, predictor.input_size) for box in item.boxes]
        if item.follower is not None or len(crops) >= batch or len(waiting) >= batch:
            yield from infer()
    yield from infer()


class _Job:
    """One video, its files, and the note that says that they are finished."""

    def __init__(
        self,
        path: Path,
        out: Path,
        predictor: Predictor,
        *,
        overlay: bool,
        smooth: bool,
        max_subjects: int,
        lifting: Lifting | None = None,
    ):
        self.lifting = lifting
        self.path, self.predictor, self.smooth, self.max_subjects = path, predictor, smooth, max_subjects
        self._state: dict[str, Any] = {
            "source": os.path.abspath(path),
            "model": predictor.bundle.sha256,
            "smooth": "local fit" if smooth else "",
            "max_subjects": max_subjects,
            **_stamp(path),
        }
        if lifting is not None and lifting.bundle is not None:
            self._state["lifter"] = lifting.bundle.sha256
        self.stem = path.stem
        note = out / f"{self.stem}.annotation.json"
        state = _read_json(note).get("state")
        if note.exists() and (not isinstance(state, dict) or state.get("source") != self._state["source"]):
            # Another video of this name was annotated into this folder before.
            self.stem += "-" + hashlib.sha256(self._state["source"].encode()).hexdigest()[:8]
        self._note = out / f"{self.stem}.annotation.json"
        self.files = {
            "coco": out / f"{self.stem}.keypoints.json",
            "parquet": out / f"{self.stem}.keypoints.parquet",
        }
        if lifting is not None:
            self.files["lifted"] = out / f"{self.stem}.lifted.parquet"
        if overlay:
            self.files["overlay"] = out / f"{self.stem}{OVERLAY_SUFFIX}"

    def finished(self) -> dict[str, Any] | None:
        """The entry of an earlier call that did the same with the same video and model, else None."""
        note = _read_json(self._note)
        entry = note.get("entry")
        if note.get("state") != self._state or not isinstance(entry, dict):
            return None
        return entry if all(entry["files"].get(name) and file.is_file() for name, file in self.files.items()) else None

    def clear(self) -> None:
        """Remove what an earlier call left, so that nothing of it can be taken for the result of this one."""
        for file in (self._note, *self.files.values()):
            file.unlink(missing_ok=True)

    def finish(self, entry: dict[str, Any]) -> None:
        """Write down that the files are complete."""
        write_text(self._note, json.dumps({"entry": entry, "state": self._state}, indent=2) + "\n")


def _open_writers(
    job: _Job, video: Video, stack: contextlib.ExitStack
) -> tuple[Callable[[Row], None], Callable[[Frame, Row], None] | None]:
    """Open the files; returns what writes rows and what draws into the film, if there is one.

    They get their names when `stack` closes without an error.
    """
    probe, skeleton = video.probe, job.predictor.skeleton
    size = (probe.width, probe.height)
    coco = stack.enter_context(open_coco(job.files["coco"], skeleton, source=str(job.path), size=size))
    table = stack.enter_context(open_parquet(job.files["parquet"], skeleton, source=str(job.path)))
    lifting, space = job.lifting, None
    if lifting is not None:
        space = stack.enter_context(open_lifted(job.files["lifted"], lifting.skeleton, source=str(job.path)))
    film = None
    if "overlay" in job.files:
        film = stack.enter_context(VideoWriter(job.files["overlay"], probe.fps, size, preset="superfast", crf=23))
    last_pts = -1.0
    paths = None if lifting is None else LivePaths(lifting.skeleton)

    def write(row: Row) -> None:
        coco.write(row.frame_index, row.pts_seconds, row.keypoints, row.ids, row.boxes)
        table.write(row.frame_index, row.pts_seconds, row.keypoints, row.ids)
        if lifting is not None and space is not None and row.ids:
            lifted = lifting.lift_keypoints(row.keypoints, skeleton)
            if job.smooth and paths is not None:
                lifted = replace(lifted, pose=paths.step(row.ids, lifted.hypotheses, row.pts_seconds))
            space.write(row.frame_index, row.pts_seconds, lifted, row.ids)

    def draw(frame: Frame, row: Row) -> None:
        nonlocal last_pts
        assert film is not None
        if frame.pts_seconds > last_pts:  # a film cannot show two frames at one time
            image = draw_skeletons(frame.image, row.keypoints, skeleton, boxes=row.boxes, ids=row.ids)
            film.write(image, frame.pts_seconds)
            last_pts = frame.pts_seconds

    return write, None if film is None else draw


def _queue_depth(video: Video) -> int:
    return int(np.clip(QUEUE_BYTES // (video.probe.width * video.probe.height * 3 // 2), 4, 32))


def _stamp(path: Path) -> dict[str, int]:
    try:
        status = path.stat()
    except OSError:
        return {"bytes": -1, "mtime_ns": -1}
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no note, or a broken one: the video is not finished
    return values if isinstance(values, dict) else {}
