import json
import subprocess
import sys
import time

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError
from streampose.store.priors import Prior, list_priors, read_prior, write_prior
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store, open_store
from streampose.store.writer import remove_orphans

HUMAN = load_skeleton("human17")


def make_prior(count=90, name="dance", joints=HUMAN.joints, dimensions=3, groups=9):
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 1, (count, len(joints), dimensions)).astype(np.float32)
    poses[0, 0] = np.nan
    names = np.array([f"dance {n * groups // count}" for n in range(count)])
    return Prior(name, poses, joints, names, "made here", seconds=np.arange(count) / 10)


def test_round_trip_in_a_store_without_clips(tmp_path):
    store, prior = tmp_path / "store.zarr", make_prior()
    write_prior(store, prior)
    found = read_prior(store, "dance")
    np.testing.assert_array_equal(found.poses, prior.poses)
    np.testing.assert_array_equal(found.groups, prior.groups)
    np.testing.assert_array_equal(found.takes, prior.groups)
    np.testing.assert_array_equal(found.seconds, prior.seconds)
    assert (found.joints, found.source, found.dimensions, len(found)) == (HUMAN.joints, "made here", 3, 90)
    assert StoreReader(store).clips() == []  # and is a store like any other
    zarr = pytest.importorskip("zarr")
    assert zarr.open(store, mode="r")["priors/dance/poses"].shape == (90, 17, 3)


def test_names_are_kept_and_replaced(tmp_path):
    store = tmp_path / "store.zarr"
    write_prior(store, make_prior())
    write_prior(store, make_prior(30, "hand drawn: 50 mice", ("a", "b"), 2))
    write_prior(store, make_prior(9001))
    remove_orphans(store)
    assert {(entry["name"], entry["count"], entry["dimensions"]) for entry in list_priors(store)} == {
        ("dance", 9001, 3), ("hand drawn: 50 mice", 30, 2),
    }  # fmt: skip
    assert len(read_prior(store, "hand drawn: 50 mice")) == 30
    with pytest.raises(StoreError, match=r"no prior salsa .there are: dance, hand drawn: 50 mice"):
        read_prior(store, "salsa")


def test_ingest_decides_what_a_store_is_that_holds_only_priors(tmp_path):
    store = tmp_path / "store.zarr"
    write_prior(store, make_prior())
    attributes = create_store(store, load_skeleton("mouse"), crop_size=64, margin=0.2, codec="jpeg")
    assert attributes == open_store(store)
    assert (attributes["skeleton"]["name"], attributes["crop_size"], attributes["codec"]) == ("mouse", 64, "jpeg")
    with pytest.raises(StoreError, match="made for skeleton mouse"):  # now it is decided
        create_store(store, HUMAN, crop_size=64)
    write_prior(store, make_prior(name="another"))
    assert len(list_priors(store)) == 2 and open_store(store)["crop_size"] == 64


def test_joints_are_found_by_name():
    mpii = load_skeleton("mpii16")
    prior = make_prior(joints=mpii.joints).for_skeleton(HUMAN)
    known = np.isfinite(prior.poses[1]).all(-1)
    assert [HUMAN.joints[k] for k in np.flatnonzero(~known)] == ["nose"]
    theirs = make_prior(joints=mpii.joints).poses
    np.testing.assert_array_equal(prior.poses[:, HUMAN.joints.index("head")], theirs[:, mpii.joints.index("head_top")])
    middle = (theirs[1:, mpii.joints.index("pelvis")] + theirs[1:, mpii.joints.index("thorax")]) / 2
    np.testing.assert_allclose(prior.poses[1:, HUMAN.joints.index("spine")], middle, atol=1e-6)

    coco = load_skeleton("coco17")
    prior = make_prior(joints=coco.joints).for_skeleton(HUMAN)
    hips = make_prior(joints=coco.joints).poses[:, [coco.joints.index(f"{side}_hip") for side in ("left", "right")]]
    np.testing.assert_allclose(prior.poses[:, HUMAN.root], hips.mean(1), atol=1e-6)
    with pytest.raises(ConfigError, match=r"none of its joints .* is one of skeleton mouse; .*--map"):
        make_prior(joints=("a", "b")).for_skeleton(load_skeleton("mouse"))


def test_splits_never_divide_a_group():
    prior = make_prior()
    for seed in range(20):
        train, test = prior.split(0.2, seed)
        assert not set(train.groups) & set(test.groups) and len(train) + len(test) == 90
        assert 18 <= len(test) <= 20
    assert len({tuple(prior.split(0.2, seed)[1].groups) for seed in range(20)}) > 5
    train, test = prior.split(0.999)
    assert len(set(train.groups)) == 1
    with pytest.raises(ConfigError, match=r"one group .dance 0., which must not be divided"):
        make_prior(groups=1).split(0.2)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        prior.split(1.5)


def test_wrong_shapes_and_damage_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(N, K, 2\)"):
        Prior("x", np.zeros((3, 4)), ("a",), np.array(["g"] * 3))
    with pytest.raises(ValueError, match="2 different names"):
        Prior("x", np.zeros((3, 3, 2)), ("a", "b", "a"), np.array(["g"] * 3))
    with pytest.raises(StoreError, match="holds no pose"):
        write_prior(tmp_path / "s.zarr", make_prior().pick(slice(0, 0)))
    with pytest.raises(StoreError, match="on this machine"):
        list_priors("s3://bucket/store.zarr")
    store = tmp_path / "store.zarr"
    write_prior(store, make_prior())
    group = store / "priors" / "dance" / "zarr.json"
    content = json.loads(group.read_text())
    content["attributes"]["joints"].pop()
    group.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"priors/dance: damaged .*; import the prior again"):
        read_prior(store, "dance")


WRITE_FOR_EVER = """
import sys
import numpy as np
from streampose.store.priors import Prior, write_prior
number = 0
while True:
    poses = np.ones((2000 + number % 2, 17, 3))
    write_prior(sys.argv[1], Prior(sys.argv[2], poses, [str(k) for k in range(17)], ["a"] * len(poses)))
    number += 1
"""


def test_kill_9_leaves_a_whole_prior(tmp_path):
    store = tmp_path / "store.zarr"
    write_prior(store, make_prior())
    for name, pause in (("one", 0.0), ("other", 0.023)):
        process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(store), name])
        while not (store / "priors" / name).is_dir():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(pause)
        process.kill()
        process.wait()
        for entry in list_priors(store):
            assert len(read_prior(store, entry["name"])) == entry["count"]
        assert len(read_prior(store, "dance")) == 90
