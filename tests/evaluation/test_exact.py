"""Errors of networks on crops, with truth made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.evaluation.exact import Exact, measure, predict_crops
from streampose.methods.mask_data import make_frames
from streampose.methods.mask_views import no_instants

SKELETON = load_skeleton("human17")
SIZE, N = 16, 12
MM_PER_PIXEL = 100.0


class Says(torch.nn.Module):
    """A detector that says the same joints (N, K, 3) of crops in order, whose first pixel is their number."""

    def __init__(self, keypoints):
        super().__init__()
        self.keypoints = torch.from_numpy(keypoints).float()

    def forward(self, images):
        return SimpleNamespace(keypoints=self.keypoints[(images[:, 0, 0, 0] * 255).round().long()])


@pytest.fixture
def made():
    """Two people of six frames each; joints in pixels and depth in pixels."""
    rng = np.random.default_rng(0)
    crops = np.zeros((N, SIZE, SIZE, 3), np.uint8)
    crops[:, 0, 0, 0] = np.arange(N)
    masks = np.zeros((N, SIZE, SIZE), np.uint8)
    masks[:, 4:12, 4:12] = 255
    boxes = np.tile(np.array([0, 0, SIZE, SIZE], np.float32), (N, 1))
    frames = make_frames(crops, masks, boxes, np.repeat([0, 1], N // 2), np.tile(np.arange(N // 2) / 25, 2))
    pixels = rng.uniform(2, 14, (N, SKELETON.num_joints, 3))
    world = MM_PER_PIXEL * (pixels - pixels[:, [SKELETON.root]])
    return Exact(frames, pixels[..., :2], world, np.full(N, MM_PER_PIXEL), no_instants(N)), pixels


def in_crop(pixels):
    return np.concatenate([(pixels[..., :2] + 0.5) * 2 / SIZE - 1, pixels[..., 2:] * 2 / SIZE], -1)


def test_the_truth_has_no_error(made):
    exact, pixels = made
    np.testing.assert_allclose(predict_crops(Says(in_crop(pixels)), exact.frames.crops), pixels, atol=1e-4)
    means, people = measure(Says(in_crop(pixels)), exact, SKELETON)
    assert means["pck@0.2"] == means["pck@0.2/flips"] == 1
    errors = [name for name in means if ("mm" in name or "mse" in name) and not name.endswith("spp")]  # that is fitted
    assert len(errors) == 5 and all(means[name] == pytest.approx(0, abs=0.05) for name in errors)
    assert "ambiguity" not in means and len(people["mpjpe_mm"]) == 2


def test_errors_of_each_person(made):
    """The second person's x is two pixels off in every second frame, which is all that is measured."""
    exact, pixels = made
    off = pixels.copy()
    off[N // 2 :: 2, :, 0] += 2
    off[N // 2 :: 2, SKELETON.root, 0] -= 2  # the root stays
    means, people = measure(Says(in_crop(off)), exact, SKELETON, every=2)
    error = 2 / SIZE * 100 * 16 / 17
    np.testing.assert_allclose(people["mse_percent"], [0, error], atol=1e-3)
    assert means["mse_percent"] == pytest.approx(error / 2, abs=1e-3)
    np.testing.assert_allclose(people["mpjpe_mm"], [0, 2 * MM_PER_PIXEL * 16 / 17], atol=0.05)


def test_flips_forgive_exchanged_sides(made):
    exact, pixels = made
    means, _ = measure(Says(in_crop(pixels)[:, SKELETON.flip_index]), exact, SKELETON)
    assert means["mse_percent"] > 5 and means["mse_percent/flips"] == pytest.approx(0, abs=1e-3)
    assert means["mpjpe_mm"] > 100 and means["mpjpe_mm/flips"] == pytest.approx(0, abs=0.05)


def test_missing_joints_and_pictures_do_not_count(made):
    exact, pixels = made
    off = pixels.copy()
    off[3] += 5
    off[:, 4] += 5
    joints, world = exact.joints.copy(), exact.world.copy()
    joints[3], world[3], joints[:, 4], world[:, 4] = np.nan, np.nan, np.nan, np.nan
    means, _ = measure(Says(in_crop(off)), exact._replace(joints=joints, world=world), SKELETON)
    assert means["mse_percent"] == pytest.approx(0, abs=1e-3) and means["pck@0.2"] == 1
