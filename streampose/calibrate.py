"""Calibrate cameras from photos or videos of a checkerboard or ChArUco board: lenses, then places, with a report.

What is looked for, under one folder or in several paths:

    rig/intrinsics/cam01/*.jpg     photos or a video of one camera each: for its lens
    rig/extrinsics/cam01/*.jpg     photos of the same moments by all cameras: for their places

    rig/cam01/*.jpg, rig/cam02.mp4 a folder or a video a camera; with `together` they are of the same moments too

Photos of one moment have the same name but for the camera's (`cam01_7.jpg`, `cam02_7.jpg`); videos the same time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.calibration_report import CameraPage, coverage, preview, write_calibration_report
from streampose.console import logger, progress
from streampose.errors import ConfigError
from streampose.formats.calibration import write_calibration
from streampose.geometry.board import Board, Detection, find_board
from streampose.geometry.calibrate import Lens, Rig, calibrate_lens, place_cameras, stand_on_board
from streampose.structures import Camera
from streampose.video.decode import VIDEO_SUFFIXES, open_video
from streampose.video.synchronise import METHODS, Offset, describe_offsets, find_offsets

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))
MOST_VIEWS = 40  # of each camera: more change nothing but the time it takes
MOST_FRAMES = 600  # of each video that are looked at
LARGEST_ERROR_PX, LARGEST_UNCERTAINTY, LEAST_COVERAGE, FEW_VIEWS = 0.5, 0.01, 0.5, 10


@dataclass
class _Seen:
    """What one camera saw; detections and small pictures by key. Photos without a board are listed, frames counted."""

    name: str
    size: tuple[int, int] | None = None
    looked_at: int = 0
    detections: dict[str, Detection] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    previews: dict[str, np.ndarray] = field(default_factory=dict)
    example: np.ndarray | None = None


def calibrate(
    paths: Sequence[Path],
    *,
    out: Path = Path("calibration.toml"),
    board: str = "checkerboard",
    corners: str = "7x4",
    square_mm: float,
    marker_mm: float | None = None,
    dictionary: str = "DICT_5X5_100",
    lens: str = "radial",
    together: bool = False,
    synchronise: str = "none",
    floor: str | None = None,
    every_seconds: float = 0.5,
    report: Path | None = None,
) -> dict[str, Any]:
    """Calibrate every camera's lens and, where cameras see the board together, their places.

    Args:
        paths: see the top of this file.
        out: .toml (Pose2Sim, Anipose) or .json (ours).
        board: `checkerboard` or `charuco`.
        corners: inner corners, those between four squares, as columns x rows.
        square_mm: side of a square.
        marker_mm: side of a ChArUco marker; three quarters of the square's if not given.
        dictionary: of the ChArUco markers.
        lens: `radial`, `radtan`, `fisheye` or `none`; see `geometry.calibrate.calibrate_lens`.
        together: without an extrinsics folder: the same pictures show the board to all cameras at the same moments.
        synchronise: how the videos of the shared moments are aligned: `none`, `auto`, `audio`, `motion`, `timestamps`.
        floor: the moment in which the board lies on the floor; it becomes the world's z = 0. Else the first camera is
            the world's origin.
        every_seconds: time between the frames of a video that are looked at.
        report: the HTML page; beside `out` if not given.

    Returns:
        {"out", "report", "cameras": [{"camera", "size", "focal_px", "error_px", "focal_uncertainty", "coverage",
        "photos", "used", "dropped": [{"photo", "reason", "error_px"}], "posed"}], "rig": None or {"error_px",
        "before_px", "moments", "dropped": [{"moment", "camera"}]}, "warnings": [text], "seconds"}

    Raises:
        ConfigError: no pictures, a board that cannot be, too few views, or cameras that never see the board together.
        VideoError: a video that cannot be read.
    """
    started = time.monotonic()
    columns, rows = _parse_corners(corners)
    marker = (0.75 * square_mm if marker_mm is None else marker_mm) / 1000
    wanted = Board(board, columns, rows, square_mm / 1000, marker, dictionary)
    if out.suffix not in (".toml", ".json"):
        raise ConfigError(f"--out {out}: calibrations are written as .toml or .json")
    if not every_seconds > 0:
        raise ConfigError(f"--every-seconds {every_seconds}: must be above 0")
    if synchronise not in ("none", *METHODS):
        raise ConfigError(f"--synchronise {synchronise}: choose none, {', '.join(METHODS)}")
    alone, shared = find_pictures(list(paths), together)
    same = alone == shared
    offsets = _offsets(shared, synchronise)
    every_seconds = _widen(every_seconds, [*alone.values(), *shared.values()])
    seconds_of = {name: offset.seconds for name, offset in offsets.items()}
    with progress("board", None, "pictures") as bar:
        lone = {
            n: _look(n, files, wanted, every_seconds, seconds_of if same else {}, bar) for n, files in alone.items()
        }
        joint = lone if same else {n: _look(n, f, wanted, every_seconds, seconds_of, bar) for n, f in shared.items()}

    lenses: dict[str, Lens] = {}
    kept: dict[str, list[str]] = {}
    for name, seen in lone.items():
        kept[name] = _spread(seen.detections)
        if seen.size is None or not kept[name]:
            raise ConfigError(f"{name}: no {columns}x{rows} {board} in any of its {seen.looked_at} pictures; {_LOOK}")
        try:
            lenses[name] = calibrate_lens([seen.detections[key] for key in kept[name]], wanted, seen.size, lens)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    cameras = {name: found.camera for name, found in lenses.items()}
    rig = _place(cameras, joint, lone, kept, lenses, wanted, floor, same) if shared else None
    if rig is not None:
        cameras = rig.cameras
    elif floor is not None:
        raise ConfigError(f"--floor {floor}: needs cameras that see the board together; add extrinsics/ or --together")

    listed = [_summary(lone[name], kept[name], lenses[name], cameras[name], wanted) for name in lone]
    warnings = _warnings(listed, rig, lone)
    for text in warnings:
        logger.warning(text)
    page = report or out.with_name(f"{out.name.removesuffix(out.suffix)}_report.html")
    errors = rig.error_px if rig is not None else max(found.error_px for found in lenses.values())
    write_calibration(out, cameras, {"adjusted": rig is not None, "error": errors})
    pages = [_page(lone[n], kept[n], lenses[n], cameras[n], entry) for n, entry in zip(lone, listed, strict=True)]
    lines = describe_offsets(list(offsets), list(offsets.values())) if offsets else []
    write_calibration_report(page, pages, rig, wanted, warnings, lines)
    return {
        "out": str(out),
        "report": str(page),
        "cameras": listed,
        "rig": None if rig is None else _rig_summary(rig),
        "warnings": warnings,
        "seconds": round(time.monotonic() - started, 3),
    }


_LOOK = "count the corners between four squares (--corners), and show the whole board"


def find_pictures(paths: list[Path], together: bool) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Photos and videos of each camera: for the lenses, and those of shared moments (none if there are none).

    Raises:
        ConfigError: no such path, or no photo or video under it.
    """
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
    if len(paths) == 1 and (paths[0] / "intrinsics").is_dir():
        alone = _cameras_in(paths[0] / "intrinsics")
        shared = _cameras_in(paths[0] / "extrinsics") if (paths[0] / "extrinsics").is_dir() else {}
        if unknown := sorted(set(shared) - set(alone)):
            raise ConfigError(f"{paths[0]}: {', '.join(unknown)} under extrinsics, but not under intrinsics")
        return alone, shared or (alone if together else {})
    if len(paths) == 1:
        cameras = _cameras_in(paths[0]) if paths[0].is_dir() else {paths[0].stem: paths}
    else:
        cameras = {path.stem if path.is_file() else path.name: _pictures(path) for path in paths}
        if len(cameras) < len(paths):
            raise ConfigError("two of the paths have the same name, which would be one camera's; rename one")
    if empty := [name for name, files in cameras.items() if not files]:
        raise ConfigError(f"{', '.join(empty)}: no photo or video in it")
    return cameras, cameras if together else {}


