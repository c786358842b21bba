"""SynthPose: the benchmark of synthetic videos that tests and tables refer to, fixed by seeds.

Train and test have different seeds, hence different people, clothes, motions, lights and scenes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.synthetic.studio import Script, produce

SPLITS: dict[str, dict[str, Any]] = {
    "train": {"videos": 24, "seconds": 10.0, "size": (256, 256), "fps": 25.0, "seed": 20_001},
    "test": {"videos": 8, "seconds": 10.0, "size": (256, 256), "fps": 25.0, "seed": 90_001},
}


def make_synthpose(
    out: Path, split: str, *, videos: int | None = None, seconds: float | None = None, skeleton: str = "human17"
) -> list[dict[str, Any]]:
    """Write one split of the benchmark: one person in each video, static camera.

    Args:
        split: `train` or `test`.
        videos: only the first so many (the same files as in the whole split); None for all.
        seconds: shorter or longer videos, which are not the benchmark's; None for the benchmark's.

    Returns:
        one {"video", "truth", "frames", "subjects"} for each file.

    Raises:
        ConfigError: an unknown split.
    """
    if split not in SPLITS:
        raise ConfigError(f"SynthPose has no split {split!r}; choose train or test")
    settings = dict(SPLITS[split])
    if videos is not None:
        settings["videos"] = videos
    if seconds is not None:
        settings["seconds"] = seconds
    return produce(Path(out), Script(**settings), load_skeleton(skeleton).joints)
