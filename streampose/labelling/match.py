"""Annotations of any tool <-> labels of a store: which source, frame and subject each is of, in whose pixels.

A picture that a package brought to the tool says in its name which crop it is (`<clip>__<frame>__<side>.png`). Anything
else is found by its video (path, file name or name without suffix), its frame's number or time, and the subject's crop
that most of its joints lie in.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from streampose.errors import ConfigError
from streampose.formats.annotations import Annotations, make_annotations, match_names
from streampose.geometry.crop import crop_from_source, resize_points, source_from_crop
from streampose.store.labels import Labels, empty_labels
from streampose.store.reader import StoreReader

PICTURE = re.compile(r"(.+)__(\d+)__(\d+)$")
NUMBERED = re.compile(r"^(.*?)[ _-]*(?:frame|img|image)?[ _-]*(\d+)$", re.IGNORECASE)
LEAST_INSIDE = 0.5  # share of a subject's joints that must lie in a crop
EXAMPLES = 5
NOBODY = "unknown"  # who made labels of which nothing says it


class Place(NamedTuple):
    """A frame of a clip, and the side of the picture that showed it (0: the joints are in source pixels)."""

    clip: str
    frame: int
    side: int


def picture_name(clip: str, frame: int, side: int) -> str:
    """The file name of a picture that shows one crop, side pixels wide."""
    return f"{clip}__{frame:06d}__{side}.png"


def match_annotations(
    reader: StoreReader,
    annotations: Annotations,
    *,
    renamed: dict[str, str] | None = None,
    tolerance_seconds: float | None = None,
    who: str = "",
) -> tuple[Labels, dict[str, Any]]:
    """Labels of the store's clips, from annotations of pictures or videos.

    Args:
        renamed: their joint -> ours, where spelling alone does not tell.
        tolerance_seconds: how far a time may be from a frame's; None for half a frame of the video.
        who: who made them, where the annotations do not say.

    Returns:
        The labels, and a report: `rows`, `matched`, `frames`, `annotators`, `joints` (theirs -> ours, null where the
        skeleton has no such joint), `unmatched` (reason -> rows), `examples` of those.

    Raises:
        ConfigError: two of their joints are one of ours, or a joint is renamed that is not there.
    """
    joints = _joints(reader, annotations, renamed)
    finder = _Finder(reader, tolerance_seconds)
    reasons: Counter[str] = Counter()
    examples: list[str] = []
    rows: list[tuple[Place, int]] = []
    open_rows: dict[tuple[str, int, str], list[int]] = {}  # of one frame and annotator, for subjects to be told apart
    for r in range(len(annotations)):
        if not (annotations.visibility[r] > 0).any():
            continue
        place = finder.picture(annotations, r)
        if place is not None:
            rows.append((place, r))
            continue
        source, number, reason = finder.frame(annotations, r)
        if reason:
            _count(reasons, examples, annotations, r, reason)
        else:
            open_rows.setdefault((source, number, str(annotations.who[r])), []).append(r)
    for (source, number, _), same in open_rows.items():
        for r, place in finder.subjects(annotations, same, source, number).items():
            if place is None:
                _count(reasons, examples, annotations, r, "no crop shows the subject")
            else:
                rows.append((place, r))
    labels = _labels(reader, annotations, rows, tuple(joints.values()), who)
    known = set(reader.skeleton.joints)
    report = {
        "rows": sum(reasons.values()) + len(rows),
        "matched": len(rows),
        "frames": len({(place.clip, place.frame) for place, _ in rows}),
        "annotators": sorted(set(labels.source.tolist())),
        "joints": {theirs: ours if ours in known else None for theirs, ours in joints.items()},
        "unmatched": dict(reasons),
        "examples": examples,
    }
    return labels, report


def annotate_frames(reader: StoreReader, labels: Labels) -> Annotations:
    """Labels as annotations of the videos that the clips are of, in source pixels."""
    S = reader.crop_size
    sources = {clip: source for source in reader.sources() for clip in source.get("clips", ())}
    names = _video_names(reader.sources())
    boxes = np.array([reader.boxes(c)[f] for c, f in zip(labels.clip, labels.frame, strict=True)]).reshape(-1, 4)
    index = [int(reader.numbers(c)[f]) for c, f in zip(labels.clip, labels.frame, strict=True)]
    probes = [sources[c].get("probe") or {} for c in labels.clip]
    return make_annotations(
        labels.joints,
        source_from_crop(labels.keypoints.astype(float), boxes.astype(float), S),
        labels.visibility,
        video=[names[sources[c]["id"]] for c in labels.clip],
        frame_index=index,
        pts_seconds=[float(reader.times(c)[f]) for c, f in zip(labels.clip, labels.frame, strict=True)],
        boxes=boxes,
        size=np.array([[probe.get("width", 0), probe.get("height", 0)] for probe in probes]).reshape(-1, 2),
        who=labels.source.tolist(),
        edges=_edges(reader, labels.joints),
    )


def annotate_pictures(
    reader: StoreReader, labels: Labels, side: int, confidence: np.ndarray | None = None
) -> Annotations:
    """Labels as annotations of pictures of the crops, side pixels wide, named by `picture_name`."""
    scale = side / reader.crop_size
    return make_annotations(
        labels.joints,
        resize_points(labels.keypoints.astype(float), scale),
        labels.visibility,
        image=[picture_name(c, f, side) for c, f in zip(labels.clip, labels.frame.tolist(), strict=True)],
        size=np.full((len(labels), 2), side),
        who=labels.source.tolist(),
        confidence=confidence,
        edges=_edges(reader, labels.joints),
    )


class _Finder:
    """Sources, frames and subjects of a store, by what annotations say about them."""

    def __init__(self, reader: StoreReader, tolerance_seconds: float | None):
        self.reader, self.tolerance = reader, tolerance_seconds
        self.clips = {clip.id: clip.num_frames for clip in reader.clips()}
        self.sources = {source["id"]: source for source in reader.sources()}
        self.by_name: dict[str, set[str]] = {}
        for identity, source in self.sources.items():
            path = str(source.get("path", "")).replace("\\", "/")
            for name in (identity, path, PurePosixPath(path).name, PurePosixPath(path).stem):
                self.by_name.setdefault(name, set()).add(identity)

    def picture(self, annotations: Annotations, r: int) -> Place | None:
        """The crop that a package's picture shows; tools put folders and marks of their own before the name."""
        found = PICTURE.search(PurePosixPath(str(annotations.image[r]).replace("\\", "/")).stem)
        if found is None:
            return None
        name, frame, side = found.group(1), int(found.group(2)), int(found.group(3))
        clips = [clip for clip in self.clips if name == clip or name.endswith((f"-{clip}", f"_{clip}"))]
        if not clips or frame >= self.clips[max(clips, key=len)]:
            return None
        return Place(max(clips, key=len), frame, int(annotations.size[r][0]) or side)

    def frame(self, annotations: Annotations, r: int) -> tuple[str, int, str]:
        """Source, number of the frame, and why it is not in the store, if so."""
        video, number = str(annotations.video[r]).replace("\\", "/"), int(annotations.frame_index[r])
        if not video or number < 0:
            video, number = _from_image(str(annotations.image[r]), video, number)
        sources = self._sources(video)
        if not sources:
            return "", -1, "no such video in the store"
        if len(sources) > 1:
            return "", -1, "several videos in the store have that name"
        source = sources[0]
        clips = self.sources[source].get("clips", ())
        numbers = {int(n) for clip in clips for n in self.reader.numbers(clip)}
        if number in numbers:
            return source, number, ""
        seconds = float(annotations.pts_seconds[r])
        if number < 0 and np.isfinite(seconds):
            at = np.concatenate([self.reader.times(clip) for clip in clips] or [np.zeros(0)])
            of = np.concatenate([self.reader.numbers(clip) for clip in clips] or [np.zeros(0, int)])
            fps = (self.sources[source].get("probe") or {}).get("fps") or 25.0
            near = 0.5 / fps if self.tolerance is None else self.tolerance
            if len(at) and np.abs(at - seconds).min() <= near:
                return source, int(of[np.abs(at - seconds).argmin()]), ""
        if number < 0 and not np.isfinite(seconds):
            return source, -1, "neither number nor time of the frame"
        return source, number, "the store keeps no subject at that frame"

    def subjects(
        self, annotations: Annotations, rows: Sequence[int], source: str, number: int
    ) -> dict[int, Place | None]:
        """The crop that shows each of the subjects that one person labelled in a frame; each crop shows one."""
        crops = []
        for clip in self.sources[source].get("clips", ()):
            for frame in np.flatnonzero(self.reader.numbers(clip) == number):
                crops.append((Place(clip, int(frame), 0), self.reader.boxes(clip)[frame]))
        pairs = []
        for r in rows:
            xy = annotations.xy[r][annotations.visibility[r] > 0] + 0.5
            for c, (_, box) in enumerate(crops):
                inside = ((xy >= box[:2]) & (xy <= box[2:])).all(-1).mean()
                centre = (
                    xy.mean(0)
                    if not np.isfinite(annotations.boxes[r]).all()
                    else (annotations.boxes[r][:2] + annotations.boxes[r][2:]) / 2
                )
                apart = np.linalg.norm(centre - (box[:2] + box[2:]) / 2) / max(float(box[2] - box[0]), 1e-6)
                if inside >= LEAST_INSIDE:
                    pairs.append((-inside + apart, r, c))
        found: dict[int, Place | None] = dict.fromkeys(rows)
        taken: set[int] = set()
        for _, r, c in sorted(pairs):
            if found[r] is None and c not in taken:
                found[r] = crops[c][0]
                taken.add(c)
        return found

    def _sources(self, video: str) -> list[str]:
        """The ids of the sources that a video's name may mean: those of its path before those of its name."""
        for name in (video, PurePosixPath(video).name, PurePosixPath(video).stem):
            if found := self.by_name.get(name):
                return sorted(found)
        return []


