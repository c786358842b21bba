"""The frames of a store whose 3D pose is known: from the exact truth of synthetic videos, or from several cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError, TrainingError
from streampose.formats.points import Points, read_points
from streampose.geometry.camera import resize_camera
from streampose.geometry.distortion import project
from streampose.geometry.project import camera_from_world
from streampose.methods.disentangle_data import Known, nothing_known
from streampose.methods.mask_data import Frames
from streampose.store.reader import StoreReader
from streampose.store.sessions import read_sessions
from streampose.structures import Camera, Skeleton
from streampose.synthetic.truth import read_truth

LEAST_OVERLAP = 0.2  # of the box of a frame and that of a subject whose pose is known
LONGEST_SECONDS = 0.02  # between a frame and the moment whose pose is known
LARGEST_UNCERTAINTY = 0.06  # metres, of a joint that several cameras placed


def read_pairs(reader: StoreReader, frames: Frames, skeleton: Skeleton, folder: Path) -> Known:
    """The poses of a store's frames from the files in a folder.

    Either `<video>.truth.npz`, as `synth` writes them beside its videos, or `<session>/points.parquet`, as
    `annotate --session` writes them for a session that is in the store. Each frame gets the subject there whose joints
    its box overlaps most, joints by name, frames by their time; frames that show nobody who is known have no pose.

    Raises:
        TrainingError: nothing there is about the store's videos, or no frame shows a subject that is known.
        ConfigError: a damaged file, or one without the skeleton's root.
    """
    folder = Path(folder)
    known = nothing_known(len(frames), skeleton.num_joints)
    _from_truth(known, reader, frames, skeleton, folder)
    _from_sessions(known, reader, frames, skeleton, folder)
    if not len(known.paired):
        names = ", ".join(sorted({Path(clip.source).stem for clip in reader.clips()})[:4])
        raise TrainingError(
            f"{folder}: no pose of a frame of the store in it; there must be <video>.truth.npz for some of {names}, or "
            "<session>/points.parquet for a session of the store"
        )
    return known


def _from_truth(known: Known, reader: StoreReader, frames: Frames, skeleton: Skeleton, folder: Path) -> None:
    files = {path.name.removesuffix(".truth.npz"): path for path in sorted(folder.rglob("*.truth.npz"))}
    for number, clip in enumerate(reader.clips()):
        rows = np.flatnonzero(frames.clip == number)
        path = files.get(Path(clip.source).stem)
        if path is None or not len(rows):
            continue
        truth = read_truth(path)
        at, near = _nearest(truth.pts_seconds, frames.seconds[rows])
        pose = camera_from_world(truth.joints_3d[at], truth.R[at, None], truth.t[at, None])  # (n, subjects, J, 3)
        _place(known, rows[near], frames, pose[near], truth.joints_2d[at][near], truth.joints.tolist(), skeleton, path)


def _from_sessions(known: Known, reader: StoreReader, frames: Frames, skeleton: Skeleton, folder: Path) -> None:
    files = {path.parent.name: path for path in sorted(folder.rglob("points.parquet"))}
    clip_of = {clip.id: number for number, clip in enumerate(reader.clips())}
    sources = {source["id"]: source for source in reader.sources()}
    for stored in read_sessions(reader.path) if files else []:
        path = files.get(stored.session.name)
        if path is None:
            continue
        points, theirs = read_points(path)
        times, poses = _moments(points)
        for view, source in zip(stored.session.views, stored.source_ids, strict=True):
            if view.camera is None or not view.camera.posed or source not in sources:
                continue
            camera = _of_size(view.camera, sources[source].get("probe") or {})
            rows = np.flatnonzero(np.isin(frames.clip, [clip_of[c] for c in sources[source]["clips"] if c in clip_of]))
            if not len(rows):
                continue
            at, near = _nearest(times, frames.seconds[rows] + view.offset_seconds)
            world = poses[at][near]  # (n, subjects, J, 3)
            pose, xy = camera_from_world(world, camera.R, camera.t), project(world, camera)
            _place(known, rows[near], frames, pose, xy, list(theirs.joints), skeleton, path)


def _moments(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) of a session and the poses (T, subjects, J, 3) at them; NaN where uncertain or missing."""
    frame, place = np.unique(points.frame_index, return_inverse=True)
    subjects, subject = np.unique(points.subject_id, return_inverse=True)
    sure = (points.uncertainty <= LARGEST_UNCERTAINTY) & (points.views >= 2)
    poses = np.full((len(frame), len(subjects), *points.xyz.shape[1:]), np.nan)
    poses[place, subject] = np.where(sure[..., None], points.xyz, np.nan)
    times = np.zeros(len(frame))
    times[place] = points.seconds
    return times, poses


def _nearest(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the known times nearest to those asked for, and which of them are near enough: (n,) both."""
    at = np.abs(known[None] - asked[:, None]).argmin(1)
    return at, np.abs(known[at] - asked) <= LONGEST_SECONDS


def _place(
    known: Known,
    rows: np.ndarray,
    frames: Frames,
    pose: np.ndarray,
    xy: np.ndarray,
    joints: list[str],
    skeleton: Skeleton,
    path: Path,
) -> None:
    """Write the pose of the subject that each frame shows.

    Args:
        rows: (n,) the frames.
        pose, xy: (n, subjects, J, 3) in the camera's frame, (n, subjects, J, 2) source pixels.
    """
    if skeleton.joints[skeleton.root] not in joints:
        raise ConfigError(f"{path}: has no {skeleton.joints[skeleton.root]}, which poses are relative to")
    if not len(rows):
        return
    ours = [k for k, name in enumerate(skeleton.joints) if name in joints]
    theirs = [joints.index(skeleton.joints[k]) for k in ours]
    seen = np.isfinite(xy).all(-1, keepdims=True)
    low, high = np.where(seen, xy, np.inf).min(2), np.where(seen, xy, -np.inf).max(2)
    overlap = box_overlap(np.concatenate([low, high], -1), frames.boxes[rows, None])  # (n, subjects)
    subject, shown = overlap.argmax(1), overlap.max(1) >= LEAST_OVERLAP
    n, rows = np.flatnonzero(shown), rows[shown]
    body, points = pose[n, subject[n]][:, theirs], xy[n, subject[n]][:, theirs]
    root = ours.index(skeleton.root)
    known.pose[rows[:, None], ours] = body - body[:, root : root + 1]
    known.xy[rows[:, None], ours] = to_crop(points, frames.boxes[rows])


def box_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over the smaller of two boxes: (..., 4) twice -> (...); 0 for a box of nothing."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(-1) for box in (a, b)]
    return np.nan_to_num(shared / np.maximum(np.minimum(*areas), 1e-9))


def to_crop(xy: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Points in source pixels as crop coordinates in [-1, 1]: (N, K, 2), (N, 4) -> (N, K, 2)."""
    corner, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
    return ((xy + 0.5 - corner) / side * 2 - 1).astype(np.float32)


def _of_size(camera: Camera, probe: dict) -> Camera:
    """A camera for the pictures as they are, which may have been calibrated at another size."""
    size = (int(probe.get("width") or 0), int(probe.get("height") or 0))
    if min(size) > 0 and min(camera.size) > 0 and size != camera.size:
        logger.info("camera calibrated at %s, pictures of %s", camera.size, size)
        return resize_camera(camera, size)
    return camera
