"""Networks of `landmarks`: shapes, App. E's sizes, what flows where, and that eta after Phi can be exported."""

import pytest
import torch

from streampose.models.detector import build_detector
from streampose.models.discriminators import ImageDiscriminator, SkeletonDiscriminator
from streampose.models.features import PerceptualFeatures
from streampose.models.translation import PLANS, ImageDecoder


@pytest.mark.parametrize("preset", ["landmarks-tiny", "landmarks-tiny-skip-sided", "ancestor-tiny"])
def test_detectors_speak_as_every_detector(preset):
    detector = build_detector(preset, 5, 64).eval()
    out = detector(torch.rand(2, 3, 64, 64))
    assert out.keypoints.shape == (2, 5, 3) and out.confidence.shape == (2, 5)
    assert not out.keypoints[..., 2].any()
    assert (out.confidence >= 0).all() and (out.confidence <= 1).all()


def test_the_networks_have_the_paper_s_sizes():
    detector = build_detector("landmarks-base", 17, 128).eval()
    image = torch.rand(1, 3, 128, 128)
    assert detector.image_encoder(image).shape == (1, 1, 128, 128)
    assert detector.image_encoder.down(image)[-1].shape == (1, 256, 16, 16)
    assert detector.read(torch.rand(1, 1, 128, 128)).heatmaps.shape == (1, 17, 16, 16)
    decoder = ImageDecoder(PLANS["landmarks-base"], 1).eval()
    assert decoder(torch.rand(1, 1, 128, 128), image).shape == (1, 3, 128, 128)
    scores = SkeletonDiscriminator(1, 64, 128)(torch.rand(1, 1, 128, 128))
    assert [score.shape[-1] for score in scores] == [14, 6, 2]  # Fig. 20: 14 at the whole image
    assert ImageDiscriminator(64, 128)(image, image)[0].shape[:2] == (1, 1)


def test_confidence_falls_where_no_skeleton_is_drawn():
    detector = build_detector("landmarks-tiny", 5, 64).eval()
    drawn = torch.ones(1, 1, 32, 32)
    with torch.no_grad():
        assert not detector.read(torch.zeros_like(drawn)).confidence.any()
        assert (detector.read(drawn).confidence > 0).all()


def test_limbs_mask_the_appearance():
    plan = PLANS["landmarks-tiny"]
    decoder = ImageDecoder(plan, 1, limbs=4).eval()
    skeleton, image = torch.rand(1, 1, 32, 32), torch.rand(1, 3, 32, 32)
    none = decoder(skeleton, image, torch.zeros(1, 4, 32, 32))
    some = decoder(skeleton, image, torch.rand(1, 4, 32, 32))
    assert none.shape == (1, 3, 32, 32) and not torch.allclose(none, some)


def test_scores_of_a_sample_do_not_depend_on_the_others():
    judge = SkeletonDiscriminator(1, 8, 32)
    images = torch.rand(3, 1, 32, 32)
    for alone, among in zip(judge(images[:1]), judge(images), strict=True):
        torch.testing.assert_close(alone[0], among[0])


def test_the_discriminator_sees_how_bright_a_skeleton_image_is():
    torch.manual_seed(0)
    judge = SkeletonDiscriminator(1, 8, 32)
    images = torch.rand(2, 1, 32, 32)
    for as_is, brighter in zip(judge(images), judge(3 * images), strict=True):
        assert (as_is - brighter).abs().max() > 0.02 * as_is.abs().max()


def test_random_features_are_always_the_same():
    torch.manual_seed(3)
    first = PerceptualFeatures()
    torch.manual_seed(4)
    image = torch.rand(1, 3, 32, 32)
    for a, b in zip(first(image), PerceptualFeatures()(image), strict=True):
        assert torch.equal(a, b)
    assert PerceptualFeatures().rotations(image).shape == (1, 4)


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="landmarks-tiny-skip"):
        build_detector("landmarks-huge", 5, 64)
