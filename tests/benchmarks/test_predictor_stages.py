"""Where the time of `Predictor.predict` goes on a CPU: crop, network, mapping back; and eight people at once.

    pytest -m benchmark tests/benchmarks/test_predictor_stages.py -s

The frame is 1280x720, the people 400 pixels high, the model the default one (another by $STREAMPOSE_MODEL). int8 is
quantised here, with crops that are always the same. Nothing else should run meanwhile.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import StreamposeError
from streampose.export import export_and_compare
from streampose.geometry.crop import crop_boxes, crop_resize
from streampose.runtime.bundle import default_bundle, load_bundle
from streampose.runtime.parity import parity_crops
from streampose.runtime.predictor import load_predictor
from streampose.runtime.torch import load_detector

pytestmark = pytest.mark.benchmark

WAYS = (("onnx", "f32"), ("onnx", "int8"), ("openvino", "f32"), ("openvino", "bf16"), ("openvino", "int8"),
        ("torch", "f32"))  # fmt: skip
PEOPLE, ROUNDS = 8, 200


def milliseconds(work, rounds=ROUNDS):
    """p50 and p95 of so many rounds, or of those that half a second has."""
    for _ in range(3):
        work()
    times = []
    while len(times) < rounds and sum(times) < 500:
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return np.quantile(times, (0.5, 0.95))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = Path(os.environ.get("STREAMPOSE_MODEL") or default_bundle())
    made = load_bundle(path)
    try:
        quantised, _ = export_and_compare(
            load_detector(made), made.skeleton, made.input_size, tmp_path_factory.mktemp("bundle") / "int8",
            padding=made.padding, preset=made.preset, precision="int8", crops=parity_crops(made.input_size, 100),
        )  # fmt: skip
    except StreamposeError as error:
        print(f"no int8: {error}")
        return made
    return quantised


def test_stages(bundle, capsys):
    random = np.random.default_rng(0)
    image = np.kron(random.integers(0, 256, (90, 160, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    corners = random.uniform((0, 0), (800, 240), (PEOPLE, 2))
    boxes = np.concatenate([corners, corners + 480], 1).astype(np.float32)
    S = bundle.input_size
    out = np.zeros((PEOPLE, S, S, 3), np.uint8)
    rows = []
    for threads in (1, 2):
        for runtime, precision in WAYS:
            try:
                predictor = load_predictor(bundle.path, runtime, precision, threads)
            except StreamposeError:
                continue
            crops = crop_boxes(image, boxes, out).copy()
            keypoints, confidence = predictor.predict_crops(crops[:1])
            one, many = boxes[:1], boxes
            rows.append(
                (
                    f"{runtime} {precision}, {threads} threads",
                    milliseconds(lambda: crop_boxes(image, one, out[:1])),  # noqa: B023
                    milliseconds(lambda: predictor.predict_crops(crops[:1])),  # noqa: B023
                    milliseconds(lambda: predictor.to_source(keypoints, confidence, one)),  # noqa: B023
                    milliseconds(lambda: predictor.predict(image, one)),  # noqa: B023
                    milliseconds(lambda: predictor.predict(image, many), 40),  # noqa: B023
                    milliseconds(lambda: [predictor.predict(image, box[None]) for box in many], 40),  # noqa: B023
                )
            )
    loop = milliseconds(lambda: np.stack([crop_resize(image, box, S) for box in boxes]))
    batch = milliseconds(lambda: crop_boxes(image, boxes, out))
    with capsys.disabled():
        heads = ("crop", "network", "map back", "predict", "8 at once", "8 in turn")
        print(f"\n{bundle.preset} at {S} px, ms p50 / p95" + " " * 8 + "".join(f"{head:>15s}" for head in heads))
        for name, *values in rows:
            print(f"{name:30s}" + "".join(f"{p50:8.2f} /{p95:5.2f}" for p50, p95 in values))
        print(f"crops of 8 people: new arrays {loop[0]:.2f} ms, one buffer {batch[0]:.2f} ms")
    quick = {name: values for name, *values in rows}
    if bundle.preset == "tiny":
        assert quick["onnx f32, 1 threads"][3][0] < 10.0  # of the 25 ms from capture to output
    assert quick["onnx f32, 1 threads"][4][0] < quick["onnx f32, 1 threads"][5][0]