def _cameras_in(folder: Path) -> dict[str, list[Path]]:
    cameras = {child.name: _pictures(child) for child in sorted(folder.iterdir()) if child.is_dir()}
    cameras = {name: files for name, files in cameras.items() if files}
    here = _pictures(folder)
    cameras |= {file.stem: [file] for file in here if file.suffix.lower() in VIDEO_SUFFIXES}
    if not cameras and here:
        cameras = {folder.resolve().name: here}
    if not cameras:
        raise ConfigError(f"{folder}: no photos or videos; one folder or video a camera is expected")
    return cameras


def _pictures(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    known = PHOTO_SUFFIXES | VIDEO_SUFFIXES
    return sorted(f for f in path.iterdir() if f.suffix.lower() in known and f.is_file() and not f.name.startswith("."))


def _look(
    name: str, files: list[Path], board: Board, every_seconds: float, seconds_of: Mapping[str, float], bar: Any
) -> _Seen:
    """Find the board in all pictures of one camera."""
    seen = _Seen(name)
    for key, image, photo in _images(name, files, every_seconds, seconds_of.get(name, 0.0)):
        size = (image.shape[1], image.shape[0])
        if seen.size not in (None, size):
            sizes = f"{key} has {size[0]} x {size[1]} pixels, the others {seen.size}"
            raise ConfigError(f"{name}: {sizes}; one camera has one size")
        seen.size = size
        seen.looked_at += 1
        detection = find_board(image, board, thorough=photo)
        if detection is not None:
            seen.detections[key] = detection
            seen.example = image if seen.example is None else seen.example
        elif photo:
            seen.missed.append(key)
        if detection is not None or photo:
            seen.previews[key] = preview(image, detection)
        bar.advance(1, note=f"{name} {key}")
    return seen


def _widen(every_seconds: float, cameras: Sequence[list[Path]]) -> float:
    """The time between frames, so many times longer that `MOST_FRAMES` of the longest video are looked at."""
    longest = 0.0
    for file in {file for files in cameras for file in files if file.suffix.lower() in VIDEO_SUFFIXES}:
        with open_video(file) as video:
            longest = max(longest, video.probe.duration_seconds or 0.0)
    times = max(1, int(np.ceil(longest / every_seconds / MOST_FRAMES)))
    if times > 1:
        logger.info(f"calibrate: long videos; looking at a frame every {times * every_seconds:g} s")
    return times * every_seconds


def _images(
    name: str, files: list[Path], every_seconds: float, offset_seconds: float
) -> Iterator[tuple[str, np.ndarray, bool]]:
    """(key, RGB picture, is a photo); the keys of two cameras are equal where the pictures are of one moment."""
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    for file in files:
        if file not in videos:
            data = np.fromfile(file, np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
            if image is None:
                raise ConfigError(f"{file}: not a picture that can be read")
            yield _key(file.stem, name), cv2.cvtColor(image, cv2.COLOR_BGR2RGB), True
            continue
        prefix = f"{_key(file.stem, name)} " if len(videos) > 1 else ""
        with open_video(file) as video:
            half, tick = 0.5 / video.probe.fps, None
            for frame in video.frames():
                moment = frame.pts_seconds + offset_seconds
                nearest = round(moment / every_seconds)
                if abs(moment - nearest * every_seconds) <= half and nearest != tick:
                    tick = nearest
                    yield f"{prefix}{nearest * every_seconds:.2f} s", frame.image, False


def _key(stem: str, camera: str) -> str:
    """A photo's name without its camera's: `cam01_07_int` -> `07_int`."""
    return re.sub(re.escape(camera), "", stem, flags=re.IGNORECASE).strip(" _-.") or stem


def _spread(detections: Mapping[str, Detection]) -> list[str]:
    """At most `MOST_VIEWS` keys whose boards differ most in place, size and slant, in order."""
    keys = list(detections)
    if len(keys) <= MOST_VIEWS:
        return keys
    shapes = []
    for key in keys:
        xy = detections[key].xy
        middle, (_, spread, axes) = xy.mean(0), np.linalg.svd(xy - xy.mean(0), full_matrices=False)
        shapes.append([*middle, *(spread / np.sqrt(len(xy)) * 3), *(axes[0] * np.sign(axes[0, 0] or 1) * 100)])
    features = np.array(shapes)
    chosen = [int(np.argmax(np.linalg.norm(features - features.mean(0), axis=-1)))]
    distance = np.full(len(keys), np.inf)
    while len(chosen) < MOST_VIEWS:
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=-1))
        chosen.append(int(np.argmax(distance)))
    return [keys[number] for number in sorted(chosen)]


