"""Marker files of motion-capture systems (.c3d), by ezc3d (extra `c3d`): millimetres in the calibration's world."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError, StreamposeError
from streampose.files import whole_file

MOST_FRAMES = 1_000_000  # the file is made in memory: about 0.3 GB for 17 joints


def c3d_available() -> bool:
    """Whether .c3d files can be written here."""
    return importlib.util.find_spec("ezc3d") is not None


def write_c3d(
    path: Path, joints: Sequence[str], rate: float, points: np.ndarray, uncertainty: np.ndarray | None = None
) -> None:
    """Write one subject's joints as markers.

    Args:
        joints: K names.
        rate: frames a second.
        points: (T, K, 3) metres; NaN where missing.
        uncertainty: (T, K) metres, kept as the residuals of the markers, which are whole millimetres, rounded up.

    Raises:
        ConfigError: ezc3d is not installed.
        ValueError: too many frames for such a file.
    """
    if not c3d_available():
        raise ConfigError("writing .c3d needs ezc3d: pip install 'streampose[c3d]'")
    import ezc3d

    T, K, _ = points.shape
    if T > MOST_FRAMES:
        raise ValueError(f"{path}: {T} frames; .c3d is written for up to {MOST_FRAMES}, use .trc or Parquet")
    file = ezc3d.c3d()
    values = file["parameters"]["POINT"]
    values["RATE"]["value"] = [float(rate)]
    values["UNITS"]["value"] = ["mm"]
    values["LABELS"]["value"] = list(joints)
    millimetres = np.ones((4, K, T))
    millimetres[:3] = 1000 * points.transpose(2, 1, 0)
    file["data"]["points"] = millimetres
    known = np.isfinite(points).all(-1).T  # (K, T)
    residuals = np.zeros((K, T)) if uncertainty is None else np.ceil(1000 * np.nan_to_num(uncertainty.T))
    file["data"]["meta_points"]["residuals"] = np.where(known, residuals, -1.0)[None]
    with whole_file(path) as partial:
        made = partial.with_name(f"{partial.name}.c3d")  # ezc3d insists on its suffix
        try:
            file.write(str(made))
            made.replace(partial)
        finally:
            made.unlink(missing_ok=True)


def read_c3d(path: Path) -> tuple[tuple[str, ...], float, np.ndarray, np.ndarray]:
    """Read markers.

    Returns:
        names of K markers, frames a second, (T, K, 3) metres, NaN where missing, and (T, K) residuals in metres.

    Raises:
        ConfigError: ezc3d is not installed.
        StreamposeError: no such file, or not a .c3d.
    """
    if not c3d_available():
        raise ConfigError("reading .c3d needs ezc3d: pip install 'streampose[c3d]'")
    import ezc3d

    try:
        file = ezc3d.c3d(str(path))
        values = file["parameters"]["POINT"]
        metres = {"m": 1.0, "mm": 0.001, "cm": 0.01}[values["UNITS"]["value"][0]]
        points = file["data"]["points"][:3].transpose(2, 1, 0) * metres
        residuals = file["data"]["meta_points"]["residuals"][0].T * metres
    except (OSError, RuntimeError, KeyError, IndexError) as error:
        raise StreamposeError(f"{path}: not a .c3d file of markers ({error})") from None
    missing = residuals < 0
    points = np.where(missing[..., None], np.nan, points)
    return (
        tuple(values["LABELS"]["value"]),
        float(values["RATE"]["value"][0]),
        points,
        np.where(missing, np.nan, residuals),
    )
