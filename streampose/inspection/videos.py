"""Pictures of the videos themselves, with the boxes of their clips: frames fetched by number, out of order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import VideoError
from streampose.inspection.plots import COLOURS
from streampose.store.reader import StoreReader
from streampose.video.decode import open_video

PICTURES = 6  # a source
SIDE = 320  # pixels of their longer side
PALETTE = [
    (110, 160, 255), (255, 166, 92), (94, 211, 154), (224, 134, 208), (79, 208, 230), (232, 204, 85), (169, 146, 245),
    (240, 140, 125),
]  # fmt: skip
assert len(PALETTE) == COLOURS


def boxes_in_video(
    reader: StoreReader, source: dict[str, Any], numbers: dict[str, int], decoder: str
) -> np.ndarray | None:
    """Some frames of a source side by side, with the boxes of the clips that have them: (H, W, 3) uint8 RGB.

    Args:
        source: as `StoreReader.sources` gives it.
        numbers: the colour number of each clip.
        decoder: see `video.decode.open_video`; decord is checked for every file first.

    Returns:
        None where there is no clip, or the video cannot be read (any more); that is said.
    """
    clips = {clip: reader.numbers(clip) for clip in source["clips"]}
    if not clips:
        return None
    every = np.unique(np.concatenate(list(clips.values())))
    wanted = every[np.unique(np.linspace(0, len(every) - 1, PICTURES).round().astype(int))]
    try:
        with open_video(Path(source["path"]), decoder=decoder) as video:
            shown = (video.probe.width, video.probe.height)
            frames = video.read([int(number) for number in wanted])
            scale = SIDE / max(shown)
            size = (max(2, round(shown[0] * scale)), max(2, round(shown[1] * scale)))
            pictures = [frame.small(size).copy() for frame in frames]
    except VideoError as error:
        logger.warning("no pictures of the video: %s", error)
        return None
    for number, picture in zip(wanted, pictures, strict=True):
        for clip, its in clips.items():
            (rows,) = np.nonzero(its == number)
            if len(rows):
                x0, y0, x1, y1 = np.rint(reader.boxes(clip)[rows[0]] * scale).astype(int).tolist()
                cv2.rectangle(picture, (x0, y0), (x1, y1), PALETTE[numbers[clip] % COLOURS], 2)
    gap = np.full((size[1], 4, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], 1)
