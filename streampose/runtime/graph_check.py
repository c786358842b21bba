"""Checks an ONNX graph of unknown origin before any library runs it.

What is accepted: standard operators of a list, without control flow, functions, sub-graphs or data outside of the file,
that make tensors whose sizes follow from the graph alone and stay within bounds. So a graph can neither reach files or
code, nor ask for memory or time without limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampose.errors import BundleError

MEND = "do not use this bundle; export the model again"
OPERATOR_NAMES = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor
Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear
Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize Round Shape Sigmoid Sign Sin Size Slice Softmax Softplus SpaceToDepth
Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze Where Xor
"""
OPERATORS = frozenset(OPERATOR_NAMES.split())
NEWEST_OPSET = 25
MAX_NODES = 20_000
MAX_TENSORS = 20_000
MAX_RANK = 8
MAX_ELEMENTS = 1 << 26  # of one tensor, for one crop
MAX_ELEMENTS_TOGETHER = 1 << 30  # of all tensors, for one crop
MAX_WORK = 1e12  # multiplications and additions, for one crop
FLOAT, UINT8 = 1, 2  # of onnx.TensorProto
Interface = dict[str, tuple[int, list[int | None]]]  # name: element type and shape, None for the batch


def check_graph(path: Path, input_size: int, num_joints: int) -> None:
    """Refuse a graph that could read files, run unknown code, take memory without limit, or does not fit its bundle.

    Args:
        input_size, num_joints: as bundle.json says.

    Raises:
        BundleError: in one line.
    """
    inputs = {"crops": (UINT8, [None, input_size, input_size, 3])}
    _check(path, inputs, {"keypoints": (FLOAT, [None, num_joints, 3]), "confidence": (FLOAT, [None, num_joints])})


def check_lifter_graph(path: Path, num_joints: int, code_size: int) -> None:
    """As `check_graph`, of a graph that lifts 2D joints.

    Raises:
        BundleError: in one line.
    """
    inputs = {
        "joints": (FLOAT, [None, num_joints, 2]), "visibility": (FLOAT, [None, num_joints]),
        "codes": (FLOAT, [None, code_size]),
    }  # fmt: skip
    _check(path, inputs, {"poses": (FLOAT, [None, num_joints, 3]), "placement": (FLOAT, [None, 3])})


def _check(path: Path, inputs: Interface, outputs: Interface) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise BundleError(f"{path}: not an ONNX file ({_short(error)}); {MEND}") from None
    try:
        _check_parts(model)
        _check_interface(model, inputs, outputs)
        _check_sizes(model)
    except _Refused as reason:
        raise BundleError(f"{path}: {reason}; {MEND}") from None


class _Refused(Exception):
    """Why a graph is not accepted."""


