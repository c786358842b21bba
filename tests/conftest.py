"""Fixtures that several folders share."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.console import logger
from streampose.structures import Skeleton

SIZE = 64  # side of the crops of the bundle below
PADDING = 0.15


@pytest.fixture(autouse=True)
def plain_logger():
    """A command that runs in this process sets up the package's logger; each test finds it as it is at first.

    Libraries, besides, raise the level of the root logger (OpenVINO's converter) and of its handlers, pytest's own.
    """
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.filters = []
    for handler in root.handlers:
        handler.setLevel(logging.NOTSET)
    logger.setLevel(logging.NOTSET)
    logger.disabled, logger.propagate, logger.handlers = False, True, []


@pytest.fixture(scope="session")
def walker_bundle(tmp_path_factory) -> Path:
    """A tiny bundle that needs no training: a standing figure around the red shirt of `--source test`."""
    from streampose.runtime.bundle import write_bundle

    folder = tmp_path_factory.mktemp("walker")
    skeleton = load_skeleton("human17")
    _write_shirt_finder(folder / "model.onnx", skeleton)
    (folder / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    write_bundle(
        folder / "bundle", model=folder / "model.onnx", weights=folder / "weights.safetensors", skeleton=skeleton,
        input_size=SIZE, padding=PADDING, method="shirt", preset="tiny", provenance={},
    )  # fmt: skip
    return folder / "bundle"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data is not here; set STREAMPOSE_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A local S3 server, and the environment by which s3fs finds it; a bucket `lab` is there."""
    pytest.importorskip("s3fs", reason="s3fs is not installed; pip install 'streampose[dev]'")
    pytest.importorskip("moto", reason="moto is not installed; pip install 'streampose[dev]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server did not start"
                time.sleep(0.1)
        environment = {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        request = urllib.request.Request(f"{url}/lab", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield environment
    finally:
        server.kill()
        server.wait()
        log.close()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """A URL in the bucket of the local server that no other test uses."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("STREAMPOSE_CACHE", str(tmp_path / "cache"))
    return f"s3://lab/{os.path.basename(tmp_path.parent)}-{tmp_path.name}/store.zarr"


def _write_shirt_finder(path: Path, skeleton: Skeleton) -> None:
    """crops -> the rest pose around the centroid of what is red; confidence 0.9, or 0 where nothing is red."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from streampose.runtime.predictor import box_from_keypoints

    K, S = skeleton.num_joints, SIZE
    pose = np.zeros((K, 3), np.float32)
    for bone in skeleton.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.array(bone.direction, np.float32)
    pose = pose - pose[skeleton.joints.index("thorax")] * (1, 0.5, 0)
    box = box_from_keypoints(pose[:, :2], np.ones(K), skeleton, PADDING)
    assert box is not None
    pose = pose * S / (box[2] - box[0])  # so that the box that follows from it is the one it was found in
    y, x = np.mgrid[:S, :S].astype(np.float32)
    constants = {
        "red": np.array([[1.0], [-0.5], [-0.5]], np.float32), "threshold": np.float32(80.0), "tiny": np.float32(1e-3),
        "grid": np.stack([x, y, 0 * x], -1).reshape(S * S, 3), "flat": np.array([-1, 1, S * S], np.int64),
        "pose": pose[None].astype(np.float32), "rows": np.array([-1, 1, 3], np.int64), "last": np.array([2], np.int64),
        "sure": np.full((1, K), 0.9, np.float32), "column": np.array([-1, 1], np.int64), "some": np.float32(100.0),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["crops"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "red"], ["redness"]),  # (B, S, S, 1)
        helper.make_node("Sub", ["redness", "threshold"], ["above"]),
        helper.make_node("Relu", ["above"], ["weight"]),
        helper.make_node("Reshape", ["weight", "flat"], ["weights"]),  # (B, 1, S * S)
        helper.make_node("ReduceSum", ["weights", "last"], ["mass"], keepdims=1),  # (B, 1, 1)
        helper.make_node("MatMul", ["weights", "grid"], ["moment"]),  # (B, 1, 3)
        helper.make_node("Add", ["mass", "tiny"], ["divisor"]),
        helper.make_node("Div", ["moment", "divisor"], ["centre"]),
        helper.make_node("Reshape", ["centre", "rows"], ["centres"]),
        helper.make_node("Add", ["centres", "pose"], ["keypoints"]),
        helper.make_node("Greater", ["mass", "some"], ["red_enough"]),
        helper.make_node("Cast", ["red_enough"], ["found"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["found", "column"], ["founds"]),
        helper.make_node("Mul", ["founds", "sure"], ["confidence"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shirt",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["B", S, S, 3])],
        [
            helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, ["B", K, 3]),
            helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["B", K]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@pytest.fixture(scope="session")
def lifter_bundle(tmp_path_factory) -> Path:
    """An untrained lifter of human17."""
    import torch

    from streampose.export_lifter import neutral_part, write_lifter
    from streampose.models.lifter import build_lifter

    skeleton = load_skeleton("human17")
    torch.manual_seed(0)
    lifter = build_lifter("tiny", skeleton)
    part = neutral_part(lifter, skeleton.num_joints)
    out = tmp_path_factory.mktemp("lifter") / "bundle"
    write_lifter(lifter, out, skeleton=skeleton, part=part, method="hypotheses", preset="tiny")
    return out
