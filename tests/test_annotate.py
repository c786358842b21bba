import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from streampose import annotate as module
from streampose.annotate import annotate
from streampose.config import load_skeleton
from streampose.errors import BundleError, VideoError
from streampose.formats.coco import read_coco
from streampose.formats.lifted import read_lifted
from streampose.formats.parquet import read_parquet
from streampose.runtime.predictor import Predictor
from streampose.runtime.smoother import Smoother
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

SKELETON = load_skeleton("human17")
FRAMES, SIZE, FPS = 50, (160, 120), 25.0
OFFSETS = np.stack(
    [np.linspace(-8, 8, 17), 12 * np.cos(np.arange(17))], -1
)  # of the joints around the spot, source pixels


class SeesASpot:
    """Stands in for a trained model: its joints surround the bright spot of the crop, as large as the spot is."""

    name = "spot"

    def run(self, crops):
        light = np.clip(crops[..., 0].astype(float) - 128, 0, None)
        total = light.sum((1, 2))
        sure = total > 0
        total = np.maximum(total, 1)[:, None, None]
        cells = np.arange(crops.shape[1])
        share = light / total
        centre = np.stack([(share.sum(1) * cells).sum(-1), (share.sum(2) * cells).sum(-1)], -1)
        scale = np.sqrt((light > 0).sum((1, 2)) / 24**2)
        xy = centre[:, None] + scale[:, None, None] * OFFSETS
        keypoints = np.concatenate([xy, np.zeros((len(crops), 17, 1))], -1).astype(np.float32)
        return keypoints, np.where(sure[:, None], 0.9, 0.0).astype(np.float32) * np.ones((1, 17), np.float32)


@pytest.fixture(autouse=True)
def model(monkeypatch):
    bundle = SimpleNamespace(
        path="toy", skeleton=SKELETON, input_size=64, padding=0.2, sha256={"model.onnx": "1"}, method="toy", preset=""
    )
    calls = []

    def load(path, *rest):
        calls.append(path)
        return Predictor(bundle, SeesASpot())

    monkeypatch.setattr(module, "load_predictor", load)
    return SimpleNamespace(bundle=bundle, calls=calls)


def centre(index):
    return np.array([40.0 + 1.5 * index, 60.0 + 15 * np.sin(index / 8)])


def make_clip(path, frames=FRAMES):
    """A bright 24 px square that wanders over a still, textured background."""
    ground = np.random.default_rng(0).integers(20, 90, (15, 20), np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, FPS, SIZE) as writer:
        for index in range(frames):
            image = ground.copy()
            x, y = np.rint(centre(index)).astype(int)
            image[y - 12 : y + 12, x - 12 : x + 12] = 250
            writer.write(np.repeat(image[..., None], 3, -1))
    return path


def read_json(path):
    return json.loads(Path(path).read_text())


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    make_clip(folder / "good.mp4")
    (folder / "notes.mp4").write_text("this is text")
    (folder / "empty.mp4").touch()
    return folder


def test_a_folder_with_bad_files_among_good_ones(videos, tmp_path):
    make_clip(videos / "more.mp4", frames=12)
    result = annotate([videos], out=tmp_path / "out", batch=4)
    assert set(result) == {"out", "sources", "seconds"}
    json.dumps(result)
    entries = {entry["source"].rpartition("/")[2]: entry for entry in result["sources"]}
    assert {name: entry["verdict"] for name, entry in entries.items()} == {
        "empty.mp4": "quarantined", "good.mp4": "ok", "more.mp4": "ok", "notes.mp4": "quarantined",
    }  # fmt: skip
    assert "empty" in entries["empty.mp4"]["reason"] and "not a video" in entries["notes.mp4"]["reason"]
    assert entries["good.mp4"]["frames"] == FRAMES and entries["more.mp4"]["frames"] == 12
    assert set(entries["good.mp4"]["files"]) == {"coco", "parquet", "overlay"}
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert not any("notes" in name or "empty" in name or "partial" in name for name in made)


def test_the_files_say_where_the_subject_is(videos, tmp_path):
    (entry,) = annotate([videos / "good.mp4"], out=tmp_path, smooth=False)["sources"]
    assert entry["people"] == 1
    table = read_parquet(entry["files"]["parquet"])
    coco = read_coco(entry["files"]["coco"])
    assert len(table.frame_index) == len(coco["xy"]) >= FRAMES - 5
    truth = np.stack([centre(index) for index in table.frame_index])[:, None] + OFFSETS
    error = np.linalg.norm(table.xyz[..., :2] - truth, axis=-1)
    assert np.median(error) < 1.5 and np.quantile(error, 0.95) < 3.0
    np.testing.assert_allclose(table.pts_seconds, table.frame_index / FPS, atol=1e-3)
    np.testing.assert_allclose(coco["xy"], table.xyz[..., :2], atol=0.006)
    assert len(read_json(entry["files"]["coco"])["images"]) == FRAMES
    with open_video(entry["files"]["overlay"]) as film:
        images = [frame.image.astype(int) for frame in film.frames()]
    assert len(images) == FRAMES and images[0].shape == (120, 160, 3)
    colourful = np.ptp(images[20], axis=-1) > 60  # the video is grey, the skeleton is not
    rows, columns = np.nonzero(colourful)
    assert abs(columns.mean() - centre(20)[0]) < 8 and abs(rows.mean() - centre(20)[1]) < 8


