"""The page about a session in space: how well the views agree, how sure the joints are, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampose.formats.points import Points, iter_points
from streampose.geometry.refine import camera_centre
from streampose.report import Picture, Section, Table, write_report
from streampose.runtime.draw import joint_colors
from streampose.structures import Camera, Skeleton
from streampose.tracking.space import InSpace

SCENES = 5  # moments in the picture of space


class Spread:
    """Quantiles of many positive numbers in little memory: counts in logarithmic bins, right to 2 %."""

    def __init__(self, low: float = 1e-5, high: float = 1e5, bins: int = 1200):
        self._edges = np.geomspace(low, high, bins)
        self.counts = np.zeros(bins + 1, int)

    def add(self, values: np.ndarray) -> None:
        """Values that are not finite do not count."""
        values = values[np.isfinite(values)]
        self.counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self.counts))

    def quantile(self, share: float) -> float | None:
        """None where nothing was added."""
        total = self.counts.sum()
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return float(self._edges[min(place, len(self._edges) - 1)])


class Tally:
    """Collects errors and uncertainties of a session as its windows come."""

    def __init__(self, views: Sequence[str], skeleton: Skeleton):
        self.views, self.skeleton = list(views), skeleton
        self.error = [Spread() for _ in views]
        self.all_errors = Spread()
        self.joint_error = [Spread() for _ in skeleton.joints]
        self.uncertainty = [Spread() for _ in skeleton.joints]
        self.all_uncertainty = Spread()
        self.seen, self.rejected, self.exchanged = (np.zeros(len(views), int) for _ in range(3))

    def add(self, person: InSpace) -> None:
        """One person's window."""
        known = np.isfinite(person.error_px)
        self.seen += known.sum((1, 2))
        self.rejected += (known & ~person.inliers).sum((1, 2))
        self.exchanged += (known & person.exchanged).sum((1, 2))
        for v, spread in enumerate(self.error):
            spread.add(person.error_px[v])
        self.all_errors.add(person.error_px)
        for k in range(self.skeleton.num_joints):
            self.joint_error[k].add(person.error_px[..., k])
            self.uncertainty[k].add(person.uncertainty[:, k])
        self.all_uncertainty.add(person.uncertainty)

    def summary(self) -> dict[str, Any]:
        """{"error_px", "uncertainty_mm", "exchanged", "views": {name: {"error_px", "rejected", "exchanged"}}}; errors
        are medians over all that the views saw, outliers included; None where nothing was seen."""
        share = 1 / np.maximum(self.seen, 1)
        sure = self.all_uncertainty.quantile(0.5)
        return {
            "error_px": _round(self.all_errors.quantile(0.5)),
            "uncertainty_mm": _round(None if sure is None else 1000 * sure),
            "exchanged": round(float(self.exchanged.sum() / max(self.seen.sum(), 1)), 4),
            "views": {
                name: {
                    "error_px": _round(self.error[v].quantile(0.5)),
                    "rejected": round(float(self.rejected[v] * share[v]), 4),
                    "exchanged": round(float(self.exchanged[v] * share[v]), 4),
                }
                for v, name in enumerate(self.views)
            },
        }


