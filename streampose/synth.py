"""Make synthetic videos of people with exact ground truth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from streampose.config import load_skeleton
from streampose.console import progress
from streampose.errors import ConfigError
from streampose.synthetic.body import procedural_body
from streampose.synthetic.film import Actor, Optics, Stage, film
from streampose.synthetic.motion import procedural_motion
from streampose.synthetic.scene import Surroundings, make_cameras, make_occluders, make_regions
from streampose.synthetic.truth import truth_path


def synth(
    *,
    out: Path,
    videos: int = 4,
    seconds: float = 10,
    size: tuple[int, int] = (256, 256),
    fps: float = 25,
    subjects: int = 1,
    cameras: int = 1,
    moving_camera: bool = False,
    occluders: bool = False,
    motion: str | Path = "procedural",
    body: str | Path = "capsules",
    skeleton: str = "human17",
    seed: int = 0,
    preset: str | None = None,
) -> dict[str, Any]:
    """Write `out/video_000.mp4`, `out/video_000.truth.npz` and so on.

    Returns:
        {"out", "videos": [{"video", "truth", "frames", "subjects"}], "seconds"}
    """
    started = time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    joints = load_skeleton(skeleton).joints
    frames = max(1, round(seconds * fps))
    made, sessions = [], []
    with progress("synth", videos * cameras * frames) as bar:
        for number in range(videos):
            rng = np.random.default_rng([seed, number])
            paths, side_room, distance = make_cameras(cameras, frames, fps, size, subjects, moving_camera, rng)
            surroundings = Surroundings(rng, size)
            actors = []
            for region in make_regions(subjects, paths[0], side_room, distance, rng):
                person = procedural_body(rng)
                missing = [joint for joint in joints if joint not in person.rig.landmarks]
                if missing:
                    raise ConfigError(f"skeleton {skeleton}: a synthetic person has no {', '.join(missing)}")
                actors.append(Actor(person, procedural_motion(person.rig, region, frames, fps, rng)))
            things = make_occluders(paths[0], side_room, distance, rng) if occluders else None
            stage = Stage(actors, surroundings, things)
            name = f"video_{number:03d}"
            views = []
            for view, path in enumerate(paths):
                video = out / (f"{name}.mp4" if cameras == 1 else f"{name}_cam{view}.mp4")
                film(video, stage, path, Optics(rng.uniform(0.35, 0.7), rng.uniform(1.0, 4.0)), joints, fps, rng)
                bar.advance(frames)
                made.append(
                    {"video": str(video), "truth": str(truth_path(video)), "frames": frames, "subjects": subjects}
                )
                views.append(
                    {
                        "video": video.name, "K": path.K[0].tolist(), "R": path.R[0].tolist(), "t": path.t[0].tolist(),
                        "distortion": [], "size": list(size), "time_offset_seconds": 0.0,
                    }
                )  # fmt: skip
            sessions.append({"name": name, "views": views})
    if cameras > 1:
        (out / "session.json").write_text(json.dumps({"sessions": sessions}, indent=1), encoding="utf-8")
    return {"out": str(out), "videos": made, "seconds": round(time.monotonic() - started, 3)}
