"""Rewritten graphs answer as the original, measured in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from streampose.geometry.crop import crop_resize
from streampose.runtime.graph_edit import CROPS, LEVELS, cast_first, from_frames, to_half, to_signed
from streampose.runtime.parity import difference_px, parity_crops


@pytest.fixture(scope="module")
def honest(bundle_path):
    return onnx.load(bundle_path / "model.onnx")


def run(model, outputs=("keypoints",), **feeds):
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), feeds)[0]


def test_the_bytes_are_cast_before_all_else(honest):
    edited = cast_first(honest)
    readers = [node.op_type for node in edited.graph.node if "crops" in node.input]
    assert readers == ["Cast"] and edited.graph.node[0].op_type == "Cast"
    crops = parity_crops(64)
    np.testing.assert_array_equal(run(edited, crops=crops), run(honest, crops=crops))


def test_half_precision(honest):
    half = to_half(cast_first(honest))
    kinds = {tensor.data_type for tensor in half.graph.initializer if np.prod(tensor.dims) > 100}
    assert TensorProto.FLOAT16 in kinds
    softmax = next(n for n, node in enumerate(half.graph.node) if node.op_type == "LogSoftmax")
    after = {name for node in half.graph.node[softmax:] for name in node.input}
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert not [name for name in after if weights.get(name) == TensorProto.FLOAT16]
    crops = parity_crops(64)
    apart = difference_px(run(half, crops=crops), run(honest, crops=crops))
    assert 0 < apart["median"] < 0.05 and apart["max"] < 0.5


def test_half_precision_without_a_softmax(walker_bundle):
    """The outputs stay float32 whatever makes them."""
    model = onnx.load(walker_bundle / "model.onnx")
    half = to_half(cast_first(model))
    last = next(node for node in half.graph.node if "keypoints" in node.output)
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert [weights[name] for name in last.input if name in weights] == [TensorProto.FLOAT]
    run(half, crops=parity_crops(64))


def test_int8_without_uint8(int8_bundle_path):
    model = onnx.load(int8_bundle_path / "model.int8.onnx")
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert TensorProto.UINT8 in kinds  # as NNCF writes what is never negative
    signed, crops = to_signed(model), parity_crops(64)
    assert TensorProto.UINT8 not in {tensor.data_type for tensor in signed.graph.initializer}
    apart = difference_px(run(signed, crops=crops), run(model, crops=crops))
    assert apart["median"] < 0.2
    halves = to_half(cast_first(signed))
    assert difference_px(run(halves, crops=crops), run(signed, crops=crops))["median"] < 0.2


def test_int8_around_another_point_is_not_changed_silently(int8_bundle_path):
    model = onnx.load(int8_bundle_path / "model.int8.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, 7, np.uint8), tensor.name))
    with pytest.raises(ValueError, match="another point than zero"):
        to_signed(model)


@pytest.mark.parametrize("size", [(720, 1280), (97, 131)])
def test_crops_are_those_of_the_cpu(honest, size):
    """Within a grey level or two of `crop_resize`, at every scale, also beyond the edges of the picture."""
    height, width = size
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    sides = np.exp(random.uniform(np.log(10), np.log(64 * 2 ** (LEVELS - 1)), 40))
    centres = random.uniform((0, 0), (width, height), (40, 2))
    boxes = np.concatenate([centres - sides[:, None] / 2, centres + sides[:, None] / 2], 1).astype(np.float32)
    graph = from_frames(cast_first(honest), 64)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(CROPS, TensorProto.FLOAT, ["n", 64, 64, 3]))
    found = run(graph, (CROPS,), frame=image, boxes=boxes)
    expected = np.stack([crop_resize(image, box, 64) for box in boxes])
    apart = np.abs(found - expected).reshape(len(boxes), -1)
    assert apart.mean() < 0.6 and np.quantile(apart, 0.99) < 6
