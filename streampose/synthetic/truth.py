"""The exact ground truth of one synthetic video, and its file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError
from streampose.files import whole_file
from streampose.structures import check_shape


@dataclass(frozen=True)
class Truth:
    """What is where in each of T frames; N subjects, K joints.

    Attributes:
        joints: (K,) names.
        joints_3d: (T, N, K, 3) metres in the world frame (z up, ground at z = 0).
        joints_2d: (T, N, K, 2) pixels; equal to the projection of `joints_3d` by K, R, t.
        visibility: (T, N, K) uint8; 0 outside the image, 1 occluded by a body or an object, 2 visible.
        boxes: (T, N, 4) xyxy edges of each subject's visible pixels; NaN where none is visible.
        masks: (T, H, W) uint8; 0 background and objects, n + 1 where subject n is seen.
        pts_seconds: (T,) time of each frame of the video.
        K, R, t: (T, 3, 3), (T, 3, 3), (T, 3) camera of each frame, `x_cam = R @ x_world + t`.
        size: (2,) width and height in pixels.
    """

    joints: np.ndarray
    joints_3d: np.ndarray
    joints_2d: np.ndarray
    visibility: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    pts_seconds: np.ndarray
    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    size: np.ndarray

    def __post_init__(self) -> None:
        T, N, K, _ = self.joints_3d.shape
        width, height = (int(v) for v in self.size)
        shapes = {
            "joints": (K,), "joints_2d": (T, N, K, 2), "visibility": (T, N, K), "boxes": (T, N, 4),
            "masks": (T, height, width), "pts_seconds": (T,), "K": (T, 3, 3), "R": (T, 3, 3), "t": (T, 3),
        }  # fmt: skip
        for name, shape in shapes.items():
            check_shape(f"Truth.{name}", getattr(self, name), shape)

    @property
    def num_frames(self) -> int:
        return len(self.pts_seconds)

    @property
    def num_subjects(self) -> int:
        return self.joints_3d.shape[1]


def truth_path(video: Path) -> Path:
    """Where the truth of a video lies: `walk.mp4` -> `walk.truth.npz`."""
    return video.with_name(video.stem + ".truth.npz")


def write_truth(path: Path, truth: Truth) -> Path:
    """Write the truth as a compressed .npz, under a temporary name first; the boxes and points as float64."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **{field.name: getattr(truth, field.name) for field in fields(Truth)})
    return path


def read_truth(path: Path) -> Truth:
    """Read what `write_truth` wrote; nothing in the file is executed.

    Raises:
        ConfigError: no such file, not a truth file, or a missing part.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Truth(**{field.name: file[field.name] for field in fields(Truth)})
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `streampose synth` writes it beside the video") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: not a truth file ({' '.join(str(error).split())})") from None
