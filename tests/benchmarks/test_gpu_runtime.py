"""Latency on an NVIDIA GPU: eager PyTorch, CUDA graphs, torch.compile, ONNX Runtime and TensorRT; one person and eight.

    pytest -m benchmark tests/benchmarks/test_gpu_runtime.py -s

Skips where there is no GPU. The model is an untrained one of the preset `base`, the frame 1280x720. Beside each time
stands how far it is from what the GPU could do at best: the larger of the time that the operations take at the rate of
a large matrix product, and the time that weights and activations take at the rate of a large copy, both measured here.
What TensorRT and CUDA graphs do on a real GPU is checked on the way: answers, engine cache, changing sizes.
"""

import time

import numpy as np
import onnx
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import StreamposeError
from streampose.export import export_detector
from streampose.models.detector import build_detector
from streampose.runtime.bundle import load_bundle
from streampose.runtime.graph_check import work_of
from streampose.runtime.parity import difference_px, parity_crops
from streampose.runtime.predictor import load_predictor
from streampose.runtime.torch import CropsToKeypoints, load_detector

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that PyTorch can use"),
]

SIZE, PEOPLE, ROUNDS = 192, 8, 300
WAYS = (("torch", "f32"), ("torch", "bf16"), ("torch", "f16"), ("torch-compile", "f32"), ("torch-compile", "f16"),
        ("onnx", "f32"), ("tensorrt", "f32"), ("tensorrt", "f16"))  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "base"
    export_detector(build_detector("base", 17, SIZE).eval(), load_skeleton("human17"), SIZE, path, preset="base")
    return load_bundle(path)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def milliseconds(work, rounds=ROUNDS):
    """p50 of a call that returns when its answer is on the host."""
    for _ in range(20):
        work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def on_gpu(work):
    """p50 of what a call takes on the GPU itself, in milliseconds."""
    times = []
    for _ in range(30):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        times.append(began.elapsed_time(ended))
    return float(np.median(times[5:]))


def best_possible(bundle, batch, precision):
    """Milliseconds that this GPU needs at least, by operations or by memory, whichever takes longer."""
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]
    a = torch.randn(8192, 8192, device="cuda", dtype=kind)
    rate = 2 * 8192**3 / on_gpu(lambda: a @ a)  # a multiplication and an addition each
    blocks = torch.empty(2, 1 << 28, device="cuda", dtype=torch.uint8)
    bandwidth = 2 * (1 << 28) / on_gpu(lambda: blocks[0].copy_(blocks[1]))  # bytes a millisecond
    model = onnx.load(bundle.model_path)
    multiplications, numbers = work_of(model, only=("Conv", "MatMul", "Gemm"))
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    size = 4 if precision == "f32" else 2
    return max(2 * multiplications * batch / rate, size * (weights + 2 * numbers * batch) / bandwidth)


def eager(bundle):
    """The module as it is, without CUDA graphs."""
    module = CropsToKeypoints(load_detector(bundle), bundle.skeleton, bundle.input_size).eval().cuda()

    @torch.inference_mode()
    def run(crops):
        keypoints, confidence = module(torch.from_numpy(crops).cuda())
        return keypoints.cpu().numpy(), confidence.cpu().numpy()

    return run


def test_latency(bundle, capsys):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    corners = np.random.default_rng(1).uniform((0, 0), (800, 240), (PEOPLE, 2))
    boxes = np.concatenate([corners, corners + 480], 1).astype(np.float32)
    crops = parity_crops(SIZE, PEOPLE)
    reference = load_predictor(bundle.path, "openvino").predict_crops(crops)[0]
    rows = []
    run = eager(bundle)
    one, many = milliseconds(lambda: run(crops[:1])), milliseconds(lambda: run(crops), 100)
    turn = milliseconds(lambda: [run(crop[None]) for crop in crops], 30)
    rows.append(("torch eager f32", one, many, turn, np.nan, difference_px(run(crops)[0], reference)["median"], "f32"))
    for runtime, precision in WAYS:
        try:
            predictor = load_predictor(bundle.path, runtime, precision, fall_back=False)
        except (StreamposeError, RuntimeError) as error:
            rows.append((f"{runtime} {precision}: {str(error)[:80]}", *[np.nan] * 5, precision))
            continue
        device = getattr(predictor.runtime, "device", "")
        one = milliseconds(lambda: predictor.predict_crops(crops[:1]))  # noqa: B023
        many = milliseconds(lambda: predictor.predict_crops(crops), 100)  # noqa: B023
        turn = milliseconds(lambda: [predictor.predict_crops(crop[None]) for crop in crops], 30)  # noqa: B023
        frame = milliseconds(lambda: predictor.predict(image, boxes), 100)  # noqa: B023
        apart = difference_px(predictor.predict_crops(crops)[0], reference)["median"]
        rows.append((f"{runtime} {precision} {device}", one, many, turn, frame, apart, precision))
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name(0)}, base at {SIZE} px, ms p50 (x the least possible)")
        heads = ("one crop", "8 at once", "8 in turn", "720p frame, 8", "median px off")
        print(f"{'':34s}" + "".join(f"{head:>16s}" for head in heads))
        for name, one, many, turn, frame, apart, precision in rows:
            least = best_possible(bundle, 1, precision), best_possible(bundle, PEOPLE, precision)
            cells = f"{one:8.3f} ({one / least[0]:5.1f}){many:8.3f} ({many / least[1]:5.1f})"
            print(f"{name:34s} {cells} {turn:15.3f} {frame:15.3f} {apart:15.4f}")
    for name, _, many, turn, _, apart, precision in rows:
        if np.isfinite(apart):
            assert apart < (0.1 if precision == "f32" else 0.5), name
            assert many < turn, name


def test_tensorrt_on_a_real_gpu(bundle, caplog):
    """Engine built once, refilled for changing sizes, crops alike on CPU and GPU."""
    try:
        predictor = load_predictor(bundle.path, "tensorrt", "f32", fall_back=False)
    except StreamposeError as error:
        pytest.skip(str(error))
    reference = load_predictor(bundle.path, "openvino")
    random = np.random.default_rng(0)
    for size in ((720, 1280), (480, 640), (1080, 1920), (720, 1280)):
        image = np.kron(
            random.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
        )
        for count in (1, 3, 8, 20):
            corners = random.uniform((-50, -50), (size[1] - 100, size[0] - 100), (count, 2))
            sides = random.uniform(60, 500, (count, 1))
            boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32)
            apart = np.abs(predictor.predict(image, boxes).xy - reference.predict(image, boxes).xy).max(-1)
            assert np.median(apart / sides * SIZE) < 0.1
    assert "no CUDA graph" not in caplog.text
    began = time.perf_counter()
    again = load_predictor(bundle.path, "tensorrt", "f32", fall_back=False)
    assert again.runtime.parity_px == predictor.runtime.parity_px
    assert time.perf_counter() - began < 20.0  # read, not built
