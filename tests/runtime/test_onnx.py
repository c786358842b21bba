"""Which execution provider ONNX Runtime uses, and that this is said; GPUs are imaginary."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from streampose.errors import BundleError
from streampose.runtime.bundle import load_bundle
from streampose.runtime.onnx import CPU, PROVIDERS, OnnxRuntime
from streampose.runtime.parity import parity_crops

REAL_SESSION = onnxruntime.InferenceSession


class Session:
    """A session that claims to run on a GPU.

    Attributes:
        shift: pixels by which the GPU is wrong.
        starts: False falls back to the CPU as the library does, without an error.
    """

    shift, starts, breaks = 0.0, True, False

    def __init__(self, path, options, providers):
        self.asked = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        self.real = REAL_SESSION(path, options, providers=[CPU])

    def get_providers(self):
        return self.asked if self.starts else [CPU]

    def run(self, names, feeds):
        answers = self.real.run(names, feeds)
        if self.asked[0] != CPU:
            if self.breaks:
                raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
            answers[0] = answers[0] + np.float32(self.shift)
        return answers


@pytest.fixture
def imagine(monkeypatch):
    """Pretend that this build has a provider, and that its sessions behave so."""

    def pretend(*providers, **behaviour):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", type("Session", (Session,), behaviour))

    return pretend


def start(bundle_path, precision="f32"):
    return OnnxRuntime(load_bundle(bundle_path), precision, 1)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != CPU])
def test_a_gpu_that_answers_rightly_is_used(bundle_path, imagine, provider, caplog):
    caplog.set_level("INFO")
    expected = start(bundle_path).run(parity_crops(64))[0]
    imagine(provider)
    runtime = start(bundle_path)
    assert runtime.device == PROVIDERS[provider][0]
    assert f"onnx: runs on {runtime.device}" in caplog.text
    np.testing.assert_allclose(runtime.run(parity_crops(64))[0], expected)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"shift": 0.3}, "its answers are 0.30 px away"),
        ({"shift": float("nan")}, "its answers are inf px away"),
        ({"starts": False}, "its libraries do not start"),
        ({"breaks": True}, "CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_gpu_that_does_not_is_passed_over_aloud(bundle_path, imagine, behaviour, reason, caplog):
    imagine("CUDAExecutionProvider", **behaviour)
    assert start(bundle_path).device == "CPU"
    assert f"not on CUDA: {reason}" in caplog.text and "runs on the CPU" in caplog.text


def test_the_fastest_that_works_is_used(bundle_path, imagine):
    imagine("CoreMLExecutionProvider", "CUDAExecutionProvider")
    assert start(bundle_path).device == "CUDA"


def test_nothing_is_said_where_there_is_only_a_cpu(bundle_path, caplog):
    runtime = OnnxRuntime(load_bundle(bundle_path), "f32", 1, providers=[CPU])
    assert runtime.device == "CPU" and not caplog.text


def test_f32_means_f32():
    assert PROVIDERS["CUDAExecutionProvider"][1]["use_tf32"] == "0"


def test_a_graph_that_does_not_load(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    bundle = SimpleNamespace(graph_path=lambda precision: tmp_path / "model.onnx", input_size=64)
    with pytest.raises(BundleError, match="ONNX Runtime cannot load it"):
        OnnxRuntime(bundle, "f32", 1)
