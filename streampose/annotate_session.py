"""The verb `annotate --session`: synchronised, calibrated views -> people in space.

Each view is annotated by itself first (`annotate`: keypoints in 2D, in the folder `views`); in views that show nothing
that moves, the person is looked for whom the cameras see at one place (`session_still`). Then the people of the
views are matched, left and right are told apart, the joints triangulated and smoothed. For the session `jump` there
will be, in a folder of that name,

    points.parquet, points.json       every person, moment and joint, with uncertainty, error and number of views
    person0.trc, person0.c3d          markers of each person for OpenSim and motion-capture software (c3d: extra `c3d`)
    overlay.mp4                       all views with the joints re-projected into them
    report.html                       errors, uncertainties, pictures
    session.json                      what was done; written last
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streampose.annotate import annotate
from streampose.console import logger, progress
from streampose.errors import ConfigError
from streampose.files import write_text
from streampose.formats.c3d import c3d_available, write_c3d
from streampose.formats.parquet import iter_parquet
from streampose.formats.points import Points, iter_points, join_points, open_points, open_points_json
from streampose.formats.trc import write_trc
from streampose.geometry.camera import camera_to_dict
from streampose.runtime.bundle import default_bundle, load_bundle
from streampose.session_film import film_session
from streampose.session_report import Tally, write_session_report
from streampose.session_still import find_standing
from streampose.sessions import load_sessions
from streampose.structures import Camera, Session, Skeleton
from streampose.tracking.space import InSpace, reconstruct
from streampose.tracking.views import Seen
from streampose.video.decode import open_video

LEAST_SECONDS = 0.5  # a person who is seen in space for a shorter time is not written


def annotate_sessions(
    paths: Sequence[Path | str],
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
    synchronise: str | None = None,
) -> dict[str, Any]:
    """Annotate synchronised, calibrated recordings in space.

    Args:
        paths: each as for `sessions.load_sessions`: a folder of one video a camera with its calibration, or a file.
        overlay: also write a film of all views with the joints re-projected into them.
        smooth: smooth the joints in space; the 2D keypoints of the views stay as the model gave them.
        synchronise: how the views are aligned; None for what the file says.
        out, model, runtime, precision, batch, overwrite, max_subjects, threads: as for `annotate.annotate`.

    Returns:
        {"out", "sources": as of `annotate`, "sessions": [{"session", "verdict", "reason", "frames", "people",
        "error_px", "uncertainty_mm", "exchanged", "views": {name: {"error_px", "rejected", "exchanged"}},
        "files": {format: path}}], "seconds"}

    Raises:
        ConfigError: no session, or one that is not calibrated.
        VideoError, BundleError: as `annotate`.
    """
    began = time.monotonic()
    model = model or default_bundle()
    sources: list[dict[str, Any]] = []
    entries = []
    for session in [session for path in paths for session in load_sessions(path, synchronise=synchronise)]:
        if not session.calibrated:
            raise ConfigError(
                f"session {session.name}: not all of its views are calibrated; `streampose calibrate` finds the "
                "cameras, or annotate the videos without --session"
            )
        folder = Path(out) / session.name
        annotate_views = partial(
            annotate, out=folder / "views", model=model, runtime=runtime, precision=precision, overlay=False,
            batch=batch, smooth=False, max_subjects=max_subjects, threads=threads,
        )  # fmt: skip
        done = annotate_views([view.video for view in session.views], overwrite=overwrite)["sources"]
        nobody = [Path(entry["source"]) for entry in done if _shows_nobody(entry)]
        if nobody and (standing := find_standing(session, nobody, load_bundle(model).padding)):
            again = annotate_views(sorted(standing), standing=standing)["sources"]
            done = [next((other for other in again if other["source"] == e["source"]), e) for e in done]
        sources += done
        tables = {Path(entry["source"]): entry["files"].get("parquet") for entry in done}
        still = {Path(entry["source"]) for entry in done if entry.get("found") == "views"}
        entries.append(
            annotate_in_space(
                session, [tables.get(view.video) for view in session.views], load_bundle(model).skeleton, folder,
                overlay=overlay, smooth=smooth, overwrite=overwrite,
                same=[n for n, view in enumerate(session.views) if view.video in still],
            )
        )  # fmt: skip
    return {
        "out": str(out),
        "sources": sources,
        "sessions": entries,
        "seconds": round(time.monotonic() - began, 3),
    }


def _shows_nobody(entry: dict[str, Any]) -> bool:
    """Whether a view that could be read has no subject, or one that was looked for in the whole picture only: cameras
    of a session stand still, so nothing moves there."""
    return bool(entry["files"]) and (not entry["people"] or entry.get("found") == "following")


def annotate_in_space(
    session: Session,
    tables: Sequence[Path | str | None],
    skeleton: Skeleton,
    folder: Path,
    *,
    overlay: bool = True,
    smooth: bool = True,
    overwrite: bool = False,
    same: Sequence[int] = (),
) -> dict[str, Any]:
    """The people of one session in space, from the keypoints of its views.

    Args:
        tables: for each view the Parquet table that `annotate` wrote; None for one that could not be annotated.
        folder: where the files go.
        same: numbers of views whose one subject is known to be the same person.

    Returns:
        The session's entry as in `annotate_sessions`.
    """
    state = _state(session, tables, overlay=overlay, smooth=smooth)
    note = folder / "session.json"
    if not overwrite and (done := _finished(note, state)) is not None:
        logger.info(f"session {session.name}: finished before; --overwrite does it again")
        return {**done, "skipped": True}
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    entry: dict[str, Any] = {
        "session": session.name,
        "verdict": "quarantined",
        "reason": "",
        "frames": 0,
        "people": 0,
        "files": {},
    }
    used = [n for n, table in enumerate(tables) if table is not None]
    lost = [view.name for n, view in enumerate(session.views) if n not in used]
    if len(used) < 2:
        entry["reason"] = f"fewer than two views could be annotated ({', '.join(lost)} not)"
        return entry
    clock = _clock(session)
    views = [(session.views[n], Path(str(tables[n]))) for n in used]
    cameras: dict[str, Camera] = {view.name: view.camera for view, _ in views if view.camera is not None}
    files = {"parquet": folder / "points.parquet", "json": folder / "points.json"}
    tally = Tally([view.name for view, _ in views], skeleton)
    seen = [read_view(table, view.offset_seconds) for view, table in views]
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(open_points(files["parquet"], skeleton, session.name, cameras))
        text = stack.enter_context(open_points_json(files["json"], skeleton, session.name, cameras))
        bar = stack.enter_context(progress(f"session {session.name}", None, "moments"))
        watch = _Watch(clock)
        windows = reconstruct(
            seen, list(cameras.values()), skeleton, tolerance_seconds=0.5 / clock.rate, smooth=smooth,
            same=[place for place, n in enumerate(used) if n in same],
        )  # fmt: skip
        for window in windows:
            rows = watch.proven(window)
            for part in rows:
                table.write(part)
                text.write(part)
            for person in window:
                tally.add(person)
            bar.advance(len(window[0].seconds) if window else 0)
        for part in watch.rest():
            table.write(part)
            text.write(part)
    entry.update(frames=watch.frames, people=len(watch.written), **tally.summary())
    files |= _write_markers(files["parquet"], watch, skeleton, clock, folder, cameras)
    pictures: list[np.ndarray] = []
    if overlay:
        files["overlay"] = folder / "overlay.mp4"
        pictures = film_session(
            files["overlay"], [view for view, _ in views], iter_points(files["parquet"]), skeleton, clock.rate
        )
    files["report"] = folder / "report.html"
    write_session_report(files["report"], session.name, entry, tally, files["parquet"], skeleton, cameras, pictures)
    entry["files"] = {kind: str(file) for kind, file in files.items()}
    entry["verdict"] = "repaired" if lost else "ok"
    reasons = [f"without {', '.join(lost)}, which could not be annotated"] if lost else []
    if not entry["people"]:
        reasons.append(
            "nobody was found at the same place by two views; check the calibration, the offsets and the model"
        )
        logger.warning(f"session {session.name}: {reasons[-1]}")
    entry["reason"] = "; ".join(reasons)
    write_text(note, json.dumps({"entry": entry, "state": state}, indent=2) + "\n")
    return entry


@dataclass(frozen=True)
class _Clock:
    """The rate of the session's first view, and what must be added to its times to get the session's."""

    rate: float
    offset_seconds: float

    def frames(self, seconds: np.ndarray, first: float) -> np.ndarray:
        """Frame numbers of the first view, counted from the session's first moment, which may lie between two."""
        return np.rint((seconds - first) * self.rate).astype(int) + round((first - self.offset_seconds) * self.rate)


