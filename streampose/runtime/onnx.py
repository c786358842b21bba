"""Run a bundle with ONNX Runtime: on a GPU where this build of it has one and answers rightly, else on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streampose.console import logger
from streampose.errors import BundleError
from streampose.runtime.bundle import Bundle
from streampose.runtime.parity import PARITY_PX, difference_px, parity_crops

PRECISIONS = ("f32", "int8")
CPU = "CPUExecutionProvider"
# Fastest first. TensorFloat-32 and the Neural Engine would compute with fewer digits than f32 promises.
PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "CUDAExecutionProvider": ("CUDA", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
    "DmlExecutionProvider": ("DirectML", {}),
    "CoreMLExecutionProvider": ("CoreML", {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"}),
    CPU: ("CPU", {}),
}


class OnnxRuntime:
    """A bundle's graph in ONNX Runtime; see `runtime.predictor.load_predictor`.

    Args:
        providers: names of execution providers to try in turn; None for all that this build has. One that does not
            start, or answers otherwise than the CPU does, is passed over, and that is said.

    Attributes:
        device: CUDA, DirectML, CoreML or CPU.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, precision: str, threads: int, *, providers: Sequence[str] | None = None):
        import onnxruntime

        self._path, self._threads = bundle.graph_path(precision), threads
        available = onnxruntime.get_available_providers() if providers is None else providers
        wanted = [name for name in PROVIDERS if name in available and name != CPU]
        self.device = PROVIDERS[CPU][0]
        self._session = None
        for provider in wanted if precision == "f32" else []:  # quantised graphs are made for CPUs
            label = PROVIDERS[provider][0]
            try:
                session = self._start(onnxruntime, provider)
                reason = self._disagrees(session, self._start(onnxruntime, CPU), bundle.input_size)
            except BundleError as error:
                reason = str(error)
            if not reason:
                self.device, self._session = label, session
                logger.info(f"onnx: runs on {label}")
                break
            logger.warning(f"onnx: not on {label}: {reason}")
        if self._session is None:
            if wanted:
                logger.warning("onnx: runs on the CPU")
            self._session = self._start(onnxruntime, CPU)

    def _start(self, onnxruntime: Any, provider: str) -> Any:
        """A session on this provider.

        Raises:
            BundleError: it does not start there.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider == "DmlExecutionProvider":  # it cannot do with either
            options.enable_mem_pattern = False
            options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        names: list[Any] = [(provider, PROVIDERS[provider][1])]
        if provider != CPU:
            names.append(CPU)  # for operators that the provider does not have
        try:
            session = onnxruntime.InferenceSession(str(self._path), options, providers=names)
        except Exception as error:  # the library raises bare Exceptions of its own kinds
            message = " ".join(str(error).split())[:200]
            raise BundleError(f"{self._path}: ONNX Runtime cannot load it ({message})") from error
        if provider not in session.get_providers():  # it falls back to the CPU without an error
            raise BundleError("its libraries do not start; `streampose doctor` tells more")
        return session

    def _disagrees(self, session: Any, reference: Any, size: int) -> str:
        """Why a session is not to be used: empty where it answers as the CPU does."""
        crops = parity_crops(size, 4)
        try:
            found = session.run(["keypoints"], {"crops": crops})[0]
        except Exception as error:  # as above
            return " ".join(str(error).split())[:200]
        apart = difference_px(found, reference.run(["keypoints"], {"crops": crops})[0])["median"]
        return "" if apart < PARITY_PX["f32"] else f"its answers are {apart:.2f} px away from those of the CPU"

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 -> keypoints (B, K, 3) crop pixels, confidence (B, K); float32."""
        assert self._session is not None
        keypoints, confidence = self._session.run(["keypoints", "confidence"], {"crops": crops})
        return keypoints, confidence
