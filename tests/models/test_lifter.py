"""The lifter: what is hidden does not matter, sizes and places come out, and any skeleton is taken."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.models.lifter import JointsToPoses, build_lifter, normalise

HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module")
def lifter():
    torch.manual_seed(0)
    lifter = build_lifter("tiny", HUMAN).eval()
    lifter.metres.fill_(4.0)
    return lifter


def test_normalised_joints_have_no_mean_and_a_deviation_of_one():
    joints, seen = torch.randn(3, 17, 2) * 40 + 200, torch.ones(3, 17)
    seen[:, 4] = 0
    joints[:, 4] = torch.nan
    found, mean, deviation = normalise(joints, seen)
    known = found[:, seen[0] > 0]
    torch.testing.assert_close(known.mean(1), torch.zeros(3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close((known**2).mean((1, 2)), torch.ones(3))
    assert found[:, 4].abs().max() == 0
    torch.testing.assert_close(known * deviation[:, None, None] + mean[:, None], joints[:, seen[0] > 0])


@torch.no_grad()
def test_hidden_joints_may_be_anywhere(lifter):
    joints, seen, codes = torch.randn(2, 17, 2), torch.ones(2, 17), torch.zeros(2, lifter.code_size)
    seen[:, [3, 9]] = 0
    moved = joints.clone()
    moved[:, [3, 9]] = torch.nan
    module = JointsToPoses(lifter)
    torch.testing.assert_close(module(moved, seen, codes), module(joints, seen, codes))


@torch.no_grad()
def test_poses_are_in_metres_and_lie_where_the_joints_are(lifter):
    joints, seen, codes = torch.randn(2, 17, 2), torch.ones(2, 17), torch.zeros(2, lifter.code_size)
    module = JointsToPoses(lifter)
    poses, placement = module(joints, seen, codes)
    torch.testing.assert_close(lifter.size(poses), torch.full((2,), 4.0))
    assert poses[:, HUMAN.root].abs().max() == 0
    larger, placed = module(30 * joints + 100, seen, codes)
    torch.testing.assert_close(larger, poses, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(placed[:, :1], 30 * placement[:, :1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(placed[:, 1:], 30 * placement[:, 1:] + 100, rtol=1e-3, atol=1e-2)


def test_any_tree_is_lifted():
    mouse = load_skeleton("mouse")
    lifter = build_lifter("tiny", mouse)
    lifted = lifter(torch.randn(3, 10, 2), torch.ones(3, 10), torch.zeros(3, lifter.code_size))
    assert lifted.shape == (3, 10, 3) and np.isfinite(lifted.detach().numpy()).all()
    with pytest.raises(ValueError, match="unknown; choose"):
        build_lifter("huge", mouse)