def _check_parts(model: Any) -> None:
    """Operators, attributes and weights, one by one."""
    import onnx

    graph = model.graph
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            raise _Refused(f"uses operators outside the ONNX standard ({opset.domain[:60]!r})")
        if not 1 <= opset.version <= NEWEST_OPSET:
            raise _Refused(f"uses version {opset.version} of the ONNX operators (1 to {NEWEST_OPSET} are accepted)")
    if len(model.functions) or len(model.training_info) or len(graph.sparse_initializer):
        raise _Refused("holds functions, training steps or sparse weights, which are not accepted")
    if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_TENSORS:
        raise _Refused(f"has {len(graph.node)} operators and {len(graph.initializer)} weights (at most {MAX_NODES})")
    attributes = onnx.AttributeProto
    plain = {
        attributes.FLOAT, attributes.INT, attributes.STRING, attributes.TENSOR, attributes.FLOATS, attributes.INTS,
    }  # fmt: skip
    tensors = list(graph.initializer)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise _Refused(f"uses the operator {node.domain[:40]}{node.op_type[:40]}, which is not accepted")
        for attribute in node.attribute:
            if attribute.HasField("g") or len(attribute.graphs):
                raise _Refused(f"holds a graph inside the operator {node.op_type}")
            if attribute.type not in plain or len(attribute.tensors) or attribute.HasField("sparse_tensor"):
                raise _Refused(f"has the attribute {attribute.name[:40]!r} of a kind that is not accepted")
            if attribute.HasField("t"):
                tensors.append(attribute.t)
    for tensor in tensors:
        _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    """Weights lie in the file and are as many as their shape says."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
        raise _Refused("keeps weights outside of the file")
    if tensor.HasField("segment") or tensor.data_type == onnx.TensorProto.STRING:
        raise _Refused(f"has weights {tensor.name[:40]!r} of a kind that is not accepted")
    if len(tensor.dims) > MAX_RANK or any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
        raise _Refused(f"has weights {tensor.name[:40]!r} of shape {list(tensor.dims)[:MAX_RANK]}")
    try:
        onnx.checker.check_tensor(tensor)
        held = onnx.numpy_helper.to_array(tensor).shape
    except (onnx.checker.ValidationError, ValueError, TypeError, KeyError) as error:
        raise _Refused(f"has damaged weights {tensor.name[:40]!r} ({_short(error)})") from None
    if held != tuple(tensor.dims):
        raise _Refused(f"has damaged weights {tensor.name[:40]!r}")


def _check_interface(model: Any, inputs: Interface, outputs: Interface) -> None:
    """The inputs and outputs are those that bundle.json promises."""
    expected = inputs | outputs
    found = {}
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type
        found[value.name[:60]] = (kind.elem_type, [d.dim_value or None for d in kind.shape.dim][: MAX_RANK + 1])
    if found != expected or [value.name for value in model.graph.input] != list(inputs):
        raise _Refused(
            f"has inputs and outputs { {k: v[1] for k, v in list(found.items())[:8]} }, "
            f"bundle.json says { {k: v[1] for k, v in expected.items()} }"
        )


def work_of(model: Any, only: tuple[str, ...] = ()) -> tuple[float, int]:
    """About how many multiplications a graph takes for one crop, and how many numbers its operators make.

    Args:
        only: count the multiplications of these operators alone.
    """
    nodes, shapes = _shapes(model)
    work = sum(_work(node, shapes) for node in nodes if not only or node.op_type in only)
    return work, sum(math.prod(shapes[name]) for node in nodes for name in filter(None, node.output))


def _check_sizes(model: Any) -> None:
    """Each tensor's size must be known for one crop, and neither any of them nor all together may be too large."""
    nodes, shapes = _shapes(model)
    together, work = 0, 0.0
    for node in nodes:
        for name in filter(None, node.output):
            shape = shapes.get(name)
            if shape is None:
                raise _Refused(f"makes a tensor whose size is not known before it runs ({node.op_type} {name[:60]!r})")
            if len(shape) > MAX_RANK or any(d < 0 for d in shape) or math.prod(shape) > MAX_ELEMENTS:
                raise _Refused(f"makes a tensor of shape {list(shape)[:MAX_RANK]} ({node.op_type} {name[:60]!r})")
            together += math.prod(shape)
        work += _work(node, shapes)
    if together > MAX_ELEMENTS_TOGETHER or work > MAX_WORK:
        raise _Refused(f"needs {together:.1e} numbers and {work:.1e} operations for one crop")


def _shapes(model: Any) -> tuple[list[Any], dict[str, tuple[int, ...]]]:
    """The operators, and the shape of each tensor for one crop; those that do not follow from the graph are missing."""
    import onnx

    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.value_info[:]  # what the file says of its inner shapes is not to be relied on
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        onnx.checker.check_model(single)
        inferred = onnx.shape_inference.infer_shapes(single, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise _Refused(f"is not a valid graph ({_short(error)})") from None
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim)
        if known:
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return list(inferred.graph.node), shapes


def _work(node: Any, shapes: dict[str, tuple[int, ...]]) -> float:
    """About how many multiplications and additions an operator takes."""
    outputs = sum(math.prod(shapes[name]) for name in filter(None, node.output))
    inputs = [shapes.get(name, ()) for name in node.input]
    if node.op_type == "Conv":
        return float(outputs * math.prod(inputs[1][1:]))
    if node.op_type == "ConvTranspose":
        return float(math.prod(inputs[0]) * math.prod(inputs[1][1:]))
    if node.op_type in ("MatMul", "Gemm", "Einsum"):
        return float(outputs * max((max(shape, default=1) for shape in inputs), default=1))
    kernel = math.prod(next(_integers(node, "kernel_shape"), [1]))
    return float(outputs * kernel + sum(math.prod(shape) for shape in inputs))


def _integers(node: Any, name: str) -> Iterator[list[int]]:
    return (list(attribute.ints) for attribute in node.attribute if attribute.name == name)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
