"""Latency and memory of `serve`: a 720p source at 30 frames/s, a page-like client connected, two CPU runtimes.

Run by `pytest -m benchmark tests/benchmarks/test_serve.py -s`; prints one table.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streampose.server.packing import unpack_frame

SECONDS = 20.0
MOST_MEGABYTES = 600  # the limit on peak resident memory

# The network is not trained: it runs, and a standing pose is given for its answer, so that the session follows it.
SCRIPT = """
import json, pathlib, sys
import numpy as np
from streampose.server import session as sessions

source, model, runtime, port, seconds = sys.argv[1:]
made = []
build = sessions.build_session

def build_with_standing_pose(*arguments, **options):
    made.append(build(*arguments, **options))
    predictor = made[0].predictor
    run, skeleton, S = predictor.predict_crops, predictor.skeleton, predictor.input_size
    pose = np.zeros((skeleton.num_joints, 3), np.float32)
    for bone in skeleton.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.array(bone.direction)
    pose = (pose - (pose.max(0) + pose.min(0)) / 2) * 0.6 * S + (S / 2, S / 2, 0)

    def predict_crops(crops):
        keypoints, confidence = run(crops)
        return np.broadcast_to(pose.astype(np.float32), keypoints.shape), np.full_like(confidence, 0.9)

    predictor.predict_crops = predict_crops
    return made[0]

sessions.build_session = build_with_standing_pose
from streampose.serve import serve

result = serve(source=source, model=pathlib.Path(model), runtime=runtime, port=int(port), seconds=float(seconds))
stages = {name: timing.model_dump() for name, timing in made[0].stats(whole=True).stages_ms.items()}
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
more = {"stages_ms": stages, "peak_mb": int(peak.split()[1]) / 1024, "torch": "torch" in sys.modules}
print(json.dumps({**result, **more}))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """An untrained detector of the `small` preset at 256 px: what it answers does not matter for its speed."""
    torch = pytest.importorskip("torch")
    from streampose.config import load_skeleton
    from streampose.export import export_detector
    from streampose.models.detector import build_detector

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "current"
    detector = build_detector("small", 17, 256).eval()
    export_detector(detector, load_skeleton("human17"), 256, path, padding=0.2, method="mask", preset="small")
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """The drawn walker at 720p, 30 frames/s."""
    from streampose.video.encode import VideoWriter
    from streampose.video.walker import draw_walker

    path = tmp_path_factory.mktemp("videos") / "walker_720p.mp4"
    with VideoWriter(path, 30.0, size=(1280, 720)) as writer:
        for n in range(210):
            writer.write(draw_walker(n / 30, (1280, 720)))
    return path


@pytest.mark.benchmark
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_latency_and_memory(bundle, video, runtime, capsys):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(video), str(bundle), runtime, str(port), str(SECONDS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown = watch(port, process)
    output, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    result = json.loads(output)
    with capsys.disabled():
        print(f"\nserve, 720p at 30 frames/s, small preset at 256 px, {result['runtime']}, {result['seconds']:.0f} s")
        for name, row in {
            "capture to publication": result["latency_ms"],
            **{f"  {stage}": timing for stage, timing in result["stages_ms"].items()},
            "capture to client and back": shown,
        }.items():
            print(f"  {name:28s} p50 {row['p50']:7.2f}  p95 {row['p95']:7.2f}  p99 {row['p99']:7.2f} ms")
        print(
            f"  {result['published'] / result['seconds']:.1f} frames/s published, {result['dropped']} of "
            f"{result['frames']} dropped, peak memory {result['peak_mb']:.0f} MB"
        )
    assert not result["torch"]
    assert result["peak_mb"] < MOST_MEGABYTES
    assert result["published"] > 0


def watch(port: int, process: subprocess.Popen) -> dict:
    """Take every frame as the page does, until the server ends; the last capture-to-shown latencies it reported."""
    shown = {}
    while process.poll() is None:
        try:
            with connect(f"ws://127.0.0.1:{port}/v1/stream?video=jpeg&ack=1") as stream:
                for message in stream:
                    if isinstance(message, bytes):
                        stream.send(json.dumps({"type": "ack", "number": unpack_frame(message)[0]["number"]}))
                    elif (json.loads(message).get("shown_latency_ms") or {}).get("p50") is not None:
                        shown = json.loads(message)["shown_latency_ms"]
        except OSError:
            continue
        except ConnectionClosed:
            break
    return shown
