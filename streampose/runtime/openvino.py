"""Run a bundle with OpenVINO on the CPU.

OpenVINO computes in bf16 by itself where the CPU can; `f32` is therefore always asked for in words. `int8` runs the
quantised graph of the bundle and leaves what is not quantised in it in f32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streampose.console import logger
from streampose.errors import BundleError
from streampose.runtime.bundle import Bundle

PRECISIONS = ("f32", "bf16", "int8")
MAX_BATCH = 16


class OpenVinoRuntime:
    """A bundle's graph in OpenVINO; see `runtime.predictor.load_predictor`.

    The CPU plug-in is fastest with fixed shapes: the graph is compiled once for each batch size that is used, and sizes
    are rounded up to powers of two so that there are few.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str, threads: int):
        import openvino

        self._size, self._path = bundle.input_size, bundle.graph_path(precision)
        self._core = openvino.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            logger.warning("openvino: this CPU does not compute in bf16; it computes in f32, at the speed of f32")
            precision = "f32"
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._requests: dict[int, Any] = {}
        self._request(1)

    def _request(self, batch: int) -> Any:
        """The compiled graph for one batch size."""
        if batch not in self._requests:
            try:
                model = self._core.read_model(str(self._path))
                model.reshape({"crops": [batch, self._size, self._size, 3]})
                compiled = self._core.compile_model(model, "CPU", self._settings)
            except RuntimeError as error:
                message = " ".join(str(error).split())[:200]
                raise BundleError(f"{self._path}: OpenVINO cannot load it ({message})") from error
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 -> keypoints (B, K, 3) crop pixels, confidence (B, K); float32."""
        parts = [self._run(crops[i : i + MAX_BATCH]) for i in range(0, len(crops), MAX_BATCH)]
        keypoints, confidence = zip(*parts, strict=True)
        return np.concatenate(keypoints), np.concatenate(confidence)

    def _run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        B = len(crops)
        batch = 1 << (B - 1).bit_length()
        if batch > B:
            crops = np.concatenate([crops, np.zeros((batch - B, *crops.shape[1:]), np.uint8)])
        results = self._request(batch).infer({"crops": crops})
        return results["keypoints"][:B].copy(), results["confidence"][:B].copy()
