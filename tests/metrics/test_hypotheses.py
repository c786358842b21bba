from __future__ import annotations

import numpy as np
import pytest

from streampose.metrics.hypotheses import best_of, spread


def test_the_best_hypothesis_is_taken_as_a_whole():
    values = np.array([[[1.0, 9.0], [4.0, 4.0]], [[3.0, 3.0], [1.0, 8.0]]])  # (2 hypotheses, 2 poses, 2 joints)
    np.testing.assert_array_equal(best_of(values), [[3, 3], [4, 4]])
    np.testing.assert_array_equal(best_of(values, higher_is_better=True), [[1, 9], [1, 8]])


def test_more_hypotheses_are_never_worse():
    values = np.random.default_rng(0).random((10, 50, 17))
    ten, three, one = (best_of(values[:n]).mean(1) for n in (10, 3, 1))
    assert (ten <= three).all() and (three <= one).all()


def test_a_hypothesis_without_values_is_never_the_best():
    values = np.array([[[np.nan, np.nan]], [[5.0, np.nan]]])
    np.testing.assert_array_equal(best_of(values), [[5, np.nan]])
    np.testing.assert_array_equal(best_of(-values, higher_is_better=True), [[-5, np.nan]])
    assert np.isnan(best_of(values[:1])).all()


def test_no_hypotheses_are_an_error():
    with pytest.raises(ValueError, match="no hypotheses"):
        best_of(np.zeros((0, 3, 2)))
    assert best_of(np.zeros((2, 0, 3))).shape == (0, 3)


def test_spread_by_hand():
    hypotheses = np.zeros((2, 1, 2, 3))
    hypotheses[0, 0, 1] = [2, 0, 4]
    np.testing.assert_allclose(spread(hypotheses), [[0, (1 + 0 + 2) / 3]])
    assert (spread(np.repeat(hypotheses[:1], 5, axis=0)) == 0).all()  # collapsed
