"""The TensorRT runtime up to the calls of the driver: on an imaginary GPU whose engines run in ONNX Runtime."""

import ctypes
import json

import numpy as np
import pytest

from streampose.errors import BundleError, ConfigError
from streampose.runtime import engine as engine_module
from streampose.runtime import tensorrt as module
from streampose.runtime.bundle import load_bundle
from streampose.runtime.cuda import Cuda, CudaError
from streampose.runtime.engine import EngineFile, Machine
from streampose.runtime.predictor import Predictor, load_predictor
from streampose.runtime.tensorrt import TensorRtRuntime


def crops(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.fixture
def start(bundle_path, gpu):
    library, driver = gpu
    return lambda precision="f32": TensorRtRuntime(
        load_bundle(bundle_path), precision, 1, library=library, driver=driver
    )


@pytest.mark.parametrize("count", [1, 3, 8, 21])
def test_answers_as_onnx_runtime(start, bundle_path, count):
    expected = load_predictor(bundle_path, "onnx", threads=1).predict_crops(crops(count))
    keypoints, confidence = start().run(crops(count))
    assert keypoints.dtype == np.float32
    np.testing.assert_allclose(keypoints, expected[0], atol=1e-3)
    np.testing.assert_allclose(confidence, expected[1], atol=1e-4)


def test_answers_of_one_size_do_not_mix(start, bundle_path):
    """The same recorded graph and buffers serve every call of a size."""
    runtime, reference = start(), load_predictor(bundle_path, "onnx", threads=1)
    for seed in range(3):
        np.testing.assert_allclose(
            runtime.run(crops(2, seed))[0], reference.predict_crops(crops(2, seed))[0], atol=1e-3
        )


def test_frames_are_cropped_on_the_gpu(start, bundle_path):
    """As on the CPU, to a fraction of a pixel, wherever the box lies."""
    runtime, reference = start(), load_predictor(bundle_path, "onnx", threads=1)
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (9, 16, 3), np.uint8)
    image = np.kron(small, np.ones((80, 80, 1), np.uint8))  # 720 x 1280, patches of colour
    boxes = np.array(
        [[10, 20, 74, 84], [300, 100, 700, 500], [-50, -50, 250, 250], [1000, 500, 1500, 1000], [0, 0, 1280, 1280],
         [600, 300, 632, 332]], np.float32,
    )  # fmt: skip
    on_gpu = Predictor(load_bundle(bundle_path), runtime).predict(image, boxes)
    expected = reference.predict(image, boxes)
    side = (boxes[:, 2] - boxes[:, 0])[:, None]
    apart = np.linalg.norm(on_gpu.xy - expected.xy, axis=-1) / side * 64  # crop pixels
    assert np.median(apart) < 0.02 and apart.max() < 0.5


def test_frames_of_a_size_that_the_engine_does_not_take(start, bundle_path):
    runtime = start()
    assert runtime.run_frame(np.zeros((8, 8, 3), np.uint8), np.array([[0, 0, 8, 8]], np.float32)) is None
    image, boxes = np.full((8, 8, 3), 200, np.uint8), np.array([[0, 0, 8, 8]], np.float32)
    found = Predictor(load_bundle(bundle_path), runtime).predict(image, boxes)  # cropped on the CPU then
    expected = load_predictor(bundle_path, "onnx", threads=1).predict(image, boxes)
    np.testing.assert_allclose(found.xy, expected.xy, atol=1e-3)


def test_one_launch_a_call(start, gpu):
    runtime, (_, driver) = start(), gpu
    runtime.run(crops(2))
    driver.calls.clear()
    runtime.run(crops(2))
    assert driver.calls == ["cuCtxSetCurrent", "cuGraphLaunch", "cuStreamSynchronize"]


def test_without_cuda_graphs(start, gpu, bundle_path, caplog):
    _, driver = gpu
    driver.fail["cuGraphInstantiateWithFlags"] = 801
    expected = load_predictor(bundle_path, "onnx", threads=1).predict_crops(crops(2))[0]
    np.testing.assert_allclose(start().run(crops(2))[0], expected, atol=1e-3)
    assert "no CUDA graph" in caplog.text and "out of imagination (801)" in caplog.text


def test_buffers_of_sizes_that_are_not_used_any_more_are_freed(start, gpu, monkeypatch):
    monkeypatch.setattr(module, "MAX_SLOTS", 2)
    runtime, (_, driver) = start(), gpu
    blocks = []
    for height in range(100, 108):
        runtime.run_frame(np.zeros((height, 90, 3), np.uint8), np.array([[0, 0, 90, 90]], np.float32))
        blocks.append(driver.blocks)
    assert len(set(blocks[2:])) == 1


def test_the_engine_is_kept_until_something_changes(start, gpu, monkeypatch):
    library, driver = gpu
    first = start()
    start()
    assert library.built == 1
    assert start().parity_px == first.parity_px
    library.__version__ = "99.2"  # another library
    start()
    assert library.built == 2
    driver._cuDriverGetVersion = lambda version: setattr(version, "value", 12050)  # another driver
    start()
    assert library.built == 3
    driver._cuDeviceGetName = lambda name, size, device: setattr(name, "value", b"Another GPU")
    start()
    assert library.built == 4
    monkeypatch.setattr(engine_module, "RECIPE", 99)
    start()
    assert library.built == 5
    start("f16")
    assert library.built == 6
    start()
    assert library.built == 6


