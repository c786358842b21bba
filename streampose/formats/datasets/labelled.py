"""What every dataset reader returns: labelled people, where their pictures are, and how they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streampose.errors import ConfigError
from streampose.structures import check_shape

FLESH = 0.1  # what a person's silhouette reaches beyond the joints on each side, of their extent


class Picture(NamedTuple):
    """An image file (frame None), or the frame of this number in a video."""

    path: Path
    frame: int | None = None


@dataclass(frozen=True)
class Labelled:
    """N people of a dataset's test part.

    Attributes:
        name: of the dataset, as its users know it.
        joints: K names; where a dataset's joint is one of our skeletons' it has that name.
        pictures: N; where each is seen.
        xy: (N, K, 2) pixels, centres are integers; NaN where a joint is not labelled.
        counts: (N, K) whether a joint is compared (the protocols differ in what they do with occluded ones).
        boxes: (N, 4) tight boxes around the people, edges in pixels.
        groups: (N,) what is alike (a recording, a photo): intervals are drawn over these, not over frames.
        activities: (N,) names for the table of activities; empty where a dataset has none.
        moments: (N,) names of the moments that several cameras share; empty where there is one camera.
        xyz_mm: (N, K, 3) millimetres in the camera's frame, or None.
        focal_px: (N,) focal length, which goes with `xyz_mm`.
        head_px: (N,) the head size of PCKh, or None where it is read from the joints.
        left_out: metric name -> joints that its protocol leaves out.
    """

    name: str
    joints: tuple[str, ...]
    pictures: Sequence[Picture]
    xy: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    groups: np.ndarray
    activities: np.ndarray
    moments: np.ndarray
    xyz_mm: np.ndarray | None = None
    focal_px: np.ndarray | None = None
    head_px: np.ndarray | None = None
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        N, K = len(self.pictures), len(self.joints)
        if not N:
            raise ConfigError(f"{self.name}: nothing labelled in its test part")
        check_shape("Labelled.xy", self.xy, (N, K, 2))
        check_shape("Labelled.counts", self.counts, (N, K))
        check_shape("Labelled.boxes", self.boxes, (N, 4))
        for name in ("groups", "activities", "moments"):
            check_shape(f"Labelled.{name}", getattr(self, name), (N,))
        if self.xyz_mm is not None:
            check_shape("Labelled.xyz_mm", self.xyz_mm, (N, K, 3))
            assert self.focal_px is not None
            check_shape("Labelled.focal_px", self.focal_px, (N,))
        if self.head_px is not None:
            check_shape("Labelled.head_px", self.head_px, (N,))

    @property
    def num_people(self) -> int:
        return len(self.pictures)

    def pick(self, index: np.ndarray) -> Labelled:
        """Some of the people, by their numbers."""
        parts: dict[str, Any] = {
            name: None if values is None else values[index]
            for name in ("xy", "counts", "boxes", "groups", "activities", "moments", "xyz_mm", "focal_px", "head_px")
            for values in [getattr(self, name)]
        }
        return Labelled(
            name=self.name, joints=self.joints, pictures=[self.pictures[i] for i in index], left_out=self.left_out,
            **parts,
        )  # fmt: skip


def join(parts: Sequence[Labelled]) -> Labelled:
    """Parts of one dataset, with the same joints and the same kinds of truth, as one."""
    first = parts[0]
    assert all(part.joints == first.joints for part in parts)
    names = ("xy", "counts", "boxes", "groups", "activities", "moments", "xyz_mm", "focal_px", "head_px")
    arrays: dict[str, Any] = {
        name: None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])
        for name in names
    }
    pictures = [picture for part in parts for picture in part.pictures]
    return Labelled(name=first.name, joints=first.joints, pictures=pictures, left_out=first.left_out, **arrays)


def boxes_of_joints(xy: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Boxes around people of whom only the joints are known: (N, K, 2), (N, K) -> (N, 4) edges in pixels.

    A tenth of the longer side is added on each side for the flesh beyond the joints.
    """
    known = counts & np.isfinite(xy).all(-1)
    low = np.where(known[..., None], xy, np.inf).min(1)
    high = np.where(known[..., None], xy, -np.inf).max(1)
    margin = np.maximum(FLESH * (high - low).max(-1, keepdims=True), 1.0)
    boxes = np.concatenate([low - margin, high + margin + 1], -1)
    return np.where(known.any(1)[:, None], boxes, np.nan)


def focal_lengths(xy: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """The focal length that projects each pose in the camera's frame to its pixels: (T, K, 2), (T, K, 3) -> (T,).

    One camera's poses together tell its focal length and principal point (`x = f X / Z + c`, least squares), so that
    no reader depends on calibration files; lens distortion is averaged out.
    """
    known = np.isfinite(xy).all(-1) & np.isfinite(xyz).all(-1) & (xyz[..., 2] > 0)
    slopes = (xyz[..., :2] / np.where(known, xyz[..., 2], 1.0)[..., None])[known]  # (M, 2)
    pixels = xy[known]
    if len(slopes) < 2:
        return np.full(len(xy), np.nan)
    slopes, pixels = slopes - slopes.mean(0), pixels - pixels.mean(0)
    spread = (slopes**2).sum()
    return np.full(len(xy), (slopes * pixels).sum() / spread if spread > 0 else np.nan)


def required(path: Path, dataset: str, layout: str) -> Path:
    """A path that a dataset's layout has.

    Raises:
        ConfigError: it is not there; says what is expected.
    """
    if not path.exists():
        raise ConfigError(f"{path}: not there; the official layout of {dataset} has {layout}")
    return path


def read_mat(path: Path, what: str, **options: Any) -> dict[str, Any]:
    """The variables of a Matlab file (before version 7.3).

    Args:
        what: is expected in it, for the error.

    Raises:
        ConfigError: it cannot be read.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(path, **options)
    except (MatReadError, ValueError, NotImplementedError, OSError) as error:
        raise ConfigError(f"{path}: not {what} ({' '.join(str(error).split())})") from None
