"""Run a bundle with ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np

from streampose.errors import BundleError
from streampose.runtime.bundle import Bundle

PRECISIONS = ("f32",)


class OnnxRuntime:
    """A bundle's graph in ONNX Runtime; see `runtime.predictor.load_predictor`."""

    name = "onnx"

    def __init__(self, bundle: Bundle, precision: str, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(bundle.model_path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises bare Exceptions of its own kinds
            message = " ".join(str(error).split())[:200]
            raise BundleError(f"{bundle.model_path}: ONNX Runtime cannot load it ({message})") from error

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 -> keypoints (B, K, 3) crop pixels, confidence (B, K); float32."""
        keypoints, confidence = self._session.run(["keypoints", "confidence"], {"crops": crops})
        return keypoints, confidence
