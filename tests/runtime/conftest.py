import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.export import export_detector
from streampose.models.detector import build_detector
from streampose.runtime.parity import parity_crops


@pytest.fixture(scope="session")
def detector():
    """An untrained detector of 17 joints on 64 px crops."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return build_detector("tiny", 17, 64).eval()


@pytest.fixture(scope="session")
def bundle_path(detector, tmp_path_factory):
    """That detector as a bundle; copy it before changing it."""
    path = tmp_path_factory.mktemp("models") / "current"
    export_detector(detector, load_skeleton("human17"), 64, path, padding=0.2, method="mask", preset="tiny")
    return path


@pytest.fixture(scope="session")
def int8_bundle_path(detector, tmp_path_factory):
    """The same bundle with a quantised graph beside the other."""
    pytest.importorskip("nncf", reason="nncf is not installed; pip install nncf")
    path = tmp_path_factory.mktemp("models") / "int8"
    export_detector(
        detector, load_skeleton("human17"), 64, path, padding=0.2, method="mask", preset="tiny", precision="int8",
        crops=parity_crops(64, 24),
    )  # fmt: skip
    return path


class FakeDriver:
    """A CUDA driver whose device memory is the host's. Streams run when they are waited for, as on a GPU.

    Attributes:
        calls: the names of what was called.
        fail: name of a call -> the code that it answers.
    """

    def __init__(self, gpus=1):
        self.calls, self.fail, self.gpus = [], {}, gpus
        self.queue, self.recording, self.graphs = [], None, []
        self._memory = {}

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            if name in self.fail:
                return self.fail[name]
            plain = [getattr(value, "_obj", value) for value in arguments]
            return getattr(self, f"_{name}", lambda *_: None)(*plain) or 0

        return call

    def enqueue(self, work):
        (self.queue if self.recording is None else self.recording).append(work)

    def _cuDriverGetVersion(self, version):
        version.value = 12040

    def _cuDeviceGetCount(self, count):
        count.value = self.gpus

    def _cuDeviceGetName(self, name, size, device):
        name.value = b"Imaginary GPU"

    def _cuDeviceGetAttribute(self, part, attribute, device):
        part.value = {75: 8, 76: 9}[attribute]

    def _cuGetErrorString(self, code, text):
        text.value = b"out of imagination"

    def _allocate(self, address, size):
        block = ctypes.create_string_buffer(int(size.value))
        address.value = ctypes.addressof(block)
        self._memory[address.value] = block

    def _cuMemAlloc_v2(self, address, size):
        self._allocate(address, size)

    def _cuMemHostAlloc(self, address, size, flags):
        self._allocate(address, size)

    def _cuMemFree_v2(self, address):
        del self._memory[address.value]

    def _cuMemFreeHost(self, address):
        del self._memory[address.value]

    @property
    def blocks(self):
        return len(self._memory)

    def _cuMemcpyHtoDAsync_v2(self, to, source, size, stream):
        self.enqueue(lambda: ctypes.memmove(to.value, source.value, size.value))

    def _cuMemcpyDtoHAsync_v2(self, to, source, size, stream):
        self.enqueue(lambda: ctypes.memmove(to.value, source.value, size.value))

    def _cuStreamSynchronize(self, stream):
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def _cuStreamBeginCapture_v2(self, stream, mode):
        self.recording = []

    def _cuStreamEndCapture(self, stream, graph):
        self.graphs.append(self.recording)
        graph.value, self.recording = len(self.graphs), None

    def _cuGraphInstantiateWithFlags(self, executable, graph, flags):
        executable.value = graph.value

    def _cuGraphLaunch(self, executable, stream):
        self.queue += self.graphs[executable.value - 1]


class FakeTensorRt:
    """TensorRT as far as it is used: an engine is the graph itself and runs in ONNX Runtime, on the fake driver.

    Attributes:
        built: how many engines were built.
        shift: pixels by which its engines answer wrongly.
    """

    __name__, __version__ = "tensorrt", "99.1"
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    class Logger:
        ERROR = 2

        def __init__(self, level):
            self.level = level

    def __init__(self, driver):
        self.driver, self.built, self.shift, self.readable, self.understands = driver, 0, 0.0, True, True
        self.network = None

    def Builder(self, log):
        def build(network, config):
            self.built += 1
            self.config = config
            return network.graph

        def config():
            made = SimpleNamespace(profiles=[], cleared=[], limits={})
            made.set_memory_pool_limit = made.limits.__setitem__
            made.clear_flag = made.cleared.append
            made.add_optimization_profile = made.profiles.append
            return made

        def profile():
            made = SimpleNamespace(shapes={})
            made.set_shape = lambda name, *shapes: made.shapes.__setitem__(name, shapes)
            return made

        def network(flags):
            return SimpleNamespace(flags=flags, graph=None)

        return SimpleNamespace(
            create_network=network, create_builder_config=config, create_optimization_profile=profile,
            build_serialized_network=build,
        )  # fmt: skip

    def OnnxParser(self, network, log):
        def parse(graph):
            network.graph = graph
            return self.understands

        return SimpleNamespace(
            parse=parse, num_errors=1, get_error=lambda n: SimpleNamespace(desc=lambda: "no such\nlayer")
        )

    def Runtime(self, log):
        return SimpleNamespace(deserialize_cuda_engine=lambda data: FakeEngine(self, data) if self.readable else None)


class FakeEngine:
    device_memory_size_v2 = 1 << 20

    def __init__(self, library, data):
        import onnxruntime

        self.library = library
        self.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def create_execution_context(self, strategy):
        assert strategy == "user managed"
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses, self.memory = engine, {}, {}, 0

    def set_device_memory(self, address, size):
        self.memory = size

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return index in (0, 1)

    def set_input_shape(self, name, shape):
        profile = self.engine.library.config.profiles[self.profile].shapes[name] if self.engine.library.built else None
        self.shapes[name] = shape
        return profile is None or all(
            low <= n <= high for low, n, high in zip(profile[0], shape, profile[2], strict=True)
        )

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        assert self.memory and set(self.addresses) == {"frame", "boxes", "keypoints", "confidence"}
        self.engine.library.driver.enqueue(self._execute)
        return True

    def _execute(self):
        def read(name, dtype):
            shape = self.shapes[name]
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            return np.frombuffer(ctypes.string_at(self.addresses[name], size), dtype).reshape(shape)

        feeds = {"frame": read("frame", np.uint8), "boxes": read("boxes", np.float32)}
        for name, answer in zip(
            ("keypoints", "confidence"), self.engine.session.run(["keypoints", "confidence"], feeds), strict=True
        ):
            if name == "keypoints":
                answer = answer + np.float32(self.engine.library.shift)
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(answer).ctypes.data, answer.nbytes)


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """An imaginary GPU with TensorRT, and an empty cache of engines: (library, driver)."""
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    driver = FakeDriver()
    return FakeTensorRt(driver), driver