def test_another_bundle_is_another_engine(bundle_path, tmp_path):
    machine = Machine("tensorrt", "10.0", "GPU", (8, 9), 12040)
    bundle = load_bundle(bundle_path)
    paths = {EngineFile(bundle, precision, machine).path for precision in ("f32", "f16")}
    object.__setattr__(bundle, "sha256", {"model.onnx": "0" * 64, "weights.safetensors": "1" * 64})
    assert len(paths | {EngineFile(bundle, "f32", machine).path}) == 3


@pytest.mark.parametrize("damage", ["engine", "note", "unreadable"])
def test_a_damaged_engine_is_built_again(start, gpu, damage, caplog, tmp_path):
    library, _ = gpu
    start()
    (engine,) = (tmp_path / "cache").rglob("*.engine")
    if damage == "engine":
        engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    elif damage == "note":
        engine.with_suffix(".json").write_text("[1]")
    else:
        library.readable = False
        with pytest.raises(BundleError, match="cannot read the engine that it built"):
            start()
        library.readable = True
    start()
    assert library.built == (3 if damage == "unreadable" else 2) and "built again" in caplog.text
    note = json.loads(engine.with_suffix(".json").read_text())
    assert note["made_of"]["gpu"] == "Imaginary GPU" and note["parity_px"]["median"] < 0.1


def test_a_disk_that_is_full_only_costs_time(start, gpu, monkeypatch, caplog):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_module, "whole_file", full)
    assert start().run(crops(1))[0].shape == (1, 17, 3)
    assert "cannot be kept (No space left on device)" in caplog.text


def test_a_wrong_engine_is_refused_and_not_kept(start, gpu, tmp_path):
    library, _ = gpu
    library.shift = 0.2
    with pytest.raises(BundleError, match=r"f32 engine differs from the graph \(median 0\.20.* px.*choose another"):
        start()
    assert not list(tmp_path.rglob("*.engine"))
    library.shift = float("nan")
    with pytest.raises(BundleError, match="differs"):
        start("f16")


def test_a_graph_that_tensorrt_does_not_understand(start, gpu):
    gpu[0].understands = False
    with pytest.raises(BundleError, match=r"cannot read the graph \(no such layer\)"):
        start()


def test_what_is_asked_of_the_builder(start, gpu):
    library, _ = gpu
    start()
    assert library.config.cleared == ["tf32"]
    one, many = (profile.shapes["boxes"] for profile in library.config.profiles)
    assert one == ((1, 4), (1, 4), (1, 4)) and many == ((1, 4), (8, 4), (16, 4))
    assert library.config.profiles[1].shapes["frame"][2] >= (2160, 3840, 3)


def test_falls_back_aloud(bundle_path, monkeypatch, caplog):
    def no_library():
        raise ConfigError("TensorRT is not installed")

    monkeypatch.setattr("streampose.runtime.predictor.installed", lambda runtime: True)
    monkeypatch.setattr(module, "load_library", no_library)
    predictor = load_predictor(bundle_path, "tensorrt", "f16", threads=1)
    assert (predictor.runtime.name, predictor.precision) == ("onnx", "f32")
    assert "--runtime tensorrt: TensorRT is not installed" in caplog.text and "going on with onnx f32" in caplog.text
    with pytest.raises(ConfigError, match="TensorRT is not installed"):
        load_predictor(bundle_path, "tensorrt", threads=1, fall_back=False)


def test_no_driver_and_no_gpu(gpu, monkeypatch):
    _, driver = gpu
    driver.gpus = 0
    with pytest.raises(ConfigError, match="no NVIDIA GPU"):
        Cuda(driver)
    driver.fail["cuInit"] = 100
    with pytest.raises(ConfigError, match=r"does not start .*out of imagination"):
        Cuda(driver)
    monkeypatch.setattr("streampose.runtime.cuda.LIBRARY", "libcuda_that_is_not_here.so")
    with pytest.raises(ConfigError, match="no NVIDIA driver"):
        Cuda()


def test_pinned_memory_and_copies(gpu):
    _, driver = gpu
    cuda = Cuda(driver)
    source, target = cuda.pinned((3, 4), np.float32), cuda.pinned((3, 4), np.float32)
    source[:], target[:] = np.arange(12).reshape(3, 4), 0
    address = cuda.device_memory(source.nbytes)
    cuda.upload(address, source)
    cuda.download(target, address)
    assert not target.any()  # begun, not done
    cuda.wait()
    np.testing.assert_array_equal(target, source)
    before = driver.blocks
    cuda.free(address)
    cuda.free_pinned(source)
    assert driver.blocks == before - 2
    driver.fail["cuMemAlloc_v2"] = 2
    with pytest.raises(CudaError, match=r"cuMemAlloc_v2: out of imagination \(2\)"):
        cuda.device_memory(1 << 50)


def test_handles_are_as_wide_as_pointers(gpu):
    """A handle above 4 GB must not be cut off on its way into the driver."""
    _, driver = gpu
    seen = []
    driver._cuStreamCreate = lambda stream, flags: setattr(stream, "value", 0x7F00_1234_5678_9AB0)
    driver._cuStreamSynchronize = lambda stream: seen.append(stream)
    Cuda(driver).wait()
    assert isinstance(seen[0], ctypes.c_void_p) and seen[0].value == 0x7F00_1234_5678_9AB0
