"""Check a whole source without looking for subjects: read every frame, and say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streampose.errors import VideoError
from streampose.video.decode import open_video


def check_source(path: str | Path, *, threads: int = 0) -> dict[str, Any]:
    """Decode a source from start to end. Bad sources do not raise; they are `quarantined`.

    Args:
        path: a video file, a folder of numbered frames, or an animated picture.
        threads: decoder threads, 0 for as many as there are processors.

    Returns:
        `source`, `verdict` (`ok`, `repaired`, `quarantined`), `reason`, `frames` (sound ones), `lost_frames`,
        `lost_spans` ([start, end] seconds), `start_seconds` and `end_seconds` of the frames (None without any), and
        `probe` (the fields of `Probe`; empty where it cannot be opened).
    """
    path = Path(path)
    found: dict[str, Any] = {
        "source": str(path), "verdict": "quarantined", "reason": "", "frames": 0, "lost_frames": 0, "lost_spans": [],
        "start_seconds": None, "end_seconds": None, "probe": {},
    }  # fmt: skip
    try:
        with open_video(path, threads=threads) as video:
            found["probe"] = dict(vars(video.probe))
            index = video.check()
            verdict = video.verdict
    except VideoError as error:
        found["reason"] = str(error).removeprefix(f"{path}: ").removesuffix("; skipped")
        return found
    sound = index.pts_seconds[index.sound]
    found.update(
        verdict=verdict.verdict,
        reason=verdict.reason,
        frames=len(sound),
        lost_frames=len(index) - len(sound),
        lost_spans=[list(span) for span in verdict.lost_spans],
        start_seconds=round(float(sound[0]), 6),
        end_seconds=round(float(sound[-1]), 6),
    )
    return found
