"""Bone maps: the corrected Eq. 16 and 17, cell centres, merging, gradients."""

import math

import pytest
import torch

from streampose.losses.bone_maps import bone_maps, pixel_centres, point_maps, solid_bone_maps, squared_distances, union

BONE = torch.tensor([[0, 1]])


def test_distance_along_and_beyond_a_bone_worked_by_hand():
    start, end = torch.tensor([-0.5, 0.25]), torch.tensor([0.5, 0.25])
    distances = squared_distances(start, end, 4)  # pixel centres at -0.75, -0.25, 0.25, 0.75
    assert float(distances[2, 1]) == pytest.approx(0)  # (-0.25, 0.25) lies on it
    assert float(distances[0, 1]) == pytest.approx(1.0)  # straight above, one away
    assert float(distances[2, 3]) == pytest.approx(0.25**2)  # beyond the end
    assert float(distances[0, 0]) == pytest.approx(0.25**2 + 1)  # beyond the start, and above


def test_direction_of_a_bone_does_not_matter():
    xy = torch.rand(2, 2, 2) * 2 - 1
    torch.testing.assert_close(bone_maps(xy, BONE, 3e-3, 16), bone_maps(xy.flip(1), BONE, 3e-3, 16))


def test_middle_of_a_bone_is_drawn():
    """The printed Eq. 16 (x_i + r x_j) misses the bone's middle unless it starts at the origin."""
    xy = torch.tensor([[[0.125, 0.125], [0.875, 0.875]]])
    drawn = bone_maps(xy, BONE, 3e-3, 8)[0, 0]
    assert drawn.diagonal()[4:].min() > 0.999
    assert drawn.diagonal()[:3].max() < 1e-3


def test_a_bone_of_length_zero_is_a_dot():
    xy = torch.zeros(1, 2, 2)
    torch.testing.assert_close(bone_maps(xy, BONE, 0.1, 8), point_maps(xy[:, :1], 0.1, 8))


def test_drawing_is_centred_on_its_joint():
    """Soft-argmax over cell centres gives the joint back: no half-cell bias between renderer and detector."""
    xy = torch.tensor([[[0.3, -0.2]]])
    drawn = point_maps(xy, 0.02, 32)[0, 0]
    mean = (drawn[..., None] * pixel_centres(32, drawn)).sum((0, 1)) / drawn.sum()
    torch.testing.assert_close(mean, xy[0, 0], atol=1e-4, rtol=0)


def test_sigma_divides_the_squared_distance_and_may_differ_by_bone():
    xy = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    two = torch.tensor([[0, 1], [0, 1]])
    maps = bone_maps(xy, two, torch.tensor([0.5, 0.25]), 2)  # all four centres at a squared distance of 0.5
    torch.testing.assert_close(maps[0, 0], torch.full((2, 2), math.exp(-1)))
    torch.testing.assert_close(maps[0, 1], torch.full((2, 2), math.exp(-2)))


def test_capsule_is_half_at_its_rim():
    xy = torch.tensor([[[-0.5, 0.0], [0.5, 0.0]]])
    solid = solid_bone_maps(xy, BONE, torch.tensor([[0.125]]), 8)[0, 0]  # rows at 0.125 lie on the rim
    assert float(solid[4, 4]) == pytest.approx(0.5, abs=1e-3)
    wide = solid_bone_maps(xy, BONE, torch.tensor([[0.5]]), 8)[0, 0]
    assert wide[4, 4] > 0.85


def test_union_never_exceeds_one_and_is_the_sum_of_small_maps():
    maps = torch.rand(1, 5, 4, 4)
    assert union(maps).max() <= 1
    one = torch.zeros(1, 3, 2, 2)
    one[0, 0] = 0.3
    torch.testing.assert_close(union(one), torch.full((1, 2, 2), 0.3))
    torch.testing.assert_close(union(torch.full((1, 2, 1, 1), 0.5)), torch.full((1, 1, 1), 0.75))
    small = torch.full((1, 3, 1, 1), 1e-4)
    torch.testing.assert_close(union(small), small.sum(1), rtol=1e-3, atol=0)


def test_union_of_full_maps_has_finite_gradients():
    maps = torch.ones(1, 3, 2, 2, requires_grad=True)
    union(maps).sum().backward()
    assert torch.isfinite(maps.grad).all()


def _capsules(xy):
    return solid_bone_maps(xy, BONE, torch.full((1, 1), 0.3, dtype=xy.dtype), 6)


@pytest.mark.parametrize("draw", [lambda xy: bone_maps(xy, BONE, 0.05, 6), _capsules])
def test_gradients_agree_with_differences(draw):
    xy = torch.tensor([[[-0.31, 0.12], [0.43, -0.27]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(draw, (xy,))
