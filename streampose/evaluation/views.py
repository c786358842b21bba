"""How well the views of calibrated sessions agree: the label-free measure that sees exchanged sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streampose.evaluation.predicted import Predicted
from streampose.geometry.triangulate import reproject, triangulate_dlt
from streampose.store.reader import StoreReader
from streampose.store.sessions import read_sessions

FARTHEST = 0.5  # sizes: joints further off are simply wrong


def measure_views(found: Sequence[Predicted], reader: StoreReader) -> list[Predicted]:
    """The same predictions with `views`, where a store has calibrated sessions that see them; else unchanged.

    The joints of all views of a moment are triangulated and projected back; the distance says how well they agree. A
    view that calls left what the others call right is far off.
    """
    found = list(found)
    if not found or not any(stored.session.calibrated for stored in read_sessions(reader.path)):
        return found
    from streampose.methods.mask_data import Frames
    from streampose.methods.mask_views import find_instants

    numbers = {clip.id: number for number, clip in enumerate(reader.clips())}
    N = sum(len(item.xy) for item in found)
    boxes = np.concatenate([item.boxes for item in found]).astype(float)
    pixels = np.zeros((N, 1, 1), np.uint8)  # the moments are found by boxes and times alone
    frames = Frames(
        crops=np.zeros((N, 1, 1, 3), np.uint8), masks=pixels, boxes=boxes, geodesic=pixels, height=np.ones(N),
        clip=np.concatenate([np.full(len(item.xy), numbers[item.track]) for item in found]),
        seconds=np.concatenate([item.pts_seconds for item in found]),
    )  # fmt: skip
    instants = find_instants(reader, frames, say=False)
    if not len(instants):
        return found
    side = (boxes[:, 2] - boxes[:, 0])[:, None, None]
    crop = (np.concatenate([item.xy for item in found]) + 0.5 - boxes[:, None, :2]) * 2 / side - 1  # in [-1, 1]
    size = np.concatenate([np.full(len(item.xy), np.nan) if item.size is None else item.size for item in found])
    rays = instants.rays
    normalised = np.einsum("nij,nkj->nki", rays[..., :2], crop) + rays[:, None, :, 2]
    normalised = instants.bend(normalised, np.arange(N), inverse=True)
    index, seen = np.maximum(instants.frames, 0), instants.frames >= 0  # (M, V)
    points = np.where(seen[..., None, None], normalised[index], np.nan)
    matrices = np.concatenate([instants.R, instants.t[..., None]], -1)[index]  # (M, V, 3, 4)
    back = reproject(triangulate_dlt(points, matrices), matrices)
    unit = np.linalg.norm(rays[..., 0], axis=-1) * 2 * size / side[:, 0, 0]  # a subject's size in these coordinates
    distance = np.linalg.norm(back - points, axis=-1) / unit[index][..., None]
    distance = np.minimum(np.where(np.isfinite(distance), distance, FARTHEST), FARTHEST)  # behind a camera
    views = np.full(N, np.nan)
    views[index[seen]] = distance.mean(-1)[seen]
    cuts = np.cumsum([len(item.xy) for item in found])[:-1]
    return [replace(item, views=part) for item, part in zip(found, np.split(views, cuts), strict=True)]
