"""Pose files of all kinds as takes: one subject of one recording each, joints under the file's names."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError, StreamposeError
from streampose.formats.bvh import read_bvh
from streampose.formats.c3d import read_c3d
from streampose.formats.coco import read_coco
from streampose.formats.dlc import read_dlc_csv
from streampose.formats.trc import read_trc
from streampose.priors.retarget import AXES, is_human
from streampose.structures import Skeleton
from streampose.synthetic.body import average_rig
from streampose.synthetic.built_in_prior import poses_of
from streampose.synthetic.retarget import read_recording
from streampose.synthetic.rig import Motion
from streampose.synthetic.truth import read_truth

SUFFIXES = (".bvh", ".txt", ".json", ".csv", ".h5", ".slp", ".npy", ".npz", ".trc", ".c3d")
NO_POSES = re.compile(
    r"licen[cs]e|readme|session\.json|metrics\.json|bundle\.json|visibility\.csv|\.joints\.(txt|json)"
)
POSES = ("poses", "keypoints", "joints_3d", "joints_2d", "positions", "points")  # what .npz files call them
NAMES = ("joints", "joint_names", "keypoint_names", "names")
LIKELY = 0.5  # confidence from which a predicted 2D joint counts


@dataclass(frozen=True)
class Take:
    """T poses of one subject in order of time.

    Attributes:
        name: unique in an import.
        group: what it must not be divided from.
        joints: K names as the file has them.
        poses: (T, K, 2 or 3) pixels, or metres with x right, y down, z forward; NaN where missing.
        seconds: (T,) NaN where the file does not say.
        retargeted: True where the bones have our lengths already.
        frames: how many poses the file has of it, however many are kept; 0 for all of them.
    """

    name: str
    group: str
    joints: tuple[str, ...]
    poses: np.ndarray
    seconds: np.ndarray
    retargeted: bool = False
    frames: int = 0


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        skeleton: whose joints are wanted; None for the file's own.
        dimensions: 2 or 3; None for what the file has (3 where it has both).
        up: the way that is up in files of bare positions: `-y`, `y` or `z`.
        metres: length of the unit of bare positions.
        joints: names for arrays that come without.
    """

    skeleton: Skeleton | None
    dimensions: int | None = None
    up: str = "-y"
    metres: float = 1.0
    joints: tuple[str, ...] = ()


def find_pose_files(paths: Iterable[Path]) -> list[Path]:
    """Files that may hold poses in folders (sorted, hidden ones left out), and each file that is named itself.

    Raises:
        ConfigError: a path that is not there, or a folder without such a file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if _may_hold_poses(file.relative_to(path))]
            if not inside:
                raise ConfigError(f"{path}: no file with poses in it ({', '.join(SUFFIXES)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def read_takes(path: Path, reading: Reading) -> list[Take]:
    """The takes of one file.

    Raises:
        StreamposeError: it cannot be read, is of no known kind, or has no poses of the dimensions that were asked for.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise StreamposeError(f"{path}: no file with poses ({', '.join(SUFFIXES)})")
    takes = list(READERS[suffix](path, reading))
    if not takes or not any(np.isfinite(take.poses).any() for take in takes):
        raise StreamposeError(f"{path}: no pose in it")
    have = takes[0].poses.shape[2]
    if reading.dimensions not in (None, have):
        raise StreamposeError(f"{path}: {have}D poses, but {reading.dimensions}D are asked for")
    return takes


