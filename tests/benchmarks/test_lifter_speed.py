"""How long lifting one person takes: 10 hypotheses with covariances 3 ms, 100 of them 15 ms, a mean shift 10 ms."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.export_lifter import neutral_part, write_lifter
from streampose.geometry.hypotheses import mean_shift
from streampose.models.lifter import PRESETS, build_lifter
from streampose.runtime.lifter import BANDWIDTH, load_lifter

pytestmark = pytest.mark.benchmark
HUMAN = load_skeleton("human17")


@pytest.fixture(scope="module", params=PRESETS)
def bundle(request, tmp_path_factory):
    torch.manual_seed(0)
    lifter = build_lifter(request.param, HUMAN)
    out = tmp_path_factory.mktemp(request.param) / "bundle"
    write_lifter(lifter, out, skeleton=HUMAN, part=neutral_part(lifter, 17), method="", preset=request.param)
    return request.param, out


def milliseconds(call, repeats: int = 40) -> float:
    """The median of some calls, after a few that warm up."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken[5:]))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_lifting_is_fast(bundle, runtime, capsys):
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime")
    preset, path = bundle
    lifting, joints = load_lifter(path, runtime, 2), np.random.default_rng(0).normal(200, 40, (1, 17, 2))
    ten = milliseconds(lambda: lifting.lift(joints, count=10))
    hundred = milliseconds(lambda: lifting.lift(joints, count=100))
    hypotheses = np.random.default_rng(1).normal(0, 0.08, (1, 100, 17, 3))
    shift = milliseconds(lambda: mean_shift(hypotheses, BANDWIDTH))
    with capsys.disabled():
        print(f"\n{preset} {runtime}: 10 in {ten:.2f} ms, 100 in {hundred:.2f} ms, mean shift {shift:.2f} ms")
    assert ten <= 3.0 and hundred <= 15.0 and shift <= 10.0