def write_session_report(
    path: Path,
    name: str,
    entry: Mapping[str, Any],
    tally: Tally,
    points: Path,
    skeleton: Skeleton,
    cameras: Mapping[str, Camera],
    pictures: Sequence[np.ndarray],
) -> Path:
    """Write the page.

    Args:
        entry: the session's entry in the verb's result.
        points: the table of points.
        pictures: frames of the overlay.
    """
    share = 1 / np.maximum(tally.seen, 1)
    views: list[list[str | int | float]] = [
        [
            view,
            _cell(tally.error[v].quantile(0.5)),
            _cell(tally.error[v].quantile(0.95)),
            f"{tally.rejected[v] * share[v]:.1%}",
            f"{tally.exchanged[v] * share[v]:.1%}",
        ]
        for v, view in enumerate(tally.views)
    ]
    joints: list[list[str | int | float]] = [
        [
            joint,
            _cell(tally.joint_error[k].quantile(0.5)),
            *(_cell(tally.uncertainty[k].quantile(q), 1000) for q in (0.5, 0.95)),
        ]
        for k, joint in enumerate(skeleton.joints)
    ]
    sections = [
        Section(
            "Agreement of the views",
            [
                f"{entry['people']} people in {entry['frames']} moments. A view's error is the distance in pixels "
                "between the joint that it saw and the re-projected joint of all views; rejected joints were left "
                "out when the joint was placed; exchanged ones had left and right confused in that view."
            ],
            [Table(["view", "median error, px", "95 %, px", "rejected", "exchanged"], views)],
        ),
        Section(
            "Joints",
            [
                "The uncertainty is one standard deviation of the joint's place, from how the views' rays cross and "
                "how far they miss each other. What all views get wrong alike does not show in it."
            ],
            [Table(["joint", "median error, px", "uncertainty, mm", "95 %, mm"], joints)],
        ),
    ]
    if entry["people"]:
        sections.append(
            Section("In space", pictures=[Picture(draw_space(points, skeleton, cameras), "People and cameras; metres")])
        )
    if pictures:
        shown = [Picture(picture, "All joints re-projected into every view") for picture in pictures]
        sections.append(Section("In the views", pictures=shown))
    return write_report(path, f"Session {name} in space", sections)


def draw_space(points: Path, skeleton: Skeleton, cameras: Mapping[str, Camera]) -> np.ndarray:
    """(H, W, 3) picture of people at a few moments, and of where the cameras are and look."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=110)
    colors = np.array(joint_colors(skeleton)) / 255 * 0.8
    scene = _scene(points)
    centres = np.stack([camera_centre(camera) for camera in cameras.values()])
    up = -np.mean([camera.R[1] for camera in cameras.values()], 0)
    axis = int(np.abs(up).argmax())
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]  # drawn with the upward axis up
    known = scene.xyz[np.isfinite(scene.xyz).all(-1)]
    for number in (1, 2):
        axes = figure.add_subplot(1, 2, number, projection="3d")
        for row in range(len(scene)):
            pose = scene.xyz[row][:, order]
            for bone in skeleton.bones:
                ends = pose[[bone.parent, bone.child]]
                if np.isfinite(ends).all():
                    axes.plot(*ends.T, color=colors[bone.child], linewidth=1.8)
        around = known
        if number == 1:
            around = np.concatenate([known, centres])
            for name, camera in cameras.items():
                centre = camera_centre(camera)
                far = 0.3 * np.linalg.norm(centres - known.mean(0), axis=-1).mean()
                axes.plot(*np.stack([centre, centre + far * camera.R[2]])[:, order].T, color="0.4")
                axes.scatter(*centre[order], color="0.2", s=12)
                axes.text(*centre[order], name, fontsize=8)
        low, high = around[:, order].min(0), around[:, order].max(0)
        middle, half = (low + high) / 2, (high - low).max() / 2 + 0.05
        axes.set(**{f"{a}lim": (middle[n] - half, middle[n] + half) for n, a in enumerate("xyz")})
        if up[axis] < 0:
            axes.invert_zaxis()
            axes.invert_xaxis()
        axes.set(**{f"{a}label": "xyz"[order[n]] for n, a in enumerate("xyz")})
        axes.set_box_aspect((1, 1, 1))
        axes.view_init(18, -60)
    figure.tight_layout()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _scene(points: Path) -> Points:
    """The people at a few moments, spread over the session."""
    total = sum(len(part) for part in iter_points(points))
    wanted = set(np.linspace(0, total - 1, SCENES + 2).round().astype(int)[1:-1].tolist()) if total > 2 else {0}
    parts, at = [], 0
    for part in iter_points(points):
        rows = [row - at for row in wanted if at <= row < at + len(part)]
        frames = part.frame_index[rows]
        parts.append(part.pick(np.isin(part.frame_index, frames)))
        at += len(part)
    names = Points.__dataclass_fields__
    return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _cell(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.2f}"


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
