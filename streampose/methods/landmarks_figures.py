"""Painted figures of unpaired poses, from which Phi learns first: tapered capsules with depth, light and clothes.

A figure knows of its subject what the skeleton file says: how thick its bones are. Everything else is drawn at random:
colours (mostly alike on both sides), where along a bone a garment ends, patterns, light, and how sharp the picture is.
Each pixel shows the capsule that is nearest to the camera there, so arms before a trunk are outlined by their shading
only, as they are in a picture of somebody in a plain shirt. All figures of a batch are painted at once, capsule by
capsule; what is kept for each pixel is the number of the nearest one.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

PLAIN = 0.5  # share of figures without a pattern


class Capsules(NamedTuple):
    """N tapered capsules of each of B figures, in pixels, as float32.

    Attributes:
        start, end: (B, N, 3) x, y, and depth forward.
        radius: (B, N, 2) at both ends.
        bone: (N,) whose colours each has.
    """

    start: np.ndarray
    end: np.ndarray
    radius: np.ndarray
    bone: np.ndarray


def paint_figures(
    capsules: Capsules, colours: np.ndarray, backgrounds: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Paint figures over pictures.

    Args:
        colours: (B, bones, 2, 3) of the garment and of what is beyond its hem, 0 to 255.
        backgrounds: (B, S, S, 3) uint8.

    Returns:
        New pictures (B, S, S, 3) uint8.
    """
    B, size = backgrounds.shape[:2]
    start, end, radius = (torch.from_numpy(np.asarray(part, np.float32)) for part in capsules[:3])
    along = end - start
    square = along[..., :2].square().sum(-1).clamp_min(1e-6)  # (B, N)
    which, edge = nearest_capsules(start, along, square, radius, size)
    rows, flat = torch.arange(B)[:, None], which.flatten(1)  # (B, P)
    x = torch.arange(size, dtype=torch.float32)
    s, a, q, r = start[rows, flat], along[rows, flat], square[rows, flat], radius[rows, flat]
    dx, dy = x.repeat(size) - s[..., 0], x.repeat_interleave(size) - s[..., 1]
    t = ((dx * a[..., 0] + dy * a[..., 1]) / q).clamp_(0, 1)
    r = torch.lerp(r[..., 0], r[..., 1], t)
    ox, oy = dx - t * a[..., 0], dy - t * a[..., 1]
    bulge = (r * r - ox * ox - oy * oy).clamp_min_(0).sqrt_()
    to_light = rng.normal(0, 1, (B, 3)) * (1, 0.6, 0.5) + (0, -0.5, 1.0)
    lx, ly, lz = torch.from_numpy((to_light / np.linalg.norm(to_light, axis=1, keepdims=True)).T[..., None]).float()
    light = ((ox * lx + oy * ly + bulge * lz) / r).clamp_(0, 1)
    bone = torch.from_numpy(capsules.bone)[flat]
    beyond = t > torch.from_numpy(_hems(B, colours.shape[1], rng))[rows, bone]
    colour = torch.from_numpy(np.asarray(colours, np.float32))[rows, bone, beyond.long()]  # (B, P, 3)
    across = (dx * a[..., 1] - dy * a[..., 0]) * q.rsqrt()
    pattern = _patterns(t * q.sqrt(), across, rng) * ~beyond
    second = torch.from_numpy(rng.uniform(0, 255, (B, 1, 3))).float()
    colour = torch.lerp(colour, second.expand_as(colour), pattern[..., None])
    ambient, gain, grain = (_each(rng, *limits, B) for limits in ((0.3, 0.8), (0.5, 1.1), (0.0, 0.06)))
    noise = torch.from_numpy(rng.standard_normal((B, size * size), np.float32))
    brightness = (ambient + (1.15 - ambient) * light) * gain * (1 + grain * noise)
    solid = (edge + 0.5).clamp_(0, 1)[..., None]  # (B, S, S, 1)
    figures = (colour * brightness[..., None]).unflatten(1, (size, size))
    painted = torch.lerp(torch.from_numpy(backgrounds).float(), figures, solid).clamp_(0, 255).byte().numpy()
    return np.stack([cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8)) for image in painted])


