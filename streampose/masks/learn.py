"""Learn the empty scene of a shot from a few pictures of it, also behind somebody who hardly leaves his place.

Where a pixel shows one colour most of the time, that is the scene. Elsewhere the scene is first put together from the
median over time of the pictures' gradients: outlines of people move, so no outline survives the median, although the
median colour may be that of a shirt. Each pixel then takes, of the colours that it really showed for a while, the one
that fits. Source of the gradient step: Weiss, Deriving intrinsic images from image sequences, ICCV 2001.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from streampose.masks.background import Background, model_size

ALIKE = 14.0  # grey levels, in every channel: one colour seen twice
SURE_SHARE, UNSURE_SHARE = 0.8, 0.7  # of the pictures that show the same colour
FITS = 60.0  # grey levels: a colour further from the reconstruction was never the scene's
MOST_PICTURES = 32
PIXELS_AT_ONCE = 8192  # bounds what the medians need


def learn_background(samples: Sequence[np.ndarray]) -> Background:
    """The empty scene behind whoever moves in pictures of one static shot.

    Args:
        samples: N pictures (h, w, 3) uint8 RGB, spread over the shot's time.

    Returns:
        The scene at the samples' size.
    """
    samples = samples[:: max(1, -(-len(samples) // MOST_PICTURES))]
    full = (samples[0].shape[1], samples[0].shape[0])
    w, h = model_size(*full)
    small = np.stack([cv2.resize(sample, (w, h), interpolation=cv2.INTER_AREA) for sample in samples]).astype(np.int16)
    scene = _empty_scene(small)
    deviation = np.stack([_length((one - scene).astype(np.float32)) for one in small])

    shows = deviation < 1.5 * ALIKE
    total = np.zeros((full[1], full[0], 3), np.float32)
    weight = np.zeros((full[1], full[0]), np.float32)
    for sample, shown in zip(samples, shows, strict=True):
        visible = cv2.resize(shown.astype(np.float32), full, interpolation=cv2.INTER_LINEAR)
        total += sample * visible[..., None]
        weight += visible
    enlarged = cv2.resize(scene.astype(np.float32), full, interpolation=cv2.INTER_LINEAR)
    image = np.where(weight[..., None] > 0.5, total / np.maximum(weight, 0.5)[..., None], enlarged)
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    noise = _noise(deviation)
    return Background(image, np.asarray(cv2.resize(noise, full, interpolation=cv2.INTER_LINEAR)))


def _noise(deviation: np.ndarray) -> np.ndarray:
    """How much each pixel varies by itself: (N, h, w) distances from the scene -> (h, w) float32 grey levels."""
    # the lower quartile, because a pixel may be covered most of the time; 2.1 makes it a median of normal noise
    noise = np.minimum(2.1 * np.percentile(deviation, 25, axis=0), 8.0).astype(np.float32)
    around = cv2.medianBlur((noise * 16).astype(np.uint8), 31 if min(noise.shape) > 62 else 15) / np.float32(16)
    noise = np.minimum(noise, 1.5 * around + 0.5)  # what stands out of its surroundings is somebody, not noise
    return cv2.blur(noise, (3, 3)).astype(np.float32)


def _empty_scene(pictures: np.ndarray) -> np.ndarray:
    """(N, h, w, 3) int16 -> (h, w, 3) int16."""
    N, h, w, _ = pictures.shape
    pixels = pictures.reshape(N, h * w, 3)
    scene, share = np.empty((h * w, 3), np.int16), np.empty(h * w)
    for start in range(0, h * w, PIXELS_AT_ONCE):
        some = np.s_[start : start + PIXELS_AT_ONCE]
        scene[some] = np.median(pixels[:, some], 0)
        share[some] = (_worst(pixels[:, some] - scene[some]) < ALIKE).mean(0)
    unsure = np.flatnonzero(share < SURE_SHARE)
    if N < 4 or not len(unsure):
        return scene.reshape(h, w, 3)
    colours, shares = [], []
    allowed = np.ones((N, len(unsure)), bool)
    for _ in range(3):  # the three colours that each unsure pixel shows most
        colour, members = _commonest(pixels[:, unsure], allowed)
        colours.append(colour)
        shares.append(members.mean(0))
        allowed &= ~members
    scene[unsure], share[unsure] = colours[0], shares[0]

    half = (max(w // 2, 1), max(h // 2, 1))
    smooth = cv2.resize(share.reshape(h, w).astype(np.float32), half, interpolation=cv2.INTER_AREA)
    hidden = cv2.dilate((smooth < UNSURE_SHARE).astype(np.uint8), np.ones((5, 5), np.uint8))
    if not hidden.any() or hidden.mean() > 0.8:
        return scene.reshape(h, w, 3)
    halves = np.stack([cv2.resize(p.astype(np.float32), half, interpolation=cv2.INTER_AREA) for p in pictures])
    known = cv2.resize(scene.reshape(h, w, 3).astype(np.float32), half, interpolation=cv2.INTER_AREA)
    filled = _integrate(known, hidden > 0, np.median(np.diff(halves, axis=2), 0), np.median(np.diff(halves, axis=1), 0))
    filled = cv2.resize(filled, (w, h), interpolation=cv2.INTER_LINEAR).reshape(-1, 3)

    rows = np.flatnonzero(cv2.resize(hidden, (w, h), interpolation=cv2.INTER_NEAREST).ravel()[unsure])
    candidates, how_often = np.stack(colours)[:, rows], np.stack(shares)[:, rows]  # (3, R, 3), (3, R)
    target = filled[unsure[rows]]
    distance = _worst(candidates - target)
    cost = distance + 10 * np.log(how_often[0] / np.maximum(how_often, 1e-3))
    cost[how_often < max(2 / N, 0.06)] = np.inf
    best = cost.argmin(0)[None]
    fits = np.take_along_axis(distance, best, 0)[0] < FITS
    taken = np.take_along_axis(candidates, best[..., None], 0)[0]
    scene[unsure[rows]] = np.where(fits[:, None], taken, np.clip(target, 0, 255)).astype(np.int16)
    return scene.reshape(h, w, 3)


def _commonest(pixels: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colour that each pixel shows most often: (N, P, 3), (N, P) bool -> (P, 3) int16, members (N, P) bool."""
    N, P, _ = pixels.shape
    most, which = np.full(P, -1, np.int16), np.zeros(P, np.int64)
    for n in range(N):
        alike = _worst(pixels - pixels[n]) < 0.7 * ALIKE
        count = (alike & allowed).sum(0).astype(np.int16)
        count[~allowed[n]] = -1
        which[count > most] = n
        most = np.maximum(most, count)
    colour = pixels[which, np.arange(P)]
    members = (_worst(pixels - colour) < ALIKE) & allowed
    number = members.sum(0)
    mean = (pixels * members[..., None]).sum(0) / np.maximum(number, 1)[:, None]
    return np.where(number[:, None] > 0, mean, colour).astype(np.int16), members