def _clock(session: Session) -> _Clock:
    with open_video(session.views[0].video, threads=1) as video:
        return _Clock(float(video.probe.fps), session.views[0].offset_seconds)


def read_view(table: Path, offset_seconds: float) -> Iterator[Seen]:
    """The frames of one view in which it saw somebody, in time of the session."""
    for part in iter_parquet(table):
        for rows in np.split(np.arange(len(part.frame_index)), np.flatnonzero(np.diff(part.frame_index)) + 1):
            yield Seen(
                float(part.pts_seconds[rows[0]]) + offset_seconds,
                tuple(int(track) for track in part.track_id[rows]),
                part.xyz[rows][..., :2].astype(float),
                np.nan_to_num(part.confidence[rows].astype(float)),
            )


@dataclass
class _Watch:
    """Holds people back until they have been seen for long enough, and numbers the moments."""

    clock: _Clock
    written: dict[int, tuple[int, int]] = field(default_factory=dict)  # person -> first and last frame
    frames: int = 0
    _first: float | None = None  # time of the first moment
    _seen: dict[int, int] = field(default_factory=dict)
    _waiting: list[Points] = field(default_factory=list)

    def proven(self, window: list[InSpace]) -> list[Points]:
        """The rows that can be written now, in order of time, people of one moment together."""
        rows = self._rows(window)
        least = LEAST_SECONDS * self.clock.rate
        for person in window:
            known = int(np.isfinite(person.points).all(-1).any(-1).sum())
            self._seen[person.id] = self._seen.get(person.id, 0) + known
        sure = {person for person, count in self._seen.items() if count >= least}
        parts = [*self._waiting, rows] if len(rows) else self._waiting
        if all(set(part.subject_id) <= sure for part in parts):
            self._waiting = []
            return [self._note(part) for part in parts]
        self._waiting = parts[-4:]  # a short guest is given up after four windows
        return [self._note(part.pick(np.isin(part.subject_id, list(sure)))) for part in parts[:-4]]

    def rest(self) -> list[Points]:
        """What still waits, without those who were seen too shortly; the longest seen of a short session stays."""
        least = min(LEAST_SECONDS * self.clock.rate, 0.5 * max(self._seen.values(), default=0))
        sure = [person for person, count in self._seen.items() if count >= least]
        parts, self._waiting = self._waiting, []
        return [self._note(part.pick(np.isin(part.subject_id, sure))) for part in parts]

    def _note(self, rows: Points) -> Points:
        for person in np.unique(rows.subject_id):
            mine = rows.frame_index[rows.subject_id == person]
            first, last = self.written.get(int(person), (int(mine[0]), int(mine[-1])))
            self.written[int(person)] = min(first, int(mine[0])), max(last, int(mine[-1]))
        self.frames += len(np.unique(rows.frame_index))
        return rows

    def _rows(self, window: list[InSpace]) -> Points:
        parts = []
        for person in window:
            self._first = float(person.seconds[0]) if self._first is None else self._first
            known = np.isfinite(person.points).all(-1).any(-1)
            if known.any():
                error = np.where(person.inliers, person.error_px, np.nan)
                with np.errstate(all="ignore"):
                    middle = _nanmedian(error)
                frames = self.clock.frames(person.seconds, self._first)
                rows = Points(
                    frames, person.seconds, np.full(len(frames), person.id), person.points, person.uncertainty, middle,
                    person.inliers.sum(0),
                )  # fmt: skip
                parts.append(rows.pick(known))
        if not parts:
            K = window[0].points.shape[1] if window else 1
            return Points(*(np.zeros((0, *shape)) for shape in ((), (), (), (K, 3), (K,), (K,), (K,))))
        joined = join_points(parts)
        return joined.pick(np.lexsort((joined.subject_id, joined.seconds)))


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over the views (V, T, K) -> (T, K), NaN where there is none, without a warning."""
    ordered = np.sort(values, 0)  # NaN last
    count = np.isfinite(values).sum(0)
    low, high = np.maximum((count - 1) // 2, 0), np.maximum(count // 2, 0)
    pick = [np.take_along_axis(ordered, index[None], 0)[0] for index in (low, np.minimum(high, len(values) - 1))]
    return np.where(count > 0, (pick[0] + pick[1]) / 2, np.nan)


def _write_markers(
    table: Path, watch: _Watch, skeleton: Skeleton, clock: _Clock, folder: Path, cameras: dict[str, Camera]
) -> dict[str, Path]:
    """A marker file of each person; frames without it are empty rows, so that the rate is even."""
    files: dict[str, Path] = {}
    up = upward(list(cameras.values()))
    for person, (first, last) in sorted(watch.written.items()):
        trc = folder / f"person{person}.trc"
        rows = _even_rows(table, person, first, last, skeleton.num_joints)
        markers = ((frame / clock.rate, xyz @ up.T) for frame, xyz, _ in rows)
        write_trc(trc, skeleton.joints, clock.rate, last - first + 1, markers)
        files[f"trc/{person}"] = trc
        if c3d_available():
            listed = list(_even_rows(table, person, first, last, skeleton.num_joints))
            c3d = folder / f"person{person}.c3d"
            write_c3d(
                c3d, skeleton.joints, clock.rate, np.stack([r[1] for r in listed]), np.stack([r[2] for r in listed])
            )
            files[f"c3d/{person}"] = c3d
    return files


def _even_rows(table: Path, person: int, first: int, last: int, K: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(frame, (K, 3) metres, (K,) uncertainty) of every frame from the first to the last; NaN where it is not known."""
    nothing, frame = (np.full((K, 3), np.nan), np.full(K, np.nan)), first
    for part in iter_points(table):
        for row in np.flatnonzero(part.subject_id == person):
            number = int(part.frame_index[row])
            for empty in range(frame, number):
                yield empty, *nothing
            if number >= frame:
                yield number, part.xyz[row], part.uncertainty[row]
                frame = number + 1
    for empty in range(frame, last + 1):
        yield empty, *nothing


def upward(cameras: Sequence[Camera]) -> np.ndarray:
    """(3, 3) turn of the world that makes its upward axis y, as OpenSim has it: the axis that cameras hold upright."""
    up = -np.mean([camera.R[1] for camera in cameras], 0)
    axis = int(np.abs(up).argmax())
    y = np.sign(up[axis]) * np.eye(3)[axis]
    z = np.eye(3)[(axis + 1) % 3]
    return np.stack([np.cross(y, z), y, z])


def _state(session: Session, tables: Sequence[Path | str | None], **options: bool) -> dict[str, Any]:
    """What the result depends on, to know whether it is finished."""
    views = []
    for view, table in zip(session.views, tables, strict=True):
        stamp = Path(table).stat().st_mtime_ns if table else None
        camera = None if view.camera is None else camera_to_dict(view.camera)
        views.append({"name": view.name, "table": stamp, "offset_seconds": view.offset_seconds, "camera": camera})
    return {"views": views, **options, "c3d": c3d_available()}


def _finished(note: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    try:
        values = json.loads(note.read_text(encoding="utf-8"))
        entry = values["entry"]
        if values["state"] == state and all(Path(file).is_file() for file in entry["files"].values()):
            return entry
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no note, or a broken one: not finished
    return None
