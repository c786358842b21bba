import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import BundleError, ConfigError
from streampose.runtime.predictor import Predictor, box_from_keypoints, choose_runtime, installed, load_predictor
from streampose.runtime.torch import CropsToKeypoints

INSTALLED = [name for name in ("onnx", "openvino", "torch") if installed(name)]


def crops(count, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("runtime", INSTALLED)
@pytest.mark.parametrize("count", [1, 5, 19])
def test_parity_with_eager_torch(detector, bundle_path, runtime, count):
    module = CropsToKeypoints(detector, load_skeleton("human17"), 64).eval()
    with torch.inference_mode():
        expected, certain = module(torch.from_numpy(crops(count)))
    keypoints, confidence = load_predictor(bundle_path, runtime, threads=1).predict_crops(crops(count))
    assert keypoints.shape == (count, 17, 3) and keypoints.dtype == np.float32
    np.testing.assert_allclose(keypoints, expected.numpy(), atol=0.01)  # pixels; the promise is 0.1
    np.testing.assert_allclose(confidence, certain.numpy(), atol=1e-3)


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_bf16_is_close(detector, bundle_path):
    exact = load_predictor(bundle_path, "openvino", threads=1).predict_crops(crops(8))[0]
    fast = load_predictor(bundle_path, "openvino", "bf16", threads=1).predict_crops(crops(8))[0]
    assert np.abs(fast - exact).max() < 1.0


def test_no_crops(bundle_path):
    keypoints, confidence = load_predictor(bundle_path, "onnx").predict_crops(np.zeros((0, 64, 64, 3), np.uint8))
    assert keypoints.shape == (0, 17, 3) and confidence.shape == (0, 17)


def test_wrong_calls(bundle_path, tmp_path):
    with pytest.raises(ConfigError, match="choose auto"):
        load_predictor(bundle_path, "abacus")
    with pytest.raises(ConfigError, match="onnx can do f32, int8"):
        load_predictor(bundle_path, "onnx", "int3")
    with pytest.raises(BundleError, match="no such model"):
        load_predictor(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected uint8"):
        load_predictor(bundle_path, "onnx").predict_crops(np.zeros((1, 32, 32, 3), np.uint8))


def test_auto(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert (choose_runtime(), choose_runtime("bf16")) == ("onnx", "openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "openvino" or None)
    assert choose_runtime() == "openvino"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "onnxruntime" or None)
    assert choose_runtime("bf16") == "onnx"


@pytest.mark.parametrize("runtime", [name for name in INSTALLED if name != "torch"])
def test_torch_is_not_imported(bundle_path, runtime):
    code = (
        "import sys, numpy as np; from streampose.runtime.predictor import load_predictor;"
        f"p = load_predictor({str(bundle_path)!r}, {runtime!r});"
        "p.predict(np.zeros((80, 90, 3), np.uint8), np.array([[0, 0, 80, 80.0]])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class FindsTheBrightSpot:
    """A runtime whose only joint is the centre of light; z is 3 crop pixels."""

    name = "bright"

    def run(self, crops):
        light = crops[..., 0].astype(float)
        light /= light.sum((1, 2), keepdims=True)
        cells = np.arange(crops.shape[1])
        xy = np.stack([(light.sum(1) * cells).sum(-1), (light.sum(2) * cells).sum(-1)], -1)
        keypoints = np.concatenate([xy, np.full((len(crops), 1), 3.0)], -1)[:, None]
        return keypoints.astype(np.float32), np.full((len(crops), 1), 1.5, np.float32)


def test_predict_maps_back_to_source_pixels():
    bundle = SimpleNamespace(input_size=64, padding=0.0, skeleton=SimpleNamespace(num_joints=1), path="toy")
    image = np.zeros((240, 320, 3), np.uint8)
    image[98:103, 148:153] = 255  # a spot around (150, 100)
    boxes = np.array([[120, 70, 184, 134], [86, 36, 214, 164], [140, 90, 172, 122], [60, 10, 252, 202]], np.float32)
    found = Predictor(bundle, FindsTheBrightSpot()).predict(image, boxes)
    np.testing.assert_allclose(found.xy[:, 0], [[150, 100]] * 4, atol=0.15)
    np.testing.assert_allclose(found.z[:, 0], 3.0 * (boxes[:, 2] - boxes[:, 0]) / 64)
    assert found.confidence.max() == 1.0


def standing(skeleton, height, root):
    """The rest pose of a skeleton in the picture plane, in pixels."""
    xy = np.zeros((skeleton.num_joints, 2), np.float32)
    xy[skeleton.root] = root
    for bone in skeleton.bones:
        xy[bone.child] = xy[bone.parent] + height * bone.length * np.array(bone.direction[:2])
    return xy


def test_box_from_keypoints_holds_the_body():
    skeleton = load_skeleton("human17")
    xy = standing(skeleton, 200.0, (150.0, 120.0))
    box = box_from_keypoints(xy, np.ones(17), skeleton, 0.1)
    inner = box_from_keypoints(xy, np.ones(17), skeleton, 0.0)
    assert np.isclose(box[2] - box[0], box[3] - box[1])
    assert (box[:2] < inner[:2]).all() and (box[2:] > inner[2:]).all()
    assert inner[1] < xy[:, 1].min() - 4 and inner[3] > xy[:, 1].max() + 4  # flesh around the joints
    assert inner[3] - inner[1] < 1.35 * np.ptp(xy[:, 1])


def test_box_from_keypoints_ignores_unsure_joints_and_gives_up():
    skeleton = load_skeleton("human17")
    xy, confidence = standing(skeleton, 200.0, (150.0, 120.0)), np.ones(17)
    expected = box_from_keypoints(xy, confidence, skeleton, 0.1)
    wild, confidence[13] = xy.copy(), 0.05
    wild[13] = 5000
    found = box_from_keypoints(wild, confidence, skeleton, 0.1)
    assert np.abs(found - expected).max() < 25
    assert box_from_keypoints(xy, np.full(17, 0.05), skeleton, 0.1) is None
    assert box_from_keypoints(np.full((17, 2), np.nan), np.ones(17), skeleton, 0.1) is None
    assert box_from_keypoints(np.full((17, 2), 7.0), np.ones(17), skeleton, 0.1) is None
