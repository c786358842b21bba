"""Recognisers with heatmaps: sizes as published (Table 9 of MirrorNet), joints at the peaks, export."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from streampose.config import load_skeleton
from streampose.export import write_onnx
from streampose.losses.gaussian import gaussian_peaks
from streampose.models.detector import build_detector
from streampose.models.heatmap_detector import HEATMAP_DETECTORS, build_heatmap_detector, peaks
from streampose.runtime.torch import CropsToKeypoints


def count(network: nn.Module, *inputs: torch.Tensor) -> tuple[float, float]:
    """Millions of parameters, and operations as the tables of HRNet and MirrorNet have them.

    That is a multiplication and addition as one, at every place of a layer's output (also of transposed convolutions,
    where `torch.utils.flop_counter` takes the input's), in units of 2^30.
    """
    operations = 0

    def add(layer, _, output):
        nonlocal operations
        operations += layer.weight.numel() * output.shape[2:].numel()

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_hook(add)
    with torch.no_grad():
        network.eval()(*inputs)
    return sum(p.numel() for p in network.parameters()) / 1e6, operations / 2**30


@pytest.mark.parametrize(
    ("preset", "size", "parameters", "operations"),
    [
        ("hourglass", (256, 256), 25.59, 26.17),
        ("hourglass", (256, 192), 25.59, 19.62),
        ("simple", (256, 256), 34.00, 11.99),
        ("hrnet", (256, 256), 28.54, 9.49),
        ("hrnet", (256, 192), 28.54, 7.12),
    ],
)
def test_published_sizes(preset, size, parameters, operations):
    with torch.device("meta"):
        network = build_heatmap_detector(preset, 16, 256)
        found = count(network, torch.zeros(1, 3, *size))
    assert found == pytest.approx((parameters, operations), rel=0.005)


@pytest.mark.parametrize("preset", HEATMAP_DETECTORS)
def test_heatmaps_are_a_quarter_of_the_input(preset):
    with torch.device("meta"):
        network = build_detector(preset, 5, 128).eval()
        stages = network.heatmaps(torch.zeros(1, 3, 128, 128))
    assert [tuple(maps.shape) for maps in stages] == [(1, 5, 32, 32)] * {"hourglass": 8, "hourglass-small": 2}.get(
        preset, 1
    )


def test_output_is_that_of_any_detector():
    out = build_detector("simple-small", 5, 64)(torch.rand(2, 3, 64, 64))
    assert out.keypoints.shape == (2, 5, 3) and out.heatmaps.shape == (2, 5, 16, 16)
    assert out.keypoints[..., :2].abs().max() <= 1 and not out.keypoints[..., 2].any()
    assert out.confidence.shape == (2, 5) and out.confidence.min() >= 0 and out.confidence.max() <= 1


def test_wrong_sizes_and_presets_are_named():
    with pytest.raises(ValueError, match="multiple of 64"):
        build_heatmap_detector("hrnet", 3, 96)
    with pytest.raises(ValueError, match="huge"):
        build_heatmap_detector("huge", 3, 64)


def test_peaks_of_gaussians_are_exact_below_a_cell():
    xy = torch.rand(4, 7, 2, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    found, height = peaks(gaussian_peaks(xy, 16, 1.5) * 0.7)
    torch.testing.assert_close(found, xy, atol=2e-3, rtol=0)  # of 2 / 16 a cell
    assert (height > 0.6).all() and (height <= 0.7 + 1e-6).all()


def test_peaks_of_flat_and_cut_heatmaps_stay_inside():
    maps = torch.zeros(1, 3, 8, 8)
    maps[0, 1, 0, 7] = 1.0
    maps[0, 2] = -1.0
    xy, height = peaks(maps)
    assert torch.isfinite(xy).all() and xy.abs().max() <= 1
    assert height[0].tolist() == [0, 1, -1]


def test_onnx_answers_as_pytorch(tmp_path):
    torch.manual_seed(0)
    skeleton = load_skeleton("human17")
    detector = build_detector("simple-small", skeleton.num_joints, 64)
    nn.init.normal_(detector.heatmap.weight, std=1.0)
    module = CropsToKeypoints(detector, skeleton, 64).eval()
    write_onnx(module, tmp_path / "model.onnx", 64, skeleton.num_joints)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    with torch.no_grad():
        expected = [part.numpy() for part in module(torch.from_numpy(crops))]
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"crops": crops})
    np.testing.assert_allclose(found[0], expected[0], atol=0.02)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
