"""Multi-camera sessions of a user: found in a folder or described in `sessions.yaml`, with their cameras and offsets.

    sessions:
      - name: jump
        calibration: calibration.toml     # relative to this file; or none
        unit: m                           # of the calibration's translations: m, cm or mm
        synchronise: none                 # or auto, audio, motion, timestamps: measured, instead of the offsets below
        views:
          - video: videos/cam01.mp4
            camera: cam_01                # its name in the calibration; else the name that looks like the video's
            offset_seconds: 0.0           # session time = the video's time + this

A folder without such a file is one session: the videos in it, or in its `videos/`, with the calibration beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from streampose.config import Strict, load_config
from streampose.console import logger
from streampose.errors import ConfigError, VideoError
from streampose.formats.calibration import CALIBRATION_SUFFIXES, read_calibration
from streampose.geometry.camera import camera_from_dict, resize_camera
from streampose.geometry.distortion import undistort_pixels
from streampose.geometry.triangulate import reprojection_error, triangulate_dlt
from streampose.structures import Camera, Session, View
from streampose.video.decode import VIDEO_SUFFIXES, open_video
from streampose.video.synchronise import METHODS, describe_offsets, find_offsets

SESSION_FILES = ("sessions.yaml", "sessions.yml", "session.json")
VIDEO_FOLDERS = ("videos", "video")
CALIBRATION_FOLDERS = (".", "..", "calibration", "../calibration")
CODEC_BLOCK = 16  # codecs pad pictures at the right and the bottom to multiples of it: 1080 and 1088 are one picture
FARTHEST_METRES = 50.0  # of cameras from the world's origin; beyond it the unit is suspected
WRONG_SHARE = 0.003  # of the image's diagonal: a median re-projection above it says that a calibration is wrong


class _ViewFile(Strict):
    video: str
    name: str | None = None
    camera: str | None = None
    offset_seconds: float = Field(default=0.0, allow_inf_nan=False)


class _SessionFile(Strict):
    name: str | None = None
    calibration: str | None = None
    unit: Literal["m", "cm", "mm"] = "m"
    synchronise: str = "none"
    views: list[_ViewFile] = Field(min_length=1)


class _SessionsFile(Strict):
    sessions: list[_SessionFile] = Field(min_length=1)


def load_session(path: Path | str, name: str | None = None, *, synchronise: str | None = None) -> Session:
    """Read one session; see `load_sessions`.

    Args:
        name: which one, where there are several.

    Raises:
        ConfigError: as `load_sessions`, or there are several and no name, or none of that name.
    """
    sessions = load_sessions(path, synchronise=synchronise, only=name)
    if len(sessions) == 1:
        return sessions[0]
    known = ", ".join(session.name for session in sessions)
    raise ConfigError(f"{path}: {len(sessions)} sessions ({known}); say which one")


def load_sessions(path: Path | str, *, synchronise: str | None = None, only: str | None = None) -> list[Session]:
    """Read sessions: a `sessions.yaml`, the `session.json` of `streampose synth`, or a folder of one file a camera.

    Args:
        synchronise: one of `none`, `auto`, `audio`, `motion`, `timestamps`; it replaces what the file says.
        only: the name of the one to read.

    Raises:
        ConfigError: nothing there, an unknown key, a missing video or calibration, a view without its camera, or a
            calibration made for pictures of another shape.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    if synchronise is not None and synchronise not in ("none", *METHODS):
        raise ConfigError(f"--synchronise {synchronise}: choose none, {', '.join(METHODS)}")
    described = next((path / name for name in SESSION_FILES if (path / name).is_file()), None)
    if path.is_dir() and described is None:
        return _folder_sessions(path, synchronise or "none", only)
    file = described or path
    if file.suffix == ".json":
        listed: list[Any] = _read_json(file)
        names = [str(session.get("name", "")) for session in listed]
    else:
        listed = load_config(_SessionsFile, file).sessions
        names = [session.name or (file.parent.resolve().name if len(listed) == 1 else "") for session in listed]
    named: dict[str, _SessionFile | dict[str, Any]] = dict(zip(names, listed, strict=True))
    if "" in named or len(named) != len(listed):
        raise ConfigError(f"{file}: give every session a name of its own")
    if only is not None and only not in named:
        raise ConfigError(f"{file}: no session {only} (there are {', '.join(named)})")
    return [
        _from_yaml(session, name, file, synchronise)
        if isinstance(session, _SessionFile)
        else _from_json(session, name, file, synchronise)
        for name, session in named.items()
        if only in (None, name)
    ]


