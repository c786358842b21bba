"""The scenes of a video: stretches in which the camera stands still, each with its empty background.

They are learnt from a few pictures of the whole stretch before its frames are masked, so that somebody who stands there
from the first frame on is masked too. Memory does not grow with the length of the video: a long stretch becomes several
scenes in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from streampose.geometry.crop import shrink
from streampose.masks.background import Background, View, model_size
from streampose.masks.learn import learn_background

MOST_SAMPLES = 32
SCENE_SECONDS = 120.0
LEAST_SAMPLES = 4  # fewer say nothing: the camera moves, or the shot is shorter than that


@dataclass(frozen=True)
class Scene:
    """One stretch of a video.

    Attributes:
        start_seconds, end_seconds: times of its first and last picture.
        background: the empty scene; None where the camera did not stand still long enough.
        samples: (N, h, w, 3) uint8 at the model's size.
    """

    start_seconds: float
    end_seconds: float
    background: Background | None
    samples: np.ndarray


def find_scenes(pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[Scene]:
    """Group pictures of a video by what they show, in order of time.

    Args:
        pictures: (seconds, (h, w, 3) uint8 RGB) spread over the video; one size.
    """
    gathered: list[tuple[float, np.ndarray]] = []
    first: View | None = None
    last: View | None = None
    step = 1
    for count, (seconds, image) in enumerate(pictures):
        small = _small(image)
        if last is not None and first is not None and not (first.is_seen_in(small) and _goes_on(last, small)):
            yield _learn(gathered)
            gathered, first, step = [], None, 1
        elif gathered and seconds - gathered[0][0] > SCENE_SECONDS and len(gathered) >= 16:
            yield _learn(gathered)
            gathered, first, step = gathered[-4:], None, 1
        last = View(small)
        first = last if first is None else first
        if count % step == 0 or len(gathered) < LEAST_SAMPLES:
            gathered.append((seconds, image))
        else:
            gathered[-1] = (seconds, gathered[-1][1])
        if len(gathered) > MOST_SAMPLES:
            gathered, step = gathered[::2], 2 * step
    if gathered:
        yield _learn(gathered)


def _goes_on(last: View, image: np.ndarray) -> bool:
    """Whether a picture shows what the one right before it shows; those that hardly differ need no closer look."""
    return last.is_repeated_in(image) or last.is_seen_in(image)


def _learn(gathered: list[tuple[float, np.ndarray]]) -> Scene:
    images = [image for _, image in gathered]
    start, end = gathered[0][0], gathered[-1][0]
    background = learn_background(images) if len(images) >= LEAST_SAMPLES else None
    return Scene(start, end, background, np.stack([_small(image) for image in images]))


def _small(image: np.ndarray) -> np.ndarray:
    return shrink(image, model_size(image.shape[1], image.shape[0]))
