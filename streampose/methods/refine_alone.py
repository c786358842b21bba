"""Clips of one camera, for `methods/refine.py`: each gets a camera that is made up, before which a body can be fitted.

One view does not say how far away a subject is, and hardly how deep it is. Constant bones, smooth motion and joints
that bend one way only still leave the body little choice in the picture, which is all that is learnt of it.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from streampose.methods.mask_data import Frames
from streampose.methods.mask_views import Instants, no_instants

FOCAL = 5.0  # of the cameras, in sides of a clip's crops: a person from some metres away
STATURE = 1.75  # metres, from which the distance follows; any other would do
STEADY_SECONDS = 1.0  # about a moment, in which the distance is one
STRETCH = 150  # frames of a clip that are kept or left out together


def thin_out(frames: Frames, shown: np.ndarray, most: int) -> Frames:
    """The frames that sessions show, (N,) bool, and of the others at most about so many: stretches, evenly spread."""
    index = np.flatnonzero(~shown)
    if len(index) <= most:
        return frames
    ends = np.flatnonzero(np.diff(frames.clip[index])) + 1
    stretches = [run[start : start + STRETCH] for run in np.split(index, ends) for start in range(0, len(run), STRETCH)]
    count = max(1, int(len(stretches) * most / len(index)))
    kept = shown.copy()
    for number in np.linspace(0, len(stretches) - 1, count).astype(int):
        kept[stretches[number]] = True
    return Frames(**{field.name: getattr(frames, field.name)[kept] for field in fields(Frames)})


def stand_alone(frames: Frames, shown: np.ndarray) -> Instants:
    """The other frames than those that sessions show, (N,) bool, each an instant of one view; a subject is a clip."""
    found, index = no_instants(len(frames)), np.flatnonzero(~shown)
    for clip in np.unique(frames.clip[index]):
        own = index[frames.clip[index] == clip]
        boxes = frames.boxes[own].astype(float)
        side, middle = boxes[:, 2] - boxes[:, 0], (boxes[:, :2] + boxes[:, 2:]) / 2
        focal = FOCAL * np.median(side)
        found.rays[own, 0, 0] = found.rays[own, 1, 1] = side / 2 / focal
        found.rays[own, :, 2] = (middle - middle.mean(0)) / focal
        found.R[own] = np.eye(3)
    return Instants(index[:, None], frames.clip[index], frames.seconds[index], found.rays, found.R, found.t, found.lens)


def first_places(keypoints: np.ndarray, frames: Frames, alone: Instants, index: np.ndarray) -> np.ndarray:
    """Where the joints of T frames of a clip are, seen by its made-up camera.

    Args:
        keypoints: (T, K, 3) in crop coordinates, z in the same unit.
        index: (T,) numbers of the frames.

    Returns:
        (T, K, 3) metres.
    """
    unit = alone.rays[index, 0, 0].astype(float)  # normalised image coordinates in one of the crop
    seconds, apparent = frames.seconds[index], frames.height[index] * unit
    near = np.abs(seconds[:, None] - seconds) < STEADY_SECONDS
    distance = np.array([STATURE / np.median(apparent[row]) for row in near])
    depth = distance[:, None] * (1 + keypoints[..., 2] * unit[:, None])
    flat = keypoints[..., :2] * unit[:, None, None] + alone.rays[index, None, :, 2]
    return np.concatenate([flat * depth[..., None], depth[..., None]], -1)
