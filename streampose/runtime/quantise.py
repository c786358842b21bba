"""Quantises a bundle's graph to int8 by NNCF: only the convolutions, which take nearly all of the time.

What is between them (GroupNorm) and after them (heatmaps and their expectation) stays in f32: quantising it, too, cost
six times as much accuracy on the default model and gained no speed. Weights get a scale for each channel, activations
one that is read off crops of the kind that the model will see.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from streampose.errors import BundleError, ConfigError

QUANTISED = "Conv"


def quantise_int8(model: Path, out: Path, crops: np.ndarray) -> None:
    """Write a graph with int8 convolutions.

    Args:
        model: the ONNX file of a bundle.
        out: the ONNX file to write.
        crops: (N, S, S, 3) uint8 to calibrate with; a few hundred are enough.

    Raises:
        ConfigError: NNCF is not installed.
        BundleError: NNCF cannot quantise this graph.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ConfigError("--precision int8: nncf is not installed; `pip install streampose[int8]`")
    import onnx

    graph: Any = onnx.load(str(model), load_external_data=False)
    others = sorted({node.op_type for node in graph.graph.node} - {QUANTISED})
    os.environ.setdefault("NNCF_CI", "1")  # or importing it reports to its makers that it is used
    import nncf

    nncf.set_log_level(40)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bars are no part of --json
            quantised = nncf.quantize(
                graph,
                nncf.Dataset(crops, lambda crop: {"crops": crop[None]}),
                subset_size=len(crops),
                preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric, as TensorRT needs it
                ignored_scope=nncf.IgnoredScope(types=others, validate=False),
            )
    except (RuntimeError, ValueError, nncf.errors.InternalError, nncf.errors.ValidationError) as error:
        message = " ".join(str(error).split())[:200]
        raise BundleError(f"{model}: NNCF cannot quantise it ({message}); choose another --precision") from error
    if not any(node.op_type == "QuantizeLinear" for node in quantised.graph.node):
        raise BundleError(f"{model}: has no {QUANTISED} to quantise; choose another --precision")
    onnx.save(quantised, str(out))
