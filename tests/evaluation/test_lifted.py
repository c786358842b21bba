"""Measuring lifters: one that knows the truth, one that guesses, and how the two compare."""

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.evaluation.lifted import (
    Views,
    calibrate,
    compare_lifted,
    coverage,
    hide_limbs,
    measure_lifter,
    photograph,
)
from streampose.runtime.bundle import LifterPart
from streampose.runtime.lifter import Lifting
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")
PART = LifterPart(code_size=2, least_metres=0.02, seen=[1.0] * 17, missing=[1.0] * 17)


@pytest.fixture(scope="module")
def views() -> Views:
    return photograph(built_in_prior(HUMAN, 128, 0), HUMAN, 32, 0)


def oracle(views: Views, noise: float) -> Lifting:
    """Finds the true pose by its joints; codes and a little noise move it."""
    rng = np.random.default_rng(0)

    def run(joints, visibility, codes):
        apart = (visibility[:, None, :, None] * (joints[:, None] - views.joints[None])) ** 2
        poses = views.truth[apart.sum((2, 3)).argmin(1)]
        offset = noise * rng.normal(0, 1, poses.shape) * (1 + np.abs(codes[:, :1, None]))
        offset[:, HUMAN.root] = 0
        return (poses + offset).astype(np.float32), np.ones((len(joints), 3), np.float32)

    return Lifting(run, HUMAN, PART)


def test_views_show_what_a_camera_sees(views):
    assert views.truth.shape == (32, 17, 3) and np.abs(views.truth[:, HUMAN.root]).max() == 0
    # in perspective nothing but the depth tells the rays apart: one shift and scale fit joints that are equally far
    assert np.isfinite(views.joints).all() and len(views.groups) == 32
    again = photograph(built_in_prior(HUMAN, 128, 0), HUMAN, 32, 0)
    np.testing.assert_array_equal(views.joints, again.joints)


def test_an_oracle_makes_no_error_and_noise_makes_some(views):
    exact, noisy = (measure_lifter(oracle(views, noise), views) for noise in (0.0, 0.05))
    assert exact.metrics["pa_mpjpe_mm"] == pytest.approx(0, abs=0.1)
    assert exact.metrics["spread_mm"] == pytest.approx(0, abs=0.1)
    assert exact.metrics["missing2_pa_mpjpe_mm"] < 5
    assert exact.metrics["coverage90"] == 1
    assert 30 < noisy.metrics["pa_mpjpe_mm"] < 120 and noisy.metrics["spread_mm"] > 40
    assert noisy.metrics["best10_pa_mpjpe_mm"] < noisy.metrics["one_pa_mpjpe_mm"]
    difference, low, high = compare_lifted(exact, noisy)
    assert low > 0 and low < difference < high


def test_calibration_covers_nine_in_ten(views):
    lifting = oracle(views, 0.05)
    part = calibrate(lifting, views)
    assert min(part.missing) > 0 and all(m >= s for s, m in zip(part.seen, part.missing, strict=True))
    calibrated = Lifting(lifting._run, HUMAN, part)
    lifted = calibrated.lift(views.joints)
    assert coverage(lifted.pose, lifted.covariance, views.truth, HUMAN.root) == pytest.approx(0.9, abs=0.06)


def test_hidden_limbs_are_limbs():
    hidden = hide_limbs(50, HUMAN, 2)
    assert (hidden.sum(1) == 15).all()
    names = {HUMAN.joints[k] for k in np.flatnonzero((hidden == 0).any(0))}
    assert all(name.split("_")[1] in ("wrist", "elbow", "knee", "ankle") for name in names)
    mouse = load_skeleton("mouse")
    assert (hide_limbs(20, mouse, 2)[:, mouse.root] == 1).all()