def _offsets(shared: Mapping[str, list[Path]], method: str) -> dict[str, Offset]:
    if method == "none" or len(shared) < 2:
        return {}
    if any(len(files) != 1 or files[0].suffix.lower() not in VIDEO_SUFFIXES for files in shared.values()):
        raise ConfigError(f"--synchronise {method}: needs one video a camera; photos of one moment have the same name")
    offsets = find_offsets([files[0] for files in shared.values()], method)
    for line in describe_offsets(list(shared), offsets):
        logger.info(line)
    return dict(zip(shared, offsets, strict=True))


def _place(
    cameras: Mapping[str, Camera],
    joint: Mapping[str, _Seen],
    lone: Mapping[str, _Seen],
    kept: Mapping[str, list[str]],
    lenses: Mapping[str, Lens],
    board: Board,
    floor: str | None,
    same: bool,
) -> Rig:
    moments: dict[str, dict[str, Detection]] = {}
    for name, seen in joint.items():
        if seen.size is not None and seen.size != cameras[name].size:
            raise ConfigError(f"{name}: {seen.size} pixels under extrinsics, {cameras[name].size} under intrinsics")
        for key, detection in seen.detections.items():
            moments.setdefault(key, {})[name] = detection
    moments = {key: seen for key, seen in moments.items() if len(seen) > 1}
    if not moments:
        raise ConfigError(
            f"no moment in which two of {', '.join(joint)} see the board: photos of one moment need the same name, "
            "videos the same clock (--synchronise)"
        )
    if len(moments) > MOST_VIEWS:
        most = sorted(moments, key=lambda key: -len(moments[key]))
        spread = {key: next(iter(moments[key].values())) for key in most[: 3 * MOST_VIEWS]}
        moments = {key: moments[key] for key in {*_spread(spread), *([floor] if floor in moments else [])}}
    alone = {
        name: [
            seen.detections[key]
            for key, used in zip(kept[name], lenses[name].used, strict=True)
            if used and not (same and name in moments.get(key, {}))
        ]
        for name, seen in lone.items()
    }
    names = {name: cameras[name] for name in joint}
    rig = place_cameras(names, dict(sorted(moments.items())), board, alone=alone)
    return rig if floor is None else stand_on_board(rig, floor)


