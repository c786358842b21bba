from __future__ import annotations

import numpy as np
import pytest

from streampose.geometry.align import align_similarity, best_scale, procrustes


def rotation(rng: np.random.Generator, D: int = 3) -> np.ndarray:
    Q = np.linalg.qr(rng.normal(size=(D, D)))[0]
    return Q * np.linalg.det(Q) if D % 2 else Q @ np.diag([1.0] * (D - 1) + [np.linalg.det(Q)])


@pytest.mark.parametrize("D", [2, 3])
def test_a_similarity_is_recovered(D):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 17, D))
    R = np.stack([rotation(rng, D) for _ in range(5)])
    scale, t = rng.uniform(0.2, 4, 5), rng.normal(size=(5, D))
    target = scale[:, None, None] * points @ np.swapaxes(R, -1, -2) + t[:, None]
    found_s, found_R, found_t = procrustes(points, target)
    np.testing.assert_allclose(found_s, scale, atol=1e-9)
    np.testing.assert_allclose(found_R, R, atol=1e-9)
    np.testing.assert_allclose(found_t, t, atol=1e-9)
    np.testing.assert_allclose(align_similarity(points, target), target, atol=1e-9)


def test_a_mirrored_set_is_not_brought_back():
    points = np.random.default_rng(1).normal(size=(17, 3))
    mirrored = points * [1, 1, -1]
    _, R, _ = procrustes(mirrored, points)
    assert np.linalg.det(R) == pytest.approx(1)
    assert np.linalg.norm(align_similarity(mirrored, points) - points, axis=-1).mean() > 0.2


def test_it_is_the_best_rotation_for_a_mirrored_set_too():
    rng = np.random.default_rng(2)
    points, target = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    best = ((align_similarity(points, target) - target) ** 2).sum()
    p, q = points - points.mean(0), target - target.mean(0)
    for _ in range(300):
        turned = p @ rotation(rng).T
        turned *= max((turned * q).sum(), 0) / (turned**2).sum()
        assert ((turned - q) ** 2).sum() >= best - 1e-9


def test_missing_points_count_for_nothing():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(2, 8, 3))
    target = 2 * points @ rotation(rng).T + 1
    target[0, 3] = np.nan
    points[1, 5, 0] = np.nan
    aligned = align_similarity(points, target)
    np.testing.assert_allclose(aligned[0][np.arange(8) != 3], target[0][np.arange(8) != 3], atol=1e-9)
    np.testing.assert_allclose(aligned[1][np.arange(8) != 5], target[1][np.arange(8) != 5], atol=1e-9)


def test_too_few_or_coinciding_points_give_nan():
    points = np.zeros((2, 4, 3))
    points[1] = np.nan
    assert np.isnan(align_similarity(points, np.ones((2, 4, 3)))).all()


def test_best_scale_by_hand():
    points = np.array([[1.0, 0.0], [0.0, 2.0], [np.nan, 5.0]])
    target = np.array([[3.0, 0.0], [0.0, 1.0], [7.0, np.nan]])
    assert best_scale(points, target) == pytest.approx((3 + 2) / (1 + 4))
    assert best_scale(-points, target) == 0  # a negative scale would be a mirror
    assert np.isnan(best_scale(0 * points, target))