def _may_hold_poses(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden and not NO_POSES.search(path.name.lower())


def _recording(path: Path, reading: Reading) -> Iterator[Take]:
    """Bone rotations on an average body; the file's own joints where the skeleton is no person."""
    if reading.skeleton is not None and is_human(reading.skeleton):
        recording, rig = read_recording(path), average_rig()
        motion = Motion(recording.rotations, recording.root * sum(rig.leg))
        poses = poses_of(rig, motion, reading.skeleton)
        yield Take(
            path.stem, path.stem, reading.skeleton.joints, poses, recording.times_seconds - recording.times_seconds[0],
            retargeted=True,
        )  # fmt: skip
        return
    if path.suffix.lower() != ".bvh":
        raise StreamposeError(f"{path}: motions of DeepMimic's humanoid are for skeletons of people")
    bvh = read_bvh(path)
    places = bvh.world()[1] @ AXES["y"].T * reading.metres
    yield Take(path.stem, path.stem, bvh.names, places, np.arange(len(places)) * bvh.frame_seconds)


def _json(path: Path, reading: Reading) -> Iterator[Take]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StreamposeError(f"{path}: not JSON ({' '.join(str(error).split())[:100]})") from None
    if isinstance(content, dict) and "Frames" in content:
        yield from _recording(path, reading)
        return
    rows = read_coco(path)
    video = content.get("info", {}).get("source") if isinstance(content.get("info"), dict) else None
    likely = ~(rows["confidence"] < LIKELY)  # NaN is a label
    xy = np.where(likely[..., None], rows["xy"], np.nan)
    times = {image["id"]: image.get("pts_seconds", np.nan) for image in content["images"]}
    names = [path.stem if video else Path(name).stem for name in rows["file_name"]]  # photos are apart from each other
    track = np.array([f"{name} {t}" if t >= 0 else name for name, t in zip(names, rows["track_id"], strict=True)])
    for name in dict.fromkeys(track.tolist()):
        index = np.flatnonzero(track == name)
        index = index[np.argsort(rows["image_id"][index], kind="stable")]
        seconds = np.array([times.get(i, np.nan) for i in rows["image_id"][index].tolist()], float)
        yield Take(name, names[index[0]], tuple(rows["joints"]), xy[index], seconds)


def _dlc_csv(path: Path, reading: Reading) -> Iterator[Take]:
    table = read_dlc_csv(path)
    xy = np.where((table.likelihood >= LIKELY)[..., None], table.xy, np.nan)
    for n, individual in enumerate(table.individuals):
        name = f"{path.stem} {individual}".strip()
        yield Take(name, path.stem, table.joints, xy[:, n], np.full(len(xy), np.nan))


def _annotations(path: Path, reading: Reading) -> Iterator[Take]:
    """DeepLabCut's labels in .h5 and SLEAP's .slp: what people placed."""
    if path.suffix.lower() == ".slp":
        from streampose.formats.sleap import read_sleap

        rows = read_sleap(path)
    else:
        from streampose.formats.dlc_labels import read_dlc_labels

        rows = read_dlc_labels(path)
    videos = np.array([Path(video).stem or path.stem for video in rows.video.tolist()], str)
    for video in dict.fromkeys(videos.tolist()):
        index = np.flatnonzero(videos == video)
        index = index[np.argsort(rows.frame_index[index], kind="stable")]
        yield Take(video, video, rows.joints, rows.xy[index], rows.pts_seconds[index])


def _npz(path: Path, reading: Reading) -> Iterator[Take]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = set(file.files)
            content = {} if {"masks", "joints_3d"} <= names else {name: file[name] for name in names}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise StreamposeError(f"{path}: not an .npz of arrays ({' '.join(str(error).split())[:100]})") from None
    if not content:
        yield from _truth(path, reading)
        return
    key = next((name for name in POSES if name in content), None)
    if key is None:
        raise StreamposeError(f"{path}: no poses in it; call the array one of {', '.join(POSES)}")
    joints = next((tuple(map(str, content[name].tolist())) for name in NAMES if name in content), ())
    yield from _array(path, content[key], joints, content, reading)


def _npy(path: Path, reading: Reading) -> Iterator[Take]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StreamposeError(f"{path}: not an .npy of numbers ({' '.join(str(error).split())[:100]})") from None
    joints: tuple[str, ...] = ()
    for beside in (path.with_suffix(".joints.json"), path.with_suffix(".joints.txt")):
        if beside.is_file():
            text = beside.read_text(encoding="utf-8")
            joints = tuple(json.loads(text) if beside.suffix == ".json" else text.split())
    yield from _array(path, values, joints, {}, reading)


def _array(
    path: Path, values: np.ndarray, joints: Sequence[str], content: dict[str, np.ndarray], reading: Reading
) -> Iterator[Take]:
    """(N, K, 2 or 3), or (T, N, K, 2 or 3) with several subjects; a third number is a confidence where 2D is asked."""
    if values.ndim not in (3, 4) or values.shape[-1] not in (2, 3) or values.dtype.kind not in "fiu":
        raise StreamposeError(f"{path}: an array of shape {values.shape}; expected (N, K, 2) or (N, K, 3) numbers")
    values = values.astype(float)
    K = values.shape[-2]
    joints = tuple(joints or reading.joints)
    if not joints and reading.skeleton is not None and reading.skeleton.num_joints == K:
        joints = reading.skeleton.joints
    if len(joints) != K:
        raise StreamposeError(f"{path}: {K} joints, but {len(joints)} names; name them with --joints a,b,c...")
    if values.shape[-1] == 3 and reading.dimensions == 2:
        values = np.where(values[..., 2:] >= LIKELY, values[..., :2], np.nan)
    if values.shape[-1] == 3:
        values = values @ AXES[reading.up].T * reading.metres
    if values.ndim == 4:
        for n in range(values.shape[1]):
            yield Take(f"{path.stem} {n}", path.stem, joints, values[:, n], np.full(len(values), np.nan))
        return
    N = len(values)
    takes = content.get("takes", content.get("groups", np.full(N, path.stem))).astype(str)
    groups = content.get("groups", np.full(N, path.stem)).astype(str)
    seconds = np.asarray(content.get("seconds", np.full(N, np.nan)), float)
    if not (takes.shape == groups.shape == seconds.shape == (N,)):
        raise StreamposeError(f"{path}: takes, groups and seconds need one entry for each of the {N} poses")
    for name in dict.fromkeys(takes.tolist()):
        index = np.flatnonzero(takes == name)
        yield Take(name, str(groups[index[0]]), joints, values[index], seconds[index])


def _truth(path: Path, reading: Reading) -> Iterator[Take]:
    truth, name = read_truth(path), path.name.removesuffix(".truth.npz")
    group = re.sub(r"_cam\d+$", "", name)  # the cameras of a session saw the same motion
    for n in range(truth.num_subjects):
        if reading.dimensions == 2:
            poses = np.where(truth.visibility[:, n, :, None] > 0, truth.joints_2d[:, n], np.nan)
        else:
            poses = truth.joints_3d[:, n] @ AXES["z"].T
        yield Take(f"{name} {n}", group, tuple(truth.joints.tolist()), poses, truth.pts_seconds)


def _markers(path: Path, reading: Reading) -> Iterator[Take]:
    if path.suffix.lower() == ".trc":
        joints, _, seconds, points = read_trc(path)
        points = points @ AXES["y"].T
    else:
        joints, rate, points, _ = read_c3d(path)
        points, seconds = points @ AXES["z"].T, np.arange(len(points)) / rate
    yield Take(path.stem, path.stem, joints, points, seconds)


READERS = {
    ".bvh": _recording, ".txt": _recording, ".json": _json, ".csv": _dlc_csv, ".h5": _annotations,
    ".slp": _annotations, ".npy": _npy, ".npz": _npz, ".trc": _markers, ".c3d": _markers,
}  # fmt: skip
