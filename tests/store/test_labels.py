import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError
from streampose.store import labels as module
from streampose.store.copy import WorkingCopy
from streampose.store.labels import (
    Labels,
    join_labels,
    labels_version,
    list_labels,
    read_labels,
    remove_labels,
    write_labels,
)
from streampose.store.push import begin_writing, push_source
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store, locked
from streampose.store.writer import ClipWriter, publish_source, remove_orphans, remove_source

SKELETON = load_skeleton("human17")
SIZE = 16
JOINTS = ("nose", "tail", "left_wrist")


def make_clip(store, clip, frames=12):
    writer = ClipWriter(store, clip, source="a.mp4", fps=10.0)
    for t in range(frames):
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        writer.append(image, image[..., 0], np.array([0.0, 0, 32, 32]), t / 10, t)
    writer.finish()


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.zarr"
    create_store(path, SKELETON, crop_size=SIZE)
    for source in ("a", "b"):
        make_clip(path, f"{source}-0")
        publish_source(path, source, {"path": f"{source}.mp4", "clips": [f"{source}-0"]})
    return path


def make_labels(rows=7, seed=0, clip="a-0", who="ann", joints=JOINTS):
    rng = np.random.default_rng(seed)
    visibility = rng.integers(0, 3, (rows, len(joints))).astype(np.uint8)
    keypoints = rng.uniform(-3, 20, (rows, len(joints), 2)).astype(np.float32)
    keypoints[visibility == 0] = np.nan
    return Labels(np.full(rows, clip), rng.permutation(12)[:rows], keypoints, visibility, np.full(rows, who), joints)


