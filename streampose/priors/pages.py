"""What `prior inspect` leaves: a page of numbers and pictures, and one in which 3D poses turn and move."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from streampose.files import write_text
from streampose.priors.draw import pose_sheet, turning_sheet
from streampose.report import Picture, Section, Table, write_picture, write_report
from streampose.store.priors import Prior
from streampose.structures import Skeleton

FLAT, TURNED = 60, 12  # poses on the sheets
TAKES, FRAMES, RATE = 16, 120, 12.0  # of the turning page: takes, poses of each, poses a second


def write_prior_page(
    out: Path, prior: Prior, skeleton: Skeleton, statistics: dict[str, Any], seed: int = 0
) -> dict[str, str | None]:
    """Write prior.html, prior.png and, of 3D poses, turning.html; returns their paths as page, sheet and turning."""
    if prior.joints != skeleton.joints:
        skeleton = points_alone(prior.joints)
    rng = np.random.default_rng(seed)
    three = prior.dimensions == 3
    chosen = prior.poses[spread_out(prior, TURNED if three else FLAT, rng)]
    sheet = turning_sheet(chosen, skeleton) if three else pose_sheet(chosen, skeleton)
    picture = write_picture(out / "prior.png", sheet)
    caption = "Each row one pose, turned; left is blue, right orange." if three else "Left is blue, right orange."
    known, moves = statistics["known"], statistics["moves"]
    unit = "m" if three else "of the box"
    joints = Table(
        ["joint", "known", f"moves ({unit})"], [[j, known[j], moves.get(j, float("nan"))] for j in prior.joints]
    )
    bones = Table(["bone", f"length ({unit})", "sd"], [[n, b["mean"], b["sd"]] for n, b in statistics["bones"].items()])
    names, counts = np.unique(prior.groups, return_counts=True)
    listed: list[list[str | int | float]] = [
        [str(name), int(n)] for name, n in zip(names[:50], counts[:50], strict=True)
    ]
    text = (
        f"{prior.source}. {statistics['poses']} poses of {statistics['takes']} takes in {statistics['groups']} groups"
    )
    if statistics["seconds"]:
        text += f", {statistics['seconds']:.0f} s of motion"
    turning = _write_turning(out / "turning.html", prior, skeleton, rng) if three else None
    if turning:
        text += ". In turning.html they move, and turn as you drag them"
    sections = [
        Section("Poses", [text + "."], pictures=[Picture(picture, caption)]),
        Section("Joints", tables=[joints]),
        Section("Bones", tables=[bones] if bones.rows else []),
        Section("Groups", ["A split never divides a group."], [Table(["group", "poses"], listed)]),
    ]
    page = write_report(out / "prior.html", f"Prior {prior.name}", sections)
    return {"page": str(page), "sheet": str(picture), "turning": None if turning is None else str(turning)}


def spread_out(prior: Prior, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of some poses that differ: the farthest from those before, among many drawn from all groups alike."""
    _, group, sizes = np.unique(prior.groups, return_inverse=True, return_counts=True)
    odds = 1.0 / sizes[group] / len(sizes)
    pool = rng.choice(len(prior), min(len(prior), 40 * count), replace=False, p=odds / odds.sum())
    points = np.nan_to_num(prior.poses[pool] - np.nanmean(prior.poses[pool], 1, keepdims=True))
    points = points.reshape(len(pool), -1)
    half = max(1, count // 2)  # half of them at random, so that the usual is seen beside the extreme
    chosen = list(range(min(half, len(pool))))
    nearest = np.min([np.linalg.norm(points - points[n], axis=1) for n in chosen], axis=0)
    while len(chosen) < min(count, len(pool)):
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return pool[chosen]


def points_alone(joints: tuple[str, ...]) -> Skeleton:
    """A skeleton for joints of which no bones are known: all hang from the first, by bones that are not drawn."""
    return replace(_NO_BONES, joints=joints)


def _write_turning(path: Path, prior: Prior, skeleton: Skeleton, rng: np.random.Generator) -> Path:
    takes = np.unique(prior.takes)
    if len(takes) > TAKES:
        takes = np.sort(rng.choice(takes, TAKES, replace=False))
    shown = []
    for take in takes.tolist():
        index = np.flatnonzero(prior.takes == take)
        times = prior.seconds[index]
        if np.isfinite(times).all():
            index = index[np.unique(np.floor((times - times[0]) * RATE + 1e-6), return_index=True)[1]]
        start = int(rng.integers(0, max(len(index) - FRAMES, 0) + 1))
        poses = prior.poses[index[start : start + FRAMES]]
        rounded = np.round(np.nan_to_num(poses, nan=1e6) * 1000).astype(int).tolist()
        shown.append({"name": take, "poses": rounded})
    left, right = ({pair[side] for pair in skeleton.flip_pairs} for side in (0, 1))
    bones = [[b.parent, b.child, 1 if b.child in left else 2 if b.child in right else 0] for b in skeleton.bones]
    content = json.dumps({"name": prior.name, "bones": bones, "takes": shown}).replace("</", "<\\/")
    template = (Path(__file__).parent / "turning.html").read_text(encoding="utf-8")
    write_text(path, template.replace("{{ content }}", content))
    return path


class _Points(Skeleton):
    """A skeleton without a tree, which nothing but drawing takes."""

    def __post_init__(self) -> None:
        pass


_NO_BONES = _Points("points", (), 0, (), (), (0, 0))