def _summary(seen: _Seen, kept: list[str], lens: Lens, camera: Camera, board: Board) -> dict[str, Any]:
    dropped: list[dict[str, Any]] = [
        {"photo": key, "reason": "no board found", "error_px": None} for key in seen.missed
    ]
    for key, used, error in zip(kept, lens.used, lens.view_error_px, strict=True):
        if not used:
            dropped.append({"photo": key, "reason": "contradicts the others", "error_px": round(float(error), 3)})
    used_views = [seen.detections[key] for key, used in zip(kept, lens.used, strict=True) if used]
    assert seen.size is not None
    return {
        "camera": seen.name,
        "size": list(seen.size),
        "focal_px": [round(float(camera.K[0, 0]), 2), round(float(camera.K[1, 1]), 2)],
        "error_px": round(lens.error_px, 4),
        "focal_uncertainty": None if np.isnan(lens.focal_uncertainty) else round(lens.focal_uncertainty, 5),
        "coverage": round(coverage(used_views, seen.size), 3),
        "photos": seen.looked_at,
        "used": int(lens.used.sum()),
        "dropped": dropped,
        "posed": camera.posed,
    }


def _rig_summary(rig: Rig) -> dict[str, Any]:
    return {
        "error_px": round(rig.error_px, 4),
        "before_px": round(rig.before_px, 4),
        "moments": len(rig.boards),
        "dropped": [{"moment": moment, "camera": camera} for moment, camera in rig.dropped],
    }


def _page(seen: _Seen, kept: list[str], lens: Lens, camera: Camera, entry: dict[str, Any]) -> CameraPage:
    errors = dict(zip(kept, lens.view_error_px.tolist(), strict=True))
    used = {key for key, u in zip(kept, lens.used, strict=True) if u}
    return CameraPage(seen.name, camera, lens, entry, seen.detections, seen.previews, errors, used, seen.example)


def _warnings(listed: list[dict[str, Any]], rig: Rig | None, lone: Mapping[str, _Seen]) -> list[str]:
    warnings = []
    for entry in listed:
        name = entry["camera"]
        if entry["error_px"] > LARGEST_ERROR_PX:
            warnings.append(
                f"{name}: corners re-project to {entry['error_px']:.2f} px, more than {LARGEST_ERROR_PX}: a board "
                "that is not flat, blurred photos, or a lens of another kind (--lens)"
            )
        uncertainty = entry["focal_uncertainty"]
        if uncertainty is not None and uncertainty > LARGEST_UNCERTAINTY:
            warnings.append(
                f"{name}: the focal length is known to {uncertainty:.1%} only; tilt the board more, add photos"
            )
        if entry["coverage"] < LEAST_COVERAGE:
            warnings.append(
                f"{name}: the board covered {entry['coverage']:.0%} of the picture; show it in the corners too"
            )
        if entry["used"] < FEW_VIEWS:
            warnings.append(f"{name}: {entry['used']} views were used; 15 or more make a lens sure")
        for photo in entry["dropped"]:
            if photo["error_px"] is not None:
                warnings.append(f"{name}: {photo['photo']} left out, it is off by {photo['error_px']:.2f} px")
        if blind := [photo["photo"] for photo in entry["dropped"] if photo["error_px"] is None]:
            shown = ", ".join(blind[:5]) + (f" and {len(blind) - 5} more" if len(blind) > 5 else "")
            warnings.append(f"{name}: no board found in {shown}")
    if rig is not None:
        if rig.error_px > 2 * LARGEST_ERROR_PX:
            warnings.append(
                f"places: corners re-project to {rig.error_px:.2f} px over all cameras; the pictures are not of the "
                "same moments, or a camera was moved"
            )
        warnings += [
            f"places: {camera} at {moment} left out, it contradicts the others" for moment, camera in rig.dropped
        ]
        warnings += [f"{name}: its place is not known" for name in lone if name not in rig.cameras]
    return warnings


def _parse_corners(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\s*[xX,]\s*(\d+)", text.strip())
    if match is None:
        raise ConfigError(f"--corners {text}: expected columns x rows of inner corners, for example 7x4")
    return int(match[1]), int(match[2])
