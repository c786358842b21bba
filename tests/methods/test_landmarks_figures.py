"""Painted figures: what is near hides what is far, colours and hems are where they should be."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.methods.landmarks_figures import Capsules, nearest_capsules, paint_figures, random_colours
from streampose.methods.landmarks_prior import Poses
from streampose.synthetic.built_in_prior import built_in_prior

HUMAN = load_skeleton("human17")
BONES = np.array([(bone.parent, bone.child) for bone in HUMAN.bones])


def capsules(*, near: int = 1):
    """A bar across and a bar down, six pixels thick, in a picture of 32; `near` is the one in front."""
    z = np.where(np.arange(2) == near, -20.0, 20.0)
    start = np.array([[[4, 16, z[0]], [16, 4, z[1]]]], np.float32)
    end = np.array([[[28, 16, z[0]], [16, 28, z[1]]]], np.float32)
    return Capsules(start, end, np.full((1, 2, 2), 3, np.float32), np.array([0, 1]))


def shown(found: Capsules, size: int = 32):
    start, end, radius = map(torch.from_numpy, found[:3])
    along = end - start
    which, edge = nearest_capsules(start, along, along[..., :2].square().sum(-1), radius, size)
    return which[0].numpy(), edge[0].numpy()


@pytest.mark.parametrize("near", [0, 1])
def test_the_nearest_capsule_is_shown(near):
    which, edge = shown(capsules(near=near))
    assert which[16, 16] == near
    assert which[16, 6] == 0 and which[6, 16] == 1
    assert edge[16, 6] == pytest.approx(1.5)  # half the radius in the middle: r^2 / 2r
    assert edge[19, 8] == pytest.approx(0, abs=1e-5) and edge[25, 8] < 0  # its rim, and far outside
    assert edge[16, 1] == pytest.approx(0, abs=1e-5)  # its round end


def test_capsules_taper():
    bars = capsules()
    bars.radius[:, 0] = (5, 1)
    _, edge = shown(bars)
    assert edge[12, 5] > 0 > edge[12, 27]


def test_background_stays_and_colours_are_those_of_the_bones():
    colours = np.zeros((1, 2, 2, 3))
    colours[:, 0, :, 0], colours[:, 1, :, 2] = 250, 250
    ground = np.full((1, 32, 32, 3), 7, np.uint8)
    for seed in range(5):
        picture = paint_figures(capsules(), colours, ground, np.random.default_rng(seed))[0]
        assert picture.dtype == np.uint8 and (picture[:8, :8] == 7).all()
    bars = [paint_figures(capsules(), colours, ground, np.random.default_rng(n))[0].astype(float) for n in range(40)]
    mean = np.mean(bars, 0)
    assert mean[16, 6, 0] > 1.3 * mean[16, 6, 2] and mean[6, 16, 2] > 1.3 * mean[6, 16, 0]
    assert ground.max() == 7


def test_colours_are_mostly_alike_on_both_sides():
    flip = np.array(HUMAN.flip_index)
    colours = random_colours(BONES, flip, 500, np.random.default_rng(0))
    assert colours.shape == (500, len(BONES), 2, 3) and colours.min() >= 5 and colours.max() <= 250
    by_child = {int(child): n for n, (_, child) in enumerate(BONES)}
    knees = colours[:, by_child[2]], colours[:, by_child[5]]
    assert 0.8 < (knees[0] == knees[1]).all((1, 2)).mean() < 0.98
    thigh, shin = colours[:, by_child[5]], colours[:, by_child[6]]
    assert 0.4 < (thigh == shin).all((1, 2)).mean() < 0.8


def test_figures_are_reproducible_and_lie_at_their_joints():
    poses = Poses(built_in_prior(HUMAN, 64, 3).poses, HUMAN)

    def painted(seed):
        rng = np.random.default_rng(seed)
        drawn = poses.draw(6, rng)
        return drawn, poses.paint(drawn, np.full((6, 64, 64, 3), 128, np.uint8), rng)

    (drawn, one), (_, again), (_, other) = painted(1), painted(1), painted(2)
    assert (one == again).all() and (one != other).any()
    pixels = np.round((drawn.xy + 1) * 32 - 0.5).astype(int).clip(0, 63)
    changed = (one != 128).any(-1)
    knees = changed[np.arange(6)[:, None], pixels[:, [2, 5], 1], pixels[:, [2, 5], 0]]
    assert knees.all() and changed.mean() < 0.6
