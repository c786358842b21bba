"""Small plots as inline SVG; colours are CSS variables of the page, so that they follow its light or dark scheme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH = 960.0
LANE, GAP, AXIS = 16.0, 5.0, 18.0
COLOURS = 8  # --c0 .. --c7


def colour(number: int) -> str:
    """The CSS colour of the clip of this number."""
    return f"var(--c{number % COLOURS})"


def timeline(
    lanes: Sequence[tuple[str, np.ndarray, np.ndarray, int]], lost: Sequence[Sequence[float]], end_seconds: float
) -> str:
    """When each clip of a source was seen, and how good its frames are: paler is worse.

    Args:
        lanes: (name, seconds (T,), quality (T,), colour number) of each clip.
        lost: (start, end) seconds that could not be read.
        end_seconds: of the source.
    """
    top = GAP + (LANE if lost else 0)
    height = top + len(lanes) * (LANE + GAP) + AXIS
    scale = WIDTH / max(end_seconds, 1e-6)
    parts = []
    for start, end in lost:
        width = max((end - start) * scale, 2.0)
        parts.append(
            f'<rect class="lost" x="{start * scale:.1f}" y="0" width="{width:.1f}" height="{height - AXIS:.1f}">'
            f"<title>lost: {start:.2f} to {end:.2f} s</title></rect>"
        )
    for row, (name, seconds, quality, number) in enumerate(lanes):
        y = top + row * (LANE + GAP)
        steps = np.diff(seconds)
        usual = float(np.median(steps)) if len(steps) else 0.04
        edges = np.flatnonzero(np.r_[True, steps > 3 * usual])
        groups = [group for part in np.split(np.arange(len(seconds)), edges[1:]) for group in _some(part)]
        parts.append(f"<g><title>{escape(name)}</title>")
        for group in groups:
            x = seconds[group[0]] * scale
            width = max((seconds[group[-1]] - seconds[group[0]] + usual) * scale, 1.0)
            strength = 0.25 + 0.75 * float(quality[group].mean())
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width + 0.3:.1f}" height="{LANE}" '
                f'fill="{colour(number)}" fill-opacity="{strength:.2f}"/>'
            )
        parts.append("</g>")
    return _svg(height, "".join(parts) + _axis(end_seconds, scale, height), "timeline")


def paths(size: tuple[int, int], lanes: Sequence[tuple[str, np.ndarray, np.ndarray, int]]) -> str:
    """Where in the picture each clip's subject was.

    Args:
        size: (width, height) of the source.
        lanes: (name, centres (T, 2), sides (T,), colour number).
    """
    width, height = size
    parts = [f'<rect class="picture" width="{width}" height="{height}" rx="{0.01 * width:.1f}"/>']
    stroke = 0.008 * max(size)
    for name, centres, sides, number in lanes:
        step = max(1, len(centres) // 200)
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y in centres[::step])
        (x, y), (x0, y0), side = centres[-1].tolist(), centres[0].tolist(), float(sides[-1])
        parts.append(
            f'<g stroke="{colour(number)}" fill="none"><title>{escape(name)}</title>'
            f'<polyline points="{points}" stroke-width="{stroke:.1f}" stroke-linejoin="round" stroke-opacity=".8"/>'
            f'<rect x="{x - side / 2:.0f}" y="{y - side / 2:.0f}" width="{side:.0f}" height="{side:.0f}" '
            f'stroke-width="{0.5 * stroke:.1f}" stroke-dasharray="{2 * stroke:.0f}"/>'
            f'<circle cx="{x0:.0f}" cy="{y0:.0f}" r="{1.6 * stroke:.1f}" fill="{colour(number)}"/>'
            "</g>"
        )
    return f'<svg class="paths" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def curves(
    seconds: tuple[float, float], lines: Sequence[tuple[str, np.ndarray, np.ndarray]], height: float = 54
) -> str:
    """Values in [0, 1] over a clip's time.

    Args:
        seconds: (start, end) of the clip.
        lines: (CSS class, seconds (N,), values (N,)); NaN breaks a line.
    """
    start, end = seconds
    scale = WIDTH / max(end - start, 1e-6)
    parts = [
        f'<line class="grid" x1="0" x2="{WIDTH:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in (1, height / 2, height - 1)
    ]
    for name, at, values in lines:
        step = max(1, len(at) // 480)
        at, values = at[::step], values[::step]
        known = np.isfinite(values)
        for part in np.split(np.arange(len(at)), np.flatnonzero(~known)):
            part = part[known[part]]
            points = " ".join(
                f"{(at[n] - start) * scale:.1f},{1 + (height - 2) * (1 - min(values[n], 1.0)):.1f}" for n in part
            )
            if len(part) > 1:
                parts.append(f'<polyline class="{name}" points="{points}"/>')
    return _svg(height, "".join(parts), "curves")


def scatter(seconds: np.ndarray, motion: np.ndarray, columns: int = 30, rows: int = 12) -> str:
    """How many pairs there are of each time apart (0 to the 98th percentile) and each motion: darker is more."""
    if not len(seconds):
        return ""
    end = max(float(np.percentile(seconds, 98)), 0.5)
    counts, _, _ = np.histogram2d(np.minimum(seconds, end), motion, (columns, rows), ((0, end), (0, 1)))
    share = np.sqrt(counts / counts.max())
    w, h = WIDTH / columns, 14.0
    cells = "".join(
        f'<rect x="{c * w:.1f}" y="{(rows - 1 - r) * h:.1f}" width="{w - 1:.1f}" height="{h - 1:.1f}" rx="2" '
        f'fill="var(--c0)" fill-opacity="{share[c, r]:.2f}"><title>{int(counts[c, r])} pairs</title></rect>'
        for c in range(columns)
        for r in range(rows)
        if counts[c, r]
    )
    height = rows * h + AXIS
    return _svg(height, cells + _axis(end, WIDTH / end, height), "pairs")


def bar(shares: Sequence[tuple[str, float]]) -> str:
    """One bar of parts, (name, amount) each."""
    total = sum(amount for _, amount in shares) or 1.0
    x, parts = 0.0, []
    for number, (name, amount) in enumerate(shares):
        width = WIDTH * amount / total
        parts.append(
            f'<rect x="{x:.1f}" width="{max(width - 1, 0):.1f}" height="26" rx="3" fill="{colour(number)}">'
            f"<title>{escape(name)}</title></rect>"
        )
        x += width
    return _svg(26, "".join(parts), "bar")


def _some(group: np.ndarray, most: int = 60) -> list[np.ndarray]:
    """Parts of about equal length, so that a long clip does not make a rectangle a frame."""
    return [part for part in np.array_split(group, min(most, len(group))) if len(part)]


def _axis(end: float, scale: float, height: float) -> str:
    step = next((s for s in (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 18000) if end / s <= 12), 36000)
    marks = []
    for n in range(int(end / step + 1e-6) + 1):
        x = n * step * scale
        anchor = "start" if n == 0 else "end" if x > WIDTH - 20 else "middle"
        label = f"{n * step / 60:g} min" if step >= 60 else f"{n * step:g} s"
        marks.append(f'<text x="{x:.1f}" y="{height - 4:.1f}" text-anchor="{anchor}">{label}</text>')
    return f'<line class="grid" x2="{WIDTH:.0f}" y1="{height - AXIS + 1:.1f}" y2="{height - AXIS + 1:.1f}"/>' + "".join(
        marks
    )


def _svg(height: float, content: str, kind: str) -> str:
    stretch = ' preserveAspectRatio="none"' if kind == "curves" else ""
    return f'<svg class="{kind}" viewBox="0 0 {WIDTH:.0f} {height:.0f}"{stretch} role="img">{content}</svg>'
