"""Bundles that lift: runtimes agree, too little is told as such, and other kinds of models are refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import BundleError, ConfigError
from streampose.export_lifter import neutral_part, write_lifter
from streampose.models.lifter import build_lifter
from streampose.runtime.bundle import default_bundle, load_bundle
from streampose.runtime.lifter import load_lifter
from streampose.runtime.predictor import load_predictor
from streampose.structures import Keypoints

HUMAN = load_skeleton("human17")
K = HUMAN.num_joints


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    lifter = build_lifter("tiny", HUMAN)
    lifter.metres.fill_(4.2)
    out = tmp_path_factory.mktemp("lifter") / "bundle"
    write_lifter(lifter, out, skeleton=HUMAN, part=neutral_part(lifter, K), method="hypotheses", preset="tiny")
    return out


@pytest.fixture(scope="module")
def lifting(bundle):
    return load_lifter(bundle, "onnx")


@pytest.fixture
def joints():
    return np.random.default_rng(0).normal(200, 40, (3, K, 2))


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_runtimes_agree(bundle, lifting, joints, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    found, expected = load_lifter(bundle, runtime).lift(joints, count=5), lifting.lift(joints, count=5)
    np.testing.assert_allclose(found.hypotheses, expected.hypotheses, atol=1e-4)
    np.testing.assert_allclose(found.placement, expected.placement, rtol=1e-3)


def test_shapes_and_the_first_hypothesis(lifting, joints):
    lifted = lifting.lift(joints, count=7)
    assert lifted.pose.shape == (3, K, 3) and lifted.hypotheses.shape == (3, 7, K, 3)
    assert lifted.covariance.shape == (3, K, 3, 3) and lifted.confidence.shape == (3, K)
    np.testing.assert_array_equal(lifted.hypotheses[:, 0], lifted.pose)
    assert (np.linalg.eigvalsh(lifted.covariance) > 0).all()
    assert ((lifted.confidence >= 0) & (lifted.confidence <= 1)).all()
    assert lifted.hypotheses.std(1).max() > 1e-4


def test_each_subject_is_lifted_by_itself(lifting, joints):
    together, alone = lifting.lift(joints), lifting.lift(joints[1:2])
    np.testing.assert_allclose(together.pose[1:2], alone.pose, atol=1e-5)
    assert lifting.lift(joints[:0]).pose.shape == (0, K, 3)


def test_modes_and_diverse_hypotheses(lifting, joints):
    mode = lifting.lift(joints, count=40, mode="mean-shift")
    assert np.isfinite(mode.pose).all() and not np.array_equal(mode.pose, mode.hypotheses[:, 0])
    plain, diverse = lifting.lift(joints, count=5), lifting.lift(joints, count=5, diverse=True)
    assert diverse.hypotheses.shape == plain.hypotheses.shape
    assert diverse.hypotheses.std(1).mean() > plain.hypotheses.std(1).mean()


@pytest.mark.parametrize("seen", [0, 1, 2, 5])
def test_too_little_is_nan_without_confidence(lifting, joints, seen):
    joints[1, seen:] = np.nan
    lifted = lifting.lift(joints)
    assert (
        np.isnan(lifted.pose[1]).all() and np.isnan(lifted.hypotheses[1]).all() and np.isnan(lifted.covariance[1]).all()
    )
    assert (lifted.confidence[1] == 0).all()
    assert np.isfinite(lifted.pose[[0, 2]]).all() and (lifted.confidence[[0, 2]] > 0).any()


def test_joints_in_one_place_and_endless_ones_are_not_lifted(lifting, joints):
    joints[0] = 50
    joints[1, 3:] = np.inf
    joints[2] *= 1e30
    lifted = lifting.lift(joints)
    assert np.isnan(lifted.pose[:2]).all() and (lifted.confidence[:2] == 0).all()
    assert np.isnan(lifted.pose[2]).all() == (lifted.confidence[2] == 0).all()


def test_what_is_hidden_does_not_count(lifting, joints):
    hidden = joints.copy()
    hidden[:, [3, 6]] = np.nan
    seen = np.ones((3, K))
    seen[:, [3, 6]] = 0
    np.testing.assert_array_equal(lifting.lift(hidden).pose, lifting.lift(joints, seen).pose)


def test_wrong_shapes_and_options_are_told(lifting, joints):
    with pytest.raises(ValueError, match=r"takes \(B, 17, 2\): pelvis"):
        lifting.lift(joints[:, :5])
    with pytest.raises(ValueError, match="visibility is"):
        lifting.lift(joints, np.ones((3, 4)))
    with pytest.raises(ValueError, match="at least one"):
        lifting.lift(joints, count=0)
    with pytest.raises(ValueError, match="choose zero or mean-shift"):
        lifting.lift(joints, mode="median")


def test_joints_are_matched_by_name(lifting, joints):
    lifted = lifting.lift_keypoints(Keypoints(joints, np.ones((3, K))), HUMAN)
    np.testing.assert_array_equal(lifted.pose, lifting.lift(joints).pose)
    unsure = lifting.lift_keypoints(Keypoints(joints, np.full((3, K), 0.1)), HUMAN)
    assert np.isnan(unsure.pose).all()
    with pytest.raises(BundleError, match="does not find its pelvis"):
        lifting.lift_keypoints(Keypoints(np.zeros((1, 10, 2)), np.ones((1, 10))), load_skeleton("mouse"))


def test_kinds_are_not_mixed_up(bundle):
    assert json.loads((bundle / "bundle.json").read_text())["kind"] == "lifter"
    assert load_bundle(bundle, None).kind == "lifter" and load_bundle(default_bundle()).kind == "detector"
    with pytest.raises(BundleError, match="--lifter"):
        load_predictor(bundle)
    with pytest.raises(BundleError, match="--model"):
        load_lifter(default_bundle())
    with pytest.raises(ConfigError, match="lifters run with"):
        load_lifter(bundle, "tensorrt")


@pytest.mark.parametrize("change", [{"seen": [1.0]}, {"missing": [0.0] * K}, {"code_size": 3}, None])
def test_damaged_descriptions_are_refused(bundle, tmp_path, change):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    values = json.loads((copy / "bundle.json").read_text())
    values["lifter"] = None if change is None else values["lifter"] | change
    (copy / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(BundleError):
        load_lifter(copy)


def test_lifting_does_not_import_torch(bundle):
    code = (
        f"import sys, numpy; from streampose.runtime.lifter import load_lifter; "
        f"load_lifter({str(bundle)!r}, 'onnx').lift(numpy.random.rand(1, {K}, 2)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
