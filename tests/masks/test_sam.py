"""Segment Anything for real, with a small network of random weights."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from streampose.errors import ConfigError
from streampose.masks.clip_masks import ClipMasks, corrected, signed_distance
from streampose.masks.sam import Answer, Sam, deep_points, make_prompt, mask_iou, move_logits, open_sam
from streampose.models.torchvision_shim import import_torchvision

import_torchvision()
modeling = pytest.importorskip("segment_anything.modeling", reason="the extra `sam` is not installed")

S = 64


def small_sam(seed=0, width=32, depth=2, heads=2, side=64, patch=8):
    """A Segment Anything of 60,000 weights."""
    torch.manual_seed(seed)
    grid = side // patch
    network = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=side, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, out_chans=32,
            qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=3,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=modeling.PromptEncoder(32, (grid, grid), (side, side), 16),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=32, transformer=modeling.TwoWayTransformer(2, 32, 8, 48), iou_head_hidden_dim=24
        ),
    )  # fmt: skip
    for name, value in network.named_parameters():
        if "rel_pos" in name or "pos_embed" in name or "mask_tokens" in name:
            torch.nn.init.normal_(value, std=0.5)
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sam") / "small.pth"
    torch.save(small_sam().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sam(checkpoint) -> Sam:
    torch.set_num_threads(1)
    return open_sam(checkpoint, device="cpu", precision="f32")


def picture(x=32.0, seed=0):
    """A bright figure on a wall, and its coarse mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 110, (S, S, 3), dtype=np.uint8)
    coarse = np.zeros((S, S), np.uint8)
    for canvas, colour in ((image, (220, 60, 40)), (coarse, 255)):
        cv2.ellipse(canvas, (round(x), 32), (9, 22), 0, 0, 360, colour, -1)
    return image, coarse


def test_the_network_is_the_one_that_was_saved(checkpoint, sam):
    network = small_sam().eval()
    image, _ = picture()
    pixels = (torch.from_numpy(image).permute(2, 0, 1).float() - network.pixel_mean) / network.pixel_std
    with torch.inference_mode():
        expected = network.image_encoder(pixels[None])
    torch.testing.assert_close(sam.encode(image[None]), expected, rtol=1e-4, atol=1e-4)
    assert sam.kind == "vit 32" and sam.logits_size == 32


