import importlib
from types import SimpleNamespace

from streampose.doctor import doctor
from streampose.runtime import describe as module
from streampose.runtime.predictor import RUNTIMES


def test_says_what_there_is():
    found = doctor()
    assert {"decoders", "runtimes", "accelerators", "problems"} <= set(found)
    assert found["decoders"]["pyav"]["available"] and "h264" in found["decoders"]["pyav"]["note"]
    assert found["runtimes"]["onnx"]["available"] and "runs on" in found["runtimes"]["onnx"]["note"]
    assert all(set(problem) == {"what", "mend"} for problem in found["problems"])


def test_a_broken_library_is_a_problem_with_a_mend(monkeypatch):
    def broken(name):
        if name == "onnxruntime":
            raise OSError("libonnxruntime.so: cannot open shared object file")
        return importlib.import_module(name)

    monkeypatch.setattr(module, "importlib", _Importlib(broken))
    found = doctor()
    assert not found["runtimes"]["onnx"]["available"]
    assert [p for p in found["problems"] if "onnxruntime" in p["what"] and "reinstall onnxruntime" in p["mend"]]


def test_every_runtime_is_explained():
    found = doctor()["runtimes"]
    assert set(found) == set(RUNTIMES)
    for name, entry in found.items():
        assert entry["note"] and entry["available"] == bool(entry["precisions"]), name
    assert {"f32", "int8"} <= set(found["onnx"]["precisions"])


def test_a_gpu_that_stays_unused_is_a_problem(monkeypatch):
    """An NVIDIA GPU beside builds for CPUs: each is said with the line that mends it."""
    gpu = SimpleNamespace(name="Imaginary GPU", capability=(8, 9))
    monkeypatch.setattr(module, "_gpu", lambda: (gpu, ""))
    monkeypatch.setattr("streampose.runtime.engine.importlib.util.find_spec", lambda name: None)
    onnx = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    problems: list[dict[str, str]] = []
    assert module._onnx(onnx, gpu, problems)[0] == ["f32", "int8"]
    entry = module._tensorrt(gpu, "", problems)
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False), version=SimpleNamespace(cuda=None))
    module._torch(torch, gpu, problems)
    assert not entry["available"] and "not installed" in entry["note"]
    mends = " ".join(problem["mend"] for problem in problems)
    assert "onnxruntime-gpu" in mends and "streampose[tensorrt]" in mends and "CUDA build of PyTorch" in mends


def test_no_gpu_is_no_problem(monkeypatch):
    monkeypatch.setattr(module, "_gpu", lambda: (None, "no NVIDIA driver"))
    found = doctor()
    assert not found["runtimes"]["tensorrt"]["available"]
    assert not [problem for problem in found["problems"] if "GPU" in problem["what"]]


class _Importlib:
    """importlib whose `import_module` is another one."""

    def __init__(self, import_module):
        self.import_module, self.util, self.metadata = import_module, importlib.util, importlib.metadata
