"""A small triangle rasteriser with a z-buffer, in numpy: each pixel shows the nearest triangle over its centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 0.05  # metres


@dataclass(frozen=True)
class Fragments:
    """What the camera sees: M covered pixels of an image.

    Attributes:
        pixel: (M,) index y * W + x.
        face: (M,) triangle seen there.
        barycentric: (M, 3) place on the triangle in the image plane, float32.
        z: (H, W) float32 depth along the camera's axis, infinity where nothing is.
    """

    pixel: np.ndarray
    face: np.ndarray
    barycentric: np.ndarray
    z: np.ndarray


def rasterise(points: np.ndarray, K: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Fragments:
    """Find the nearest front-facing triangle of each pixel.

    Args:
        points: (V, 3) vertices in the camera frame, metres.
        K: (3, 3) intrinsics; pixel centres are integers.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        size: (width, height).

    Triangles that reach nearer than `NEAR` are left out.
    """
    width, height = size
    z = points[:, 2]
    safe = np.maximum(z, NEAR)
    x = (K[0, 0] * points[:, 0] + K[0, 1] * points[:, 1]) / safe + K[0, 2]
    y = K[1, 1] * points[:, 1] / safe + K[1, 2]
    corners = faces.T
    xa, xb, xc = x[corners]
    ya, yb, yc = y[corners]
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    left = np.maximum(np.ceil(np.minimum(np.minimum(xa, xb), xc)), 0)
    right = np.minimum(np.floor(np.maximum(np.maximum(xa, xb), xc)), width - 1)
    top = np.maximum(np.ceil(np.minimum(np.minimum(ya, yb), yc)), 0)
    bottom = np.minimum(np.floor(np.maximum(np.maximum(ya, yb), yc)), height - 1)
    near = (z <= NEAR)[corners].any(0)
    kept = np.flatnonzero((area < -1e-9) & (left <= right) & (top <= bottom) & ~near)

    columns = (right[kept] - left[kept] + 1).astype(np.int32)
    counts = columns * (bottom[kept] - top[kept] + 1).astype(np.int32)
    owner = np.repeat(np.arange(len(kept), dtype=np.int32), counts)
    local = np.arange(len(owner), dtype=np.int32) - np.repeat((np.cumsum(counts) - counts).astype(np.int32), counts)
    row, column = np.divmod(local, columns[owner])
    # The barycentric coordinates are linear in the image: value at the first pixel, then a step per column and row.
    scale = 1 / area[kept]
    first_x, first_y = left[kept], top[kept]
    xa, xb, xc, ya, yb, yc = (value[kept] for value in (xa, xb, xc, ya, yb, yc))
    step_b = np.stack([(yc - ya) * scale, (xa - xc) * scale], -1)
    step_c = np.stack([(ya - yb) * scale, (xb - xa) * scale], -1)
    start_b = (first_x - xa) * step_b[:, 0] + (first_y - ya) * step_b[:, 1]
    start_c = (first_x - xa) * step_c[:, 0] + (first_y - ya) * step_c[:, 1]
    plane_b = np.concatenate([start_b[:, None], step_b], -1).astype(np.float32)[owner]
    plane_c = np.concatenate([start_c[:, None], step_c], -1).astype(np.float32)[owner]
    b = plane_b[:, 0] + plane_b[:, 1] * column + plane_b[:, 2] * row
    c = plane_c[:, 0] + plane_c[:, 1] * column + plane_c[:, 2] * row
    inside = np.flatnonzero((b >= -1e-5) & (c >= -1e-5) & (b + c <= 1 + 1e-5))

    owner, b, c = owner[inside], b[inside], c[inside]
    pixel = (
        (top[kept].astype(np.int32)[owner] + row[inside]) * width + left[kept].astype(np.int32)[owner] + column[inside]
    )
    face = kept[owner]
    inverse = (1 / safe).astype(np.float32)[corners[:, face]]
    nearness = (1 - b - c) * inverse[0] + b * inverse[1] + c * inverse[2]
    order = np.argsort(nearness)
    winner = np.full(width * height, -1, np.int32)
    winner[pixel[order]] = order  # where a pixel comes more than once the last one stays, which is the nearest
    covered = np.flatnonzero(winner >= 0)
    seen = winner[covered]
    depth = np.full(width * height, np.inf, np.float32)
    depth[covered] = 1 / nearness[seen]
    weights = np.stack([1 - b[seen] - c[seen], b[seen], c[seen]], -1)
    return Fragments(covered, face[seen], weights, depth.reshape(height, width))


def shade(
    fragments: Fragments,
    faces: np.ndarray,
    light: np.ndarray,
    uv: np.ndarray,
    face_tiles: np.ndarray,
    atlas: np.ndarray,
) -> np.ndarray:
    """Colour of each covered pixel: texture times interpolated light.

    Args:
        light: (V, 3) colour of the light that each vertex sends back.
        uv: (V, 2), a tile is [0, 1] and repeats beyond; face_tiles: (F,); atlas: (P, S, S, 3) albedo.

    Returns:
        (M, 3) float32, 1.0 is white.
    """
    corners = faces[fragments.face]  # (M, 3)
    values = np.concatenate([light, uv], -1).astype(np.float32)[corners]  # (M, 3, 5)
    values = (values * fragments.barycentric[..., None]).sum(1)
    side = atlas.shape[1]
    texel = np.floor(values[:, 3:] * (side - 1) + 0.5).astype(np.int32) % side
    return atlas[face_tiles[fragments.face], texel[:, 1], texel[:, 0]] * values[:, :3]
