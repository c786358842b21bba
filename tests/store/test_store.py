import errno
import json
import os
import shutil

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError
from streampose.store import schema, writer
from streampose.store.pairs import sample_pairs
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store, locked, open_store
from streampose.store.writer import ClipWriter, publish_source, remove_orphans, remove_source, write_pairs

SKELETON = load_skeleton("human17")
SIZE = 16


def make_clip(store, clip_id, num_frames, seed=0, segment_frames=5):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num_frames, SIZE, SIZE, 3), dtype=np.uint8)
    masks = (rng.random((num_frames, SIZE, SIZE)) > 0.5).astype(np.uint8) * 255
    boxes = rng.random((num_frames, 4)).astype(np.float32)
    clip = ClipWriter(store, clip_id, source="a.mp4", fps=25.0, segment_frames=segment_frames)
    for t in range(num_frames):
        clip.append(frames[t], masks[t], boxes[t], t / 25, 10 + t)
    clip.finish(motion=0.5)
    return frames, masks, boxes


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.zarr"
    create_store(path, SKELETON, crop_size=SIZE)
    return path


def test_round_trip_over_several_segments(store):
    frames, masks, boxes = make_clip(store, "a-0", 13)
    make_clip(store, "b-0", 4, seed=1)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    reader = StoreReader(store)
    assert [clip.id for clip in reader.clips()] == ["a-0"]  # b-0 is listed by no source
    info = reader.clips()[0]
    assert (info.num_frames, info.segments, info.crop_size, info.fps) == (13, (5, 5, 3), SIZE, 25.0)
    assert info.attributes["motion"] == 0.5 and reader.skeleton == SKELETON
    clip = reader.read("a-0")
    np.testing.assert_array_equal(clip.frames, frames)
    np.testing.assert_array_equal(clip.masks, masks)
    np.testing.assert_array_equal(clip.boxes, boxes)
    np.testing.assert_array_equal(clip.frame_index, 10 + np.arange(13))
    np.testing.assert_allclose(clip.pts_seconds, np.arange(13) / 25)


def test_any_order_repeats_and_negative_positions(store):
    frames, masks, _ = make_clip(store, "a-0", 13)
    others, *_ = make_clip(store, "b-0", 4, seed=1)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0", "b-0"]})
    reader = StoreReader(store)
    batch = reader.read_many([("a-0", 12), ("b-0", 2), ("a-0", 3), ("a-0", 12), ("a-0", -13), ("a-0", 1)])
    np.testing.assert_array_equal(batch.frames, np.stack([frames[12], others[2], *frames[[3, 12, 0, 1]]]))
    np.testing.assert_array_equal(batch.masks[0], masks[12])
    assert batch.frame_index.tolist() == [22, 12, 13, 22, 10, 11]
    np.testing.assert_array_equal(reader.read("a-0", slice(2, 11, 3)).frames, frames[2:11:3])
    with pytest.raises(StoreError, match="13 frames, none at 13"):
        reader.read("a-0", [13])
    with pytest.raises(StoreError, match="no clip x"):
        reader.read("x")


def test_zarr_python_reads_what_we_write(store):
    zarr = pytest.importorskip("zarr")
    frames, *_ = make_clip(store, "a-0", 6)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    group = zarr.open_group(store, mode="r")
    assert group.attrs["crop_size"] == SIZE and list(group["sources"].group_keys()) == ["a"]
    np.testing.assert_array_equal(group["clips/a-0/segments/0/frames"][:], frames[:5])
    np.testing.assert_allclose(group["clips/a-0/segments/1/pts_seconds"][:], [0.2])


def test_pairs_round_trip_and_hide_clips_that_are_gone(store):
    make_clip(store, "a-0", 6)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    with pytest.raises(StoreError, match="no frame pairs"):
        StoreReader(store).pairs()
    columns = {"clip": np.array(["a-0", "gone", "a-0"]), "i": [0, 1, 2], "j": [3, 4, 5]}
    write_pairs(store, {**columns, "seconds": [0.5, 0.6, 0.7], "motion": [0.1, 0.2, 0.3]})
    write_pairs(store, {**columns, "seconds": [0.5, 0.6, 0.9], "motion": [0.1, 0.2, 0.3]})
    pairs = StoreReader(store).pairs()
    assert pairs["clip"].tolist() == ["a-0", "a-0"] and pairs["j"].tolist() == [3, 5]
    np.testing.assert_allclose(pairs["seconds"], [0.5, 0.9])


def test_removing_a_source_and_the_orphans_of_a_crash(store):
    make_clip(store, "a-0", 6)
    make_clip(store, "b-0", 6)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    writer.temporary_folder(store)
    assert remove_orphans(store) == 1
    assert sorted(f.name for f in (store / "clips").iterdir()) == ["a-0", "zarr.json"]
    remove_source(store, "a")
    assert not StoreReader(store).clips() and not (store / "clips" / "a-0").exists()
    assert remove_orphans(store) == 0 and not (store / ".tmp").exists()


def test_missing_newer_foreign_and_damaged_stores_say_so(store, tmp_path):
    with pytest.raises(StoreError, match="no store there; make it with"):
        StoreReader(tmp_path / "nowhere.zarr")
    (tmp_path / "text.zarr").write_text("hello")
    with pytest.raises(StoreError, match="not a store"):
        StoreReader(tmp_path / "text.zarr")
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["streampose_schema"] = schema.SCHEMA_VERSION + 1
    (store / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="newer streampose"):
        open_store(store)
    (store / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        open_store(store)


def test_a_damaged_segment_is_one_clear_line(store):
    make_clip(store, "a-0", 6)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    chunk = next((store / "clips/a-0/segments/0/frames/c").rglob("0"))
    while chunk.is_dir():
        chunk = chunk / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"damaged.*--overwrite") as error:
        StoreReader(store).read("a-0")
    assert "\n" not in str(error.value)


