import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError
from streampose.store.copy import WorkingCopy
from streampose.store.pairs import sample_pairs
from streampose.store.push import begin_writing, knows_all, pull_source, push_pairs, push_source
from streampose.store.reader import StoreReader
from streampose.store.writer import ClipWriter, publish_source, remove_orphans, write_pairs

SKELETON = load_skeleton("human17")
SIZE = 16


@pytest.fixture(params=["s3", "memory"])
def url(request, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    return request.getfixturevalue("s3") if request.param == "s3" else f"memory://{tmp_path.name}.zarr"


def machine(monkeypatch, tmp_path, name):
    """Another machine is one with another cache."""
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / name))


def make(store, clip, num_frames=12, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num_frames, SIZE, SIZE, 3), dtype=np.uint8)
    writer = ClipWriter(store, clip, source="a.mp4", fps=10.0, segment_frames=6)
    for t, frame in enumerate(frames):
        mask = (rng.random((SIZE, SIZE)) > 0.5).astype(np.uint8) * 255
        writer.append(frame, mask, np.arange(4.0), t / 10, t)
    writer.finish(seed=seed)
    return frames


def assert_alike(found, frames):
    """Equal but for what the codec loses; other frames differ by 85 levels."""
    assert found.shape == frames.shape and np.abs(found.astype(int) - frames).mean() < 10


def ingest_one(url, source="a", seed=0, replace=False):
    with begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1) as (folder, copy):
        frames = make(folder, f"{source}-000", seed=seed)
        publish_source(folder, source, {"path": f"{source}.mp4", "verdict": "ok", "clips": [f"{source}-000"]})
        push_source(copy, source, replace)
        write_pairs(folder, sample_pairs(StoreReader(copy)))
        push_pairs(copy)
        remove_orphans(folder)
    return frames


def uploads(url):
    remote = WorkingCopy(url).remote
    return remote.folders("clips"), [name for name in remote.folders("pairs") if "-" in name]


def test_what_one_machine_makes_another_reads_and_again_from_its_copy(url, tmp_path, monkeypatch):
    frames = ingest_one(url)
    here = StoreReader(url)
    machine(monkeypatch, tmp_path, "other")
    reader = StoreReader(url)
    assert reader.name == url and reader.skeleton == SKELETON and reader.attributes == here.attributes
    assert [clip.id for clip in reader.clips()] == ["a-000"]
    assert not list(reader.path.glob("clips/*/segments/*/frames"))  # they come when they are read
    batch = reader.read_many([("a-000", 11), ("a-000", 7), ("a-000", 11)])
    assert_alike(batch.frames, frames[[11, 7, 11]])
    assert sorted(path.parent.name for path in reader.path.glob("clips/*/segments/*/frames")) == ["1"]
    assert_alike(reader.read("a-000").frames, frames)
    np.testing.assert_array_equal(reader.read("a-000").masks, here.read("a-000").masks)
    np.testing.assert_allclose(reader.times("a-000"), np.arange(12) / 10)
    for name, values in here.pairs().items():
        np.testing.assert_array_equal(reader.pairs()[name], values)
    again = StoreReader(url)
    monkeypatch.setattr(type(reader._copy.remote), "sizes", lambda *_: pytest.fail("it was here already"))
    assert_alike(again.read("a-000").frames, frames)


def test_a_clip_that_no_source_lists_does_not_exist_and_a_crash_leaves_no_orphan(url, tmp_path, monkeypatch):
    ingest_one(url)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("streampose.store.push.group_text", crash)  # after the clips, before the source
        with pytest.raises(KeyboardInterrupt):
            ingest_one(url, "b", seed=1)
    assert len(uploads(url)[0]) == 2
    machine(monkeypatch, tmp_path, "other")
    assert [clip.id for clip in StoreReader(url).clips()] == ["a-000"]
    ingest_one(url, "c", seed=2)  # another machine leaves what may be on its way
    assert len(uploads(url)[0]) == 3
    machine(monkeypatch, tmp_path, "cache")
    with begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1) as (_, copy):
        assert {source["id"] for source in StoreReader(copy).sources()} == {"a", "b", "c"}  # it sends what it had made
    clips, pairs = uploads(url)
    assert len(clips) == 3 and len(pairs) == 1
    machine(monkeypatch, tmp_path, "third")
    assert [clip.id for clip in StoreReader(url).clips()] == ["a-000", "b-000", "c-000"]


def test_old_orphans_of_a_machine_that_never_came_back_are_removed(url, tmp_path, monkeypatch):
    ingest_one(url)
    WorkingCopy(url).remote.write("clips/lost-0-deadbeef-000000/zarr.json", b"{}")
    ingest_one(url, "b")
    assert len(uploads(url)[0]) == 3
    monkeypatch.setattr("streampose.store.push.ORPHAN_SECONDS", -1.0)
    ingest_one(url, "c")
    assert all("deadbeef" not in name for name in uploads(url)[0])


