from __future__ import annotations

import numpy as np

from streampose.metrics.post_processing import apply_linear, fit_linear


def test_a_map_is_found_again():
    rng = np.random.default_rng(0)
    features, true = rng.normal(size=(500, 7)), rng.normal(size=(7, 4))
    targets = features @ true + [1, 2, 3, 4]
    weights = fit_linear(features, targets)
    np.testing.assert_allclose(apply_linear(weights, features), targets, atol=0.05)
    np.testing.assert_allclose(weights[-1], [1, 2, 3, 4], atol=0.02)


def test_entries_that_are_unknown_count_for_nothing():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 3))
    targets = features @ rng.normal(size=(3, 3))
    holes = targets.copy()
    holes[:100, 1] = np.nan
    holes[:, 2] = np.nan
    found = apply_linear(fit_linear(features, holes), features)
    np.testing.assert_allclose(found[:, :2], targets[:, :2], atol=0.05)
    assert np.isnan(found[:, 2]).all()


def test_features_that_depend_on_each_other_or_are_constant_do_no_harm():
    x = np.random.default_rng(0).normal(size=(50, 1))
    features = np.concatenate([x, x, np.ones((50, 1))], 1)
    found = apply_linear(fit_linear(features, 3 * x), features)
    np.testing.assert_allclose(found, 3 * x, atol=0.05)
    assert np.isfinite(fit_linear(np.ones((50, 2)), x)).all()
