"""Self-training as a whole, on a small drawn store and a few steps: run folder, resume, --init, promotion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from streampose.config import load_skeleton, skeleton_from_dict, skeleton_to_dict
from streampose.errors import ConfigError, StoreError, TrainingError
from streampose.export import export
from streampose.metrics.label_free import render_skeletons
from streampose.runtime.bundle import default_bundle, load_bundle
from streampose.selftrain import selftrain, training_minutes
from streampose.store.labels import Labels, write_labels
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source, write_pairs
from streampose.training.checkpoint import find_checkpoint, load_networks
from streampose.training.initialise import initialise, read_joints
from streampose.training.log import read_log

HUMAN = load_skeleton("human17")
FRAMES, CROP = 40, 64
FEW_STEPS = [
    "input_size=64", "batch_size=4", "silhouette.size=32", "silhouette.batch_size=4", "silhouette.steps=4",
    *(f"stages.{stage}.steps=4" for stage in ("warm-up", "tight", "medium", "loose")), "stages.refine.steps=0",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_store(folder: Path, frames: int = FRAMES) -> Path:
    """A person of capsules that walks, on noise."""
    store, rng = folder / "store.zarr", np.random.default_rng(0)
    create_store(store, HUMAN, crop_size=CROP, margin=0.13)
    pose = np.zeros((17, 2))
    for bone in HUMAN.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.array(bone.direction[:2])
    clips = []
    for number in range(2):
        writer = ClipWriter(store, f"walk-{number}", source="walk.mp4", fps=25)
        for frame in range(frames):
            xy = pose * 44 + [32 + 6 * np.sin(frame / 5 + number), 32] + rng.normal(0, 1, (17, 2))
            mask = render_skeletons(xy[None], np.array([44.0]), HUMAN, CROP)[0]
            image = rng.integers(0, 80, (CROP, CROP, 3), np.uint8)
            image[mask > 127] = (180, 60 + 100 * number, 60)
            writer.append(image, mask, np.array([0, 0, 128, 128], np.float32), frame / 25, frame)
        writer.finish()
        clips.append(writer.id)
    publish_source(store, "walk", {"path": "walk.mp4", "verdict": "ok", "reason": "", "clips": clips})
    i = np.arange(frames - 5)
    pairs = {"clip": np.repeat("walk-0", len(i)), "i": i, "j": i + 5, "seconds": np.full(len(i), 0.2)}
    write_pairs(store, {**pairs, "motion": np.ones(len(i))})
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("selftrain"))


def few(store: Path, folder: Path, **changes):
    options = {"method": "mask", "preset": "tiny", "overrides": FEW_STEPS, "device": "cpu", "precision": "f32"}
    options |= {"preset": None} if "refine" in changes else {}  # that of the model
    options |= changes
    return selftrain(store=store, out=folder / "runs", models=folder / "models", **options)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, few(store, folder, seed=3)


def test_the_run_folder_and_the_result(trained):
    folder, result = trained
    run = Path(result["run"])
    assert run.parent == folder / "runs" and run.name.endswith("-mask") and run.name[:8].isdigit()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["padding"] == load_bundle(result["bundle"]).padding == 0.13  # as the store's crops were cut
    assert config["method"] == "mask" and config["seed"] == 3 and config["settings"]["silhouette"]["steps"] == 4
    assert skeleton_from_dict(config["skeleton"]) == HUMAN
    assert len(read_log(run / "log.jsonl")) > 0
    assert (run / "report" / "losses.png").is_file() or read_log(run / "log.jsonl")[-1].keys() == {
        "step",
        "stage",
        "score",
    }
    assert result["method"] == "mask" and result["promoted"] is True and result["stopped"] == "finished"
    assert Path(result["checkpoint"]) == find_checkpoint(run)
    assert {"free/mask_iou", "free/inside_mask", "free/jitter", "free/score"} <= result["metrics"].keys()
    assert result["metrics_before"]["model"] == "untrained"
    json.dumps(result)
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".pickle", ".ckpt")]


def test_the_bundle_is_promoted_and_carries_its_metrics(trained):
    folder, result = trained
    bundle = load_bundle(folder / "models" / "current")
    assert bundle.metrics["free/score"] == pytest.approx(result["metrics"]["free/score"])
    assert bundle.skeleton == HUMAN and bundle.input_size == 64 and bundle.method == "mask"
    assert result["parity_px"] < 0.1


def test_a_killed_run_that_is_resumed_equals_one_that_was_not(store, trained, tmp_path):
    """kill -9 in the middle of the stages; pseudo-labels, average and optimiser come back too."""
    script = (
        "import sys, time, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "import streampose.selftrain as s, streampose.training.engine as e\n"
        "import functools; s.train = functools.partial(e.train, save_every=3)\n"
        "from streampose.methods.mask import MaskTask\n"
        "loss = MaskTask.loss\n"
        "MaskTask.loss = lambda self, batch, step: (time.sleep(0.3), loss(self, batch, step))[1]\n"
        f"here = Path({str(tmp_path)!r})\n"
        f"s.selftrain(store=Path({str(store)!r}), method='mask', preset='tiny', overrides={FEW_STEPS!r},\n"
        "    device='cpu',\n"
        "    precision='f32', seed=3, out=here / 'runs', models=here / 'models')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"})
    end = time.monotonic() + 300
    while not list(tmp_path.glob("runs/*/checkpoints/step_00000012")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = few(store, tmp_path, seed=99, resume=True)
    one, two = Path(trained[1]["checkpoint"]), Path(result["checkpoint"])
    assert one.name == two.name == "step_00000020"
    for file in ("model.safetensors", "ema.safetensors", "optimiser.safetensors"):
        first, second = load_file(one / file), load_file(two / file)
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert result["metrics"] == trained[1]["metrics"]


@pytest.mark.parametrize("force", [False, True])
def test_time_that_ends_before_the_detector_has_learnt_gives_no_model(store, tmp_path, caplog, force):
    steps = ["silhouette.shipped=false", "silhouette.steps=2000", "input_size=64", "batch_size=4"]
    result = few(store, tmp_path, overrides=[*steps, "silhouette.size=32"], max_minutes=0.01, force_promote=force)
    assert result["promoted"] is False and result["bundle"] is None and result["stopped"] == "time"
    assert not (tmp_path / "models").exists() and not (Path(result["run"]) / "bundle").exists()
    assert "0 of them the detector's own" in result["reason"] and result["reason"] in caplog.text
    assert f"selftrain --resume {result['run']} --max-minutes " in result["reason"]
    json.dumps(result)
    if not force:  # it goes on, and then there is a model
        config = Path(result["run"]) / "config.yaml"
        text = config.read_text().replace("steps: 2000", "steps: 2")
        config.write_text(
            text.replace("steps: 600", "steps: 4").replace("steps: 500", "steps: 4").replace("steps: 1000", "steps: 4")
        )
        again = few(store, tmp_path, resume=Path(result["run"]))
        assert again["promoted"] is True and "reason" not in again


def test_time_is_kept_for_what_comes_after_training():
    assert training_minutes(30, 60) == pytest.approx(28)
    assert training_minutes(5, 30) == pytest.approx(4)
    assert training_minutes(1, 600) == pytest.approx(0.05)  # never nothing


def test_init_matches_joints_by_name(trained, store):
    """A model with the joints in another order, one of them unknown to the earlier model."""
    from streampose.models.detector import build_detector

    source = Path(trained[1]["bundle"])
    joints = [*reversed(HUMAN.joints[1:]), "tail"]
    networks = torch.nn.ModuleDict({"detector": build_detector("tiny", len(joints), 64)})
    fresh = networks["detector"].heatmap.weight.clone()
    taken = initialise(networks, source, tuple(joints))
    old = load_networks(source)["detector"]
    assert taken.new_joints == ["tail"] and len(taken.joints) == 16 and not taken.left
    assert taken.tensors == taken.total
    new = networks["detector"].state_dict()
    for row, name in enumerate(joints[:-1]):
        earlier = HUMAN.joints.index(name)
        assert torch.equal(new["heatmap.weight"][row], old["heatmap.weight"][earlier])
        depth, depth_earlier = (weights["depth.weight"].unflatten(0, (17, -1)) for weights in (new, old))
        assert torch.equal(depth[row], depth_earlier[earlier])
    assert torch.equal(new["heatmap.weight"][-1], fresh[-1])
    assert torch.equal(new["context.weight"], old["context.weight"])
    assert "tail" in str(taken)


def test_init_from_a_run_takes_all_of_it(trained, store):
    from streampose.methods.mask import load_mask_config, make_task

    config = load_mask_config("tiny", None, FEW_STEPS)
    task = make_task(StoreReader(store), HUMAN, config, "cpu")
    taken = initialise(task.networks, Path(trained[1]["run"]), HUMAN.joints)
    assert taken.tensors == taken.total and not taken.left
    saved = load_networks(Path(trained[1]["run"]))
    assert torch.equal(task.networks["detector"].heatmap.bias, saved["detector"]["heatmap.bias"])
    assert torch.equal(next(task.networks["physique"].parameters()), next(iter(saved["physique"].values())))


def test_init_from_something_that_does_not_fit_says_so(trained, tmp_path):
    networks = torch.nn.ModuleDict({"detector": torch.nn.Linear(3, 3)})
    with pytest.raises(TrainingError, match="nothing of it fits"):
        initialise(networks, Path(trained[1]["bundle"]), HUMAN.joints)
    with pytest.raises(TrainingError, match="no checkpoint in it"):
        initialise(networks, tmp_path, HUMAN.joints)
    assert read_joints(find_checkpoint(Path(trained[1]["run"]))) == list(HUMAN.joints)


def test_init_and_another_skeleton_are_used_and_remembered(trained, store, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(skeleton_to_dict(HUMAN) | {"name": "mine"}))
    result = few(store, tmp_path, init=Path(trained[1]["bundle"]), skeleton=str(tmp_path / "mine.yaml"))
    config = yaml.safe_load((Path(result["run"]) / "config.yaml").read_text())
    assert config["init"] == trained[1]["bundle"] == result["metrics_before"]["model"]
    assert result["metrics_before"]["free/mask_iou"] == pytest.approx(trained[1]["metrics"]["free/mask_iou"], abs=1e-3)
    assert load_bundle(result["bundle"]).skeleton.name == "mine"


def test_errors_say_what_to_do(store, tmp_path):
    with pytest.raises(StoreError, match="run `streampose ingest"):
        few(tmp_path / "store.zarr", tmp_path)
    with pytest.raises(ConfigError, match=r"choose auto, .*mask"):
        few(store, tmp_path, method="magic")
    with pytest.raises(ConfigError, match="unknown key"):
        few(store, tmp_path, overrides=["setps=3"])
    with pytest.raises(TrainingError, match="no run to resume"):
        few(store, tmp_path, resume=True)
    create_store(tmp_path / "empty.zarr", HUMAN, crop_size=CROP)
    with pytest.raises(StoreError, match="no clip in it"):
        few(tmp_path / "empty.zarr", tmp_path)
    assert not (tmp_path / "runs").exists()  # nothing is left behind by a wrong call


def test_refining_needs_sessions_and_a_known_way(store, tmp_path):
    with pytest.raises(TrainingError, match="ingest --session"):
        few(store, tmp_path, refine="triangulate", overrides=["steps=2"])
    with pytest.raises(ConfigError, match="--refine average: unknown; choose triangulate"):
        few(store, tmp_path, refine="average")
    assert not list((tmp_path / "runs").iterdir())  # nothing to resume by mistake


def test_a_model_is_refined_on_masks_of_one_camera_and_goes_on(store, tmp_path):
    settings = ["rounds=1", "steps=4", "fit_steps=3", "batch_size=4"]
    result = few(store, tmp_path, refine="masks", overrides=settings, device="cpu")
    assert result["method"] == "masks" and result["metrics_before"]["model"].endswith("default_bundle")
    labels = load_networks(Path(result["checkpoint"]))["labels"]
    assert labels["named"].all() and labels["confidence"].max() > 0.3
    again = selftrain(resume=Path(result["run"]), models=tmp_path / "models", device="cpu")
    assert again["method"] == "masks" and again["bundle"] == result["bundle"]


def test_a_model_is_refined_on_a_session(tmp_path):
    from streampose.ingest import ingest
    from streampose.synth import synth

    synth(out=tmp_path / "views", videos=1, seconds=4, size=(160, 160), fps=12, cameras=3, seed=4)
    ingest([], sessions=[tmp_path / "views"], store=tmp_path / "s.zarr", rate=6)
    result = few(
        tmp_path / "s.zarr", tmp_path, refine="triangulate", overrides=["steps=3", "rounds=2", "fit_steps=4"],
        device="cpu",
    )  # fmt: skip
    assert result["method"] == "triangulate" and result["metrics_before"]["model"].endswith("default_bundle")
    assert result["metrics"]["free/score"] > 0.2  # three steps do not forget what the shipped model knows
    bundle = load_bundle(Path(result["bundle"]))
    assert (bundle.method, bundle.preset) == ("triangulate", load_bundle(default_bundle()).preset)

    once = {"refine": "triangulate", "init": default_bundle(), "device": "cpu"}
    settings = ["rounds=1", "steps=2", "fit_steps=4", "batch_size=4", "input_size=64"]
    larger = "base" if bundle.preset == "small" else "small"
    alike, grown = (
        few(tmp_path / "s.zarr", tmp_path, preset=size, overrides=settings, **once) for size in (None, larger)
    )
    assert load_bundle(Path(grown["bundle"])).preset == larger and not grown["promoted"]  # two steps from nothing
    made = [load_networks(Path(run["checkpoint"]))["labels"]["keypoints"] for run in (alike, grown)]
    torch.testing.assert_close(*made)  # the model that is refined has taught the larger one
    with pytest.raises(ConfigError, match=f"--preset {larger}: --refine labels keeps the network"):
        few(tmp_path / "s.zarr", tmp_path, preset=larger, refine="labels")
    with pytest.raises(TrainingError, match="no run to resume"):
        selftrain(out=tmp_path / "nowhere", resume=True)


def test_labels_are_learnt_measured_and_named_in_the_run(tmp_path):
    store = make_store(tmp_path)
    with pytest.raises(StoreError, match="no labels all; there are none; bring some in"):
        few(store, tmp_path, labels=["all"])
    frames = np.array([1, 7, 20, 36, 37, 38, 39, 36])  # five of them in the ends of clips, which are held out
    points = np.full((8, 17, 2), 30.0, np.float32) + np.arange(17)[None, :, None]
    clips = np.array(["walk-0"] * 7 + ["walk-1"])
    labels = Labels(clips, frames, points, np.full((8, 17), 2, np.uint8), np.full(8, "ann"), HUMAN.joints)
    write_labels(store, "hand", labels)
    with pytest.raises(StoreError, match="no labels other; there are hand"):
        few(store, tmp_path, labels=["other"])
    with pytest.raises(ConfigError, match="triangulate does not learn from labels; these do: "):
        few(store, tmp_path, labels=["all"], refine="triangulate")
    result = few(store, tmp_path, labels=["all"])
    settings = yaml.safe_load((Path(result["run"]) / "config.yaml").read_text())["settings"]["supervision"]
    assert settings["labels"] == ["hand"] and settings["version"]
    assert result["metrics"]["labels/frames"] == 5 and 0 < result["metrics"]["labels/error"] < 1.5
    assert result["metrics_before"]["labels/frames"] == 5
    assert all("supervised" in entry["terms"] for entry in read_log(Path(result["run"]) / "log.jsonl"))
    tuned = few(store, tmp_path, refine="labels", overrides=["steps=2", "rounds=1", "round_steps=1", "batch_size=4"])
    assert tuned["method"] == "labels" and "held-out labelled frames" in tuned["gate"]["reason"]


def test_a_lifter_is_trained_measured_exported_and_promoted(tmp_path):
    from streampose.runtime.lifter import load_lifter
    from streampose.store.priors import write_prior
    from streampose.synthetic.built_in_prior import built_in_prior

    store = tmp_path / "poses.zarr"  # without a single clip
    write_prior(store, built_in_prior(HUMAN, 128, 0))
    options = {"method": "hypotheses", "overrides": ["steps=6", "batch_size=8"], "device": "cpu", "precision": "f32"}
    folders = {"store": store, "out": tmp_path / "runs", "models": tmp_path / "models"}
    first = selftrain(**folders, **options)
    assert first["promoted"] and first["gate"]["reason"] == "the first lifter"
    assert first["metrics"]["pa_mpjpe_mm"] < first["metrics_before"]["pa_mpjpe_mm"] and first["parity_mm"] < 0.1
    assert not (tmp_path / "models" / "current").exists()  # that is where detectors are
    bundle = load_bundle(tmp_path / "models" / "lifter", "lifter")
    assert bundle.method == "hypotheses" and bundle.metrics["coverage90"] > 0.5
    assert np.isfinite(load_lifter(bundle.path).lift(np.random.default_rng(0).random((1, 17, 2))).pose).all()
    worse = selftrain(**folders, **{**options, "overrides": ["steps=1", "batch_size=8"]})
    assert not worse["promoted"] and "worse" in worse["gate"]["reason"]
    again = export(run=Path(first["run"]), out=tmp_path / "again")
    assert load_bundle(tmp_path / "again", None).kind == "lifter" and again["parity_mm"] < 0.1
    assert load_bundle(tmp_path / "again", None).sha256["weights.safetensors"] == bundle.sha256["weights.safetensors"]


def test_a_resumed_lifter_is_the_one_that_never_stopped(tmp_path, monkeypatch):
    from streampose.methods.hypotheses import HypothesesTask
    from streampose.store.priors import write_prior
    from streampose.synthetic.built_in_prior import built_in_prior

    write_prior(tmp_path / "poses.zarr", built_in_prior(HUMAN, 128, 0))
    options = {"method": "hypotheses", "store": tmp_path / "poses.zarr", "models": tmp_path / "models"}
    options |= {"overrides": ["steps=6", "batch_size=8"], "device": "cpu", "precision": "f32"}
    whole = selftrain(out=tmp_path / "whole", **options)
    loss, calls = HypothesesTask.loss, []

    def interrupted(self, batch, step):
        calls.append(step)
        if step == 3 and len(calls) < 6:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, batch, step)

    monkeypatch.setattr(HypothesesTask, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        selftrain(out=tmp_path / "halves", **options)
    monkeypatch.setattr(HypothesesTask, "loss", loss)
    halves = selftrain(out=tmp_path / "halves", resume=True, **options)
    one, other = (load_file(Path(run["checkpoint"]) / "model.safetensors") for run in (whole, halves))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
