"""Labels of SLEAP (.slp), by sleap-io; only what a person placed counts, predictions in the file do not.

A point that is not `visible` but has a place is hidden (1). SLEAP has no names of annotators: the file's provenance
keeps one for all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import StreamposeError
from streampose.formats.annotations import Annotations, join_annotations, make_annotations


def read_sleap(path: Path | str) -> Annotations:
    """Read the labels of a .slp file.

    Raises:
        StreamposeError: sleap-io is not installed, or not a .slp file.
    """
    sio, path = _sleap_io(path), Path(path)
    try:
        labels = sio.load_slp(str(path), open_videos=False)
        who = str(labels.provenance.get("annotator", ""))
        parts = []
        for skeleton in labels.skeletons:
            joints = [str(node.name) for node in skeleton.nodes]
            edges = [(joints.index(edge.source.name), joints.index(edge.destination.name)) for edge in skeleton.edges]
            rows = [
                (frame, one)
                for frame in labels.labeled_frames
                for one in frame.user_instances
                if one.skeleton is skeleton
            ]
            points = [one.points for _, one in rows]
            xy = np.array([one["xy"] for one in points], float).reshape(len(rows), len(joints), 2)
            seen = np.array([one["visible"] for one in points], bool).reshape(len(rows), len(joints))
            places = [_place(frame) for frame, _ in rows]
            parts.append(
                make_annotations(
                    joints,
                    xy,
                    np.where(seen, 2, 1),
                    edges=edges,
                    who=[who] * len(rows),
                    image=[image for image, _, _, _ in places],
                    video=[video for _, video, _, _ in places],
                    frame_index=[number for _, _, number, _ in places],
                    size=np.array([size for _, _, _, size in places]).reshape(-1, 2),
                )
            )
    except StreamposeError:
        raise
    except Exception as error:  # sleap-io raises whatever its own reading meets
        raise StreamposeError(f"{path}: not a SLEAP file ({type(error).__name__}: {error})") from None
    return join_annotations(parts)


def write_sleap(path: Path | str, annotations: Annotations, who: str = "", predicted: bool = False) -> Path:
    """Write a .slp file: frames of videos, or pictures where no video is named.

    Args:
        predicted: they are a model's, with `confidence`, for a person to correct.

    Raises:
        StreamposeError: sleap-io is not installed.
    """
    sio, path = _sleap_io(path), Path(path)
    edges = [(annotations.joints[a], annotations.joints[b]) for a, b in annotations.edges]
    skeleton = sio.Skeleton(nodes=list(annotations.joints), edges=edges, name="streampose")
    of_video = [str(video) for video in annotations.video]
    pictures = list(dict.fromkeys(str(i) for i, v in zip(annotations.image, of_video, strict=True) if not v))
    videos = {
        name: sio.Video(filename=name, open_backend=False, backend_metadata=_metadata(annotations, name))
        for name in dict.fromkeys(video for video in of_video if video)
    }
    if pictures:
        files = [str((path.parent / name).resolve()) for name in pictures]
        videos[""] = sio.Video.from_filename(files)
    frames: dict[tuple[str, int], Any] = {}
    for r, video in enumerate(of_video):
        number = int(annotations.frame_index[r]) if video else pictures.index(str(annotations.image[r]))
        key = (video, number)
        if key not in frames:
            frames[key] = sio.LabeledFrame(video=videos[video], frame_idx=number, instances=[])
        if predicted:
            scores = np.nan_to_num(annotations.confidence[r])
            one = sio.PredictedInstance.from_numpy(
                annotations.xy[r], skeleton=skeleton, point_scores=scores, score=float(scores.mean())
            )
        else:
            one = sio.Instance.from_numpy(annotations.xy[r], skeleton=skeleton)
            one.points["visible"] = annotations.visibility[r] == 2
        frames[key].instances.append(one)
    labels = sio.Labels(videos=list(videos.values()), skeletons=[skeleton], labeled_frames=list(frames.values()))
    if who:
        labels.provenance["annotator"] = who
    if predicted:
        labels.suggestions = [sio.SuggestionFrame(frame.video, frame.frame_idx) for frame in frames.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    sio.save_slp(labels, str(path), verbose=False)
    return path


def _place(frame: Any) -> tuple[str, str, int, tuple[int, int]]:
    """Picture, video, number and size of a labelled frame."""
    name = frame.video.filename
    shape = frame.video.backend_metadata.get("shape") if frame.video.backend_metadata else None
    size = (int(shape[2]), int(shape[1])) if shape is not None and len(shape) == 4 else (0, 0)
    if isinstance(name, (list, tuple)):
        return str(name[frame.frame_idx]), "", -1, size
    return "", str(name), int(frame.frame_idx), size


def _metadata(annotations: Annotations, video: str) -> dict[str, Any]:
    """What SLEAP is told about a video that need not be there."""
    rows = [r for r, name in enumerate(annotations.video) if str(name) == video]
    width, height = (int(v) for v in annotations.size[rows[0]])
    frames = int(annotations.frame_index[rows].max()) + 1
    return {"shape": (frames, height, width, 3)} if width else {}


def _sleap_io(path: Path | str) -> Any:
    try:
        import sleap_io
    except ImportError:
        raise StreamposeError(f"{path}: SLEAP files need sleap-io; pip install 'streampose[sleap]'") from None
    return sleap_io