def nearest_capsules(start: Tensor, along: Tensor, square: Tensor, radius: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which capsule each pixel shows, and about how many pixels it lies within the outline of all.

    Args:
        start, along: (B, N, 3) one end, and the way to the other.
        square: (B, N) squared length in the picture.
        radius: (B, N, 2) at both ends.

    Returns:
        (B, S, S) long and (B, S, S).
    """
    B, N = square.shape
    u = torch.arange(size, dtype=torch.float32)
    depth = torch.full((B, size, size), float("inf"))
    edge = torch.full((B, size, size), -1e3)
    which = torch.zeros((B, size, size), dtype=torch.uint8)
    for n in range(N):
        ax, ay, az = along[:, n].unbind(-1)
        dx, dy = u - start[:, n, :1], u - start[:, n, 1:2]  # (B, S)
        dot = (dx * ax[:, None])[:, None, :] + (dy * ay[:, None])[:, :, None]  # (B, S, S)
        q = square[:, n, None, None]
        t = (dot / q).clamp_(0, 1)
        # the squared distance is |d|^2 - t (2 d.a - t |a|^2)
        far = t.mul(q).sub_(dot, alpha=2).mul_(t).add_((dx * dx)[:, None, :]).add_((dy * dy)[:, :, None])
        r0, r1 = radius[:, n, :, None, None].unbind(1)
        r = torch.addcmul(r0, t, r1 - r0)
        height = torch.addcmul(-far, r, r)
        torch.maximum(edge, height / (2 * r), out=edge)  # close to r - d at the outline
        z = torch.addcmul(start[:, n, 2, None, None], t, az[:, None, None]).sub_(height.clamp_min(0).sqrt_())
        z.masked_fill_(height <= 0, float("inf"))
        which.masked_fill_(z < depth, n)
        torch.minimum(depth, z, out=depth)
    return which.long(), edge


def random_colours(bones: np.ndarray, flip: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours for each bone: often its parent bone's, and mostly that of the other side: (count, n, 2, 3).

    Args:
        bones: (n, 2) joints, parents before children.
        flip: (K,) each joint's counterpart on the other side.
    """
    n = len(bones)
    new = (rng.uniform(10, 245, (count, n, 2, 1)) + rng.normal(0, 45, (count, n, 2, 3))).clip(5, 250)
    bare = (rng.uniform(10, 245, (count, 1)) + rng.normal(0, 45, (count, 3))).clip(5, 250)
    new[:, :, 1] = np.where(rng.random((count, n, 1)) < 0.7, bare[:, None], new[:, :, 1])
    as_other, as_parent = rng.random((count, n)) < 0.9, rng.random((count, n)) < 0.65
    place = {int(child): number for number, (_, child) in enumerate(bones)}
    colours = new
    for number, (parent, child) in enumerate(bones):
        other, above = place.get(int(flip[child]), number), place.get(int(parent), number)
        if above < number:
            colours[as_parent[:, number], number] = colours[as_parent[:, number], above]
        if other < number:
            colours[as_other[:, number], number] = colours[as_other[:, number], other]
    return colours


def _hems(figures: int, bones: int, rng: np.random.Generator) -> np.ndarray:
    """Where along each bone its second colour begins; 1 for never: (figures, bones) float32."""
    hems = np.where(rng.random((figures, bones)) < 0.35, rng.uniform(-0.3, 1, (figures, bones)), 1.0)
    return hems.astype(np.float32)


def _patterns(along: Tensor, across: Tensor, rng: np.random.Generator) -> Tensor:
    """How much of another colour each pixel has, in [0, 1]: none, stripes one way or the other, checks: (B, P)."""
    B = len(along)
    step, bias = _each(rng, 2, 8, B), _each(rng, -0.3, 0.5, B)
    one, other = (torch.cos(values * (2 * np.pi / step)) > bias for values in (along, across))
    kind = torch.from_numpy(rng.integers(0, 4, (B, 1)))
    drawn = torch.where(kind < 2, one, torch.where(kind == 2, other, one ^ other))
    return drawn * _each(rng, 0.2, 1.0, B) * torch.from_numpy(rng.random((B, 1)) > PLAIN)


def _each(rng: np.random.Generator, low: float, high: float, count: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, (count, 1))).float()
