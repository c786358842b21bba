"""Which frames are worth a person's time: those that stand for many frames that the model gets wrong.

How wrong is read from what needs no labels: the model's own doubt, how badly its skeleton covers the mask, how far the
mirrored picture's joints lie from its own, how its joints jump from frame to frame. How alike two frames are is the
distance of their poses and pictures. Frames are taken one by one: the next is the one that brings a labelled frame
nearest to all others, each counted by its doubt (greedy facility location; Wei et al., ICML 2015, weigh alike).

Where we differ from what is usual: the frame that is farthest from all labelled ones (k-centre; Sener & Savarese, ICLR
2018), times its doubt, found the oddest frames, and a model learnt no more from a hundred of these than of any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streampose.evaluation.predicted import Predict, Predicted, predict_clips
from streampose.metrics.label_free import jitter
from streampose.store.reader import ClipInfo, StoreReader
from streampose.structures import Skeleton

MOST_FRAMES = 4000  # to choose from
LOOKED_AT = 20_000  # frames that are predicted; of a larger store stretches of STRETCH frames, evenly spread
STRETCH = 25
THUMBNAIL = 8
POSE_SHARE = 0.7  # of the distance between two frames; the rest is how they look
LEAST_DOUBT = 0.2  # what a frame counts of which nothing is doubtful


@dataclass(frozen=True)
class Candidates:
    """M frames to choose from.

    Attributes:
        clip, frame: (M,) where each is.
        keypoints: (M, K, 2) crop pixels, as the model predicts them.
        confidence: (M, K).
        features: (M, D) by which frames are told apart.
        measures: name -> (M,) what makes a frame doubtful, larger is worse; NaN where it is not known.
    """

    clip: np.ndarray
    frame: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    features: np.ndarray
    measures: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.clip)

    def doubt(self) -> np.ndarray:
        """(M,) in [0, 1]: the mean rank of a frame in all measures."""
        ranks = [_rank(values) for values in self.measures.values()]
        return np.mean(ranks, 0) if ranks else np.zeros(len(self))


def gather_candidates(
    predict: Predict,
    input_size: int,
    skeleton: Skeleton,
    reader: StoreReader,
    ranges: Sequence[tuple[ClipInfo, int, int]] | None = None,
    most_frames: int = MOST_FRAMES,
    look: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Candidates:
    """Predict a store's clips, whole or in parts, and measure each frame.

    Args:
        ranges: (clip, first, end) to choose from; None for all, or stretches of a large store.
        most_frames: of longer stores every n-th frame is a candidate.
        look: (T, S, S, 3) crops -> (T, D) how they look; None for small pictures.
    """
    ranges = stretches(reader.clips()) if ranges is None else ranges
    found = list(predict_clips(predict, input_size, skeleton, reader, ranges))
    stride = max(1, -(-sum(len(item.xy) for item in found) // most_frames))
    parts = [_candidates_of(item, skeleton, reader, stride, look or thumbnails) for item in found]
    pose = np.concatenate([part["pose"] for part in parts])
    picture = np.concatenate([part["look"] for part in parts])
    features = np.concatenate([POSE_SHARE * _spread_one(pose), (1 - POSE_SHARE) * _spread_one(picture)], 1)
    names = ("unsure", "off the mask", "mirror", "jumps")
    return Candidates(
        clip=np.concatenate([part["clip"] for part in parts]),
        frame=np.concatenate([part["frame"] for part in parts]),
        keypoints=np.concatenate([part["keypoints"] for part in parts]),
        confidence=np.concatenate([part["confidence"] for part in parts]),
        features=features,
        measures={name: np.concatenate([part[name] for part in parts]) for name in names},
    )


def stretches(clips: Sequence[ClipInfo], most: int = LOOKED_AT) -> list[tuple[ClipInfo, int, int]]:
    """(clip, first, end) of all frames, or of about so many in short stretches all over the clips."""
    ends = np.cumsum([clip.num_frames for clip in clips])
    if not len(ends) or ends[-1] <= most:
        return [(clip, 0, clip.num_frames) for clip in clips]
    starts = np.linspace(0, ends[-1] - 1, max(1, most // STRETCH)).astype(int)
    found = []
    for start in starts:
        number = int(np.searchsorted(ends, start, side="right"))
        clip = clips[number]
        first = int(start - (ends[number] - clip.num_frames))
        found.append((clip, first, min(first + STRETCH, clip.num_frames)))
    return found


def choose_frames(candidates: Candidates, count: int, labelled: Sequence[tuple[str, int]] = ()) -> np.ndarray:
    """Places of the frames to label, the most worth first.

    Args:
        labelled: (clip, frame) that have labels already: they are not chosen, nor what looks like them.
    """
    known = set(labelled)
    taken = np.array([(c, int(f)) in known for c, f in zip(candidates.clip, candidates.frame, strict=True)], bool)
    worth = (LEAST_DOUBT + (1 - LEAST_DOUBT) * candidates.doubt()).astype(np.float32)
    apart = _distances(candidates.features.astype(np.float32))  # (M, M)
    left = apart[:, taken].min(1) if taken.any() else np.full(len(apart), apart.max(initial=0.0), np.float32)
    chosen: list[int] = []
    for _ in range(min(count, int((~taken).sum()))):
        gain = worth @ np.maximum(left[:, None] - apart, 0)  # how much nearer each would bring the others
        best = int(np.where(taken, -np.inf, gain).argmax())
        chosen.append(best)
        taken[best] = True
        left = np.minimum(left, apart[:, best])
    return np.array(chosen, int)


def _distances(features: np.ndarray) -> np.ndarray:
    """Distance of every row from every other: (M, D) -> (M, M)."""
    square = (features**2).sum(1)
    return np.sqrt(np.maximum(square[:, None] + square[None] - 2 * features @ features.T, 0))


def thumbnails(crops: np.ndarray) -> np.ndarray:
    """How crops look: (T, S, S, 3) -> (T, D) small pictures."""
    small = [cv2.resize(crop, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for crop in crops]
    return np.array(small, np.float32).reshape(len(crops), -1)


def _candidates_of(
    item: Predicted,
    skeleton: Skeleton,
    reader: StoreReader,
    stride: int,
    look: Callable[[np.ndarray], np.ndarray],
) -> dict[str, np.ndarray]:
    T, S = len(item.xy), reader.crop_size
    nothing = np.full(T, np.nan)
    size = item.size if item.size is not None else item.boxes[:, 2] - item.boxes[:, 0]
    side = (item.boxes[:, 2] - item.boxes[:, 0])[:, None, None]
    pose = (item.xy - item.boxes[:, None, :2]) / side  # (T, K, 2) shares of the crop
    jumps = nothing.copy()
    if T > 2:
        shake = jitter(item.xy, item.pts_seconds, size)
        known = np.isfinite(shake).any(1)
        jumps[1:-1][known] = np.nanmax(np.where(np.isfinite(shake[known]), shake[known], 0), 1)
    every = np.arange(0, T, stride)
    crops = reader.read_many([(item.track, int(item.first + t)) for t in every], masks=False).frames
    measures = {
        "unsure": 1 - item.confidence.mean(1),
        "off the mask": nothing if item.iou is None else -item.iou,
        "mirror": nothing if item.mirror is None else item.mirror.mean(1),
        "jumps": jumps,
    }
    return {
        "clip": np.full(len(every), item.track), "frame": item.first + every,
        "keypoints": ((pose + 0.5 / side) * S - 0.5)[every], "confidence": item.confidence[every],
        "pose": (pose - pose.mean(1, keepdims=True)).reshape(T, -1)[every], "look": look(crops),
        **{name: values[every] for name, values in measures.items()},
    }  # fmt: skip


def _rank(values: np.ndarray) -> np.ndarray:
    """The share of the known values that are smaller; one half where a value is not known."""
    known = np.isfinite(values)
    ranks = np.full(len(values), 0.5)
    if known.sum() > 1:
        ordered = np.sort(values[known])
        low, high = (np.searchsorted(ordered, values[known], side) for side in ("left", "right"))
        ranks[known] = (low + high - 1) / 2 / (known.sum() - 1)
    return ranks


def _spread_one(features: np.ndarray) -> np.ndarray:
    """Centred, and of one as their mean squared distance from the middle."""
    centred = features - features.mean(0)
    return centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)
