import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import BundleError, ConfigError
from streampose.runtime.parity import difference_px, parity_crops
from streampose.runtime.predictor import Predictor, box_from_keypoints, choose_runtime, installed, load_predictor
from streampose.runtime.torch import COMPILERS, CropsToKeypoints

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


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_int8(int8_bundle_path, bundle_path, runtime):
    """The quantised graph runs alike in both, near the exact one; a bundle without one says how to get it."""
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    exact = load_predictor(int8_bundle_path, "onnx", threads=1).predict_crops(parity_crops(64))[0]
    quick = load_predictor(int8_bundle_path, runtime, "int8", threads=1).predict_crops(parity_crops(64))[0]
    assert 0 < difference_px(quick, exact)["median"] < 0.5
    with pytest.raises(BundleError, match=r"has no int8 graph; make one with `streampose export .* --precision int8"):
        load_predictor(bundle_path, runtime, "int8")


@pytest.mark.slow
def test_compiled_torch(bundle_path):
    if not any(shutil.which(name) for name in COMPILERS):
        pytest.skip("no C++ compiler here")
    expected = load_predictor(bundle_path, "torch", threads=1).predict_crops(crops(3))
    predictor = load_predictor(bundle_path, "torch-compile", threads=1, fall_back=False)
    assert predictor.runtime.name == "torch-compile"
    np.testing.assert_allclose(predictor.predict_crops(crops(3))[0], expected[0], atol=0.01)


def test_compiled_torch_falls_back_aloud(bundle_path, monkeypatch, caplog):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which needs no C++ compiler")
    monkeypatch.setattr("streampose.runtime.torch.COMPILERS", ())
    predictor = load_predictor(bundle_path, "torch-compile", threads=1)
    assert predictor.runtime.name == "torch"
    assert "no C++ compiler" in caplog.text and "going on with torch f32" in caplog.text
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler"):
        load_predictor(bundle_path, "torch-compile", threads=1, fall_back=False)


def test_f16_needs_a_gpu(bundle_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigError, match="NVIDIA GPU only"):
        load_predictor(bundle_path, "torch", "f16")


def test_weights_of_another_preset(bundle_path, tmp_path):
    copy = shutil.copytree(bundle_path, tmp_path / "copy")
    text = (copy / "bundle.json").read_text()
    for preset, words in (("small", "does not fit the preset"), ("huge", "there are tiny, small, base")):
        (copy / "bundle.json").write_text(text.replace('"preset": "tiny"', f'"preset": "{preset}"'))
        with pytest.raises(BundleError, match=words):
            load_predictor(copy, "torch")


def test_several_views_as_one_by_one(bundle_path):
    predictor = load_predictor(bundle_path, "onnx", threads=1)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (100 + 20 * n, 140, 3), np.uint8) for n in range(3)]
    boxes = [np.array([[0, 0, 90, 90], [30, 20, 150, 140]]), np.zeros((0, 4)), np.array([[5, 5, 60, 60]])]
    for found, image, some in zip(predictor.predict_views(images, boxes), images, boxes, strict=True):
        np.testing.assert_allclose(found.xy, predictor.predict(image, some).xy, atol=1e-3)
    assert [len(found.xy) for found in predictor.predict_views(images, [boxes[1]] * 3)] == [0, 0, 0]
    assert predictor.predict_views([], []) == []


@pytest.mark.parametrize("runtime", [name for name in INSTALLED if name != "torch"])
def test_threads_may_share_a_predictor(bundle_path, runtime):
    """Each gets the answer to its own picture: buffers and requests are shared, one uses them at a time."""
    predictor = load_predictor(bundle_path, runtime, threads=1)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (80, 80, 3), np.uint8) for _ in range(4)]
    boxes = np.array([[0, 0, 80, 80], [10, 10, 60, 60]], np.float32)

    def predict(image):
        return predictor.predict(image, boxes).xy

    expected = [predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            np.testing.assert_allclose(list(pool.map(predict, images)), expected, atol=1e-3)


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


@pytest.mark.parametrize(
    ("seconds", "expected"), [({1: 0.001}, [1]), ({1: 0.01, 4: 0.004}, [1, 4]), ({1: 0.01, 4: 0.02}, [1, 4, 1])]
)
def test_as_many_threads_as_help(bundle_path, monkeypatch, seconds, expected):
    """One for a quick model; all for a slow one, unless that is slower still."""
    module = sys.modules["streampose.runtime.predictor"]
    start, started = module._start_with, []

    def record(bundle, runtime, precision, threads):
        predictor = start(bundle, runtime, precision, 1)
        started.append(predictor)
        predictor.threads = threads
        return predictor

    monkeypatch.setattr(module, "available_cores", lambda: 4)
    monkeypatch.setattr(module, "_start_with", record)
    monkeypatch.setattr(module, "_seconds_a_crop", lambda predictor: seconds[predictor.threads])
    chosen = load_predictor(bundle_path, "onnx")
    assert [predictor.threads for predictor in started] == expected[:2]
    assert chosen.threads == expected[-1]
    assert load_predictor(bundle_path, "onnx", threads=3).threads == 3
