import importlib

from streampose import doctor as module
from streampose.doctor import doctor


def test_says_what_there_is():
    found = doctor()
    assert {"decoders", "runtimes", "accelerators", "problems"} <= set(found)
    assert found["decoders"]["pyav"]["available"] and "h264" in found["decoders"]["pyav"]["note"]
    assert found["runtimes"]["onnx"]["available"] and "CPUExecutionProvider" in found["runtimes"]["onnx"]["note"]
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


class _Importlib:
    """importlib whose `import_module` is another one."""

    def __init__(self, import_module):
        self.import_module, self.util, self.metadata = import_module, importlib.util, importlib.metadata
