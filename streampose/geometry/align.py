"""Align point sets: by scale, or by scale, rotation and translation (Procrustes), never by a reflection. Numpy only."""

from __future__ import annotations

import numpy as np


def best_scale(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The scale s >= 0 that minimises |s * points - target|^2, about the origin.

    Args:
        points, target: (..., K, D); entries that are NaN in either count for nothing.

    Returns:
        (...,); NaN where no entry is known, or where all points are at the origin.
    """
    known = np.isfinite(points) & np.isfinite(target)
    p, q = np.where(known, points, 0.0), np.where(known, target, 0.0)
    norm = (p * p).sum((-2, -1))
    return np.maximum((p * q).sum((-2, -1)), 0.0) / np.where(norm > 0, norm, np.nan)


def procrustes(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The similarity that brings points closest to their targets: `s * points @ R.T + t`.

    R is a proper rotation: a mirrored set cannot be turned into its original, so a pose whose depth is reversed keeps
    an error.

    Args:
        points, target: (..., K, D); a point that is NaN in either counts for nothing.

    Returns:
        s (...,), R (..., D, D), t (..., D); NaN where fewer than D points are known or all of them coincide.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
    """
    D = points.shape[-1]
    known = np.isfinite(points).all(-1) & np.isfinite(target).all(-1)
    weights = known[..., None] / np.maximum(known.sum(-1), 1)[..., None, None]  # (..., K, 1)
    p, q = np.where(known[..., None], points, 0.0), np.where(known[..., None], target, 0.0)
    mean_p, mean_q = (weights * p).sum(-2), (weights * q).sum(-2)
    p, q = p - mean_p[..., None, :], q - mean_q[..., None, :]
    covariance = np.swapaxes(q * weights, -1, -2) @ p  # (..., D, D)
    U, S, Vt = np.linalg.svd(covariance)
    signs = np.ones_like(S)
    signs[..., -1] = np.where(np.linalg.det(U @ Vt) < 0, -1.0, 1.0)
    R = (U * signs[..., None, :]) @ Vt
    variance = (weights * p * p).sum((-2, -1))
    usable = (known.sum(-1) >= D) & (variance > 1e-12 * (1 + (mean_p**2).sum(-1)))
    s = np.where(usable, (S * signs).sum(-1) / np.where(usable, variance, 1.0), np.nan)
    t = mean_q - s[..., None] * (R @ mean_p[..., None])[..., 0]
    return s, np.where(usable[..., None, None], R, np.nan), t


def align_similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points after the similarity of `procrustes`: (..., K, D), NaN where there is none."""
    s, R, t = procrustes(points, target)
    return s[..., None, None] * (points @ np.swapaxes(R, -1, -2)) + t[..., None, :]
