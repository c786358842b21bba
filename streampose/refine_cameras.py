"""`calibrate --refine`: better places for the cameras of a session, from the keypoints of the people whom they saw.

The keypoints are our own (`annotate` is run on the views unless its tables are named), or those of OpenPose or
DeepLabCut: for the view `cam01` a table `cam01.keypoints.parquet`, a folder `cam01` or `cam01_json` of OpenPose files,
or a file `cam01*.csv`. The given calibration stays as it is; the refined one is written beside it.

Keypoints that are wrong in the same way all the time, as those of a weak model, pull the cameras to wrong places though
the error falls; a small model of one's own is no replacement for a board.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from streampose.annotate import annotate
from streampose.annotate_session import read_view
from streampose.console import logger
from streampose.errors import ConfigError, StreamposeError, VideoError
from streampose.formats.calibration import write_calibration
from streampose.formats.dlc import read_dlc_csv
from streampose.formats.openpose import OpenPosePeople, read_openpose
from streampose.formats.parquet import iter_parquet
from streampose.geometry.distortion import project
from streampose.geometry.left_right import LeftRight
from streampose.geometry.match_views import extent
from streampose.geometry.refine import GAUGES, Refined, refine_cameras
from streampose.geometry.triangulate import triangulate_robust
from streampose.report import Picture, Section, Table, write_report
from streampose.sessions import load_session
from streampose.store.sessions import StoredSession, read_sessions, write_session
from streampose.structures import Camera, Session, Skeleton, View
from streampose.tracking.views import Moment, Seen, ViewMatcher, join_moments
from streampose.video.decode import open_video

MOMENT_SECONDS = 0.2  # between the moments that are used of a long recording
MANY_MOMENTS, MOST_MOMENTS = 300, 1500  # a short one gives as many as it has
WINDOW = 64
SAME_SHARE = 0.3  # of a person's extent: joints that moved by less from frame to frame are of the same person
ROUNDS = 2  # of matching people with the cameras as they are known, and refining the cameras
GREEN, RED, BLUE = (60, 220, 90), (230, 60, 50), (70, 130, 255)


@dataclass(frozen=True)
class _Tracks:
    """Keypoints of one view: names of the joints, the skeleton where there is one, and a way to read its frames."""

    joints: tuple[str, ...]
    skeleton: Skeleton | None
    table: Path
    reader: str

    def frames(self, view: View, fps: float) -> Iterator[Seen]:
        if self.reader == "parquet":
            yield from read_view(self.table, view.offset_seconds)
            return
        read = _read_openpose if self.reader == "openpose" else _read_dlc
        yield from read(self.table, view.offset_seconds, fps)


def refine_session(
    path: Path | str,
    *,
    out: Path | None = None,
    keypoints: Path | None = None,
    focal: bool = False,
    keep: str = "rig",
    model: Path | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Refine the cameras of one session.

    Args:
        path: a session (folder or file, see `sessions`), or a store that holds one; there, the refined cameras replace
            the given ones, which are written to a file.
        out: the refined calibration, .toml or .json; None for `calibration.refined.toml` beside the session.
        keypoints: folder of keypoints; None to run `annotate` on the views.
        focal: refine each focal length too.
        keep: what stays of the given calibration: the `rig` as a whole, or the `first` camera exactly.
        model: bundle for `annotate`.
        report: the HTML page; None for beside `out`.

    Returns:
        {"out", "report", "session", "improved", "before_px", "after_px", "held_out_px", "moments", "people",
        "cameras": [{"camera", "before_px", "after_px", "turned_degrees", "moved_mm", "focal_change"}], "seconds"};
        errors are medians over all keypoints; `held_out_px` over joints that were not used, None where there are too
        few; `improved` tells whether that is better than before.

    Raises:
        ConfigError: no calibrated session, keypoints of a view that cannot be found, or too few to say anything.
    """
    began = time.monotonic()
    path = Path(path)
    if keep not in GAUGES:
        raise ConfigError(f"--keep {keep}: choose {' or '.join(GAUGES)}")
    stored = _stored(path)
    session = stored.session if stored else load_session(path)
    if not session.calibrated:
        raise ConfigError(f"session {session.name}: not calibrated, so there is nothing to refine; calibrate it first")
    beside = path.parent if path.suffix or stored else path
    out = beside / "calibration.refined.toml" if out is None else Path(out)
    if out.suffix not in (".toml", ".json"):
        raise ConfigError(f"--out {out}: calibrations are written as .toml or .json")
    tracks = _find_keypoints(session, keypoints, out, model)
    given = [view.camera for view in session.views if view.camera is not None]
    rates, lengths = zip(*(_rate_and_seconds(view) for view in session.views), strict=True)
    spacing = min(MOMENT_SECONDS, max(lengths) / MANY_MOMENTS)
    cameras = given
    for number in range(ROUNDS):
        seen = [t.frames(view, fps) for t, view, fps in zip(tracks, session.views, rates, strict=True)]
        xy, confidence, subject, moments = _gather(seen, cameras, tracks[0], 0.5 / min(rates), spacing)
        try:
            refined = refine_cameras(
                given, xy, confidence, focal=focal, bones=_bones(tracks[0]), subject=subject, gauge=keep,
                hold_out=number == ROUNDS - 1,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(
                f"session {session.name}: {error}; give a longer recording, or better keypoints"
            ) from None
        cameras = refined.cameras
    names = [view.name for view in session.views]
    entry = _entry(session, names, refined, len(xy[0]), len(np.unique(subject)), moments)
    write_calibration(out, dict(zip(names, cameras, strict=True)), {"adjusted": True, "error": refined.after_px})
    if stored:
        _replace_in_store(path, stored, cameras, out)
    page = report or out.with_name(f"{out.name.removesuffix(out.suffix)}_report.html")
    _write_page(page, session, entry, given, cameras, xy, confidence, moments)
    change = (
        f"{refined.before_px:.2f} px before, {refined.after_px:.2f} px after, {refined.held_out_px:.2f} px held out"
    )
    if keypoints is None:
        logger.warning(
            f"session {session.name}: refined by our own keypoints; where the model is weak, the cameras may be worse "
            "than given though the error fell; --keypoints takes better ones"
        )
    if entry["improved"]:
        logger.info(f"session {session.name}: keypoints re-project to {change}")
    else:
        logger.warning(f"session {session.name}: the given cameras fit as well ({change}); keep them")
    return {"out": str(out), "report": str(page), **entry, "seconds": round(time.monotonic() - began, 3)}


def _entry(session: Session, names: list[str], refined: Refined, rows: int, people: int, moments) -> dict[str, Any]:
    held_out = refined.held_out_px if np.isfinite(refined.held_out_px) else refined.after_px
    return {
        "session": session.name,
        "improved": bool(held_out < refined.before_px),
        "before_px": round(refined.before_px, 3),
        "after_px": round(refined.after_px, 3),
        "held_out_px": round(refined.held_out_px, 3) if np.isfinite(refined.held_out_px) else None,
        "moments": len(np.unique(moments)),
        "people": people,
        "cameras": [
            {
                "camera": name,
                "before_px": round(float(refined.view_before_px[v]), 3),
                "after_px": round(float(refined.view_after_px[v]), 3),
                "turned_degrees": round(float(refined.turned_degrees[v]), 3),
                "moved_mm": round(1000 * float(refined.moved_metres[v]), 1),
                "focal_change": round(float(refined.focal_change[v]), 5),
            }
            for v, name in enumerate(names)
        ],
    }


def _stored(path: Path) -> StoredSession | None:
    if not (path / "zarr.json").is_file():
        return None
    sessions = read_sessions(path)
    if len(sessions) != 1:
        listed = ", ".join(stored.session.name for stored in sessions) or "none"
        raise ConfigError(f"{path}: {len(sessions)} sessions ({listed}); name the folder of one recording instead")
    return sessions[0]


def _replace_in_store(store: Path, stored: StoredSession, cameras: Sequence[Camera], out: Path) -> None:
    views = stored.session.views
    given = {view.name: view.camera for view in views if view.camera is not None}
    kept = out.with_name(f"{out.stem.removesuffix('.refined')}.given{out.suffix}")
    write_calibration(kept, given, {"adjusted": False})
    new = tuple(replace(view, camera=camera) for view, camera in zip(views, cameras, strict=True))
    write_session(store, replace(stored.session, views=new), stored.source_ids)
    logger.info(f"{store}: session {stored.session.name} has the refined cameras now; the given ones are in {kept}")


def _find_keypoints(session: Session, folder: Path | None, out: Path, model: Path | None) -> list[_Tracks]:
    if folder is None:
        place = out.with_name(f"{out.stem}_keypoints")
        videos = [view.video for view in session.views]
        done = annotate(videos, out=place, model=model, overlay=False, smooth=False)
        tables = {Path(entry["source"]): entry["files"].get("parquet") for entry in done["sources"]}
        for view in session.views:
            if tables.get(view.video) is None:
                raise ConfigError(f"{view.video}: could not be annotated; leave this view out of the session")
        found = [_tracks(Path(tables[view.video]), "parquet") for view in session.views]
    else:
        found = [_tracks(*_find_table(Path(folder), view)) for view in session.views]
    if any(tracks.joints != found[0].joints for tracks in found):
        raise ConfigError(f"{folder}: the views' keypoints are of different joints")
    return found


def _find_table(folder: Path, view: View) -> tuple[Path, str]:
    for name in dict.fromkeys((view.name, view.video.stem)):
        if (table := folder / f"{name}.keypoints.parquet").is_file():
            return table, "parquet"
        for place in (folder / name, folder / f"{name}_json"):
            if place.is_dir() and any(place.glob("*.json")):
                return place, "openpose"
        if tables := sorted(folder.glob(f"{name}*.csv")):
            return tables[0], "dlc"
    raise ConfigError(
        f"{folder}: no keypoints for view {view.name}: neither {view.name}.keypoints.parquet, nor a folder {view.name} "
        f"or {view.name}_json of OpenPose files, nor {view.name}*.csv"
    )


def _tracks(table: Path, reader: str) -> _Tracks:
    if reader == "parquet":
        skeleton = next(iter_parquet(table)).skeleton if table.is_file() else None
        return _Tracks(skeleton.joints if skeleton else (), skeleton, table, reader)
    if reader == "dlc":
        return _Tracks(read_dlc_csv(table).joints, None, table, reader)
    return _Tracks(_openpose(table).joints, None, table, reader)


def _openpose(folder: Path) -> OpenPosePeople:
    """OpenPose files, by the number of their joints; only that joints are the same in all views matters here."""
    problem: StreamposeError | None = None
    for model in ("BODY_25", "COCO"):
        try:
            return read_openpose(folder, model)
        except StreamposeError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _gather(
    views: Sequence[Iterator[Seen]],
    cameras: Sequence[Camera],
    tracks: _Tracks,
    tolerance_seconds: float,
    spacing: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Matched people, one row a person and moment: (V, R, K, 2) pixels, (V, R, K) confidence, (R,) people and times."""
    skeleton, K = tracks.skeleton, len(tracks.joints)
    matcher = ViewMatcher(cameras, skeleton.flip_index if skeleton else range(K))
    repairs: dict[int, LeftRight] = {}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for window in _windows(join_moments(views, tolerance_seconds), spacing):
        seconds = np.array([moment.seconds for moment in window])
        for person in matcher.match(window):
            xy, confidence = person.xy, person.confidence
            if skeleton is not None:
                repair = repairs.setdefault(person.id, LeftRight(cameras, skeleton))
                xy, confidence, _ = repair.apply(xy, confidence)
            shown = ((confidence > 0).any(-1)).sum(0) >= 2
            parts.append((xy[:, shown], confidence[:, shown], np.full(shown.sum(), person.id), seconds[shown]))
    if not parts:
        raise ConfigError(
            "nobody is seen by two cameras at the same place; the calibration is too far off, or the views not in step"
        )
    xy, confidence = (np.concatenate([part[n] for part in parts], 1) for n in (0, 1))
    return xy, confidence, np.concatenate([part[2] for part in parts]), np.concatenate([part[3] for part in parts])


def _windows(moments: Iterator[Moment], spacing: float) -> Iterator[list[Moment]]:
    """Moments so many seconds apart, in windows."""
    window: list[Moment] = []
    last, count = -np.inf, 0
    for moment in moments:
        if moment.seconds - last < spacing - 1e-6 or sum(seen is not None for seen in moment.views) < 2:
            continue
        last, count = moment.seconds, count + 1
        window.append(moment)
        if len(window) == WINDOW:
            yield window
            window = []
        if count == MOST_MOMENTS:
            break
    if window:
        yield window


def _read_openpose(folder: Path, offset_seconds: float, fps: float) -> Iterator[Seen]:
    people = _openpose(folder)
    tracks, before, given = np.zeros(0, int), np.zeros((0, len(people.joints), 2)), 0
    for number in np.unique(people.frame_index):
        rows = np.flatnonzero(people.frame_index == number)
        xy = people.xy[rows]
        now = np.arange(given, given + len(rows))  # OpenPose follows nobody: who is near is the same, else a new number
        given += len(rows)
        far = np.full((len(rows), len(before)), np.inf)
        for n, b in np.ndindex(far.shape):
            apart = np.linalg.norm(xy[n] - before[b], axis=-1)
            far[n, b] = np.median(apart[np.isfinite(apart)]) if np.isfinite(apart).any() else np.inf
        for n, b in zip(*linear_sum_assignment(np.minimum(far, 1e6)), strict=True):
            if far[n, b] < SAME_SHARE * extent(xy[n]):
                now[n] = tracks[b]
        tracks, before = now, xy
        yield Seen(number / fps + offset_seconds, tuple(now.tolist()), xy, people.confidence[rows])


def _read_dlc(file: Path, offset_seconds: float, fps: float) -> Iterator[Seen]:
    table = read_dlc_csv(file)
    tracks = tuple(range(len(table.individuals)))
    for number, xy, likelihood in zip(table.frame_index, table.xy, table.likelihood, strict=True):
        yield Seen(number / fps + offset_seconds, tracks, xy, np.nan_to_num(likelihood))


def _bones(tracks: _Tracks) -> list[tuple[int, int]]:
    return [(bone.parent, bone.child) for bone in tracks.skeleton.bones] if tracks.skeleton else []


def _rate_and_seconds(view: View) -> tuple[float, float]:
    with open_video(view.video, threads=1) as video:
        return float(video.probe.fps), float(video.probe.duration_seconds or np.inf)


def _write_page(path: Path, session: Session, entry: dict[str, Any], given, cameras, xy, confidence, seconds) -> None:
    rows: list[list[str | int | float]] = [
        [c["camera"], *(f"{c[key]:.2f}" for key in ("before_px", "after_px", "turned_degrees", "moved_mm")),
         f"{c['focal_change']:.2%}"]
        for c in entry["cameras"]
    ]  # fmt: skip
    held_out = "not measured" if entry["held_out_px"] is None else f"{entry['held_out_px']:.2f} px"
    text = (
        f"{entry['people']} people at {entry['moments']} moments. Median distance between keypoints and the "
        f"re-projected points of all views: {entry['before_px']:.2f} px with the given cameras, "
        f"{entry['after_px']:.2f} px with the refined ones; on joints that were left out of refining: {held_out}. "
        "Keypoints that are wrong in the same way all the time move the cameras too: look at the pictures, and at "
        "cameras that moved far."
    )
    header = ["camera", "before, px", "after, px", "turned, degrees", "moved, mm", "focal length"]
    sections = [Section("Cameras", [text], [Table(header, rows)])]
    pictures = _pictures(session, given, cameras, xy, confidence, seconds)
    if pictures:
        caption = "green: keypoints; red: re-projected by the given cameras; blue: by the refined ones"
        sections.append(Section("One moment", [caption], pictures=pictures))
    write_report(path, f"Refined cameras of session {session.name}", sections)


def _pictures(session: Session, given, cameras, xy, confidence, seconds) -> list[Picture]:
    row = int(np.argmax((confidence > 0).sum((0, 2))))
    side = max(max(camera.size) for camera in cameras)
    found = [triangulate_robust(rig, xy[:, row], confidence[:, row], max_px=side).points for rig in (given, cameras)]
    pictures = []
    for v, view in enumerate(session.views):
        try:
            with open_video(view.video) as video:
                image = video.frame_at(float(seconds[row]) - view.offset_seconds).image.copy()
        except VideoError:
            continue  # the numbers stand without it
        radius = max(2, round(max(image.shape) / 250))
        for points, color in (
            (xy[v, row], GREEN),
            (project(found[0], given[v]), RED),
            (project(found[1], cameras[v]), BLUE),
        ):
            for x, y in points[np.isfinite(points).all(-1)]:
                cv2.circle(image, (round(x), round(y)), radius, color, max(1, radius // 2), cv2.LINE_AA)
        pictures.append(Picture(image, view.name))
    return pictures
