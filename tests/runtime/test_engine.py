"""Engines of every preset and precision, built by TensorRT for RTX, which needs no GPU for it."""

import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import BundleError, ConfigError
from streampose.export import export_detector
from streampose.models.detector import build_detector
from streampose.runtime import engine as module
from streampose.runtime.bundle import default_bundle, load_bundle
from streampose.runtime.engine import build_engine, load_library, prepare_graph

PRESETS = {"tiny": 64, "small": 128, "base": 192}  # crop size of each, as configs/methods/mask.yaml has it


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; pip install tensorrt-rtx")


@pytest.mark.parametrize("preset", PRESETS)
def test_builds_every_preset(rtx, preset, tmp_path):
    torch.manual_seed(0)
    size = PRESETS[preset]
    detector = build_detector(preset, 17, size).eval()
    bundle, _ = export_detector(detector, load_skeleton("human17"), size, tmp_path / preset, preset=preset)
    engine = build_engine(rtx, prepare_graph(bundle, "f16"), size, capability=(8, 9))
    weights = bundle.weights_path.stat().st_size
    assert len(engine) > weights / 2


@pytest.mark.slow
def test_builds_f32(rtx, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bundle = load_bundle(default_bundle())
    assert build_engine(rtx, prepare_graph(bundle, "f32"), bundle.input_size, capability=(8, 9))


def test_builds_int8(rtx, bundle_path, int8_bundle_path):
    bundle = load_bundle(int8_bundle_path)
    assert build_engine(rtx, prepare_graph(bundle, "int8"), bundle.input_size, capability=(8, 9))
    with pytest.raises(BundleError, match="has no int8 graph; make one with `streampose export"):
        prepare_graph(load_bundle(bundle_path), "int8")


def test_what_the_runtime_calls_is_there(rtx):
    """The imaginary TensorRT of the other tests may not know more than the real one."""
    called = {
        "Runtime": ["deserialize_cuda_engine"],
        "ICudaEngine": ["device_memory_size_v2", "create_execution_context", "create_runtime_config"],
        "IRuntimeConfig": ["set_execution_context_allocation_strategy",
                           "dynamic_shapes_kernel_specialization_strategy"],
        "IExecutionContext": ["set_device_memory", "set_optimization_profile_async", "set_input_shape",
                              "set_tensor_address", "execute_async_v3"],
        "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
        "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    }  # fmt: skip
    for kind, names in called.items():
        missing = [name for name in names if not hasattr(getattr(rtx, kind, None), name)]
        assert not missing, kind


def test_a_graph_that_is_none(rtx):
    with pytest.raises(BundleError, match="tensorrt_rtx cannot read the graph"):
        build_engine(rtx, b"no graph", 64, capability=(8, 9))


def test_which_library(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"TensorRT is not installed; `pip install streampose\[tensorrt\]`"):
        load_library()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name)

    def load(name):
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file")
        return name

    monkeypatch.setattr(module.importlib, "import_module", load)
    assert load_library() == "tensorrt_rtx"  # the other one is broken
    monkeypatch.setattr(module.importlib, "import_module", lambda name: load("tensorrt"))
    with pytest.raises(ConfigError, match=r"tensorrt does not start \(libnvinfer.*tensorrt_rtx does not start"):
        load_library()