def check_session(
    session: Session, keypoints: Mapping[str, np.ndarray], confidence: Mapping[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """How far keypoints seen by each camera lie from where the others say they are; warns where that is too far.

    All views of a point are triangulated (weighted by confidence) and projected back. `error_px` is the median distance
    in a view; `without_px` the median where the point was triangulated without that view, which is larger and names
    the camera that does not fit.

    Args:
        keypoints: (T, K, 2) source pixels for each view's name, at the same T times of the session; NaN for missing.
        confidence: (T, K) for each view.

    Returns:
        {"error_px", "limit_px", "wrong", "message", "views": {name: {"error_px", "without_px", "points"}}}; None for a
        distance that nothing could be measured for.

    Raises:
        ConfigError: a view without camera or keypoints.
    """
    cameras: list[Camera] = []
    for view in session.views:
        if view.camera is None or not view.camera.posed:
            raise ConfigError(f"session {session.name}: no calibrated camera for view {view.name}; nothing to check")
        if view.name not in keypoints:
            raise ConfigError(f"session {session.name}: no keypoints for view {view.name}")
        cameras.append(view.camera)
    names = [view.name for view in session.views]
    P = np.stack([camera.P for camera in cameras])
    seen = np.stack(
        [undistort_pixels(keypoints[n], c) for n, c in zip(names, cameras, strict=True)], -3
    )  # (T, V, K, 2)
    weight = np.ones(seen.shape[:-1]) if confidence is None else np.stack([confidence[n] for n in names], -2)
    counted = (weight > 0) & np.isfinite(seen).all(-1)
    together = np.where(counted, reprojection_error(triangulate_dlt(seen, P, weight), seen, P), np.nan)
    views: dict[str, Any] = {}
    for v, name in enumerate(names):
        others = weight.copy()
        others[..., v, :] = 0
        alone = reprojection_error(triangulate_dlt(seen, P, others), seen, P)[..., v, :]
        views[name] = {
            "error_px": _median(together[..., v, :]),
            "without_px": _median(np.where(counted[..., v, :], alone, np.nan)),
            "points": int(np.isfinite(together[..., v, :]).sum()),
        }
    error, limit = _median(together), WRONG_SHARE * float(np.median([np.hypot(*camera.size) for camera in cameras]))
    wrong = error is not None and error > limit
    if error is None:
        message = f"session {session.name}: no keypoint is seen by two cameras at once; the calibration is not checked"
    else:
        each = ", ".join(f"{n} {v['error_px']:.1f}" for n, v in views.items() if v["error_px"] is not None)
        message = f"session {session.name}: keypoints re-project to {error:.1f} px (median; {each})"
        if wrong:
            worst = max(views, key=lambda name: views[name]["without_px"] or 0.0)
            message += (
                f", more than {limit:.1f} px: the calibration or the time offsets are wrong, {worst} most of all; "
                "calibrate again with `streampose calibrate`"
            )
    (logger.warning if wrong or error is None else logger.info)(message)
    return {"error_px": error, "limit_px": limit, "wrong": wrong, "message": message, "views": views}


def _folder_sessions(folder: Path, synchronise: str, only: str | None) -> list[Session]:
    """The folder itself where videos lie in it or in its `videos/`, else each of its folders with videos."""
    candidates = [folder] if _videos_in(folder) else sorted(child for child in folder.iterdir() if child.is_dir())
    found = [child for child in candidates if len(_videos_in(child)) > 1]
    if only is not None:
        found = [child for child in found if child.resolve().name == only]
    if not found:
        raise ConfigError(f"{folder}: no session; put one video a camera into it (two or more), or a sessions.yaml")
    return [_folder_session(child, synchronise) for child in found]


def _folder_session(folder: Path, synchronise: str) -> Session:
    videos, calibration = _videos_in(folder), _calibration_in(folder)
    cameras = {} if calibration is None else _read_cameras(calibration)
    name = folder.resolve().name
    if calibration is None:
        logger.warning(f"session {name}: no calibration beside its videos; its views are not calibrated")
    chosen = match_cameras([video.stem for video in videos], list(cameras), str(calibration)) if cameras else {}
    views = [
        View(video.stem, video, _fit(cameras[chosen[video.stem]], video, str(calibration)) if chosen else None)
        for video in videos
    ]
    return _synchronised(Session(name, tuple(views)), synchronise)


def _read_cameras(calibration: Path, unit: str = "m") -> dict[str, Camera]:
    cameras = read_calibration(calibration, unit=unit)
    far = float(np.median([np.linalg.norm(camera.t) for camera in cameras.values()]))
    if far > FARTHEST_METRES:
        logger.warning(
            f"{calibration}: cameras {far:.0f} m away; if it is not in metres, say `unit: mm` in a sessions.yaml"
        )
    return cameras


def _videos_in(folder: Path) -> list[Path]:
    for place in (folder, *(folder / name for name in VIDEO_FOLDERS)):
        if place.is_dir():
            files = [file for file in place.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()]
            if found := sorted(file for file in files if not file.name.startswith(".")):
                return found
    return []


def _calibration_in(folder: Path) -> Path | None:
    """The one calibration file in or beside the folder; files called `*calib*` come first.

    Raises:
        ConfigError: several of the same rank in one place.
    """
    for place in CALIBRATION_FOLDERS:
        where = folder / place
        files = sorted(where.iterdir()) if where.is_dir() else []
        files = [f for f in files if f.is_file() and f.name.lower().endswith(CALIBRATION_SUFFIXES)]
        named = [f for f in files if "calib" in f.name.lower() or f.name.lower().endswith(".qca.txt")]
        if place == "." and not named:
            named = [f for f in files if f.suffix == ".toml"]
        if len(named) > 1:
            texts = ", ".join(f.name for f in named)
            raise ConfigError(f"{where.resolve()}: {len(named)} calibrations ({texts}); name one in a sessions.yaml")
        if named:
            return where.resolve() / named[0].name if ".." in place else named[0]
    return None


def match_cameras(views: list[str], cameras: list[str], where: str) -> dict[str, str]:
    """Which camera of a calibration belongs to each view: by name without case, separators and leading zeros.

    A view may hold the camera's name among other words (`jump_cam01.mp4` and `cam_1`); where no name fits and the
    numbers are equal, the order decides, and that is said.

    Raises:
        ConfigError: another number of cameras, or names that fit several.
    """
    plain = {name: "".join(_words(name)) for name in cameras}
    chosen: dict[str, str] = {}
    for view in views:
        words = _words(view)
        spans = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
        fits = [name for name in cameras if plain[name] == "".join(words)]
        fits = fits or [name for name in cameras if plain[name] and plain[name] in spans]
        if len(fits) == 1 and fits[0] not in chosen.values():
            chosen[view] = fits[0]
    if len(chosen) == len(views):
        return chosen
    if len(views) == len(cameras) and not chosen:
        pairs = ", ".join(f"{view} is {camera}" for view, camera in zip(views, cameras, strict=True))
        logger.warning(f"{where}: no camera is called like a video; taken in order: {pairs}")
        return dict(zip(views, cameras, strict=True))
    missing = ", ".join(view for view in views if view not in chosen)
    raise ConfigError(
        f"{where}: no camera for {missing} (it has {', '.join(cameras)}); name it as `camera:` in a sessions.yaml"
    )


def _words(name: str) -> list[str]:
    """`Cam-A_007` -> [`cam`, `a`, `7`]."""
    return [str(int(word)) if word.isdigit() else word for word in re.findall(r"[a-z]+|\d+", name.lower())]


def _from_yaml(values: _SessionFile, name: str, file: Path, synchronise: str | None) -> Session:
    if values.synchronise not in ("none", *METHODS):
        raise ConfigError(f"{file}: synchronise {values.synchronise!r}; choose none, {', '.join(METHODS)}")
    calibration = None if values.calibration is None else file.parent / values.calibration
    cameras = {} if calibration is None else _read_cameras(calibration, values.unit)
    videos = [file.parent / view.video for view in values.views]
    names = [view.name or video.stem for view, video in zip(values.views, videos, strict=True)]
    if cameras:
        for view in values.views:
            if view.camera is not None and view.camera not in cameras:
                raise ConfigError(f"{calibration}: no camera {view.camera} (it has {', '.join(cameras)})")
        named = {name: view.camera for name, view in zip(names, values.views, strict=True) if view.camera}
        rest = [camera for camera in cameras if camera not in named.values()]
        open_names = [name for name in names if name not in named]
        named |= match_cameras(open_names, rest, str(calibration)) if open_names else {}
    views = []
    for view, view_name, video in zip(values.views, names, videos, strict=True):
        if not video.is_file():
            raise ConfigError(f"{file}: session {name}: no such video {video}")
        camera = _fit(cameras[named[view_name]], video, str(calibration)) if cameras else None
        views.append(View(view_name, video, camera, view.offset_seconds))
    return _synchronised(Session(name, tuple(views)), synchronise or values.synchronise)


def _from_json(values: dict[str, Any], name: str, file: Path, synchronise: str | None) -> Session:
    views = []
    try:
        for view in values["views"]:
            video = file.parent / view["video"]
            if not video.is_file():
                raise ConfigError(f"{file}: session {name}: no such video {video}")
            camera = None if view.get("moves") else camera_from_dict(view, f"{file}: {video.name}")
            views.append(View(video.stem, video, camera, float(view.get("time_offset_seconds", 0.0))))
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{file}: session {name}: not what `streampose synth` writes ({error!r})") from None
    return _synchronised(Session(name, tuple(views)), synchronise or "none")


def _read_json(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from None
    listed = content.get("sessions") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(values, dict) for values in listed):
        raise ConfigError(f"{file}: no list `sessions`; `streampose synth --cameras 3` writes such a file")
    return listed


def _fit(camera: Camera, video: Path, where: str) -> Camera:
    """The camera for the video's own picture size: resized with it, or an error where the shape is another."""
    try:
        with open_video(video, threads=1) as opened:
            size = (opened.probe.width, opened.probe.height)
    except VideoError:
        return camera  # ingesting it says what is wrong
    if camera.size in ((0, 0), size):
        return replace(camera, size=size)
    scale = size[0] / camera.size[0]
    if abs(size[1] - camera.size[1] * scale) <= 1:
        logger.info(f"{video.name}: {where} is scaled from {camera.size[0]} to {size[0]} pixels of width")
        return resize_camera(camera, size)
    if max(abs(size[0] - camera.size[0]), abs(size[1] - camera.size[1])) < CODEC_BLOCK:
        shapes = f"{camera.size[0]} x {camera.size[1]} pixels, the video has {size[0]} x {size[1]}"
        logger.warning(f"{video.name}: {where} is for {shapes}; taken as cut at the right and the bottom")
        return replace(camera, size=size)
    raise ConfigError(
        f"{video}: {size[0]} x {size[1]} pixels, but {where} was made for {camera.size[0]} x {camera.size[1]}; "
        "a cropped or turned video needs a calibration of its own"
    )


def _synchronised(session: Session, method: str) -> Session:
    if method == "none" or len(session.views) < 2:
        return session
    offsets = find_offsets([view.video for view in session.views], method)
    for line in describe_offsets([view.name for view in session.views], offsets):
        logger.info(f"session {session.name}: {line}")
    views = tuple(
        replace(view, offset_seconds=offset.seconds) for view, offset in zip(session.views, offsets, strict=True)
    )
    return replace(session, views=views)


def _median(values: np.ndarray) -> float | None:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None
