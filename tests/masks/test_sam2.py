"""Segment Anything 2 for real, with its smallest configuration and random weights, where the package is installed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from streampose.errors import ConfigError
from streampose.masks.sam import make_prompt, mask_iou, open_sam
from streampose.masks.sam2 import CONFIGURATIONS, Sam2, configuration

S = 64


def picture(x):
    image = np.random.default_rng(0).integers(40, 110, (S, S, 3), dtype=np.uint8)
    coarse = np.zeros((S, S), np.uint8)
    for canvas, colour in ((image, (220, 60, 40)), (coarse, 255)):
        cv2.ellipse(canvas, (round(x), 32), (9, 22), 0, 0, 360, colour, -1)
    return image, coarse


@pytest.mark.parametrize("size", CONFIGURATIONS)
def test_configurations_are_told_by_their_shapes(size):
    width, blocks = size
    state = {f"image_encoder.trunk.blocks.{n}.norm1.weight": torch.zeros(1) for n in range(blocks)}
    state["image_encoder.trunk.patch_embed.proj.weight"] = torch.zeros(width, 3, 7, 7)
    assert configuration(state, Path("x.pt")) == f"sam2_{CONFIGURATIONS[size]}"
    state["no_obj_embed_spatial"] = torch.zeros(1)
    assert configuration(state, Path("x.pt")) == f"sam2.1_{CONFIGURATIONS[size]}"
    del state["image_encoder.trunk.blocks.0.norm1.weight"]
    with pytest.raises(ConfigError, match="use a published checkpoint"):
        configuration(state, Path("x.pt"))


def test_the_package_is_asked_for(tmp_path, monkeypatch):
    state = {f"image_encoder.trunk.blocks.{n}.norm1.weight": torch.zeros(1) for n in range(12)}
    state["image_encoder.trunk.patch_embed.proj.weight"] = torch.zeros(96, 3, 7, 7)
    torch.save({"model": state}, tmp_path / "sam2_tiny.pt")
    monkeypatch.setitem(__import__("sys").modules, "sam2.build_sam", None)
    with pytest.raises(ConfigError, match=r"sam2.* is not installed, which this checkpoint needs; pip install sam2"):
        open_sam(tmp_path / "sam2_tiny.pt")


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("sam2", reason="the package sam2 is not installed")
    from streampose.masks.sam2 import _build

    torch.manual_seed(0)
    state = _build("sam2.1_hiera_t", "cpu", 128).state_dict()
    return Sam2(state, Path("tiny.pt"), device="cpu", precision="f32", image_size=128)


def test_a_subject_is_followed_from_one_prompt(tiny, capfd):
    images, coarse = (np.stack(part) for part in zip(*[picture(x) for x in (28, 30, 32)], strict=True))
    prompts = [make_prompt(mask) for mask in coarse]
    squares = np.tile(np.array([0, 0, S, S], np.float32), (3, 1))
    answers = tiny.segment(images, coarse, prompts, squares)
    assert [answer.mask.shape for answer in answers] == [(S, S)] * 3
    assert all(answer.mask.dtype == np.uint8 and answer.logits.shape == (256, 256) for answer in answers)
    again = tiny.segment(images, coarse, prompts, squares)
    np.testing.assert_array_equal(answers[2].logits, again[2].logits)
    other = type(prompts[0])(np.array([1, 1, 12, 12], np.float32), prompts[0].points * 0 + 4, prompts[0].inside)
    moved = tiny.segment(images, coarse, [other, *prompts[1:]], squares)
    assert np.abs(moved[0].logits - answers[0].logits).max() > 1e-4
    earlier = type(prompts[0])(
        None, prompts[0].points, prompts[0].inside, np.where(coarse[0] > 0, 9.0, -9.0).astype(np.float32)
    )
    from_mask = tiny.segment(images, coarse, [earlier, *prompts[1:]], squares)
    assert mask_iou(from_mask[0].mask > 0, coarse[0] > 0) > 0.95  # the mask of a moment ago is taken as it is
    assert "%" not in capfd.readouterr().err  # its own progress bars are silent
    assert tiny.refine(images[0], None, coarse[0]).shape == (S, S)


def test_weights_of_another_size_are_refused(tiny):
    state = dict(tiny._predictor.state_dict())
    state["maskmem_tpos_enc"] = torch.zeros(1)
    with pytest.raises(ConfigError, match=r"does not fit Segment Anything 2's sam2.1_hiera_t"):
        Sam2(state, Path("tiny.pt"), device="cpu", image_size=128)
