"""How fast synthetic videos are made, whole path: poses, rendering, encoding, truth."""

import os
from pathlib import Path

import pytest

from streampose.synth import synth

pytestmark = pytest.mark.benchmark


def rate(result: dict) -> float:
    return sum(entry["frames"] for entry in result["videos"]) / result["seconds"]


def test_one_procedural_person_at_256_pixels(tmp_path, capsys):
    synth(out=tmp_path / "warm", videos=1, seconds=0.5)
    measured = rate(synth(out=tmp_path / "run", videos=3, seconds=10))
    with capsys.disabled():
        print(f"\nsynth, 256x256, 1 procedural person, static camera: {measured:.0f} frames/s (needed: 40)")
    assert measured >= 40


def test_other_scenes(tmp_path, capsys):
    data = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    scenes = {
        "2 people": {"subjects": 2},
        "moving camera": {"moving_camera": True},
        "4 cameras": {"cameras": 4, "videos": 1},
        "512x512": {"size": (512, 512)},
    }
    if (data / "bodies/makehuman").is_dir():
        scenes["MakeHuman mesh, BVH"] = {"body": data / "bodies/makehuman", "motion": data / "mocap/cmu_dance_martial"}
    with capsys.disabled():
        for name, settings in scenes.items():
            result = synth(**({"out": tmp_path / name, "videos": 2, "seconds": 5} | settings))
            print(f"synth, {name}: {rate(result):.0f} frames/s")
            assert rate(result) > 5
