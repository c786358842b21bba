"""A sheet of predictions beside the truth, for reports."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streampose.geometry.crop import resize_points
from streampose.runtime.draw import draw_skeletons
from streampose.structures import Keypoints, Skeleton


@dataclass(frozen=True)
class Shown:
    """One cell of `predictions_picture`.

    Attributes:
        frame: (S, S, 3) RGB crop.
        predicted: (K, 2) crop pixels; confidence: (K,).
        truth: (K, 2) crop pixels, NaN where unknown; or None.
        mask: (S, S); its outline is drawn where there is no truth.
        caption: a few words.
    """

    frame: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray | None
    mask: np.ndarray | None
    caption: str


def predictions_picture(rows: dict[str, list[Shown]], skeleton: Skeleton, *, tile: int = 192) -> np.ndarray:
    """A sheet of predictions, each with the truth (or the mask's outline) at its right.

    Args:
        rows: title -> the frames of that row, from left to right.
        tile: side of each picture in pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    title_height, caption_height = 28, 18
    width = max((len(cells) for cells in rows.values()), default=1) * (2 * tile + 8)
    sheets = []
    for title, cells in rows.items():
        sheet = np.full((title_height + tile + caption_height, width, 3), 255, np.uint8)
        cv2.putText(sheet, title, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (20, 20, 20), 1, cv2.LINE_AA)
        for number, cell in enumerate(cells):
            x = number * (2 * tile + 8)
            sheet[title_height : title_height + tile, x : x + 2 * tile] = _pair(cell, skeleton, tile)
            place = (x + 2, title_height + tile + 13)
            cv2.putText(sheet, cell.caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
        sheets.append(sheet)
    return np.concatenate(sheets) if sheets else np.full((tile, width, 3), 255, np.uint8)


def _pair(cell: Shown, skeleton: Skeleton, tile: int) -> np.ndarray:
    scale = tile / cell.frame.shape[0]
    image = cv2.resize(cell.frame, (tile, tile), interpolation=cv2.INTER_CUBIC)

    def drawn(xy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        points = resize_points(xy, scale)[None].astype(np.float32)
        return draw_skeletons(image, Keypoints(points, confidence[None].astype(np.float32)), skeleton, thickness=2)

    left = drawn(cell.predicted, np.maximum(cell.confidence, 0.6))
    if cell.truth is not None:
        right = drawn(cell.truth, np.ones(len(cell.truth)))
    else:
        right = image.copy()
        if cell.mask is not None:
            mask = cv2.resize(cell.mask, (tile, tile), interpolation=cv2.INTER_NEAREST)
            outline, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(right, outline, -1, (255, 235, 90), 1, cv2.LINE_AA)
    return np.concatenate([left, right], 1)