def _labels(
    reader: StoreReader, annotations: Annotations, rows: Sequence[tuple[Place, int]], joints: tuple[str, ...], who: str
) -> Labels:
    if not rows:
        return empty_labels(joints)
    S = reader.crop_size
    keypoints = []
    for place, r in rows:
        xy = annotations.xy[r]
        if place.side:
            keypoints.append(resize_points(xy, S / place.side))
        else:
            keypoints.append(crop_from_source(xy, reader.boxes(place.clip)[place.frame].astype(float), S))
    index = [r for _, r in rows]
    return Labels(
        clip=np.array([place.clip for place, _ in rows]),
        frame=np.array([place.frame for place, _ in rows]),
        keypoints=np.array(keypoints, np.float32),
        visibility=annotations.visibility[index],
        source=np.array([str(annotations.who[r]) or who or NOBODY for r in index]),
        joints=joints,
    )


def _joints(reader: StoreReader, annotations: Annotations, renamed: dict[str, str] | None) -> dict[str, str]:
    """Their joint -> the name under which it is kept: ours where there is one, else theirs."""
    if unknown := sorted(set(renamed or {}) - set(annotations.joints)):
        raise ConfigError(
            f"--joint {unknown[0]}=...: there is no such joint; there are {', '.join(annotations.joints)}"
        )
    found = match_names(annotations.joints, reader.skeleton.joints, renamed)
    kept = {name: found.get(name, name) for name in annotations.joints}
    twice = [name for name, count in Counter(kept.values()).items() if count > 1]
    if twice:
        both = [name for name, ours in kept.items() if ours == twice[0]]
        raise ConfigError(f"joints {' and '.join(both)} are both {twice[0]}; say which by --joint THEIRS=OURS")
    return kept


