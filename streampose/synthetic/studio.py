"""Puts people, motions, cameras and scenes together and films them: the work behind `streampose synth`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import progress
from streampose.errors import ConfigError
from streampose.synthetic.body import Body, procedural_body
from streampose.synthetic.film import Actor, Optics, Stage, film
from streampose.synthetic.makehuman import MakeHuman, read_makehuman
from streampose.synthetic.motion import procedural_motion
from streampose.synthetic.retarget import Recording, find_motions, read_recording, recorded_motion
from streampose.synthetic.rig import Motion
from streampose.synthetic.scene import Surroundings, make_cameras, make_occluders, make_regions
from streampose.synthetic.truth import truth_path


@dataclass(frozen=True)
class Script:
    """What to film; see `synth.synth` for the meaning of each field."""

    videos: int = 4
    seconds: float = 10.0
    size: tuple[int, int] = (256, 256)
    fps: float = 25.0
    subjects: int = 1
    cameras: int = 1
    moving_camera: bool = False
    occluders: bool = False
    motion: str | Path = "procedural"
    body: str | Path = "capsules"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("videos", 1, 10**6), ("subjects", 1, 8), ("cameras", 1, 16)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"synth: {name}={getattr(self, name)}; choose from {least} to {most}")
        if not (self.seconds > 0 and self.fps > 0):
            raise ConfigError(f"synth: seconds={self.seconds}, fps={self.fps}; both must be above 0")
        if len(self.size) != 2 or min(self.size) < 32:
            raise ConfigError(f"synth: size={self.size}; width and height must be 32 pixels or more")
        if self.seed < 0:
            raise ConfigError(f"synth: seed={self.seed}; choose 0 or more")


def produce(out: Path, script: Script, joints: tuple[str, ...]) -> list[dict[str, Any]]:
    """Film every video of a script: `video_000.mp4` and its truth, or `video_000_cam0.mp4` ... and session.json.

    Args:
        joints: names of the landmarks that the truth holds.

    Returns:
        one {"video", "truth", "frames", "subjects"} for each file.

    Raises:
        ConfigError: a joint that synthetic people do not have, or a motion or body folder that cannot be read.
    """
    bodies = _wardrobe(script.body)
    recordings = [] if str(script.motion) == "procedural" else find_motions(_existing(script.motion, "motion"))
    out.mkdir(parents=True, exist_ok=True)
    frames = max(1, round(script.seconds * script.fps))
    made: list[dict[str, Any]] = []
    sessions: list[dict[str, Any]] = []
    with progress("synth", script.videos * script.cameras * frames) as bar:
        for number in range(script.videos):
            rng = np.random.default_rng([script.seed, number])
            stage, paths = _set_scene(script, frames, bodies, recordings, joints, rng)
            name, views = f"video_{number:03d}", []
            for view, path in enumerate(paths):
                video = out / (f"{name}.mp4" if script.cameras == 1 else f"{name}_cam{view}.mp4")
                optics = Optics(blur=rng.uniform(0.35, 0.7), noise=rng.uniform(1.0, 4.0))
                film(video, stage, path, optics, joints, script.fps, rng)
                bar.advance(frames, note=video.name)
                entry = {"video": str(video), "truth": str(truth_path(video)), "frames": frames}
                made.append(entry | {"subjects": script.subjects})
                views.append(
                    {
                        "video": video.name, "K": path.K[0].tolist(), "R": path.R[0].tolist(), "t": path.t[0].tolist(),
                        "distortion": [], "size": list(script.size), "time_offset_seconds": 0.0, "moves": path.moves,
                    }
                )  # fmt: skip
            sessions.append({"name": name, "views": views})
    if script.cameras > 1:
        (out / "session.json").write_text(json.dumps({"sessions": sessions}, indent=1) + "\n", encoding="utf-8")
    return made


def _set_scene(script: Script, frames: int, bodies, recordings: list[Path], joints: tuple[str, ...], rng):
    """One scene with its people, and the cameras' paths."""
    paths, side_room, distance = make_cameras(
        script.cameras, frames, script.fps, script.size, script.subjects, script.moving_camera, rng
    )
    surroundings = Surroundings(rng, script.size)
    actors = []
    for region in make_regions(script.subjects, paths[0], side_room, distance, rng):
        body = _person(bodies, rng)
        missing = [joint for joint in joints if joint not in body.rig.landmarks]
        if missing:
            raise ConfigError(f"a synthetic person has no joint {', '.join(missing)}; use human17, coco17 or mpii16")
        motion: Motion
        if recordings:
            recording = _read_recording(recordings[rng.integers(len(recordings))])
            motion = recorded_motion(recording, body.rig, region, frames, script.fps, rng)
        else:
            motion = procedural_motion(body.rig, region, frames, script.fps, rng)
        actors.append(Actor(body, motion))
    things = make_occluders(paths[0], side_room, distance, rng) if script.occluders else None
    return Stage(actors, surroundings, things), paths


def _wardrobe(body: str | Path) -> MakeHuman | None:
    """None for procedural people, else the MakeHuman model of a folder."""
    return None if str(body) == "capsules" else read_makehuman(_existing(body, "body"))


def _person(bodies: MakeHuman | None, rng: np.random.Generator) -> Body:
    return procedural_body(rng) if bodies is None else bodies.person(rng)


def _existing(path: str | Path, option: str) -> Path:
    if not Path(path).exists():
        built_in = {"motion": "procedural", "body": "capsules"}[option]
        raise ConfigError(f"{path}: no such file or folder; `{option}` is {built_in!r} or names one")
    return Path(path)


@lru_cache(maxsize=16)
def _read_recording(path: Path) -> Recording:
    return read_recording(path)
