"""Every command as a user types it: synthetic videos -> store -> model -> annotations -> live; and every wrong call."""

import importlib
import inspect
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from streampose.cli import app
from streampose.synthetic.truth import read_truth
from streampose.video.decode import open_video

FEW_STEPS = [f"--set=stages.{name}.steps=5" for name in ("warm-up", "tight", "medium", "loose", "refine")]
COMMANDS = [
    "ingest", "selftrain", "evaluate", "export", "annotate", "serve", "inspect", "synth", "calibrate", "demo", "doctor",
]  # fmt: skip


def streampose(*arguments, folder, expect=0):
    """Run the command line; returns (stdout, stderr)."""
    command = [sys.executable, "-m", "streampose.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == expect, f"{arguments} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def as_json(*arguments, folder, expect=0):
    return json.loads(streampose(*arguments, "--json", folder=folder, expect=expect)[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the user's lines have been run once: videos, a file that is no video, a store and a model."""
    folder = tmp_path_factory.mktemp("user")
    as_json("synth", "--out", "videos", "--videos", 2, "--seconds", 2, "--size", 128, folder=folder)
    (folder / "videos" / "notes.mp4").write_text("this is no video")
    as_json("ingest", "videos", folder=folder, expect=1)
    as_json("selftrain", "--method", "mask", "--preset", "tiny", "--max-minutes", 5, *FEW_STEPS, folder=folder)
    return folder


def children_seconds():
    """Processor time of the commands that were run, which a busy machine changes less than the clock."""
    used = os.times()
    return used.children_user + used.children_system


def test_help_is_quick_and_complete(tmp_path):
    streampose("--help", folder=tmp_path)
    began = children_seconds()
    text, _ = streampose("--help", folder=tmp_path)
    assert children_seconds() - began < 0.8  # 0.4 s is the aim; a busy machine gets some room
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_quick_help_for_all_that_its_verb_can_do(command, tmp_path):
    began = children_seconds()
    text, _ = streampose(command, "--help", folder=tmp_path)
    assert children_seconds() - began < 0.8  # as above
    options = typer.main.get_command(app).commands[command].params
    assert all(option.help for option in options)
    assert all(max(option.opts, key=len) in text for option in options if option.opts[0].startswith("-"))
    verb = getattr(importlib.import_module(f"streampose.{command}"), command)
    handed = {"metrics", "standing"}  # by one verb to another: selftrain to export, annotate_session to annotate
    wanted = set(inspect.signature(verb).parameters) - handed
    assert wanted <= {option.name.removesuffix("_folder") for option in options}


def test_ingest_quarantines_what_is_no_video_and_goes_on(folder):
    result = as_json("ingest", "videos", folder=folder, expect=1)  # the second time everything is done already
    assert {"store", "sources", "seconds"} <= result.keys()
    verdicts = {Path(entry["source"]).name: entry for entry in result["sources"]}
    assert len(verdicts) == 3
    assert verdicts["notes.mp4"]["verdict"] == "quarantined"
    assert verdicts["notes.mp4"]["reason"]
    good = [entry for name, entry in verdicts.items() if name != "notes.mp4"]
    assert all(entry["verdict"] == "ok" and entry["clips"] and entry["frames"] == 50 for entry in good)


def test_selftrain_leaves_a_run_and_a_promoted_model(folder):
    assert (folder / "models" / "current" / "bundle.json").is_file()
    (run,) = (folder / "runs").glob("*-mask")
    assert {"config.yaml", "log.jsonl", "checkpoints"} <= {path.name for path in run.iterdir()}


def test_evaluate_against_truth(folder):
    result = as_json("evaluate", "--truth", "videos", folder=folder)
    assert {"pck@0.2", "pck@0.2/flips", "mpjpe_mm", "pa_mpjpe_mm", "free/mask_iou"} <= result["metrics"].keys()
    assert result["samples"] > 0
    assert "left_knee" in result["per_joint"]["pck@0.2"]


def test_selftrain_goes_on_with_a_named_run(folder):
    (run,) = (folder / "runs").glob("*-mask")
    result = as_json("selftrain", "--resume", run, "--models", "other", "--max-minutes", 1, folder=folder)
    assert Path(result["run"]) == run and result["stopped"] == "finished" and result["promoted"] is True
    assert (folder / "other" / "current" / "bundle.json").is_file()


def test_synth_sizes_presets_and_skeletons(folder):
    few = ["--videos", 1, "--seconds", 0.4, "--size", "96x64", "--out", "few"]
    result = as_json("synth", *few, "--preset", "hard", "--skeleton", "mpii16", folder=folder)
    assert [entry["subjects"] for entry in result["videos"]] == [2]
    assert "upper_neck" in read_truth(folder / result["videos"][0]["truth"]).joints
    with open_video(folder / result["videos"][0]["video"]) as video:
        assert (video.probe.width, video.probe.height) == (96, 64)


def test_evaluate_measures_what_annotate_wrote(folder):
    streampose("annotate", "videos", "--out", "annotations", "--no-overlay", folder=folder, expect=1)
    result = as_json("evaluate", "--predictions", "annotations", "--truth", "videos", folder=folder)
    assert result["samples"] > 0 and 0 <= result["metrics"]["pck@0.2"] <= 1


def test_annotate_writes_every_format(folder):
    result = as_json("annotate", "videos", "--out", "annotations", folder=folder, expect=1)
    entries = {Path(entry["source"]).name: entry for entry in result["sources"]}
    assert entries.pop("notes.mp4")["verdict"] == "quarantined"
    for entry in entries.values():
        assert entry["frames"] == 50
        assert entry["people"] >= 1
        assert all((folder / path).is_file() for path in entry["files"].values())
        assert len(entry["files"]) == 3


def test_export_checks_parity(folder):
    (run,) = (folder / "runs").glob("*-mask")
    result = as_json("export", run, "--out", "exported", folder=folder)
    assert result["parity_px"] < 0.1
    assert (folder / "exported" / "model.onnx").is_file()


def test_serve_runs_and_ends(folder):
    result = as_json("serve", "--source", "test", "--seconds", 2, "--port", free_port(), folder=folder)
    assert result["published"] > 0


def test_inspect_and_doctor(folder):
    assert as_json("inspect", "store.zarr", "--out", "look", folder=folder)["sources"]
    assert list((folder / "look").glob("*.html"))
    assert {"decoders", "runtimes", "accelerators", "problems"} <= as_json("doctor", folder=folder).keys()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["selftrain", "--store", "nowhere.zarr"], "nowhere.zarr"),
        (["ingest", "videos", "--skeleton", "horse", "--store", "new.zarr"], "skeleton horse: not shipped"),
        (["ingest", "videos", "--masks", "magic", "--store", "new.zarr"], "magic"),
        (["selftrain", "--set", "sed=3"], "unknown key 'sed'"),
        (["selftrain", "--preset", "huge"], "huge"),
        (["selftrain", "--method", "magic"], "magic"),
        (["annotate", "videos", "--model", "nowhere", "--out", "new"], "nowhere"),
        (["annotate", "videos", "--runtime", "magic", "--out", "new"], "magic"),
        (["evaluate", "--truth", "nowhere"], "nowhere"),
        (["serve", "--camera", "97", "--seconds", "1"], "97"),
        (["serve", "--source", "nowhere.mp4", "--seconds", "1"], "nowhere.mp4"),
        (["inspect", "nowhere.zarr"], "nowhere.zarr"),
        (["export", "nowhere"], "nowhere"),
        (["serve", "--camera", "0", "--source", "test"], "exclude each other"),
        (["ingest"], "nothing to ingest"),
        (["selftrain", "runs/one"], "add --resume"),
        (["selftrain", "--resume", "runs/nowhere"], "runs/nowhere"),
        (["synth", "--size", "wide"], "--size wide"),
        (["synth", "--size", "0x100"], "--size 0x100"),
        (["synth", "--preset", "easy"], "hard, multiview"),
        (["evaluate", "--predictions", "annotations"], "give --truth"),
        (["evaluate", "--precision", "f8"], "f8"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_calls_say_what_is_wrong(folder, arguments, text):
    _, said = streampose(*arguments, folder=folder, expect=2)
    assert text in said.replace("\n", " ")


def test_a_path_that_is_not_there_is_a_source_that_failed(folder):
    _, said = streampose("ingest", "nowhere", "--store", "new.zarr", folder=folder, expect=1)
    assert "nowhere: no such file" in said


def test_a_port_in_use(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, said = streampose("serve", "--source", "test", "--seconds", 1, "--port", port, folder=folder, expect=2)
    assert str(port) in said
    assert "--port" in said


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