def test_a_lifter_adds_poses_in_space(videos, tmp_path, lifter_bundle, model):
    plain = annotate([videos / "good.mp4"], out=tmp_path)["sources"][0]
    (entry,) = annotate([videos / "good.mp4"], out=tmp_path, lifter=lifter_bundle)["sources"]
    assert "skipped" not in entry and set(entry["files"]) == {*plain["files"], "lifted"}
    flat, space = read_parquet(entry["files"]["parquet"]), read_lifted(entry["files"]["lifted"])
    np.testing.assert_array_equal(space.frame_index, flat.frame_index)
    np.testing.assert_array_equal(space.track_id, flat.track_id)
    assert np.isfinite(space.pose).all() and (space.confidence > 0).all()
    seen = space.placement[:, None, :1] * space.pose[..., :2] + space.placement[:, None, 1:]
    assert np.median(np.abs(seen.mean(1) - flat.xyz[..., :2].mean(1))) < 3  # where the joints are
    model.bundle.skeleton = load_skeleton("mouse")
    with pytest.raises(BundleError, match="does not find its pelvis"):
        annotate([videos / "good.mp4"], out=tmp_path, lifter=lifter_bundle)


def test_a_lamp_that_goes_on_and_off_is_nobody(tmp_path):
    ground = np.random.default_rng(0).integers(20, 90, (15, 20), np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(tmp_path / "lamp.mp4", FPS, SIZE) as writer:
        for index in range(75):
            image = ground.copy()
            x, y = np.rint(centre(min(index, 55))).astype(int)
            image[y - 12 : y + 12, x - 12 : x + 12] = 250
            if index % 25 > 12:
                image[8:20, 140:152] = 250
            writer.write(np.repeat(image[..., None], 3, -1))
    (entry,) = annotate([tmp_path / "lamp.mp4"], out=tmp_path / "out", smooth=False)["sources"]
    coco = read_coco(entry["files"]["coco"])
    assert entry["people"] == 1 == len(set(coco["track_id"]))
    frames = coco["image_id"].tolist()
    assert frames == sorted(frames) and len(frames) >= 70  # all of the subject's way, from its beginning
    truth = np.stack([centre(min(index, 55)) for index in frames])[:, None] + OFFSETS
    assert np.median(np.linalg.norm(coco["xy"] - truth, axis=-1)) < 2
    assert len(read_json(entry["files"]["coco"])["images"]) == 75
    assert read_parquet(entry["files"]["parquet"]).frame_index.tolist() == frames
    with open_video(entry["files"]["overlay"]) as film:
        assert sum(1 for _ in film.frames()) == 75


def test_finished_videos_are_skipped_until_something_changes(videos, tmp_path, model):
    out, clip = tmp_path / "out", videos / "good.mp4"
    first = annotate([clip], out=out, overlay=False)["sources"][0]
    table = out / "good.keypoints.parquet"
    stamp = table.stat().st_mtime_ns
    again = annotate([clip], out=out, overlay=False)["sources"][0]
    assert table.stat().st_mtime_ns == stamp and again == {**first, "skipped": True}
    assert "overlay" in annotate([clip], out=out)["sources"][0]["files"]  # an overlay is asked for now
    model.bundle.sha256 = {"model.onnx": "2"}  # another model
    assert "skipped" not in annotate([clip], out=out)["sources"][0]
    assert annotate([clip], out=out)["sources"][0]["skipped"]
    assert "skipped" not in annotate([clip], out=out, overwrite=True)["sources"][0]
    make_clip(clip, frames=20)  # another video under the same name
    assert annotate([clip], out=out)["sources"][0]["frames"] == 20
    table.unlink()
    assert "skipped" not in annotate([clip], out=out)["sources"][0]


def test_two_videos_of_one_name_do_not_overwrite_each_other(tmp_path):
    for folder, frames in (("a", 10), ("b", 20)):
        (tmp_path / folder).mkdir()
        make_clip(tmp_path / folder / "same.mp4", frames)
    entries = annotate([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out")["sources"]
    assert [entry["frames"] for entry in entries] == [10, 20]
    assert entries[0]["files"]["coco"] != entries[1]["files"]["coco"]
    assert len(read_json(entries[0]["files"]["coco"])["images"]) == 10
    assert all(e["skipped"] for e in annotate([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out")["sources"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, BundleError])
def test_interrupted_leaves_no_half_files(videos, tmp_path, monkeypatch, error):
    seen = []

    def interrupt(self, *item):
        seen.append(item)
        if len(seen) == 20:
            raise error("stop")
        return [item]

    monkeypatch.setattr(Smoother, "add", interrupt)
    with pytest.raises(error):
        annotate([videos / "good.mp4"], out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.undo()


def test_a_full_disk_is_a_verdict(videos, tmp_path, monkeypatch):
    from streampose.formats.parquet import ParquetWriter

    def no_space(self, *rest):
        raise OSError(28, "No space left on device", "x.parquet")

    monkeypatch.setattr(ParquetWriter, "write", no_space)
    (entry,) = annotate([videos / "good.mp4"], out=tmp_path / "out")["sources"]
    assert entry["verdict"] == "quarantined" and "No space left on device" in entry["reason"]
    assert not list((tmp_path / "out").iterdir())


def test_own_overlays_are_not_annotated_again(videos, tmp_path):
    for _ in range(2):
        result = annotate([videos], out=videos / "annotations")
        assert len(result["sources"]) == 3


def test_nothing_to_do(tmp_path):
    with pytest.raises(VideoError, match="no videos here"):
        annotate([tmp_path], out=tmp_path / "out")


def test_missing_model_is_said_at_once(videos, tmp_path):
    code = (
        "import sys; from pathlib import Path; from streampose.annotate import annotate\n"
        "from streampose.errors import BundleError\n"
        f"try: annotate([Path({str(videos)!r})], out=Path({str(tmp_path / 'out')!r}), model=Path('/nothing/here'))\n"
        "except BundleError as error: sys.exit(0 if 'no such model' in str(error) else 3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not (tmp_path / "out").exists()