def test_another_skeleton_or_size_is_refused(store):
    with pytest.raises(StoreError, match="--crop-size 16"):
        create_store(store, SKELETON, crop_size=64)
    assert create_store(store, SKELETON, crop_size=SIZE)["crop_size"] == SIZE


def test_the_margin_of_the_crops_is_kept_and_another_one_refused(store, tmp_path):
    path = tmp_path / "tight.zarr"
    assert create_store(path, SKELETON, crop_size=SIZE, margin=0.1)["margin"] == 0.1
    assert create_store(path, SKELETON, crop_size=SIZE)["margin"] == 0.1
    with pytest.raises(StoreError, match=r"margin of 0\.1, .* 0\.2"):
        create_store(path, SKELETON, crop_size=SIZE, margin=0.2)
    assert "margin" not in create_store(store, SKELETON, crop_size=SIZE, margin=0.2)  # an older one does not say


def test_a_store_that_a_crash_left_unborn_is_made_again(store):
    (store / "zarr.json").unlink()
    assert create_store(store, SKELETON, crop_size=32)["crop_size"] == 32


def test_two_writers_keep_out_of_each_other(store):
    with locked(store), pytest.raises(StoreError, match="another ingest"), locked(store):
        pass
    with locked(store):
        pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left"), "disk is full"),
        (PermissionError(errno.EACCES, "x"), "no permission"),
    ],
)
def test_full_disk_and_no_permission(store, monkeypatch, error, line):
    make_clip(store, "a-0", 3)
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StoreError, match=line):
        make_clip(store, "b-0", 3)
    monkeypatch.undo()
    remove_orphans(store)
    assert [clip.id for clip in StoreReader(store).clips()] == ["a-0"]


def test_quality_is_kept_and_older_stores_count_as_good(store):
    clip = ClipWriter(store, "a-0", source="a.mp4", fps=25.0, segment_frames=4)
    quality = np.linspace(0, 1, 10).astype(np.float32)
    for t in range(10):
        clip.append(
            np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.uint8), np.zeros(4), t / 25, t, quality[t]
        )
    clip.finish()
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    reader = StoreReader(store)
    np.testing.assert_array_equal(reader.quality("a-0"), quality)
    np.testing.assert_array_equal(reader.read_many([("a-0", 7), ("a-0", 2)]).quality, quality[[7, 2]])
    for segment in (store / "clips" / "a-0" / "segments").glob("[0-9]*"):
        shutil.rmtree(segment / "quality")  # as it was written before there was such an array
    older = StoreReader(store)
    np.testing.assert_array_equal(older.quality("a-0"), np.ones(10, np.float32))
    np.testing.assert_array_equal(older.read("a-0").frame_index, np.arange(10))


def test_pairs_prefer_good_frames(store):
    rng = np.random.default_rng(0)
    clip = ClipWriter(store, "a-0", source="a.mp4", fps=10.0)
    good = np.arange(60) % 3 == 0
    for t in range(60):
        mask = (rng.random((SIZE, SIZE)) > 0.5).astype(np.uint8) * 255
        clip.append(np.zeros((SIZE, SIZE, 3), np.uint8), mask, np.zeros(4), t / 10, t, 0.8 if good[t] else 0.02)
    clip.finish()
    publish_source(store, "a", {"path": "a.mp4", "clips": ["a-0"]})
    pairs = sample_pairs(StoreReader(store))
    assert good[pairs["i"]].mean() > 0.7 and good[pairs["j"]].mean() > 0.8
    assert not good[pairs["i"]].all()


def test_a_damaged_note_of_a_span_costs_that_span_only(tmp_path):
    store = tmp_path / "store.zarr"
    create_store(store, load_skeleton("human17"), crop_size=16)
    note = store / ".spans" / "walk" / "000.json"
    note.parent.mkdir(parents=True)
    note.write_text("")
    assert remove_orphans(store) == 0 and not note.exists()


def test_crops_as_pictures_are_nearly_the_same_in_any_order_and_damage_is_told(tmp_path):
    path = tmp_path / "store.zarr"
    create_store(path, SKELETON, crop_size=32, codec="jpeg")
    y, x = np.mgrid[:32, :32]
    frames = [np.stack([4 * x + t, 5 * y, 128 + 0 * x], -1).astype(np.uint8) for t in range(12)]
    clip = ClipWriter(path, "a-0", source="a.mp4", fps=25.0, segment_frames=5)
    for t, frame in enumerate(frames):
        clip.append(frame, np.full((32, 32), 255, np.uint8), np.zeros(4), t / 25, t)
    clip.finish()
    publish_source(path, "a", {"path": "a.mp4", "clips": ["a-0"]})
    order = [11, 0, 5, 4, 5, -1]
    read = StoreReader(path).read("a-0", order)
    wanted = np.stack([frames[t] for t in order])
    assert np.abs(read.frames.astype(int) - wanted).mean() < 2 and (read.masks == 255).all()
    (shard,) = (path / "clips/a-0/segments/1/frames").glob("c/*/*/*/*")
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StoreError, match="segment is damaged"):
        StoreReader(path).read("a-0", [6])
    assert (StoreReader(path).read("a-0", [1]).masks == 255).all()
