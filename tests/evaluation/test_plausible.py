import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError
from streampose.evaluation.plausible import limits_of_prior, measure_plausibility
from streampose.store.priors import Prior, write_prior
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module")
def limits(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "s.zarr"
    write_prior(store, built_in_prior(HUMAN, 1200, seed=0))
    flat = built_in_prior(HUMAN, 40)
    write_prior(store, Prior("flat", flat.poses[..., :2], flat.joints, flat.groups))
    with pytest.raises(StoreError, match="no prior nobody"):
        limits_of_prior(store, "nobody", HUMAN)
    with pytest.raises(ConfigError, match="its poses are 2D"):
        limits_of_prior(store, "flat", HUMAN)
    return limits_of_prior(store, "built-in", HUMAN)


def test_true_poses_pass_and_reversed_ones_do_not(limits):
    poses = 120 * built_in_prior(HUMAN, 320, seed=8).poses.astype(float) + (300, 200, 0)  # pixels
    metrics, per_joint = measure_plausibility([poses[:100], poses[100:]], limits)
    assert metrics["free/plausible"] > 0.95 and metrics["free/joint_limits"] > 0.99 < metrics["free/bone_ratios"]
    assert len(per_joint["free/joint_limits"]) == 16 and "pelvis" not in per_joint["free/joint_limits"]
    reversed_, _ = measure_plausibility([poses * (1, 1, -1)], limits)
    assert reversed_["free/plausible"] < 0.05 and reversed_["free/bone_ratios"] == metrics["free/bone_ratios"]
    squeezed, per_joint = measure_plausibility([poses * (1, 1, 0.2)], limits)
    assert squeezed["free/bone_ratios"] < 0.95


def test_poses_without_depth_are_refused(limits):
    with pytest.raises(ConfigError, match="have no depth; leave --prior out"):
        measure_plausibility([np.zeros((3, 17, 3))], limits)
    assert "free/plausible" not in measure_plausibility([], limits)[0]
