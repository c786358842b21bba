"""Frames per second on two CPU cores, decoding included: annotate with each runtime, and MediaPipe Pose (full model).

    pytest -m benchmark tests/benchmarks/test_cpu_runtime.py -s

The clip is 1280x720 h264: the two people in the park where the shared data is, else a synthetic scene. MediaPipe gets
an environment of its own, made from PyPI (or named by $STREAMPOSE_MEDIAPIPE_PYTHON), and does what its users do: read
with OpenCV, convert, track one person. Ours finds and follows everyone, and writes its files.
"""

import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import torch

from streampose.annotate import annotate
from streampose.config import load_skeleton
from streampose.export import export_detector
from streampose.models.detector import build_detector
from streampose.runtime.bundle import default_bundle
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

pytestmark = pytest.mark.benchmark

SIZE, REPEATS, CORES, TIMES = (1280, 720), 3, 2, 3
PROGRAM = """
import json, sys, time
import cv2, mediapipe
pose = mediapipe.solutions.pose.Pose(model_complexity=1)
def run(limit=None):
    video, count, found = cv2.VideoCapture(sys.argv[1]), 0, 0
    while limit is None or count < limit:
        ok, image = video.read()
        if not ok:
            break
        result = pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        count, found = count + 1, found + (result.pose_landmarks is not None)
    return count, found
run(10)
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    count, found = run()
    print(json.dumps({"frames": count, "found": found, "seconds": time.perf_counter() - began}), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    """Hold this process and those that it starts to two cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    threads = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    os.sched_setaffinity(0, before)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A 720p video of a few hundred frames."""
    folder = tmp_path_factory.mktemp("clip")
    data = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared/data"))
    source = data / "people/park_two_people.mp4"
    if not source.is_file():
        from streampose.synth import synth

        synth(out=folder / "synth", videos=1, seconds=10, size=SIZE, subjects=2, seed=3)
        source = next((folder / "synth").glob("*.mp4"))
    with VideoWriter(folder / "clip.mp4", 30.0, SIZE) as writer:
        for _ in range(REPEATS):
            with open_video(source, size=SIZE) as video:
                for frame in video.frames():
                    writer.write(frame.image)
    return folder / "clip.mp4"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The default bundle; where none was trained yet, an untrained one of the default preset, which is as fast."""
    if default_bundle().is_dir():
        return default_bundle()
    path = tmp_path_factory.mktemp("bundle") / "untrained"
    export_detector(build_detector("small", 17, 128), load_skeleton("human17"), 128, path, preset="small")
    return path


@pytest.fixture(scope="module")
def mediapipe_python(tmp_path_factory):
    """A Python that has MediaPipe 0.10.21."""
    if named := os.environ.get("STREAMPOSE_MEDIAPIPE_PYTHON"):
        return named
    folder = tmp_path_factory.mktemp("mediapipe")
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    install = [python, "-m", "pip", "install", "--quiet", "mediapipe==0.10.21", "numpy<2"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mediapipe==0.10.21 cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


def frames_per_second(clip, bundle, out, runtime, precision):
    """The best of a few calls of annotate; loading the model is part of each."""
    best = 0.0
    for _ in range(TIMES):
        began = time.perf_counter()
        result = annotate(
            [clip], out=out, model=bundle, runtime=runtime, precision=precision, overlay=False, overwrite=True
        )
        (entry,) = result["sources"]
        assert entry["verdict"] == "ok", entry
        best = max(best, entry["frames"] / (time.perf_counter() - began))
    return best


def test_faster_than_mediapipe(clip, bundle, mediapipe_python, tmp_path, capsys):
    rates = {
        f"streampose annotate, {runtime} {precision}": frames_per_second(clip, bundle, tmp_path, runtime, precision)
        for runtime, precision in (("auto", "f32"), ("onnx", "f32"), ("openvino", "bf16"), ("torch", "f32"))
    }
    command = [mediapipe_python, "-c", PROGRAM, str(clip), str(TIMES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    baseline = max(run["frames"] / run["seconds"] for run in runs)
    ours = rates["streampose annotate, auto f32"]
    with capsys.disabled():
        print(f"\n{'720p, two cores, decoding included':44s} {'frames/s':>9s} {'x MediaPipe':>12s}")
        for name, rate in {**rates, "MediaPipe Pose 0.10.21, full": baseline}.items():
            print(f"{name:44s} {rate:9.1f} {rate / baseline:12.2f}")
    assert ours >= 2.0 * baseline
