"""Rewrites a bundle's graph for runtimes that need another form of it: whole frames in, half precision, signed int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEVELS = 6  # of the pyramid that crops are read from: each half as large as the one before
CROPS = "crops_float"  # (N, S, S, 3), 0 to 255, between the input and the network
TYPED_SCALES_OPSET = 19  # from which the scales of quantised numbers may be halves


def cast_first(model: Any) -> Any:
    """The same with the cast of the bytes before all else; TensorRT accepts nothing but a cast of them."""
    edited = _copy(model)
    for node in edited.graph.node:
        for n, name in enumerate(node.input):
            if name == "crops":
                node.input[n] = CROPS
    edited.graph.node.insert(0, helper.make_node("Cast", ["crops"], [CROPS], "crops_to_float", to=TensorProto.FLOAT))
    return edited


def from_frames(model: Any, input_size: int) -> Any:
    """The same, reading its crops out of one frame by itself, as `geometry.crop.crop_resize` does.

    Each crop is sampled from the level of a pyramid of the frame that is just larger than it, bilinearly, with black
    around the frame.

    Args:
        model: as `cast_first` returns it.

    Returns:
        A graph with the inputs `frame` (H, W, 3) uint8 RGB and `boxes` (N, 4) float32 xyxy edges in source pixels, and
        the outputs of the model: keypoints in *crop* pixels, confidence.
    """
    edited = _copy(model)
    network = [node for node in edited.graph.node if node.name != "crops_to_float"]
    del edited.graph.node[:]
    del edited.graph.input[:]
    del edited.graph.value_info[:]
    make = _Maker(edited)
    S = input_size
    level = make("Unsqueeze", make("Transpose", make("Cast", "frame", to=TensorProto.FLOAT), perm=[2, 0, 1]), [0])
    x0, y0, x1, y1 = (make("Slice", "boxes", [n], [n + 1], [1]) for n in range(4))  # (N, 1)
    width, height = make("Sub", x1, x0), make("Sub", y1, y0)
    side = make("Unsqueeze", make("Min", width, height), [2, 3])  # (N, 1, 1, 1)
    ramp = ((np.arange(S) + 0.5) / S).astype(np.float32)[None]
    x, y = make("Add", make("Mul", width, ramp), x0), make("Add", make("Mul", height, ramp), y0)  # (N, S) edges
    crops = None
    for n in range(LEVELS):
        if n:
            level = make("AveragePool", level, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        size = make("Cast", make("Shape", level), to=TensorProto.FLOAT)
        parts = []
        for at, axis in ((x, 3), (y, 2)):  # columns, then rows, as GridSample counts: -1 and 1 are the edges
            scale = make("Div", np.float32(2.0 / 2**n), make("Slice", size, [axis], [axis + 1], [0]))
            part = make("Sub", make("Mul", at, scale), np.float32(1))
            along = (1, S, 1) if axis == 3 else (1, 1, S)
            part = make("Add", make("Unsqueeze", part, [4 - axis]), np.zeros(along, np.float32))  # (N, S, S)
            parts.append(make("Unsqueeze", part, [3]))
        grid = make("Concat", *parts, axis=3)
        grid = make("Reshape", grid, [1, -1, S, 2])  # all crops below each other: one image, one grid
        sampled = make("GridSample", level, grid, mode="bilinear", padding_mode="zeros", align_corners=0)
        sampled = make("Transpose", make("Reshape", sampled, [3, -1, S, S]), perm=[1, 2, 3, 0])  # (N, S, S, 3)
        if crops is None:
            crops = sampled
        else:
            crops = make("Where", make("GreaterOrEqual", side, np.float32(S * 2**n)), sampled, crops)
    make("Round", crops, output=CROPS)
    edited.graph.node.extend(network)
    edited.graph.input.extend(
        [
            helper.make_tensor_value_info("frame", TensorProto.UINT8, ["height", "width", 3]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 4]),
        ]
    )
    return edited


def to_half(model: Any) -> Any:
    """The same with a network that computes in float16; pictures, heatmaps and what follows them stay in float32.

    Args:
        model: as `cast_first` returns it.
    """
    edited = _copy(model)
    if any(node.op_type == "QuantizeLinear" for node in edited.graph.node):
        edited = onnx.version_converter.convert_version(edited, max(TYPED_SCALES_OPSET, edited.opset_import[0].version))
    graph = edited.graph
    _constants_to_weights(graph)
    floats = _float_tensors(edited)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    exact = _after_heatmaps(graph)
    halves: set[str] = set()  # tensors that are made in float16
    casts: set[str] = set()
    nodes = []
    for n, node in enumerate(graph.node):
        exactly = n in exact or bool(outputs.intersection(node.output)) or node.name == "crops_to_float"
        for place, name in enumerate(node.input):
            stays = exactly or (node.op_type == "Resize" and place in (1, 2))  # scales are float32 by definition
            if name not in floats or stays == (name not in halves):
                continue
            other = f"{name}_as_{'f32' if stays else 'f16'}"
            node.input[place] = other
            if other in casts:
                continue
            casts.add(other)
            if name in weights:
                array = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(array, other))
            else:
                to = TensorProto.FLOAT if stays else TensorProto.FLOAT16
                nodes.append(helper.make_node("Cast", [name], [other], other, to=to))
        if not exactly:
            halves.update(floats.intersection(node.output))
            if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
                node.attribute[0].i = TensorProto.FLOAT16
        nodes.append(node)
    del graph.value_info[:]
    _set_nodes(graph, nodes)
    _drop_unused_weights(graph)
    return edited


def to_signed(model: Any) -> Any:
    """The same with int8 in place of uint8 wherever numbers are quantised; TensorRT knows no other.

    Half of the range of the numbers that are never negative stays unused, so their steps are twice as large.
    """
    edited = _copy(model)
    tensors = {tensor.name: tensor for tensor in edited.graph.initializer}
    changed: dict[tuple[str, str], tuple[str, str]] = {}
    for node in edited.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        scale, zero = node.input[1], node.input[2]
        if zero not in tensors or tensors[zero].data_type != TensorProto.UINT8:
            continue
        zeros = numpy_helper.to_array(tensors[zero])
        if zeros.any():
            raise ValueError("numbers are quantised around another point than zero")
        if (scale, zero) not in changed:
            names = f"{scale}_signed", f"{zero}_signed"
            larger = numpy_helper.to_array(tensors[scale]) * np.float32(255 / 127)
            edited.graph.initializer.extend(
                [numpy_helper.from_array(np.asarray(larger, np.float32), names[0]),
                 numpy_helper.from_array(zeros.astype(np.int8), names[1])]
            )  # fmt: skip
            changed[scale, zero] = names
        node.input[1], node.input[2] = changed[scale, zero]
    del edited.graph.value_info[:]
    _drop_unused_weights(edited.graph)
    return edited


def _after_heatmaps(graph: Any) -> set[int]:
    """The places of the operators from the first softmax on."""
    reached: set[str] = set()
    places: set[int] = set()
    for n, node in enumerate(graph.node):  # in the order of computing
        if node.op_type in ("LogSoftmax", "Softmax") or reached.intersection(node.input):
            places.add(n)
            reached.update(node.output)
    return places


def _float_tensors(model: Any) -> set[str]:
    """The names of all float32 tensors of a graph."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {tensor.name for tensor in inferred.initializer if tensor.data_type == TensorProto.FLOAT}


def _constants_to_weights(graph: Any) -> None:
    for node in graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    _set_nodes(graph, [node for node in graph.node if node.op_type != "Constant"])


def _set_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def _drop_unused_weights(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _copy(model: Any) -> Any:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


class _Maker:
    """Adds operators to a graph and names what they make; numbers and arrays become constants."""

    def __init__(self, model: Any):
        self._graph, self._count = model.graph, 0

    def __call__(self, operator: str, *inputs: Any, output: str | None = None, **attributes: Any) -> str:
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        made = output or self._name()
        self._graph.node.append(helper.make_node(operator, names, [made], f"{operator}_{made}", **attributes))
        return made

    def _constant(self, value: Any) -> str:
        name = self._name()
        array = np.asarray(value, np.int64) if isinstance(value, list) else np.asarray(value)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"from_frames_{self._count}"