def test_replacing_a_source_is_seen_by_who_had_copied_it(url, tmp_path, monkeypatch):
    ingest_one(url)
    machine(monkeypatch, tmp_path, "other")
    first = StoreReader(url).read("a-000").frames
    machine(monkeypatch, tmp_path, "cache")
    frames = ingest_one(url, seed=5, replace=True)
    assert len(uploads(url)[0]) == 1
    machine(monkeypatch, tmp_path, "other")
    second = StoreReader(url).read("a-000").frames
    assert_alike(second, frames)
    assert (first != second).any()


def test_of_two_machines_that_make_the_same_source_the_first_to_finish_has_made_it(url, tmp_path, monkeypatch):
    with begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1) as (folder, copy):
        make(folder, "a-000", seed=1)
        publish_source(folder, "a", {"path": "a.mp4", "clips": ["a-000"]})
        machine(monkeypatch, tmp_path, "other")
        theirs = ingest_one(url, seed=2)  # while the first is at work
        ingest_one(url, "b", seed=3)
        assert not knows_all(copy)
        push_source(copy, "a")
        assert knows_all(copy)
        assert_alike(StoreReader(copy).read("a-000").frames, theirs)
    assert len(uploads(url)[0]) == 2
    with begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1) as (folder, copy):
        pull_source(copy, "a")
    machine(monkeypatch, tmp_path, "third")
    assert [source["id"] for source in StoreReader(url).sources()] == ["b"]


def test_a_second_ingest_on_the_same_machine_is_told_to_wait(url):
    with begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1):
        StoreReader(url)  # reading is no matter
        with (
            pytest.raises(StoreError, match=f"{url}: another ingest is writing"),
            begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1),
        ):
            pass
    with (
        pytest.raises(StoreError, match=f"{url}: holds crops of 16 pixels, not 32"),
        begin_writing(url, SKELETON, crop_size=32, margin=0.1),
    ):
        pass


def test_the_copy_stays_within_its_bound_and_still_reads_right(url, tmp_path, monkeypatch):
    frames = {source: ingest_one(url, source, seed) for seed, source in enumerate("abcd")}
    monkeypatch.setenv("STREAMPOSE_CACHE_GB", "2e-5")  # 20 kB; a clip has 13 kB
    reader = StoreReader(url)
    other = StoreReader(url)  # of another process, which drops what this one has
    for _ in range(2):
        for source in "abcd":
            assert_alike(reader.read(f"{source}-000").frames, frames[source])
            other.read("a-000")
            kept = sum(file.stat().st_size for file in reader.path.glob("clips/*/segments/*/frames/c/*/*/*/*"))
            assert 9_000 < kept < 30_000
    monkeypatch.setenv("STREAMPOSE_CACHE_GB", "much")
    with pytest.raises(StoreError, match="STREAMPOSE_CACHE_GB=much"):
        reader.read("b-000")


def test_frames_that_another_process_drops_while_they_are_read_are_read_again(url, tmp_path):
    frames = ingest_one(url)
    reader = StoreReader(url)
    read, calls = reader._read_segments, []

    def dropped_at_first(*rest):
        calls.append(1)
        if len(calls) == 1:
            for folder in reader.path.glob("clips/*/segments/*/frames"):
                shutil.rmtree(folder)
        read(*rest)

    reader._read_segments = dropped_at_first
    assert_alike(reader.read("a-000").frames, frames)
    assert len(calls) == 2


def test_a_store_that_was_copied_there_by_other_means_is_read(url, tmp_path, monkeypatch):
    from streampose.store.schema import create_store

    local = tmp_path / "made.zarr"
    create_store(local, SKELETON, crop_size=SIZE)
    frames = make(local, "a-000")
    publish_source(local, "a", {"path": "a.mp4", "clips": ["a-000"]})
    write_pairs(local, sample_pairs(StoreReader(local)))
    WorkingCopy(url).remote.upload(local, "")
    reader = StoreReader(url)
    assert_alike(reader.read("a-000").frames, frames)
    assert len(reader.pairs()["i"]) == len(StoreReader(local).pairs()["i"]) > 0


def test_no_store_and_another_store_in_its_place_are_noticed(url, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=f"{url}: no store there; make it with"):
        StoreReader(url)
    ingest_one(url)
    remote = WorkingCopy(url).remote
    attributes = json.loads(remote.read(["zarr.json"])["zarr.json"])
    for name in ("sources", "clips", "pairs"):
        remote.remove(name)
    attributes["attributes"]["created"] = "2001-01-01T00:00:00+00:00"
    remote.write("zarr.json", json.dumps(attributes).encode())
    assert StoreReader(url).clips() == []
    remote.write("zarr.json", b"torn")
    with pytest.raises(StoreError, match="damaged"):
        StoreReader(url)
    assert not Path("s3:").exists()
