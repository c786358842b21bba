"""The two autoencoders and the detector that is made of them."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.export import export_detector
from streampose.models.detector import build_detector
from streampose.models.disentangle import (
    LATENT,
    PRESETS,
    Gaussian,
    ImageDecoder,
    ImageEncoder,
    PoseEncoder,
    build_pose_translator,
    build_sketch_translator,
    project_weakly,
    without_background,
)
from streampose.runtime.predictor import load_predictor

HUMAN = load_skeleton("human17")


@pytest.mark.parametrize(("preset", "size"), [("mini", 32), ("mini-paper", 32), ("tiny", 64), ("small", 128)])
def test_shapes_and_ranges(preset, size):
    detector = build_detector(f"disentangle-{preset}", 17, size).eval()
    with torch.no_grad():
        out = detector(torch.rand(2, 3, size, size))
        task, rest, features = detector.encode(torch.rand(2, 3, size, size))
        images = ImageDecoder(PRESETS[preset], 2 * LATENT, size)(torch.cat([task.mean, rest.mean], 1))
    assert out.keypoints.shape == out.pose.shape == (2, 17, 3) and out.camera.shape == (2, 3)
    assert out.confidence.shape == (2, 17) and out.confidence.min() >= 0 and out.confidence.max() <= 1
    assert task.mean.shape == rest.log_variance.shape == (2, LATENT) and features.shape == (2, detector.features.size)
    assert images.shape == (2, 3, size, size) and images.min() > 0 and images.max() < 1


def test_the_printed_normalisation_is_by_batches_everywhere():
    detector, decoder = build_pose_translator("mini-paper", 17, 32), ImageDecoder(PRESETS["mini-paper"], 2 * LATENT, 32)
    parts = [detector.features, detector.decoder, decoder, PoseEncoder(PRESETS["mini-paper"], 17)]
    for part in parts:
        kinds = {type(module) for module in part.modules()}
        assert kinds & {torch.nn.BatchNorm1d, torch.nn.BatchNorm2d}
        assert not kinds & {torch.nn.GroupNorm, torch.nn.LayerNorm}
    ours = {type(module) for module in build_pose_translator("mini", 17, 32).modules()}
    assert not ours & {torch.nn.BatchNorm1d, torch.nn.BatchNorm2d}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["base", "paper"])
def test_resnet_50(preset):
    detector = build_detector(f"disentangle-{preset}", 17, 224).eval()
    encoder = sum(p.numel() for p in detector.features.parameters())
    assert encoder == pytest.approx(23.5e6, rel=0.01)  # ResNet-50 without its classifier
    with torch.no_grad():
        assert detector(torch.rand(1, 3, 224, 224)).keypoints.shape == (1, 17, 3)


def test_wrong_sizes_are_told():
    with pytest.raises(ValueError, match="huge"):
        build_pose_translator("huge", 17, 64)
    with pytest.raises(ValueError, match="multiple of 32"):
        build_pose_translator("tiny", 17, 60)


def test_samples_have_the_mean_and_the_variance():
    torch.manual_seed(0)
    q = Gaussian(torch.full((20000, 1), 2.0), torch.full((20000, 1), 2 * np.log(0.5)))
    drawn = q.sample()
    assert drawn.mean() == pytest.approx(2, abs=0.02) and drawn.std() == pytest.approx(0.5, abs=0.02)


def test_sketches_share_the_space_of_codes():
    translator, encoder = build_sketch_translator("tiny", 64), ImageEncoder(PRESETS["tiny"])
    with torch.no_grad():
        sketch = translator(torch.rand(2, 3, 64, 64))
        code = encoder(sketch)
    assert sketch.shape == (2, 1, 64, 64) and code.mean.shape == (2, LATENT)


def test_missing_joints_do_not_reach_the_code():
    encoder = PoseEncoder(PRESETS["tiny"], 17).eval()
    pose = torch.randn(2, 17, 3)
    pose[:, 4] = torch.nan
    other = pose.clone()
    other[:, 4, 0] = 7.0  # a joint is known as a whole or not at all
    with torch.no_grad():
        torch.testing.assert_close(encoder(pose).mean, encoder(other).mean)
        assert torch.isfinite(encoder(pose).mean).all()
        assert not torch.allclose(encoder(pose).mean, encoder(torch.nan_to_num(pose)).mean)


def test_weak_perspective():
    pose = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]])
    found = project_weakly(pose, torch.tensor([[0.5, 0.1, -0.2]]))
    torch.testing.assert_close(found, torch.tensor([[[0.1, -0.2, 0.0], [0.6, 0.8, 1.5]]]))


def test_background_does_not_count_where_the_mask_is_empty():
    images = torch.rand(2, 3, 8, 8)
    mask = torch.zeros(2, 8, 8)
    mask[:, 2:5] = 1
    kept = without_background(images, mask)
    assert (kept[:, :, :2] == 0.5).all()
    torch.testing.assert_close(kept[:, :, 2:5], images[:, :, 2:5])


def test_confidence_falls_with_the_spread_of_codes_and_without_a_foreground():
    torch.manual_seed(1)
    detector = build_pose_translator("tiny", 17, 64).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        detector.task.log_variance.bias.fill_(-9)
        sure = detector.detect(images, torch.ones(2, 64, 64)).confidence
        detector.task.log_variance.bias.fill_(2)
        unsure = detector.detect(images, torch.ones(2, 64, 64)).confidence
        assert (unsure < sure).all()
        assert detector.detect(images, torch.zeros(2, 64, 64)).confidence.max() == 0


def test_the_exported_bundle_answers_as_eager_pytorch_does(tmp_path):
    torch.manual_seed(0)
    detector = build_detector("disentangle-tiny", 17, 64)
    bundle, parity = export_detector(detector, HUMAN, 64, tmp_path / "bundle", preset="disentangle-tiny")
    assert parity < 0.01
    crops = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    answers = [load_predictor(bundle.path, runtime).predict_crops(crops) for runtime in ("onnx", "torch")]
    np.testing.assert_allclose(answers[0][0], answers[1][0], atol=0.01)
    np.testing.assert_allclose(answers[0][1], answers[1][1], atol=1e-3)
