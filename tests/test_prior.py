import json

import numpy as np
import pytest
from typer.testing import CliRunner

from streampose.cli import app
from streampose.config import load_skeleton
from streampose.prior import import_prior, inspect_prior
from streampose.store.priors import read_prior
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


def call(*words):
    return CliRunner().invoke(app, ["prior", *map(str, words)])


def test_import_list_and_inspect(tmp_path):
    store = tmp_path / "s.zarr"
    poses = built_in_prior(HUMAN, 64).poses
    np.savez(tmp_path / "a.npz", poses=poses, joints=np.array(HUMAN.joints), groups=np.repeat(["x", "y"], 32))
    done = call("import", tmp_path / "a.npz", "--store", store, "--json", "--keep-bones")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["poses"] == 64
    assert "a: 64 3D poses of 2 takes in 2 groups" in call("list", "--store", store).stdout
    done = call("inspect", "--store", store, "--out", tmp_path / "look", "--json")
    assert json.loads(done.stdout)["statistics"]["groups"] == 2 and (tmp_path / "look" / "turning.html").is_file()
    train, test = read_prior(store, "a").split(0.5)
    assert {*train.groups} | {*test.groups} == {"x", "y"} and not {*train.groups} & {*test.groups}


def test_a_file_that_fails_gives_1_and_a_wrong_call_2(tmp_path):
    store = tmp_path / "s.zarr"
    np.savez(tmp_path / "a.npz", poses=built_in_prior(HUMAN, 32).poses)
    (tmp_path / "b.bvh").write_text("HIERARCHY")
    done = call("import", tmp_path, "--store", store, "--name", "all")
    assert done.exit_code == 1 and "b.bvh: quarantined (not a BVH file" in done.stdout and "32 3D poses" in done.stdout
    assert call("inspect", "nobody", "--store", store).exit_code == 2
    assert call("import", tmp_path, "--store", store, "--name", "all").exit_code == 2  # it has one
    assert call("list", "--store", tmp_path / "none").exit_code == 2


def test_the_built_in_prior_needs_no_store(tmp_path):
    result = inspect_prior("built-in", store=tmp_path / "none.zarr", skeleton="coco17", out=tmp_path / "look")
    assert result["statistics"]["poses"] == 2048


def test_motion_capture(shared_data, tmp_path):
    mocap = shared_data / "mocap"
    paths = [mocap / "cmu_dance_martial" / f"{name}.bvh" for name in ("salsa_10", "salsa_11", "salsa_25", "martial_04")]
    paths.append(mocap / "deepmimic" / "humanoid3d_kick.txt")
    result = import_prior(paths, store=tmp_path / "s.zarr", name="some")
    assert (result["takes"], result["groups"], result["failed"]) == (5, 4, 0)
    left_out = sum(entry["left_out"] for entry in result["sources"])
    assert result["poses"] == 598 * 2 + 1054 + 329 + 47 - left_out and left_out < 10
    prior = read_prior(tmp_path / "s.zarr", "some")
    assert prior.takes[0] == "salsa_10" and set(prior.groups[prior.takes == "salsa_25"]) == {prior.groups[0]} == {
        "salsa_10 + salsa_25"
    }
    a, b = ([getattr(bone, end) for bone in HUMAN.bones] for end in ("parent", "child"))
    lengths = np.linalg.norm(prior.poses[:, b] - prior.poses[:, a], axis=-1)
    limbs = [n for n, bone in enumerate(HUMAN.bones) if bone.swing_degrees > 45]
    assert lengths[:, limbs].std(0).max() < 1e-5  # one body's bones
    assert (prior.poses[:, HUMAN.joints.index("head"), 1] < -0.3).mean() > 0.95


def test_damaged_motion_capture_is_left_out(shared_data, tmp_path):
    folder = shared_data / "mocap" / "cmu_dance_martial"
    paths = [folder / f"salsa_{n}.bvh" for n in ("06", "07", "10")]  # the head is upside down in 06 and the end of 07
    result = import_prior(paths, store=tmp_path / "s.zarr", name="some", rate=5)
    assert [entry["verdict"] for entry in result["sources"]] == ["quarantined", "repaired", "ok"]
    assert all("mostly the head" in entry["reason"] for entry in result["sources"][:2]) and result["failed"] == 1
    prior = read_prior(tmp_path / "s.zarr", "some")
    assert prior.seconds[prior.takes == "salsa_07"].max() < 22 and set(prior.takes) == {"salsa_07", "salsa_10"}
    result = import_prior(paths, store=tmp_path / "s.zarr", name="all", rate=5, keep_impossible=True)
    assert result["failed"] == 0 and result["takes"] == 3


@pytest.mark.parametrize(("folder", "files", "failed"), [("cmu_dance_martial", 36, 1), ("deepmimic", 20, 0)])
@pytest.mark.slow
def test_all_motion_capture(shared_data, tmp_path, folder, files, failed):
    result = import_prior([shared_data / "mocap" / folder], store=tmp_path / "s.zarr")
    assert len(result["sources"]) == files and result["failed"] == failed
    assert sum(entry["left_out"] for entry in result["sources"]) < 0.05 * result["poses"]
