"""Make synthetic videos of people with exact ground truth."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.synthetic.studio import Script, produce
from streampose.synthetic.synthpose import SPLITS

PRESETS: dict[str, dict[str, Any]] = {
    "hard": {"subjects": 2, "moving_camera": True, "occluders": True},
    "multiview": {"cameras": 4, "size": (320, 320)},
    "synthpose-train": SPLITS["train"],
    "synthpose-test": SPLITS["test"],
}


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
    """Write videos of people and their truth: `out/video_000.mp4`, `out/video_000.truth.npz` and so on.

    The same arguments give the same poses, cameras and pictures.

    Args:
        out: folder for the files.
        videos: how many scenes; each has other people, clothes, motions, lights and surroundings.
        seconds, fps, size: length, rate and (width, height) of each.
        subjects: people in each scene.
        cameras: synchronised cameras around each scene; above 1 each writes `_cam0`, `_cam1`... and session.json
            holds their calibration.
        moving_camera: cameras pan and wander instead of standing still.
        occluders: things stand between the camera and the people.
        motion: `procedural`, or a .bvh or DeepMimic .txt file, or a folder of them.
        body: `capsules` for procedural bodies, or the folder of a rigged MakeHuman mesh.
        skeleton: whose joints the truth holds.
        seed: other seeds make other videos.
        preset: one of `PRESETS`; it replaces the arguments that it sets.

    Returns:
        {"out", "videos": [{"video", "truth", "frames", "subjects"}], "seconds"}

    Raises:
        ConfigError: an argument out of range, an unknown preset or joint, or files that cannot be read.
    """
    started = time.monotonic()
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"synth: preset {preset!r} is not known; choose from {', '.join(PRESETS)}")
    script = Script(
        videos,
        seconds,
        (int(size[0]), int(size[1])),
        fps,
        subjects,
        cameras,
        moving_camera,
        occluders,
        motion,
        body,
        seed,
    )
    script = replace(script, **PRESETS.get(preset or "", {}))
    made = produce(Path(out), script, load_skeleton(skeleton).joints)
    return {"out": str(out), "videos": made, "seconds": round(time.monotonic() - started, 3)}
