"""Tracks beside the exact truth of synthetic videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError
from streampose.evaluation.compared import Compared, crop_features, match_joints
from streampose.evaluation.predicted import Predicted
from streampose.geometry.crop import square_box
from streampose.geometry.project import camera_from_world
from streampose.metrics.keypoints_3d import metric_from_pixels
from streampose.structures import Skeleton
from streampose.synthetic.truth import Truth, read_truth

MIN_OVERLAP = 0.2  # a clip whose boxes overlap less with every true subject shows none


class Matched(NamedTuple):
    """A track, its video's truth, which true subject it shows, and the session that its video is a view of ("")."""

    item: Predicted
    exact: Truth
    subject: int
    session: str = ""


def match_truth(found: Sequence[Predicted], folder: Path, padding: float) -> list[Matched]:
    """Each track with its video's truth and the number of the true subject that its boxes overlap most.

    A track keeps one subject for its whole length, so that one that jumps to another person is wrong from there on.

    Args:
        padding: of the tracks' boxes around the subject.

    Raises:
        ConfigError: there is no truth for any of the videos, or no track shows a true subject.
    """
    files = {path.name.removesuffix(".truth.npz"): path for path in sorted(Path(folder).rglob("*.truth.npz"))}
    if not files:
        raise ConfigError(f"{folder}: no *.truth.npz in it; `streampose synth` writes them beside its videos")
    sessions = _read_sessions(Path(folder))
    truths: dict[str, Truth] = {}
    matched: list[Matched] = []
    for item in found:
        name = Path(item.source).stem
        if name not in files:
            continue
        exact = truths.setdefault(name, read_truth(files[name]) if name not in truths else truths[name])
        known = known_frames(item, exact)
        if not len(known):
            continue
        subjects = square_box(exact.boxes[item.frame_index[known]], padding)  # (T, N, 4)
        overlaps = np.nan_to_num(_box_iou(item.boxes[known, None], subjects)).mean(0)
        if overlaps.max() >= MIN_OVERLAP:
            matched.append(Matched(item, exact, int(overlaps.argmax()), sessions.get(name, "")))
        else:
            logger.info("%s: overlaps no true subject (at most %.2f); left out", item.track, overlaps.max())
    if not matched:
        names = ", ".join(sorted({Path(item.source).stem for item in found})[:5])
        raise ConfigError(f"{folder}: no truth that fits; there must be <video>.truth.npz for some of {names}")
    return matched


def compare_truth(matched: Sequence[Matched], skeleton: Skeleton) -> Compared:
    """Tracks and their truth, frame by frame.

    Raises:
        ConfigError: the truth has none of the skeleton's joints.
    """
    common = set.intersection(*(set(exact.joints.tolist()) for _, exact, _, _ in matched))
    known_names = [name for name in matched[0].exact.joints.tolist() if name in common]
    joints, columns, _ = match_joints(skeleton, known_names, "the truth")
    spatial = all(match.item.z is not None for match in matched) and skeleton.root in columns
    parts: list[dict[str, np.ndarray]] = []
    for item, exact, subject, session in matched:
        names, _, places = match_joints(skeleton, exact.joints.tolist(), "the truth")
        order = [places[names.index(joint)] for joint in joints]
        known = known_frames(item, exact)
        frames = item.frame_index[known]
        name = session or Path(item.source).stem
        part = {
            "xy": item.xy[known][:, columns],
            "true_xy": exact.joints_2d[frames, subject][:, order],
            "counts": exact.visibility[frames, subject][:, order] > 0,
            "boxes": item.boxes[known],
            "features": crop_features(item.xy[known], None if item.z is None else item.z[known], item.boxes[known]),
            "groups": np.full(len(known), name),
            "activities": np.full(len(known), ""),
            "moments": np.array([f"{name} {frame} {subject}" if session else "" for frame in frames], str),
        }
        if spatial and item.z is not None:
            in_camera = camera_from_world(exact.joints_3d[frames, subject], exact.R[frames], exact.t[frames])
            root = columns.tolist().index(skeleton.root)
            mm_per_pixel = 1000 * in_camera[:, order][:, root, 2] / exact.K[frames, 0, 0]
            xyz = np.concatenate([part["xy"], item.z[known][:, columns, None]], -1)
            part["pose_mm"] = metric_from_pixels(xyz, root, mm_per_pixel)
            part["true_mm"] = 1000 * in_camera[:, order]
        parts.append(part)
    arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Compared(joints=joints, columns=columns, skeleton=skeleton, **arrays)


def known_frames(item: Predicted, exact: Truth) -> np.ndarray:
    """Positions in a track whose frames the truth has."""
    return np.flatnonzero((item.frame_index >= 0) & (item.frame_index < exact.num_frames))


def _read_sessions(folder: Path) -> dict[str, str]:
    """Name of each video (without suffix) -> its session, from the `session.json` of `streampose synth`."""
    path = folder / "session.json"
    if not path.is_file():
        return {}
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        return {Path(view["video"]).stem: session["name"] for session in sessions for view in session["views"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not the sessions of `streampose synth` ({error!r})") from None


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(-1) for box in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
