"""Say what this machine can do and what is missing, in words and with the line that mends it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from streampose.runtime.describe import describe_int8, describe_runtimes

DECODERS = {"pyav": "av", "opencv": "cv2", "decord": "decord"}
OPTIONAL = {
    "decord": "an alternative decoder; `pip install streampose[decord]`",
}
DISTRIBUTIONS = {"cv2": "opencv-python-headless"}
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
MIN_FREE_GB = 2.0


def doctor() -> dict[str, Any]:
    """Look at this machine.

    Returns:
        {"decoders", "runtimes", "accelerators", "problems": [{"what", "mend"}]}, `int8` and `system`; a problem is
        something that keeps a command from working or makes it much slower than it could be.
    """
    problems: list[dict[str, str]] = []
    decoders = _find(DECODERS, problems, _describe_decoder)
    runtimes, missing = describe_runtimes()
    problems += missing
    return {
        "decoders": decoders,
        "runtimes": runtimes,
        "int8": describe_int8(),
        "accelerators": _accelerators(),
        "problems": problems + _system_problems(),
        "system": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        },
    }


def _find(libraries: dict[str, str], problems: list[dict[str, str]], describe: Any) -> dict[str, dict[str, Any]]:
    """{name: {available, version, note}}; what is installed but does not start becomes a problem."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in libraries.items():
        if importlib.util.find_spec(module) is None:
            note = OPTIONAL.get(name, "not available for this platform")
            found[name] = {"available": False, "version": None, "note": note}
            if name not in OPTIONAL:
                mend = f"pip install {DISTRIBUTIONS.get(module, module)}"
                problems.append({"what": f"{module} is not installed, so {name} cannot be used", "mend": mend})
            continue
        try:
            library = importlib.import_module(module)
            found[name] = {"available": True, "version": _version(module), "note": describe(name, library, problems)}
        except Exception as error:  # a broken native library can raise anything
            message = " ".join(str(error).split())[:200]
            found[name] = {"available": False, "version": _version(module), "note": f"does not start: {message}"}
            distribution = DISTRIBUTIONS.get(module, module)
            problems.append(
                {
                    "what": f"{module} is installed but does not start ({message})",
                    "mend": f"pip install --force-reinstall {distribution}",
                }
            )
    return found


def _version(module: str) -> str | None:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return None


def _describe_decoder(name: str, library: Any, problems: list[dict[str, str]]) -> str:
    if name != "pyav":
        return ""
    missing = [codec for codec in CODECS if codec not in library.codecs_available]
    if missing:
        problems.append(
            {"what": f"this PyAV cannot decode {', '.join(missing)}", "mend": "pip install --force-reinstall av"}
        )
    if "libx264" not in library.codecs_available:
        problems.append(
            {
                "what": "this PyAV has no libx264, so overlay videos are written with a poorer codec",
                "mend": "pip install --force-reinstall av",
            }
        )
    return "decodes " + ", ".join(codec for codec in CODECS if codec in library.codecs_available)


def _accelerators() -> list[dict[str, Any]]:
    """GPUs that PyTorch and OpenVINO can use."""
    found: list[dict[str, Any]] = []
    if importlib.util.find_spec("torch") is not None:
        try:
            import torch

            for index in range(torch.cuda.device_count()):
                memory = torch.cuda.get_device_properties(index).total_memory
                name = torch.cuda.get_device_name(index)
                found.append({"kind": "cuda", "name": name, "memory_gb": round(memory / 1e9, 1)})
            if torch.backends.mps.is_available():
                found.append({"kind": "mps", "name": "Apple GPU", "memory_gb": None})
        except (ImportError, OSError, RuntimeError):
            found.clear()  # said under runtimes
    if importlib.util.find_spec("openvino") is not None:
        try:
            import openvino

            core = openvino.Core()
            for device in core.available_devices:
                if device != "CPU":
                    name = str(core.get_property(device, "FULL_DEVICE_NAME"))
                    found.append({"kind": f"openvino {device}", "name": name, "memory_gb": None})
        except (ImportError, OSError, RuntimeError):
            return found  # said under runtimes
    return found


def _system_problems() -> list[dict[str, str]]:
    problems = []
    free = shutil.disk_usage(".").free / 1e9
    if free < MIN_FREE_GB:
        problems.append({"what": f"only {free:.1f} GB are free on this disk", "mend": "free some space before ingest"})
    if not os.access(".", os.W_OK):
        problems.append({"what": f"{Path.cwd()} is not writable", "mend": "change into a folder of your own"})
    return problems
