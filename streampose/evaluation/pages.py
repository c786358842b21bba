"""What `evaluate` leaves for people: a page with the worst cases first, pictures, and the numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streampose.geometry.crop import crop_from_source
from streampose.report import Picture, Section, Table, write_picture, write_report
from streampose.runtime.sheet import Shown, predictions_picture
from streampose.structures import Skeleton

COUNT = 4  # pictures in a row
WORST_ROWS = 3
LISTED = 12  # worst recordings in the table
Fetch = Callable[[int], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Cases:
    """N predictions that may be shown.

    Attributes:
        xy, confidence, boxes: (N, K, 2), (N, K), (N, 4) of the model's K joints, source pixels.
        truth: (N, K, 2) with NaN where unknown, or None to show the mask's outline instead.
        badness: (N,) the larger the worse; NaN is never shown.
        captions: N, a few words each.
        fetch: the N-th crop (S, S, 3) and its mask.
    """

    xy: np.ndarray
    confidence: np.ndarray
    boxes: np.ndarray
    truth: np.ndarray | None
    badness: np.ndarray
    captions: list[str]
    fetch: Fetch


def choose(badness: np.ndarray, groups: np.ndarray) -> dict[str, list[int]]:
    """Which frames to show: the worst (of different recordings first), middling and best, a few each."""
    order = [int(i) for i in np.argsort(badness) if np.isfinite(badness[i])]
    if not order:
        return {}
    middle, step = len(order) // 2, max(1, len(order) // 40)  # a step, or a row would show one moment four times
    worst: list[int] = []
    for limit in (1, 3, len(order)):  # a recording comes again only when the others have been shown
        for i in reversed(order[len(order) - 40 * step :]):
            if len(worst) == WORST_ROWS * COUNT:
                break
            alike = [j for j in worst if groups[j] == groups[i]]
            if len(alike) < limit and all(abs(j - i) >= step for j in alike):
                worst.append(i)
    worst.sort(key=lambda i: -badness[i])
    rows = {
        f"worst {start + 1} to {min(start + COUNT, len(worst))}": worst[start : start + COUNT]
        for start in range(0, len(worst), COUNT)
    }
    rows["median"] = order[max(0, middle - COUNT * step // 2) :: step][:COUNT]
    rows["best"] = order[: COUNT * step : step]
    return rows


def write_pages(
    out: Path,
    result: dict[str, Any],
    skeleton: Skeleton,
    cases: Cases | None,
    groups: np.ndarray,
    worst_groups: list[tuple[str, float, int]],
    measure: str,
    notes: list[str],
) -> None:
    """report.html, predictions.png and metrics.json.

    Args:
        result: what `evaluate` returns.
        groups: (N,) recording of each of the cases.
        worst_groups: recordings with the mean of `measure` and their number of frames, worst first.
        notes: what was measured, for the top of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    if cases is not None and (rows := choose(cases.badness, groups)):
        cells = {name: [_shown(cases, number) for number in numbers] for name, numbers in rows.items()}
        image = predictions_picture(cells, skeleton)
        write_picture(out / "predictions.png", image)
        beside = "the outline of the mask" if cases.truth is None else "the truth"
        pictures.append(Picture(image, f"Predictions, each with {beside} at its right; the worst first."))
    metrics, per_joint, intervals = result["metrics"], result["per_joint"], result["intervals"]
    names = list(per_joint)
    joints = [name for name in skeleton.joints if any(name in values for values in per_joint.values())]
    main = [[name, value, *_interval(intervals.get(name))] for name, value in metrics.items()]
    by_joint: list[list[str | int | float]] = [
        [joint, *(per_joint[name].get(joint, float("nan")) for name in names)] for joint in joints
    ]
    sections = [Section("Metrics", notes, [Table(["metric", "mean", "95 % from", "to"], main)])]
    if pictures or worst_groups:
        listed: list[list[str | int | float]] = [[name, value, count] for name, value, count in worst_groups[:LISTED]]
        tables = [Table(["recording", measure, "frames"], listed)] if len(worst_groups) > 1 else []
        sections.append(Section("Worst cases", tables=tables, pictures=pictures))
    if per_activity := result["per_activity"]:
        activities = sorted({name for values in per_activity.values() for name in values})
        columns = list(per_activity)
        rows_: list[list[str | int | float]] = [
            [name, *(per_activity[column].get(name, float("nan")) for column in columns)] for name in activities
        ]
        sections.append(Section("By activity", tables=[Table(["activity", *columns], rows_)]))
    sections.append(Section("By joint", tables=[Table(["joint", *names], by_joint)]))
    write_report(out / "report.html", "Evaluation", sections)
    (out / "metrics.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


def _interval(interval: list[float] | None) -> list[str | float]:
    return ["", ""] if interval is None else [interval[0], interval[1]]


def _shown(cases: Cases, number: int) -> Shown:
    crop, mask = cases.fetch(number)
    box, size = cases.boxes[number], crop.shape[1]
    truth = None if cases.truth is None else crop_from_source(cases.truth[number], box, size)
    xy = crop_from_source(cases.xy[number], box, size)
    return Shown(crop, xy, cases.confidence[number], truth, mask, cases.captions[number])
