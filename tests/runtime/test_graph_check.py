"""Graphs from strangers: every trick is refused in one line, in little time and memory."""

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from streampose.errors import BundleError
from streampose.runtime.graph_check import check_graph

resource = pytest.importorskip("resource")  # what a refusal may take is measured where that can be asked for


@pytest.fixture(scope="module")
def honest(bundle_path):
    return onnx.load(bundle_path / "model.onnx")


def refused(tmp_path, model, words, size=64, joints=17):
    """The graph is refused for a reason that holds these words."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match=words) as error:
        check_graph(path, size, joints)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert time.monotonic() - began < 5.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kB


def copy_of(honest):
    model = onnx.ModelProto()
    model.CopyFrom(honest)
    return model


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def test_an_honest_graph_passes(tmp_path, honest):
    onnx.save(honest, tmp_path / "model.onnx")
    check_graph(tmp_path / "model.onnx", 64, 17)


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "SequenceMap", "NonZero", "StringNormalizer", "MyOwn"])
def test_operators_that_are_not_on_the_list(tmp_path, honest, operator):
    model = copy_of(honest)
    model.graph.node.append(helper.make_node(operator, ["crops"], ["x"]))
    refused(tmp_path, model, f"operator {operator}")


def test_operators_of_other_domains(tmp_path, honest):
    model = copy_of(honest)
    model.graph.node.append(helper.make_node("Add", ["crops", "crops"], ["x"], domain="com.microsoft"))
    refused(tmp_path, model, "operator com.microsoft")
    model = copy_of(honest)
    model.opset_import.append(helper.make_opsetid("evil", 1))
    refused(tmp_path, model, "outside the ONNX standard")
    model = copy_of(honest)
    model.opset_import[0].version = 999
    refused(tmp_path, model, "version 999")


def test_graphs_inside_of_operators_and_functions(tmp_path, honest):
    model = copy_of(honest)
    inner = helper.make_graph([], "inner", [], [])
    node = helper.make_node("Identity", ["crops"], ["x"])
    node.attribute.append(helper.make_attribute("body", inner))
    model.graph.node.append(node)
    refused(tmp_path, model, "graph inside the operator")
    model = copy_of(honest)
    model.functions.append(helper.make_function("evil", "f", ["x"], ["x"], [], [helper.make_opsetid("", 17)]))
    refused(tmp_path, model, "functions")


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.safetensors"])
@pytest.mark.parametrize("where", ["weights", "constant"])
def test_data_outside_of_the_file(tmp_path, honest, location, where):
    model = copy_of(honest)
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if where == "weights":
        model.graph.initializer.append(tensor)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["secret"], value=tensor))
    refused(tmp_path, model, "outside of the file")


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 20, 1 << 20, 1 << 20], [-5], [4], [1] * 20, [0, 1 << 62]])
def test_weights_that_are_not_what_they_say(tmp_path, honest, dims):
    model = copy_of(honest)
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 12))
    refused(tmp_path, model, "weights 'w'")


def test_strings_and_sparse_weights(tmp_path, honest):
    model = copy_of(honest)
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"x"]))
    refused(tmp_path, model, "of a kind that is not accepted")
    model = copy_of(honest)
    model.graph.sparse_initializer.add()
    refused(tmp_path, model, "sparse")


def bomb(model, kind):
    """Add operators that ask for far too much memory."""
    graph = model.graph
    if kind == "ConstantOfShape":
        graph.node.append(helper.make_node("ConstantOfShape", [constant(model, "n", np.array([1 << 40]))], ["x"]))
    elif kind == "Expand":
        shape = constant(model, "n", np.array([1 << 16, 1 << 16]))
        graph.node.append(helper.make_node("Expand", [constant(model, "one", np.float32([1])), shape], ["x"]))
    elif kind == "Range":
        ends = [constant(model, name, np.int64(value)) for name, value in (("a", 0), ("b", 1 << 40), ("c", 1))]
        graph.node.append(helper.make_node("Range", ends, ["x"]))
    elif kind == "Resize":
        scales = constant(model, "n", np.float32([1, 1e4, 1e4, 1]))
        graph.node.append(helper.make_node("Cast", ["crops"], ["f"], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Resize", ["f", "", scales], ["x"]))
    elif kind == "Pad":
        pads = constant(model, "n", np.array([0, 0, 0, 0, 0, 1 << 30, 1 << 30, 0]))
        graph.node.append(helper.make_node("Pad", ["crops", pads], ["x"]))
    elif kind == "many Tiles":  # each is small beside the next
        twice, last = constant(model, "n", np.array([1, 2, 1, 1])), "crops"
        for n in range(40):
            graph.node.append(helper.make_node("Tile", [last, twice], [f"t{n}"]))
            last = f"t{n}"
    elif kind == "size from the picture":
        size = constant(model, "n", np.array([-1]))
        graph.node.append(helper.make_node("Cast", ["crops"], ["i"], to=TensorProto.INT64))
        graph.node.append(helper.make_node("Reshape", ["i", size], ["values"]))
        graph.node.append(helper.make_node("ConstantOfShape", ["values"], ["x"]))


@pytest.mark.parametrize(
    "kind", ["ConstantOfShape", "Expand", "Range", "Resize", "Pad", "many Tiles", "size from the picture"]
)
def test_tensors_without_limit(tmp_path, honest, kind):
    model = copy_of(honest)
    bomb(model, kind)
    refused(tmp_path, model, "makes a tensor|not a valid graph|not known before")


def test_what_the_file_claims_of_inner_sizes_is_not_believed(tmp_path, honest):
    model = copy_of(honest)
    bomb(model, "size from the picture")
    model.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    refused(tmp_path, model, "not known before|not a valid graph")


def test_work_without_limit(tmp_path, honest):
    model = copy_of(honest)
    model.graph.node.append(helper.make_node("ConstantOfShape", [constant(model, "n", np.array([4000, 4000]))], ["m"]))
    for n in range(40):
        model.graph.node.append(helper.make_node("MatMul", ["m", "m"], [f"m{n}"]))
    refused(tmp_path, model, "operations for one crop")


def test_circles_and_loose_ends(tmp_path, honest):
    model = copy_of(honest)
    model.graph.node[5].input[0] = model.graph.node[20].output[0]
    refused(tmp_path, model, "not a valid graph")
    model = copy_of(honest)
    model.graph.node[5].input[0] = "nowhere"
    refused(tmp_path, model, "not a valid graph")


def test_too_many_operators(tmp_path, honest):
    model = copy_of(honest)
    model.graph.node.extend(helper.make_node("Identity", ["crops"], [f"x{n}"]) for n in range(20_001))
    refused(tmp_path, model, "operators and")


def test_other_inputs_and_outputs(tmp_path, honest):
    model = copy_of(honest)
    model.graph.input.append(helper.make_tensor_value_info("path", TensorProto.STRING, [1]))
    refused(tmp_path, model, "inputs and outputs")
    model = copy_of(honest)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    refused(tmp_path, model, "inputs and outputs")
    refused(tmp_path, copy_of(honest), "inputs and outputs", joints=16)


def test_damaged_bytes_are_refused_or_harmless(tmp_path, honest):
    """Whatever a few flipped bytes make of the graph: it is read or refused, never anything else."""
    data, random = honest.SerializeToString(), np.random.default_rng(0)
    weights = sum(len(tensor.raw_data) for tensor in honest.graph.initializer)
    path, passed = tmp_path / "model.onnx", 0
    for _ in range(200):
        damaged = bytearray(data)
        for place in random.integers(len(data) - weights, size=2):  # the operators come first
            damaged[place] = random.integers(256)
        if random.random() < 0.2:
            damaged = damaged[: random.integers(len(damaged))]
        path.write_bytes(damaged)
        try:
            check_graph(path, 64, 17)
            passed += 1
        except BundleError as error:
            assert "\n" not in str(error)
    assert passed < 100
