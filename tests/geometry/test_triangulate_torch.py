import numpy as np
import pytest
import torch

from streampose.geometry import triangulate
from streampose.geometry.triangulate_torch import (
    reproject,
    reprojection_error,
    triangulate_dlt,
    triangulate_reweighted,
)

RNG = np.random.default_rng(2)
WORLD = RNG.uniform(-0.8, 0.8, (3, 5, 3))  # 3 moments, 5 points


def make_P(views):
    K = np.array([[1100.0, 0, 540], [0, 1100, 960], [0, 0, 1]])
    P = []
    for v in range(views):
        turn = 2 * np.pi * v / views
        R = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
        P.append(K @ np.hstack([R, [[0.1], [0.2], [4.0]]]))
    return np.array(P)


def noisy(views, sigma=3.0):
    P = make_P(views)
    seen = triangulate.reproject(WORLD, P)
    return seen + RNG.normal(0, sigma, seen.shape), P


@pytest.mark.parametrize("views", [2, 3, 5])
def test_equals_numpy_with_confidence_and_missing_views(views):
    seen, P = noisy(views)
    weight = RNG.uniform(0.1, 1, seen.shape[:-1])
    seen[0, 0, 0] = np.nan
    weight[1, 1:, 2] = 0
    ours = triangulate_dlt(torch.tensor(seen), torch.tensor(P), torch.tensor(weight))
    expected = triangulate.triangulate_dlt(seen, P, weight)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert np.isnan(expected[1, 2]).all()


def test_float32_keypoints_lose_nothing():
    seen, P = noisy(4)
    ours = triangulate_dlt(torch.tensor(seen, dtype=torch.float32), torch.tensor(P, dtype=torch.float32))
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), triangulate.triangulate_dlt(seen, P), atol=1e-5)  # a hundredth of a mm


def test_the_gradient_is_that_of_finite_differences():
    seen, P = noisy(3)
    inputs = [torch.tensor(value, requires_grad=True) for value in (seen[0], P, RNG.uniform(0.2, 1, (3, 5)))]
    assert torch.autograd.gradcheck(triangulate_dlt, inputs, atol=1e-6, rtol=1e-4)
    world = torch.tensor(WORLD[0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: reproject(x, inputs[1].detach()), [world], rtol=1e-4)


def test_points_that_are_not_seen_leave_the_gradients_finite():
    seen, P = noisy(3)
    seen[0, 1:, 0] = np.nan  # seen once
    seen[1, 2, 1] = np.nan
    points_2d = torch.tensor(seen, dtype=torch.float32, requires_grad=True)
    matrices = torch.tensor(P, dtype=torch.float32)
    error = reprojection_error(triangulate_dlt(points_2d, matrices), points_2d.nan_to_num(), matrices)
    torch.where(torch.isfinite(error), error, 0.0).sum().backward()
    assert torch.isfinite(points_2d.grad).all()
    assert (points_2d.grad[0, :, 0] == 0).all() and (points_2d.grad[1, :2, 1] != 0).all()


def test_descending_the_reprojection_error_moves_a_wrong_view_to_the_others():
    P = torch.tensor(make_P(4))
    exact = torch.tensor(triangulate.reproject(WORLD, make_P(4)))
    offset = torch.zeros_like(exact)
    offset[:, 0] = 30.0
    offset.requires_grad_(True)
    optimiser = torch.optim.Adam([offset], lr=1.0)
    for _ in range(60):
        optimiser.zero_grad()
        seen = exact + offset
        loss = reprojection_error(triangulate_dlt(seen, P), seen, P).mean()
        loss.backward()
        optimiser.step()
    assert loss < 2.0  # 15 px and more at first


def test_reweighting_resists_a_wrong_view():
    seen, P = noisy(5, sigma=1.0)
    seen[:, 2] += 60
    world = torch.tensor(WORLD)
    plain = (triangulate_dlt(torch.tensor(seen), torch.tensor(P)) - world).norm(dim=-1)
    robust = (triangulate_reweighted(torch.tensor(seen), torch.tensor(P), scale_px=4.0) - world).norm(dim=-1)
    assert robust.median() < 0.2 * plain.median() and robust.max() < 0.02


def test_the_numbers_of_views_must_agree():
    with pytest.raises(ValueError, match="3 views of points, but 2"):
        triangulate_dlt(torch.zeros(3, 5, 2), torch.tensor(make_P(2)))