def assert_same(found, expected):
    assert found.joints == expected.joints
    for name in ("clip", "frame", "keypoints", "visibility", "source"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.keypoints.dtype == np.float32 and found.visibility.dtype == np.uint8


def test_round_trip_replacing_listing_and_removing(store):
    assert len(read_labels(store)) == 0 and list_labels(store) == []
    first, second = make_labels(), make_labels(seed=1, rows=4)
    assert write_labels(store, "by hand", first).startswith("by-hand-")
    write_labels(store, "other", make_labels(clip="b-0", who="bob"), JOINTS, {"file": "x.json"})
    assert_same(read_labels(store, ["by hand"]), first)
    write_labels(store, "by hand", second)
    assert_same(read_labels(store, ["by hand"]), second)
    assert [(entry["name"], entry["rows"]) for entry in list_labels(store)] == [("by hand", 4), ("other", 7)]
    assert list_labels(store)[1]["provenance"] == {"file": "x.json"}
    assert len(list((store / "labels").glob("by-hand-*/*/"))) == 1  # the place of the old one is gone
    both = read_labels(store)
    assert len(both) == 11 and set(both.source) == {"ann", "bob"}
    remove_orphans(store)
    assert len(read_labels(store)) == 11
    remove_labels(store, "by hand")
    assert [entry["name"] for entry in list_labels(store)] == ["other"]
    with pytest.raises(StoreError, match="no labels by hand; there are other"):
        read_labels(store, ["by hand"])
    with pytest.raises(StoreError, match="no labels by hand"):
        remove_labels(store, "by hand")


def test_zarr_python_reads_it_and_the_store_stays_one(store):
    zarr = pytest.importorskip("zarr")
    labels = make_labels()
    write_labels(store, "hand", labels)
    group = zarr.open_group(store, mode="r")["labels/hand"]
    np.testing.assert_array_equal(group[group.attrs["place"]]["visibility"][:], labels.visibility)
    assert len(StoreReader(store).clips()) == 2


@pytest.mark.parametrize("at", ["before the arrays", "before the name", "after the name"])
def test_a_kill_leaves_the_old_set_or_the_new_one(store, monkeypatch, at):
    old, new = make_labels(), make_labels(seed=5)
    write_labels(store, "hand", old)

    def die(*_, **__):
        raise KeyboardInterrupt  # nothing in the writer catches it

    rename, group = os.rename, module.write_group
    with monkeypatch.context() as patch:
        if at == "before the arrays":
            patch.setattr(module.os, "rename", lambda a, b: die() if "labels" in str(b) else rename(a, b))
        elif at == "before the name":
            patch.setattr(
                module, "write_group", lambda folder, values: die() if "place" in values else group(folder, values)
            )
        else:
            patch.setattr(module.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            write_labels(store, "hand", new)
    assert_same(read_labels(store), new if at == "after the name" else old)
    write_labels(store, "hand", new)
    assert_same(read_labels(store), new)
    assert len(list((store / "labels" / "hand").glob("*/"))) == 1


def test_a_first_set_that_was_killed_does_not_exist(store, monkeypatch):
    group = module.write_group
    with monkeypatch.context() as patch:
        patch.setattr(
            module, "write_group", lambda f, v: (_ for _ in ()).throw(OSError) if "place" in v else group(f, v)
        )
        with pytest.raises(StoreError):
            write_labels(store, "hand", make_labels())
    assert list_labels(store) == [] and len(read_labels(store)) == 0


def test_joints_by_name_and_several_sets(store):
    labels = make_labels()
    mapped = labels.for_skeleton(SKELETON)
    nose = SKELETON.joints.index("nose")
    np.testing.assert_array_equal(mapped.keypoints[:, nose], labels.keypoints[:, 0])
    np.testing.assert_array_equal(mapped.visibility[:, SKELETON.joints.index("left_wrist")], labels.visibility[:, 2])
    assert (mapped.visibility > 0).any(0).sum() == 2  # there is no tail
    joined = join_labels([labels, make_labels(seed=2, joints=("tail", "ear"), rows=3)])
    assert joined.joints == (*JOINTS, "ear") and len(joined) == 10
    assert not joined.visibility[:7, 3].any() and not joined.visibility[7:, 0].any()


def test_annotators_are_merged_by_the_median_of_those_who_placed_a_joint():
    points = np.array([[[0, 0]], [[4, 2]], [[np.nan, np.nan]], [[20, 1]], [[5, 5]]], np.float32)
    seen = np.array([[2], [1], [0], [1], [2]], np.uint8)
    frame = np.array([3, 3, 3, 3, 4])
    labels = Labels(np.full(5, "a-0"), frame, points, seen, np.array(["ann", "bob", "cid", "dan", "ann"]), ("nose",))
    merged = labels.merged()
    assert merged.frame.tolist() == [3, 4] and merged.keypoints[:, 0].tolist() == [[4, 1], [5, 5]]
    assert merged.visibility.tolist() == [[1], [2]] and merged.source.tolist() == ["several", "ann"]
    assert labels.source.tolist()[0] == "ann" and labels.keypoints[0, 0, 0] == 0  # unchanged


def test_what_cannot_be_labelled_is_refused(store):
    labels = make_labels()
    with pytest.raises(StoreError, match="no clip c-0"):
        write_labels(store, "x", make_labels(clip="c-0"))
    with pytest.raises(StoreError, match="12 frames, none at"):
        write_labels(store, "x", replace(labels, frame=labels.frame + 99))
    with pytest.raises(StoreError, match="two joints are called nose"):
        write_labels(store, "x", labels, ("nose", "nose", "ear"))
    with pytest.raises(ValueError, match="needs a place"):
        Labels(labels.clip, labels.frame, labels.keypoints, np.full_like(labels.visibility, 2), labels.source)
    with locked(store), pytest.raises(StoreError, match="another ingest"):
        write_labels(store, "x", labels)
    with pytest.raises(StoreError, match="no store there"):
        read_labels(store.parent / "none.zarr")


def test_labels_of_clips_that_left_are_left_out(store, caplog):
    write_labels(store, "a", make_labels())
    write_labels(store, "b", make_labels(clip="b-0"))
    remove_source(store, "a")
    assert set(read_labels(store).clip) == {"b-0"} and "7 labels are of clips" in caplog.text


def test_damage_is_told(store):
    write_labels(store, "a", make_labels())
    place = json.loads((store / "labels/a/zarr.json").read_text())["attributes"]["place"]
    shutil.rmtree(store / "labels" / "a" / place / "frame")
    with pytest.raises(StoreError, match="damaged labels"):
        read_labels(store)


def test_at_another_place(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "one"))
    url = f"memory://{tmp_path.name}-labels.zarr"
    with begin_writing(url, SKELETON, crop_size=SIZE, margin=0.1) as (folder, copy):
        make_clip(folder, "a-0")
        publish_source(folder, "a", {"path": "a.mp4", "verdict": "ok", "clips": ["a-0"]})
        push_source(copy, "a")
    old, new = make_labels(), make_labels(seed=3)
    write_labels(url, "hand", old)
    assert_same(read_labels(url), old)
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "two"))  # another machine
    assert_same(read_labels(url), old)
    write_labels(url, "hand", new)
    assert_same(read_labels(StoreReader(url)._copy), new)
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "one"))
    assert_same(read_labels(url), new)
    assert len(WorkingCopy(url).remote.folders("labels/hand")) == 1
    remove_labels(url, "hand")
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "two"))
    assert list_labels(url) == []


def test_a_set_that_is_written_again_has_another_version(store):
    write_labels(store, "a", make_labels())
    write_labels(store, "b", make_labels(seed=1))
    before = labels_version(store, ["a", "b"])
    assert before == labels_version(store, ["a", "b"]) != labels_version(store, ["a"])
    write_labels(store, "b", make_labels(seed=2))
    assert labels_version(store, ["a", "b"]) != before


def test_a_store_may_be_named_by_a_path_upwards(store, monkeypatch):
    """What opens the arrays takes no `..`."""
    (store.parent / "elsewhere").mkdir()
    monkeypatch.chdir(store.parent / "elsewhere")
    labels = make_labels()
    write_labels("../store.zarr", "hand", labels)
    assert_same(read_labels("../store.zarr"), labels)
    make_clip(Path("../store.zarr"), "a-1", 3)
    publish_source(Path("../store.zarr"), "c", {"path": "c.mp4", "clips": ["a-1"]})
    assert StoreReader("../store.zarr").read("a-1").frames.shape == (3, SIZE, SIZE, 3)
