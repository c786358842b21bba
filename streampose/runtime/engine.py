"""TensorRT engines: made from a bundle's graph and kept until something that they depend on changes.

One implementation for both libraries of NVIDIA: `tensorrt`, and `tensorrt_rtx` (for GeForce RTX and RTX workstation
GPUs), which builds engines on machines without a GPU. The networks are strongly typed, which both know: the precision
is written into the graph (`runtime.graph_edit`), nothing is left to the builder's taste.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from streampose.console import logger
from streampose.errors import BundleError, ConfigError
from streampose.files import whole_file, write_text
from streampose.runtime.bundle import Bundle
from streampose.runtime.graph_edit import cast_first, from_frames, to_half, to_signed

LIBRARIES = ("tensorrt", "tensorrt_rtx")
PRECISIONS = ("f32", "f16", "int8")
RECIPE = 1  # counts up when engines are made in another way, so that old ones are made again
MAX_BATCH = 16
USUAL_BATCH = 8
SMALLEST_FRAME, USUAL_FRAME, LARGEST_FRAME = (16, 16), (720, 1280), (2160, 3840)  # (height, width)
WORKSPACE_BYTES = 1 << 30
MEND = "choose another --runtime or --precision"


@dataclass(frozen=True)
class Machine:
    """What an engine is made for and with; it does not run with anything else.

    Attributes:
        library, version: of TensorRT.
        gpu, capability, driver: as `runtime.cuda` says; empty where the engine is only built, not run.
    """

    library: str
    version: str
    gpu: str = ""
    capability: tuple[int, int] = (0, 0)
    driver: int = 0


def load_library() -> Any:
    """`tensorrt`, else `tensorrt_rtx`.

    Raises:
        ConfigError: neither is installed, or what is installed does not start.
    """
    problems = []
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except Exception as error:  # a broken native library can raise anything
            problems.append(f"{name} does not start ({' '.join(str(error).split())[:120]})")
    what = "; ".join(problems) or "TensorRT is not installed"
    raise ConfigError(f"{what}; `pip install streampose[tensorrt]`, or [tensorrt-rtx] for RTX GPUs")


def prepare_graph(bundle: Bundle, precision: str) -> bytes:
    """The graph that TensorRT is given: whole frames and boxes in, the precision written into it.

    Raises:
        BundleError: the bundle has no graph for this precision.
    """
    model = onnx.load(str(bundle.graph_path(precision)), load_external_data=False)
    if precision == "int8":
        model = to_signed(model)
    model = cast_first(model)
    if precision != "f32":
        model = to_half(model)
    data: bytes = from_frames(model, bundle.input_size).SerializeToString()
    return data


def build_engine(library: Any, graph: bytes, input_size: int, *, capability: tuple[int, int] | None = None) -> bytes:
    """Build an engine with two profiles: one crop a call, and up to `MAX_BATCH`.

    Args:
        library: `tensorrt` or `tensorrt_rtx`.
        graph: as `prepare_graph` returns it.
        capability: the GPU to build for, where there is none here (tensorrt_rtx only).

    Raises:
        BundleError: TensorRT refuses the graph.
    """
    log = library.Logger(library.Logger.ERROR)
    builder = library.Builder(log)
    typed = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # in time the only way there is
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = library.OnnxParser(network, log)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(n).desc()) for n in range(parser.num_errors))
        raise BundleError(f"{library.__name__} cannot read the graph ({' '.join(reasons.split())[:300]}); {MEND}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(library.BuilderFlag.TF32)  # f32 means f32
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.ComputeCapability, f"SM{capability[0]}{capability[1]}"), 0)
    largest = max(LARGEST_FRAME[0], MAX_BATCH * input_size), max(LARGEST_FRAME[1], input_size)  # crops come as a tower
    for usual, most in ((1, 1), (USUAL_BATCH, MAX_BATCH)):
        profile = builder.create_optimization_profile()
        profile.set_shape("frame", (*SMALLEST_FRAME, 3), (*USUAL_FRAME, 3), (*largest, 3))
        profile.set_shape("boxes", (1, 4), (usual, 4), (most, 4))
        config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise BundleError(f"{library.__name__} cannot build an engine of this graph (see its messages above); {MEND}")
    return bytes(built)


def cache_folder() -> Path:
    """Where engines are kept: $STREAMPOSE_CACHE, else the user's cache folder."""
    if named := os.environ.get("STREAMPOSE_CACHE"):
        return Path(named) / "engines"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData/Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "streampose" / "engines"


class EngineFile:
    """The place of one engine in the cache; its name changes with all that the engine depends on.

    Args:
        bundle, precision: what it runs.
        machine: what it runs on.
    """

    def __init__(self, bundle: Bundle, precision: str, machine: Machine):
        self._made_of = {
            "graph": bundle.sha256[bundle.graph_path(precision).name],
            "precision": precision,
            "recipe": RECIPE,
            **asdict(machine),
        }
        key = hashlib.sha256(json.dumps(self._made_of, sort_keys=True).encode()).hexdigest()[:32]
        self.path = cache_folder() / f"{key}.engine"
        self._note = self.path.with_suffix(".json")

    def read(self) -> tuple[bytes, dict[str, float]] | None:
        """The engine and its parity as measured when it was built; None where there is none, or it is damaged."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            engine = self.path.read_bytes()
            if hashlib.sha256(engine).hexdigest() == note["sha256"]:
                return engine, {name: float(value) for name, value in note["parity_px"].items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning(f"{self.path}: cannot be read ({error}); built again")
            return None
        logger.warning(f"{self.path}: damaged; built again")
        return None

    def write(self, engine: bytes, parity: dict[str, float]) -> None:
        """Keep an engine; where the disk does not let us, say so: it is built again the next time."""
        note = {"sha256": hashlib.sha256(engine).hexdigest(), "parity_px": parity, "made_of": self._made_of}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with whole_file(self.path) as partial:
                partial.write_bytes(engine)
            write_text(self._note, json.dumps(note, indent=2) + "\n")
        except OSError as error:
            logger.warning(f"{self.path}: the engine cannot be kept ({error.strerror}); it is built again next time")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
