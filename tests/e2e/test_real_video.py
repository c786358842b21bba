"""The user's lines on real video, shortened: two people in a park with the sun in the lens, a mouse seen from above."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from streampose.annotate import annotate
from streampose.ingest import ingest
from streampose.selftrain import selftrain
from streampose.store.reader import StoreReader
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

DATA = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(path):
    if not (DATA / path).is_file():
        pytest.skip(f"{DATA / path} is not there; set STREAMPOSE_DATA to the folder of the shared videos")
    return DATA / path


@pytest.mark.slow
def test_park_from_video_to_overlay(tmp_path):
    video = real("people/park_two_people.mp4")
    found = ingest([video], store=tmp_path / "store.zarr")
    (source,) = found["sources"]
    assert source["verdict"] == "ok"
    assert len(source["clips"]) == 2  # two people, and the flare is neither
    reader = StoreReader(tmp_path / "store.zarr")
    for clip in reader.clips():
        assert clip.num_frames > 45  # a third of the frames that show it
        share = (reader.read(clip.id).masks > 127).mean()
        assert 0.03 < share < 0.5  # a body in a padded crop, neither a speck nor the whole crop

    trained = selftrain(
        store=tmp_path / "store.zarr", preset="tiny", out=tmp_path / "runs", models=tmp_path / "models", max_minutes=3
    )
    assert trained["promoted"]
    assert trained["method"] == "masks"  # the shipped model knows people, and learns from these masks
    assert trained["metrics"]["free/score"] > trained["metrics_before"]["free/score"] + 0.05
    assert trained["metrics"]["free/inside_mask"] > 0.7

    result = annotate([video], out=tmp_path / "annotations", model=tmp_path / "models" / "current")
    (entry,) = result["sources"]
    assert entry["people"] == 2
    with open_video(next((tmp_path / "annotations").rglob("*.mp4"))) as overlay:
        assert sum(1 for _ in overlay.frames()) == entry["frames"] == 230
    coco = json.loads(next((tmp_path / "annotations").rglob("*.keypoints.json")).read_text())
    assert len(coco["categories"][0]["keypoints"]) == 17
    assert len(coco["annotations"]) > 200


def test_mouse_is_one_subject(tmp_path):
    short = tmp_path / "mouse.mp4"
    with open_video(real("animals/openfield_mouse.mp4")) as video, VideoWriter(short, 30.0, (640, 480)) as writer:
        for frame in video.frames():
            if frame.index == 240:
                break
            writer.write(frame.image)
    result = ingest([short], store=tmp_path / "store.zarr", skeleton="mouse")
    (source,) = result["sources"]
    assert source["verdict"] == "ok"
    assert len(source["clips"]) == 1
    reader = StoreReader(tmp_path / "store.zarr")
    (clip,) = reader.clips()
    frames = reader.read(clip.id)
    assert clip.num_frames > 75  # of 80 looks
    inside = frames.frames.mean(-1)[frames.masks > 127]
    outside = frames.frames.mean(-1)[(frames.masks <= 127) & (frames.frames.max(-1) > 0)]
    assert np.median(inside) < np.median(outside) - 60  # the dark animal, not its pale field