def _from_image(image: str, video: str, number: int) -> tuple[str, int]:
    """Video and frame that a picture's name tells: `video/img0017.png`, `video_frame_0017.png`."""
    path = PurePosixPath(image.replace("\\", "/"))
    found = NUMBERED.match(path.stem)
    if found is None:
        return video, number
    name = found.group(1) or path.parent.name
    return video or name, number if number >= 0 else int(found.group(2))


def _count(reasons: Counter[str], examples: list[str], annotations: Annotations, r: int, reason: str) -> None:
    reasons[reason] += 1
    if len(examples) < EXAMPLES:
        number, seconds = int(annotations.frame_index[r]), float(annotations.pts_seconds[r])
        frame = f" frame {number}" if number >= 0 else f" at {seconds:.3f} s" if np.isfinite(seconds) else ""
        examples.append(f"{annotations.image[r] or annotations.video[r]}{frame}: {reason}")


def _video_names(sources: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The name of each source's video in annotations: its path, or its id where two are called alike."""
    stems = Counter(Path(str(source.get("path", ""))).stem for source in sources)
    return {
        source["id"]: str(source["path"]) if stems[Path(str(source.get("path", ""))).stem] == 1 else source["id"]
        for source in sources
    }


def _edges(reader: StoreReader, joints: Sequence[str]) -> list[tuple[int, int]]:
    names = list(joints)
    pairs = [
        (reader.skeleton.joints[bone.parent], reader.skeleton.joints[bone.child]) for bone in reader.skeleton.bones
    ]
    return [(names.index(a), names.index(b)) for a, b in pairs if a in names and b in names]