def _length(difference: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32 -> (h, w) float32."""
    return np.asarray(cv2.sqrt(cv2.transform(cv2.multiply(difference, difference), np.ones((1, 3), np.float32))))


def _worst(difference: np.ndarray) -> np.ndarray:
    """Of the channel that differs most: (..., 3) -> (...); ten times as fast as numpy's max over a last axis of 3."""
    size = np.abs(difference)
    return np.maximum(np.maximum(size[..., 0], size[..., 1]), size[..., 2])


def _integrate(known: np.ndarray, hidden: np.ndarray, gx: np.ndarray, gy: np.ndarray) -> np.ndarray:
    """Fill the hidden pixels so that they join on to the known ones with these gradients (Poisson's equation).

    Args:
        known: (h, w, 3) float32.
        hidden: (h, w) bool.
        gx, gy: (h, w - 1, 3) and (h - 1, w, 3), differences to the right and downwards.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    h, w = hidden.shape
    ys, xs = np.nonzero(hidden)
    number = np.full((h, w), -1)
    number[ys, xs] = np.arange(len(ys))
    degree, right_side = np.full(len(ys), 1e-6), np.zeros((len(ys), 3))
    entries = []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        p = np.flatnonzero((ys + dy >= 0) & (ys + dy < h) & (xs + dx >= 0) & (xs + dx < w))
        y, x, y2, x2 = ys[p], xs[p], ys[p] + dy, xs[p] + dx
        step = gx[y, np.minimum(x, x2)] if dx else gy[np.minimum(y, y2), x]  # value at the later pixel - at the earlier
        degree[p] += 1
        right_side[p] -= step * (dx + dy)
        q = number[y2, x2]
        entries.append((p[q >= 0], q[q >= 0], -np.ones((q >= 0).sum())))
        right_side[p[q < 0]] += known[y2, x2][q < 0]
    everyone = np.arange(len(ys))
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, (everyone, everyone, degree), strict=True))
    solver = splu(coo_matrix((values, (rows, columns))).tocsc())
    filled = known.copy()
    filled[ys, xs] = np.stack([solver.solve(right_side[:, c]) for c in range(3)], 1)
    return filled
