"""The detector: shapes, unbiased reading of heatmaps, confidence, gradients for z, and export to ONNX."""

import numpy as np
import pytest
import torch

from streampose.models.detector import DEPTH_BINS, build_detector, cell_centres


def test_output_shapes_and_ranges():
    out = build_detector("tiny", 5, 64)(torch.rand(2, 3, 64, 64))
    assert out.keypoints.shape == (2, 5, 3) and out.heatmaps.shape == (2, 5, 16, 16)
    assert out.confidence.shape == (2, 5)
    assert out.keypoints.abs().max() <= 1
    assert out.confidence.min() >= 0 and out.confidence.max() <= 1
    torch.testing.assert_close(out.heatmaps.exp().sum((2, 3)), torch.ones(2, 5))


@pytest.mark.parametrize(("preset", "size", "channels"), [("small", 96, 1), ("base", 64, 3), ("base", 64, 1)])
def test_presets_and_input_channels(preset, size, channels):
    detector = build_detector(preset, 3, size, channels=channels)
    assert detector(torch.rand(1, channels, size, size)).keypoints.shape == (1, 3, 3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in detector.modules())


def test_wrong_sizes_and_presets_are_named():
    with pytest.raises(ValueError, match="multiple of 32"):
        build_detector("tiny", 3, 100)
    with pytest.raises(ValueError, match="huge"):
        build_detector("huge", 3, 96)


def test_cell_centres_are_unbiased():
    centres = cell_centres(16)
    assert float(centres.mean()) == pytest.approx(0, abs=1e-6)
    assert float(centres[0]) == pytest.approx(-1 + 1 / 16)
    assert float(centres[-1]) == pytest.approx(1 - 1 / 16)


def test_flat_heatmaps_read_as_the_middle_without_confidence():
    detector = build_detector("tiny", 2, 64)
    torch.nn.init.zeros_(detector.heatmap.weight)
    torch.nn.init.zeros_(detector.heatmap.bias)
    out = detector(torch.rand(1, 3, 64, 64))
    assert out.keypoints[..., :2].abs().max() < 1e-5
    assert out.confidence.max().item() == pytest.approx(9 / 256, rel=1e-3)


def test_depth_of_a_joint_has_its_own_bins():
    detector = build_detector("tiny", 3, 64)
    torch.nn.init.zeros_(detector.depth.weight)
    with torch.no_grad():
        detector.depth.bias.zero_()
        detector.depth.bias[DEPTH_BINS + 3] = 50  # the second joint's fourth bin
    z = detector(torch.rand(1, 3, 64, 64)).keypoints[0, :, 2]
    expected = torch.tensor([0.0, float(cell_centres(DEPTH_BINS)[3]), 0.0])
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=0)


def test_every_parameter_gets_a_gradient():
    detector = build_detector("tiny", 3, 64)
    out = detector(torch.rand(2, 3, 64, 64))
    (out.keypoints**2).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in detector.parameters())


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_onnx_runtime_agrees(preset, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    detector = build_detector(preset, 4, 64).eval()
    images = torch.rand(3, 3, 64, 64)
    path = tmp_path / "detector.onnx"
    torch.onnx.export(
        detector, (images,), path, dynamo=False, opset_version=17, input_names=["images"],
        output_names=["keypoints", "confidence", "heatmaps"], dynamic_axes={"images": {0: "batch"}},
    )  # fmt: skip
    keypoints, confidence, _ = onnxruntime.InferenceSession(str(path)).run(None, {"images": images[:2].numpy()})
    with torch.no_grad():
        eager = detector(images[:2])
    np.testing.assert_allclose(keypoints * 32, eager.keypoints.numpy() * 32, atol=0.02)  # crop pixels
    np.testing.assert_allclose(confidence, eager.confidence.numpy(), atol=1e-4)
