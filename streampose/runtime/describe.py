"""What executes bundles on this machine, what is missing for more, and the line that mends it; in words."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

from streampose.errors import ConfigError
from streampose.runtime.cuda import Cuda

COMPILERS = ("c++", "g++", "clang++", "cl")
Problem = dict[str, str]


def describe_runtimes() -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Try each runtime's library, and say what it can do here.

    Returns:
        {runtime: {"available", "version", "precisions", "note"}} and the problems as `doctor` gives them: what keeps a
        runtime from working, or leaves a GPU of this machine unused.
    """
    problems: list[Problem] = []
    gpu, why_not = _gpu()
    return {
        "onnx": _described("onnxruntime", problems, lambda library: _onnx(library, gpu, problems)),
        "openvino": _described("openvino", problems, _openvino),
        "tensorrt": _tensorrt(gpu, why_not, problems),
        "torch": _described("torch", problems, lambda library: _torch(library, gpu, problems)),
        "torch-compile": _described("torch", problems, _compiled),
    }, problems


def describe_int8() -> str:
    """Whether int8 graphs can be made here."""
    if importlib.util.find_spec("nncf") is None:
        return "int8 graphs are run but not made here: nncf is not installed; `pip install streampose[int8]`"
    return "`streampose export --precision int8 --store STORE` makes int8 graphs"


def _gpu() -> tuple[Cuda | None, str]:
    """The NVIDIA GPU, or why there is none."""
    try:
        return Cuda(), ""
    except ConfigError as error:
        return None, str(error)


def _described(library: str, problems: list[Problem], describe: Any) -> dict[str, Any]:
    """A runtime of one library; `describe` gives its precisions and a note."""
    if importlib.util.find_spec(library) is None:
        problem = {"what": f"{library} is not installed", "mend": f"pip install {library}"}
        if problem not in problems:
            problems.append(problem)
        return {"available": False, "version": None, "precisions": [], "note": f"{library} is not installed"}
    version = _version(library)
    try:
        precisions, note = describe(importlib.import_module(library))
    except Exception as error:  # a broken native library can raise anything
        message = " ".join(str(error).split())[:200]
        problem = {
            "what": f"{library} is installed but does not start ({message})",
            "mend": f"pip install --force-reinstall {library}",
        }
        if problem not in problems:
            problems.append(problem)
        return {"available": False, "version": version, "precisions": [], "note": f"does not start: {message}"}
    return {"available": bool(precisions), "version": version, "precisions": precisions, "note": note}


def _version(library: str) -> str | None:
    for name in importlib.metadata.packages_distributions().get(library, [library]):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _onnx(library: Any, gpu: Cuda | None, problems: list[Problem]) -> tuple[list[str], str]:
    from streampose.runtime.onnx import PRECISIONS, PROVIDERS

    available = library.get_available_providers()
    here = [label for name, (label, _) in PROVIDERS.items() if name in available]
    if gpu is not None and "CUDA" not in here:
        problems.append(
            {
                "what": f"this ONNX Runtime does not use the GPU ({gpu.name}): it is a build for CPUs",
                "mend": "pip uninstall onnxruntime && pip install onnxruntime-gpu",
            }
        )
    if sys.platform == "win32" and "DirectML" not in here and gpu is None:
        return [*PRECISIONS], f"runs on {', '.join(here)}; `pip install onnxruntime-directml` adds the GPU of any maker"
    choice = ", the first of them that answers rightly" if len(here) > 1 else ""
    return [*PRECISIONS], f"runs on {', '.join(here)}{choice}; what --runtime auto takes"


def _openvino(library: Any) -> tuple[list[str], str]:
    core = library.Core()
    fast = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = ["f32", "bf16", "int8"] if fast else ["f32", "int8"]
    told = "this CPU computes in bf16, which is faster: --precision bf16" if fast else "this CPU has no bf16"
    others = [device for device in core.available_devices if device != "CPU"]
    return precisions, told + (f"; {', '.join(others)} is not used" if others else "")


def _tensorrt(gpu: Cuda | None, why_not: str, problems: list[Problem]) -> dict[str, Any]:
    from streampose.runtime.engine import LIBRARIES, PRECISIONS, load_library

    found = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    entry: dict[str, Any] = {"available": False, "version": _version(found[0]) if found else None, "precisions": []}
    try:
        library = load_library()
    except ConfigError as error:
        if gpu is not None or found:
            what = f"{error}".split("; `pip")[0]
            for_gpu = "" if gpu is None else f", so {gpu.name} runs bundles slower than it could"
            problems.append({"what": f"{what}{for_gpu}", "mend": "pip install streampose[tensorrt]"})
        missing = "TensorRT is not installed" if not found else str(error)
        return {**entry, "note": f"{missing}; the fastest runtime on NVIDIA GPUs, `pip install streampose[tensorrt]`"}
    entry["version"] = f"{library.__name__} {library.__version__}"
    if gpu is None:
        return {**entry, "note": f"{library.__name__} is installed, but engines cannot run here: {why_not}"}
    kind = f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    return {**entry, "available": True, "precisions": [*PRECISIONS], "note": f"builds and runs engines on {kind}"}


def _torch(library: Any, gpu: Cuda | None, problems: list[Problem]) -> tuple[list[str], str]:
    if library.cuda.is_available():
        return ["f32", "bf16", "f16"], f"CUDA graphs on {library.cuda.get_device_name(0)}"
    if gpu is not None or Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None:
        kind = " (it is a CPU-only build)" if library.version.cuda is None else ""
        problems.append(
            {
                "what": f"there is an NVIDIA driver, but this PyTorch cannot use the GPU{kind}",
                "mend": "install the CUDA build of PyTorch, see https://pytorch.org/get-started/locally",
            }
        )
    return ["f32", "bf16"], "eager PyTorch on the CPU: what all others are compared with, and the slowest"


def _compiled(library: Any) -> tuple[list[str], str]:
    if library.cuda.is_available():
        return ["f32", "bf16", "f16"], "compiles for some minutes when it starts"
    compiler = next((name for name in COMPILERS if shutil.which(name)), None)
    if compiler is None:
        return [], "no C++ compiler here; install g++ or clang"
    return ["f32", "bf16"], f"compiles with {compiler} for some minutes when it starts"
