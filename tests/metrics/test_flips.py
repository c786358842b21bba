from __future__ import annotations

import numpy as np
import pytest

from streampose.metrics.flips import ambiguity_ratio, better_of, swap_left_right


def test_swap():
    keypoints = np.arange(6.0).reshape(1, 3, 2)
    np.testing.assert_array_equal(swap_left_right(keypoints, [0, 2, 1]), [[[0, 1], [4, 5], [2, 3]]])


def test_the_better_one_is_taken_for_the_image_as_a_whole():
    errors = np.array([[1.0, 9.0], [4.0, 4.0]])
    swapped = np.array([[3.0, 3.0], [1.0, 8.0]])
    # Image 1: means 5 and 3, so the swap, although joint 1 alone was better; image 2: 4 and 4.5, so no swap.
    np.testing.assert_array_equal(better_of(errors, swapped, higher_is_better=False), [[3, 3], [4, 4]])
    np.testing.assert_array_equal(better_of(errors, swapped, higher_is_better=True), [[1, 9], [1, 8]])


def test_missing_joints_do_not_decide():
    errors = np.array([[np.nan, 2.0], [np.nan, np.nan]])
    swapped = np.array([[np.nan, 1.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(better_of(errors, swapped, higher_is_better=False), [[np.nan, 1], [np.nan, np.nan]])


def test_flips_never_make_it_worse():
    rng = np.random.default_rng(0)
    errors, swapped = rng.random((50, 17)), rng.random((50, 17))
    assert (better_of(errors, swapped, higher_is_better=False).mean(1) <= errors.mean(1)).all()


def test_ambiguity_ratio_by_hand():
    errors = np.zeros((3, 4))
    swapped = np.array([[1.0, 1, 1, 1], [-1, -1, -1, 1], [-1, -1, 1, 1]])  # 0, 3 and 2 of 4 views better swapped
    assert ambiguity_ratio(errors, swapped) == pytest.approx((0 + 1 + 2) / 12)
    assert ambiguity_ratio(errors[:, :1], swapped[:, :1]) == 0
