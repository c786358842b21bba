"""Procedural textures: cloth, skin, faces, hair, grounds and walls. Albedo in [0, 1], RGB float32."""

from __future__ import annotations

import cv2
import numpy as np

TILE = 64
SKINS = (
    (0.94, 0.78, 0.68),
    (0.88, 0.68, 0.54),
    (0.76, 0.55, 0.40),
    (0.58, 0.39, 0.27),
    (0.40, 0.26, 0.18),
    (0.28, 0.18, 0.13),
)
HAIRS = (
    (0.08, 0.06, 0.05),
    (0.22, 0.13, 0.07),
    (0.42, 0.26, 0.12),
    (0.72, 0.55, 0.3),
    (0.55, 0.22, 0.1),
    (0.6, 0.6, 0.6),
)


def random_colour(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A colour for `cloth` (any), `trousers` and `shoes` (often dark, blue or beige) or `hair`: (3,)."""
    if kind == "hair":
        return np.clip(np.array(HAIRS[rng.integers(len(HAIRS))]) + rng.normal(0, 0.03, 3), 0.02, 1)
    if kind != "cloth" and rng.uniform() < 0.65:
        base = ((0.12, 0.13, 0.17), (0.18, 0.25, 0.42), (0.55, 0.47, 0.36), (0.35, 0.36, 0.38), (0.85, 0.85, 0.85))
        return np.clip(np.array(base[rng.integers(len(base))]) * rng.uniform(0.7, 1.2), 0.03, 1)
    hue, saturation, value = rng.uniform(0, 180), rng.uniform(0.0, 1.0) ** 0.7, rng.uniform(0.15, 0.95)
    pixel = np.array([[[hue * 2, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def random_skin(rng: np.random.Generator) -> np.ndarray:
    """A skin tone: (3,)."""
    i, blend = rng.integers(len(SKINS) - 1), rng.uniform()
    return np.array(SKINS[i]) * (1 - blend) + np.array(SKINS[i + 1]) * blend


def noise(size: tuple[int, int], cells: int, rng: np.random.Generator, octaves: int = 4) -> np.ndarray:
    """Smooth tileable noise with mean 0 and range about [-1, 1]: size is (height, width)."""
    height, width = size
    total, amplitude, norm = np.zeros(size, np.float32), 1.0, 0.0
    for _ in range(octaves):
        coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        tiled = np.pad(coarse, 2, mode="wrap")
        scale_y, scale_x = height / cells, width / cells
        large = cv2.resize(
            tiled, (round((cells + 4) * scale_x), round((cells + 4) * scale_y)), interpolation=cv2.INTER_CUBIC
        )
        y, x = round(2 * scale_y), round(2 * scale_x)
        total += amplitude * large[y : y + height, x : x + width]
        norm += amplitude
        amplitude, cells = amplitude * 0.55, cells * 2
        if cells > min(height, width):
            break
    return total / norm * 1.6


def cloth_tile(colour: np.ndarray, rng: np.random.Generator, plain: bool = False) -> np.ndarray:
    """Plain, striped, checked, dotted or printed cloth: (TILE, TILE, 3); u runs around the body, v downwards."""
    v, u = np.mgrid[0:TILE, 0:TILE] / TILE
    other = random_colour(rng, "cloth")
    pattern = (
        "plain"
        if plain
        else rng.choice(
            ["plain", "rings", "stripes", "checks", "dots", "blotches", "print"],
            p=[0.36, 0.14, 0.1, 0.12, 0.08, 0.1, 0.1],
        )
    )
    count = int(rng.integers(4, 10))
    share = rng.uniform(0.25, 0.6)
    rings, stripes = (v * count) % 1 < share, (u * count) % 1 < share
    where = {
        "plain": np.zeros_like(u, bool), "rings": rings, "stripes": stripes, "checks": rings ^ stripes,
        "dots": ((u * count) % 1 - 0.5) ** 2 + ((v * count) % 1 - 0.5) ** 2 < 0.08,
        "blotches": noise((TILE, TILE), 5, rng) > 0.1,
        "print": (np.abs((u + 0.5) % 1 - 0.5) < 0.11) & (np.abs(v - 0.45) < 0.13),
    }[pattern]  # fmt: skip
    tile = np.where(where[..., None], other, colour)
    weave = 1 + 0.08 * noise((TILE, TILE), 8, rng)[..., None] + rng.normal(0, 0.02, (TILE, TILE, 1))
    return np.clip(tile * weave, 0.01, 1).astype(np.float32)


def skin_tile(skin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Skin with slight blotches: (TILE, TILE, 3)."""
    blotches = 1 + 0.05 * noise((TILE, TILE), 4, rng)[..., None] * np.array([0.6, 1.0, 1.0])
    return np.clip(skin * blotches, 0.01, 1).astype(np.float32)


def hair_tile(hair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hair with strands that run down: (TILE, TILE, 3)."""
    strands = 1 + 0.25 * noise((1, TILE), 1, rng, 1)[..., None] + rng.normal(0, 0.12, (1, TILE, 1))
    return np.clip(hair * np.broadcast_to(strands, (TILE, TILE, 1)), 0.01, 1).astype(np.float32)


def face_tile(skin: np.ndarray, hair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face in front (u near 0 and 1), shaved or bearded; v runs from the top of the head to the chin."""
    tile = skin_tile(skin, rng)
    tile = np.roll(tile, TILE // 2, 1)
    middle = TILE // 2
    if rng.uniform() < 0.3:
        tile[int(0.72 * TILE) :, middle - 14 : middle + 14] = hair * 0.6 + skin * 0.4 * rng.uniform(0.3, 1)
    for sign in (-1, 1):
        eye = (middle + sign * 5, int(0.53 * TILE))
        cv2.ellipse(tile, eye, (3, 2), 0, 0, 360, (0.92, 0.92, 0.92), -1)
        cv2.circle(tile, eye, 1, (0.1, 0.08, 0.06), -1)
        cv2.line(tile, (eye[0] - 3, eye[1] - 4), (eye[0] + 3, eye[1] - 4), tuple(float(c) * 0.7 for c in hair), 1)
    cv2.line(
        tile,
        (middle - 4, int(0.8 * TILE)),
        (middle + 4, int(0.8 * TILE)),
        (float(skin[0]) * 0.75, float(skin[1]) * 0.4, float(skin[2]) * 0.4),
        2,
    )
    return np.roll(tile, -TILE // 2, 1)


def ground_texture(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """A tileable floor (grass, tarmac, planks, tiles): (size, size, 3) uint8."""
    base, second = _muted(rng), _muted(rng)
    blend = 0.5 + 0.5 * noise((size, size), int(rng.integers(3, 10)), rng, 6)[..., None]
    image = base * (1 - 0.5 * blend) + second * 0.5 * blend
    lines = int(rng.choice([0, 0, 4, 8]))
    if lines:
        step = size // lines
        across = (np.arange(size) % step) < 4
        image[:, across] *= 0.75
        if rng.uniform() < 0.6:
            image[across, :] *= 0.75
        cells = rng.uniform(0.85, 1.1, (lines, lines)).repeat(step, 0).repeat(step, 1)
        image *= cells[..., None]
    image += rng.normal(0, 0.03, (size, size, 1))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def wall_texture(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """A tileable wall or skyline with windows, posters, bushes: (size, size, 3) uint8, first row at the top."""
    image = np.broadcast_to(_muted(rng, bright=True), (size, size, 3)) * (
        1 + 0.15 * noise((size, size), 4, rng, 6)[..., None]
    )
    image = image * np.linspace(rng.uniform(0.9, 1.25), 1.0, size)[:, None, None]
    image = np.ascontiguousarray(image, np.float32)
    for _ in range(int(rng.integers(3, 14))):
        x, y = rng.integers(0, size, 2)
        w, h = rng.integers(size // 16, size // 4, 2)
        colour = tuple(float(c) for c in _muted(rng))
        if rng.uniform() < 0.65:
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), tuple(c * 0.6 for c in colour), 3)
        else:
            cv2.ellipse(
                image, (int(x), int(y)), (int(w // 2), int(h // 2)), float(rng.uniform(0, 180)), 0, 360, colour, -1
            )
    image = image * (1 + 0.08 * noise((size, size), 24, rng, 4)[..., None])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _muted(rng: np.random.Generator, bright: bool = False) -> np.ndarray:
    pixel = np.array(
        [[[rng.uniform(0, 360), rng.uniform(0.02, 0.45), rng.uniform(0.45 if bright else 0.25, 0.85)]]], np.float32
    )
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(float)
