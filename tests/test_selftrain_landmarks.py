"""`selftrain --method landmarks` end to end, and which method `auto` takes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.export import export_detector
from streampose.methods.landmarks import load_landmarks_config, make_landmarks_task
from streampose.models.detector import build_detector
from streampose.runtime.bundle import default_bundle, load_bundle
from streampose.runtime.predictor import load_predictor
from streampose.selftrain import choose_method, prior_overrides, refined_network, selftrain
from streampose.store.priors import Prior, write_prior
from streampose.store.reader import StoreReader
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")
FEW_STEPS = ["steps.skeletons=3", "steps.figures=2", "steps.landmarks=3", "steps.reading=2", "batch_size=2"]
FEW_STEPS += ["discriminator_width=4"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The walking capsules of test_selftrain.py."""
    spec = importlib.util.spec_from_file_location("drawn", Path(__file__).with_name("test_selftrain.py"))
    assert spec is not None and spec.loader is not None
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    return drawn.make_store(tmp_path_factory.mktemp("landmarks"))


def test_a_bundle_of_landmarks_serves_like_any_other(store, tmp_path):
    flat = built_in_prior(HUMAN, 20, 1).poses[..., :2] * 100
    write_prior(store, Prior("drawn", flat, HUMAN.joints, np.array(["me"] * 20)))
    result = selftrain(
        store=store, method="landmarks", prior="drawn", overrides=FEW_STEPS, out=tmp_path / "runs",
        models=tmp_path / "models", device="cpu", precision="f32",
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "models" / "current")
    assert result["promoted"] and result["parity_px"] < 0.5
    assert (bundle.method, bundle.preset) == ("landmarks", "landmarks-tiny-skip-sided")
    crops = StoreReader(store).read("walk-0", [0, 1, 2]).frames
    for runtime in ("onnx", "torch"):
        keypoints, confidence = load_predictor(bundle.path, runtime).predict_crops(crops)
        assert keypoints.shape == (3, 17, 3) and np.isfinite(keypoints).all() and not keypoints[..., 2].any()
        assert ((confidence >= 0) & (confidence <= 1)).all()


def test_the_ancestor_needs_neither_labels_nor_poses_and_exports(store, tmp_path):
    config = load_landmarks_config("tiny", None, [*FEW_STEPS, "prior=none"])
    task = make_landmarks_task(StoreReader(store), HUMAN, config, "cpu")
    terms, _ = task.loss(task.batch(0), 0)
    assert terms.keys() == {"perceptual"}
    bundle, parity_px = export_detector(task.detector, HUMAN, 64, tmp_path / "bundle", preset=config.detector)
    assert bundle.preset == "ancestor-tiny" and parity_px < 0.5


def test_auto_takes_mask_where_masks_are_good(store):
    reader = StoreReader(store)
    assert choose_method(reader)[0] == "mask"
    assert choose_method(reader, default_bundle())[0] == "masks"
    assert choose_method(reader, default_bundle(), "mouse") == (
        "mask",
        "--method mask: 80 of 80 frames have masks of a still camera or of sam",
    )
    for clip in reader.clips():
        clip.attributes["masks"] = "moving"
    method, why = choose_method(reader, default_bundle())
    assert method == "landmarks" and "0 of 80 frames" in why


def test_a_network_that_cannot_be_refined_teaches_one_that_can(tmp_path):
    config = load_landmarks_config("tiny")
    detector = build_detector(config.detector, HUMAN.num_joints, config.input_size)
    export_detector(detector, HUMAN, config.input_size, tmp_path / "bundle", preset=config.detector)
    assert refined_network("masks", None, tmp_path / "bundle", ["seed=1"]) == ("tiny", ["seed=1"])
    assert refined_network("masks", "small", tmp_path / "bundle", []) == ("small", [])
    assert refined_network("triangulate", None, default_bundle(), [])[0] == load_bundle(default_bundle()).preset


def test_a_method_without_poses_refuses_a_prior():
    assert prior_overrides("walks", "landmarks") == ["prior=walks"]
    with pytest.raises(ConfigError, match="--method landmarks"):
        prior_overrides("walks", "mask")
