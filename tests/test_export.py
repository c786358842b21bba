import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from streampose.config import load_skeleton, skeleton_to_dict
from streampose.errors import BundleError, ConfigError, TrainingError
from streampose.export import export, export_detector
from streampose.models.detector import build_detector
from streampose.runtime.bundle import load_bundle
from streampose.runtime.predictor import load_predictor
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source

SKELETON = load_skeleton("human17")


@pytest.fixture
def run(tmp_path):
    """A training run with one checkpoint, as the engine leaves it."""
    torch.manual_seed(1)
    detector = build_detector("tiny", 17, 64)
    checkpoint = tmp_path / "run/checkpoints/step_00000040"
    checkpoint.mkdir(parents=True)
    tensors = {f"detector.{name}": tensor for name, tensor in detector.state_dict().items()}
    save_file(tensors, checkpoint / "ema.safetensors")
    for name in ("model", "optimiser"):
        save_file({"x": torch.zeros(1)}, checkpoint / f"{name}.safetensors")
    (checkpoint / "state.json").write_text('{"step": 40}')
    config = {
        "method": "mask",
        "preset": "tiny",
        "seed": 0,
        "skeleton": skeleton_to_dict(SKELETON),
        "config": {"input_size": 64},
    }
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run"


@pytest.fixture
def tiny_store(tmp_path):
    """A store of thirty crops of 100 px."""
    store, random = tmp_path / "store.zarr", np.random.default_rng(0)
    create_store(store, SKELETON, crop_size=100, margin=0.1)
    writer = ClipWriter(store, "a-0", source="a.mp4", fps=25)
    for n in range(30):
        image = np.kron(random.integers(0, 256, (10, 10, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
        mask = np.full((100, 100), 255, np.uint8)
        writer.append(image, mask, np.array([0, 0, 100, 100], np.float32), n / 25, n)
    writer.finish()
    publish_source(store, "a", {"path": "a.mp4", "verdict": "ok", "reason": "", "clips": [writer.id]})
    return store


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_export_of_a_run(run, tmp_path, runtime):
    result = export(run=run, out=tmp_path / "models/current", runtime=runtime, metrics={"free/mask_iou": 0.5})
    assert set(result) == {"bundle", "runtime", "precision", "parity_px", "difference_px"}
    assert result["runtime"] == runtime and result["parity_px"] < 0.1
    json.dumps(result)
    bundle = load_bundle(result["bundle"])
    assert bundle.provenance["step"] == 40 and bundle.metrics == {"free/mask_iou": 0.5}
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["current"]
    keypoints, _ = load_predictor(bundle.path, runtime).predict_crops(np.zeros((3, 64, 64, 3), np.uint8))
    np.testing.assert_allclose(keypoints[:, SKELETON.root, 2], 0, atol=1e-4)  # z is relative to the root


def test_checkpoint_of_another_size(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "preset": "small"}))
    with pytest.raises(TrainingError, match="does not fit"):
        export(run=run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_run(tmp_path):
    with pytest.raises(TrainingError):
        export(run=tmp_path / "nothing", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bad_export_is_refused_and_the_old_bundle_stays(run, tmp_path, monkeypatch):
    out = tmp_path / "bundle"
    export(run=run, out=out)
    before = (out / "bundle.json").read_bytes()
    module = __import__("streampose.export", fromlist=["x"])
    monkeypatch.setattr(module, "PARITY_PX", {"f32": -1.0})
    with pytest.raises(BundleError, match=r"differs from PyTorch by .* px"):
        export(run=run, out=out)
    assert (out / "bundle.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "run"]


def test_parity_sees_a_wrong_graph(tmp_path, monkeypatch):
    """The check compares the runtime with PyTorch: a graph of other weights must not pass."""
    from streampose import export as module

    torch.manual_seed(0)
    other = build_detector("tiny", 17, 64).eval()
    write = module.write_onnx

    def write_other(wrapped, path: Path, size: int, num_joints: int):
        write(module.CropsToKeypoints(other, SKELETON, size).eval(), path, size, num_joints)

    monkeypatch.setattr(module, "write_onnx", write_other)
    torch.manual_seed(5)
    with pytest.raises(BundleError, match="not exported") as error:
        export_detector(build_detector("tiny", 17, 64), SKELETON, 64, tmp_path / "out")
    assert float(re.search(r"by ([\d.]+) px", str(error.value)).group(1)) > 0.1


def test_int8_is_calibrated_with_a_store(run, tmp_path, tiny_store):
    pytest.importorskip("nncf", reason="nncf is not installed; pip install nncf")
    result = export(run=run, out=tmp_path / "out", runtime="openvino", precision="int8", store=tiny_store)
    assert result["precision"] == "int8" and 0 < result["parity_px"] == result["difference_px"]["median"] < 1.0
    bundle = load_bundle(tmp_path / "out")
    assert bundle.int8_path is not None and bundle.precision == "int8"
    again = export(run=tmp_path / "out", out=tmp_path / "again", store=tiny_store)  # a bundle, as f32 once more
    assert again["parity_px"] < 0.1 and load_bundle(tmp_path / "again").int8_path is None
    assert load_bundle(tmp_path / "again").provenance["step"] == 40
    (tmp_path / "out/model.int8.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"model\.int8\.onnx: damaged"):
        load_bundle(tmp_path / "out")


def test_int8_without_a_store(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="needs crops to calibrate with; name a store"):
        export(run=run, out=tmp_path / "out", precision="int8")
    assert not (tmp_path / "out").exists()


def test_an_export_is_never_checked_with_another_runtime(run, tmp_path):
    """Where TensorRT is missing, other verbs fall back; a check that was asked for must not."""
    with pytest.raises((ConfigError, BundleError)):
        export(run=run, out=tmp_path / "out", runtime="tensorrt")
    assert not (tmp_path / "out").exists()