@pytest.mark.parametrize(
    ("width", "depth", "heads", "globally", "kind"),
    [(768, 12, 12, (2, 5, 8, 11), "vit_b"), (1024, 24, 16, (5, 11, 17, 23), "vit_l"),
     (1280, 32, 16, (7, 15, 23, 31), "vit_h")],
)  # fmt: skip
def test_published_sizes_are_told_by_their_shapes(width, depth, heads, globally, kind):
    from streampose.masks.sam import NAMES, _encoder_sizes

    shapes = {
        "image_encoder.patch_embed.proj.weight": (width, 3, 16, 16),
        "image_encoder.pos_embed": (1, 64, 64, width),
    }
    for n in range(depth):
        shapes[f"image_encoder.blocks.{n}.attn.rel_pos_h"] = (127 if n in globally else 27, width // heads)
        shapes[f"image_encoder.blocks.{n}.mlp.lin1.weight"] = (4 * width, width)
    assert _encoder_sizes(shapes) == {
        "img_size": 1024, "patch_size": 16, "embed_dim": width, "depth": depth, "num_heads": heads, "mlp_ratio": 4.0,
        "use_rel_pos": True, "window_size": 14, "global_attn_indexes": globally,
    }  # fmt: skip
    assert NAMES[width] == kind


def test_answers_have_the_pictures_size_and_are_repeatable(sam):
    image, coarse = picture()
    first, second = (sam.refine(image, None, coarse) for _ in range(2))
    assert first.shape == (S, S) and first.dtype == np.uint8 and set(np.unique(first)) <= {0, 255}
    np.testing.assert_array_equal(first, second)
    wide = np.concatenate([image, image], 1)
    answer = sam.answer(sam.encode(wide[None])[0], wide.shape[:2], make_prompt(np.concatenate([coarse, 0 * coarse], 1)))
    assert answer.mask.shape == (S, 2 * S) and answer.logits.shape == (32, 32)


def test_prompts_reach_the_decoder(sam):
    image, coarse = picture()
    embedding = sam.encode(image[None])[0]
    whole = make_prompt(coarse)
    base = sam.answer(embedding, (S, S), whole)
    box = type(whole)(np.array([2, 2, 20, 20], np.float32), whole.points, whole.inside)
    points = type(whole)(whole.box, whole.points * 0 + 3, whole.inside)
    outside = type(whole)(whole.box, whole.points, ~whole.inside)
    earlier = type(whole)(whole.box, whole.points, whole.inside, np.full((32, 32), 8.0, np.float32))
    for other in (box, points, outside, earlier):
        assert np.abs(sam.answer(embedding, (S, S), other).logits - base.logits).max() > 1e-3
    assert (sam.refine(image, box.box, coarse) != sam.refine(image, whole.box, coarse)).any()


def test_the_mask_that_agrees_with_the_prompt_wins(sam):
    image, coarse = picture()
    embedding = sam.encode(image[None])[0]
    free = sam.answer(embedding, (S, S), make_prompt(coarse))
    bound = sam.answer(embedding, (S, S), make_prompt(coarse), coarse)
    assert bound.score + bound.agreement >= free.score + mask_iou(free.mask > 0, coarse > 0)


def test_the_last_answer_is_part_of_the_next_prompt(sam):
    images, coarse = (np.stack(part) for part in zip(*[picture(x) for x in (26, 30, 34)], strict=True))
    squares = np.array([[0, 0, 64, 64], [4, 0, 68, 64], [8, 0, 72, 64]], np.float32)
    prompts = [make_prompt(mask) for mask in coarse]
    together = sam.segment(images, coarse, prompts, squares)
    alone = [
        sam.segment(images[n : n + 1], coarse[n : n + 1], prompts[n : n + 1], squares[n : n + 1])[0] for n in range(3)
    ]
    np.testing.assert_array_equal(together[0].logits, alone[0].logits)
    assert np.abs(together[1].logits - alone[1].logits).max() > 1e-3
    moved = type(prompts[1])(
        prompts[1].box, prompts[1].points, prompts[1].inside, move_logits(together[0].logits, squares[0], squares[1])
    )
    by_hand = sam.segment(images[1:2], coarse[1:2], [moved], squares[1:2])[0]
    np.testing.assert_array_equal(together[1].logits, by_hand.logits)


def test_bf16_answers_much_like_f32(checkpoint, sam):
    image, coarse = picture()
    half = open_sam(checkpoint, device="cpu", precision="bf16")
    assert half.bf16 and not sam.bf16
    assert mask_iou(half.refine(image, None, coarse) > 0, sam.refine(image, None, coarse) > 0) > 0.8


def test_logits_move_with_the_square():
    logits = np.full((32, 32), -8.0, np.float32)
    logits[8:16, 12:20] = 8
    before = np.array([0, 0, 64, 64], np.float32)
    right = move_logits(logits, before, before + np.array([8, 0, 8, 0]))  # 8 source pixels are 4 of the answer's
    np.testing.assert_allclose(right[8:16, 8:16], 8)
    assert (right > 0).sum() == 64
    closer = move_logits(logits, before, np.array([16, 8, 48, 40], np.float32))  # twice as large
    assert abs((closer > 0).sum() - 4 * 64) < 40


def test_deep_points_lie_inside_and_apart():
    _, coarse = picture()
    points = deep_points(coarse, 3)
    x, y = points.astype(int).T
    assert len(points) == 3 and coarse[y, x].all()
    assert min(np.linalg.norm(points[a] - points[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 4
    assert not len(deep_points(np.zeros((8, 8), np.uint8), 3))


def test_prompts_from_keypoints_take_sure_ones_near_the_mask():
    _, coarse = picture()
    keypoints = np.array([[32, 20], [32, 40], [60, 60], [31, 30]], np.float32)
    prompt = make_prompt(coarse, keypoints, np.array([0.9, 0.8, 0.9, 0.1]))
    np.testing.assert_array_equal(prompt.points, keypoints[:2])
    np.testing.assert_array_equal(prompt.box, [23, 10, 42, 55])
    assert len(make_prompt(coarse, keypoints, np.zeros(4)).points) >= 1  # else from the mask


def test_errors_say_what_to_fetch(tmp_path, checkpoint, monkeypatch):
    with pytest.raises(ConfigError, match=r"no such file; fetch sam_vit_b_01ec64.pth"):
        open_sam(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ConfigError, match=r"cannot be read|holds more than weights"):
        open_sam(tmp_path / "text.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="not a checkpoint of Segment Anything"):
        open_sam(tmp_path / "other.pth")
    torch.save({"image_encoder.layers.0.weight": torch.zeros(3)}, tmp_path / "mobile.pth")
    with pytest.raises(ConfigError, match="a variant of Segment Anything"):
        open_sam(tmp_path / "mobile.pth")
    state = small_sam().state_dict()
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(ConfigError, match=r"1 weights are missing in it, the first is mask_decoder.iou_token.weight"):
        open_sam(tmp_path / "torn.pth")
    with pytest.raises(ConfigError, match="choose one of auto, bf16, f32"):
        open_sam(checkpoint, precision="fp8")
    monkeypatch.setitem(__import__("sys").modules, "segment_anything.modeling", None)
    with pytest.raises(ConfigError, match=r"segment_anything.* is not installed.*streampose\[sam\]"):
        open_sam(checkpoint)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"image_encoder.x": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(ConfigError, match="holds more than weights"):
        open_sam(tmp_path / "harm.pth")
    assert not (tmp_path / "harmed").exists()


class Truthful:
    """Answers with masks that are known, as a trained SAM would; for the clip's bookkeeping only."""

    def __init__(self, batch, agreement=0.9):
        self.batch, self.agreement, self.calls, self.earlier = batch, agreement, [], []

    def segment(self, crops, coarse, prompts, squares):
        self.calls.append(len(crops))
        self.earlier += [prompt.logits is not None for prompt in prompts]
        grown = [cv2.dilate(mask, np.ones((5, 5), np.uint8)) for mask in coarse]
        return [Answer(mask, 0.9, self.agreement, np.zeros((32, 32), np.float32)) for mask in grown]


@pytest.mark.parametrize(("every", "batch", "frames"), [(1, 1, 5), (1, 4, 10), (3, 2, 20), (4, 1, 2), (5, 2, 1)])
def test_clips_come_out_whole_and_in_order(every, batch, frames):
    kept, advanced, model = [], [], Truthful(batch)
    clip = ClipMasks(model, lambda *item: kept.append(item), every=every, advance=advanced.append)
    for n in range(frames):
        image, coarse = picture(20 + n)
        clip.append(image, coarse, np.array([n, 0, n + 64, 64], np.float32), n / 25, n)
    clip.finish()
    assert [item[4] for item in kept] == list(range(frames)) and sum(advanced) == frames
    keys = set(range(0, frames, every)) | {frames - 1}
    assert len(keys) <= clip.asked <= len(keys) + frames // every
    assert not model.earlier[0] and (len(model.calls) == 1 or any(model.earlier))
    for n, item in enumerate(kept):
        np.testing.assert_array_equal(item[0], picture(20 + n)[0])
        grown = cv2.dilate(picture(20 + n)[1], np.ones((5, 5), np.uint8)) > 0
        assert mask_iou(item[1] > 0, grown) > 0.9  # also between the frames that were asked about


def test_answers_that_disagree_are_counted_and_not_taken():
    kept = []
    clip = ClipMasks(Truthful(1, agreement=0.1), lambda *item: kept.append(item))
    image, coarse = picture()
    for n in range(4):
        clip.append(image, coarse, np.array([0, 0, 64, 64], np.float32), n / 25, n)
    clip.finish()
    assert clip.rejected == clip.asked == 4
    np.testing.assert_array_equal(kept[2][1], coarse)


def test_a_clip_through_the_real_network(sam):
    kept = []
    clip = ClipMasks(sam, lambda *item: kept.append(item), every=2, least_agreement=0.0, least_score=-1e9)
    for n in range(5):
        image, coarse = picture(28 + n)
        clip.append(image, coarse, np.array([n, 0, n + 64, 64], np.float32), n / 25, n)
    clip.finish()
    assert len(kept) == 5 and clip.asked == 3 and clip.rejected == 0
    image, coarse = picture(28)
    np.testing.assert_array_equal(
        kept[0][1], sam.segment(image[None], coarse[None], [make_prompt(coarse)], np.array([[0, 0, 64, 64.0]]))[0].mask
    )


def test_a_correction_follows_the_coarse_mask():
    _, coarse = picture(30)
    _, elsewhere = picture(36)
    grown = cv2.dilate(coarse, np.ones((5, 5), np.uint8))
    correction = signed_distance(grown) - signed_distance(coarse)
    np.testing.assert_array_equal(corrected(coarse, correction), grown)
    np.testing.assert_array_equal(corrected(coarse, 0 * correction), coarse)
    assert (corrected(elsewhere, np.full_like(correction, 2.0)) > 0).sum() > (elsewhere > 0).sum()
