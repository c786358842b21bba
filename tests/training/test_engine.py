"""The engine: resume equals not having stopped, NaN, interruption, time limits, processes, what is left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streampose.errors import TrainingError
from streampose.training.checkpoint import find_checkpoint, read_scores
from streampose.training.devices import choose_device
from streampose.training.engine import train, weighted_sum
from streampose.training.log import read_log

TOY = Path(__file__).with_name("toy.py")
spec = importlib.util.spec_from_file_location("toy", TOY)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
ToyTask = toy.ToyTask

QUIET = {"device": "cpu", "precision": "f32", "picture_every": 0, "log_every": 1}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's newest checkpoint: weights, average and optimiser."""
    folder = find_checkpoint(folder)
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.stem}/{name}": tensor for name, tensor in load_file(file).items()}
    return found


def assert_identical(one: Path, two: Path) -> None:
    first, second = tensors_of(one), tensors_of(two)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_it_learns_and_leaves_a_run_folder_behind(tmp_path):
    task = ToyTask(120)
    result = train(task, run_dir=tmp_path, save_every=50, picture_every=60, log_every=10, device="cpu", precision="f32")
    entries = read_log(tmp_path / "log.jsonl")
    assert [entry["step"] for entry in entries] == list(range(10, 121, 10))
    assert entries[-1]["terms"]["point"] < 0.3 * entries[0]["terms"]["point"]
    assert result.steps == 120 and result.stopped == "finished"
    assert result.checkpoint == tmp_path / "checkpoints" / "step_00000120"
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == [
        "step_00000010.png",
        "step_00000060.png",
        "step_00000120.png",
    ]
    assert (tmp_path / "report" / "losses.png").stat().st_size > 5000
    assert any((tmp_path / "tensorboard").iterdir())
    assert entries[0]["stage"] == "one" and entries[-1]["stage"] == "two"
    assert entries[-1]["settings"]["helper.lr"] == 0.001


def test_the_log_holds_means_over_its_interval(tmp_path):
    options = {name: value for name, value in QUIET.items() if name != "log_every"}
    train(ToyTask(8), run_dir=tmp_path / "each", log_every=1, **options)
    train(ToyTask(8), run_dir=tmp_path / "fourth", log_every=4, **options)
    each, fourth = (read_log(tmp_path / name / "log.jsonl") for name in ("each", "fourth"))
    assert len(fourth) == 2
    assert fourth[0]["loss"] == pytest.approx(np.mean([entry["loss"] for entry in each[:4]]))
    assert fourth[1]["terms"]["helper"] == pytest.approx(np.mean([entry["terms"]["helper"] for entry in each[4:]]))


def test_the_average_is_smoother_than_the_weights_and_as_good(tmp_path):
    task = ToyTask(150)
    train(task, run_dir=tmp_path, ema=0.9, **QUIET)
    saved = tensors_of(tmp_path)
    weight, average = saved["model/detector.head.weight"], saved["ema/detector.head.weight"]
    assert not torch.equal(weight, average)
    assert (weight - average).norm() < 0.2 * weight.norm()
    assert saved["ema/detector.seen"] == saved["model/detector.seen"] == 150


def test_resume_equals_not_having_stopped(tmp_path):
    train(ToyTask(24), run_dir=tmp_path / "whole", save_every=8, **QUIET)

    class Stops(ToyTask):
        def loss(self, batch, step):
            if step == 13:
                raise RuntimeError("pulled the plug")
            return super().loss(batch, step)

    with pytest.raises(RuntimeError, match="plug"):
        train(Stops(24), run_dir=tmp_path / "parts", save_every=8, **QUIET)
    assert find_checkpoint(tmp_path / "parts").name == "step_00000008"
    train(ToyTask(24), run_dir=tmp_path / "parts", save_every=8, resume=True, **QUIET)
    assert_identical(tmp_path / "whole", tmp_path / "parts")
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "parts")]
    assert [(e["step"], e["loss"]) for e in logs[0]] == [(e["step"], e["loss"]) for e in logs[1]]


def test_killed_and_resumed_equals_not_having_stopped(tmp_path):
    train(ToyTask(40), run_dir=tmp_path / "whole", save_every=5, **QUIET)
    command = [sys.executable, str(TOY), str(tmp_path / "parts"), "40", "--pause", "0.05"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "parts" / "checkpoints" / "step_00000010").is_dir())
    process.kill()
    process.wait()
    assert not (tmp_path / "parts" / "checkpoints" / "step_00000040").exists()
    train(ToyTask(40), run_dir=tmp_path / "parts", save_every=5, resume=True, **QUIET)
    assert_identical(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_as_an_interruption(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, str(TOY), str(tmp_path), "4000", "--pause", "0.02", "--save-every", "100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(read_log(tmp_path / "log.jsonl")) > 3)
    process.send_signal(number)
    errors = process.communicate(timeout=240)[1]
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    saved = json.loads((find_checkpoint(tmp_path) / "state.json").read_text())
    assert saved["step"] == read_log(tmp_path / "log.jsonl")[-1]["step"] >= 4
    assert (tmp_path / "report" / "losses.png").is_file()


def test_nan_stops_names_the_term_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"step 13: point is nan.*step_00000010"):
        train(ToyTask(20, nan_at=13), run_dir=tmp_path, save_every=5, **QUIET)
    assert find_checkpoint(tmp_path).name == "step_00000010"
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(tmp_path).values())


def test_an_infinite_gradient_stops_too(tmp_path):
    class Explodes(ToyTask):
        def loss(self, batch, step):
            terms, weights = super().loss(batch, step)
            weight = self.networks["detector"].head.weight
            terms["root"] = (weight - weight.detach()).abs().sqrt().sum()  # zero, with an infinite slope
            return terms, weights | {"root": 1.0}

    with pytest.raises(TrainingError, match="gradient of detector"):
        train(Explodes(20), run_dir=tmp_path, **QUIET)


def test_terms_and_weights_must_match():
    one = torch.ones(())
    assert weighted_sum({"a": one, "b": 2 * one}, {"a": 3.0, "b": 0.5}).item() == 4.0
    with pytest.raises(TrainingError, match=r"without a weight \['b'\]"):
        weighted_sum({"a": one, "b": one}, {"a": 1.0})
    with pytest.raises(TrainingError, match=r"without a term \['c'\]"):
        weighted_sum({"a": one}, {"a": 1.0, "c": 1.0})


def test_max_minutes_ends_cleanly_and_can_be_continued(tmp_path):
    began = time.monotonic()
    result = train(ToyTask(100_000, pause=0.01), run_dir=tmp_path, max_minutes=0.02, **QUIET)
    assert result.stopped == "time" and time.monotonic() - began < 30
    assert 0 < result.steps < 1000
    again = train(ToyTask(result.steps + 5), run_dir=tmp_path, resume=True, **QUIET)
    assert again.steps == result.steps + 5 and again.stopped == "finished"


class Planned(ToyTask):
    """Runs for 50 steps, however fast it is."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.plans = []

    def plan(self, steps_per_second, max_minutes):
        self.plans.append([steps_per_second, max_minutes])
        self.total_steps = 50


def test_the_plan_is_kept_by_a_resume(tmp_path):
    first = Planned(1000, pause=0.01)
    result = train(first, run_dir=tmp_path, max_minutes=5, save_every=20, **QUIET)
    assert result.steps == 50 and len(first.plans) == 1
    assert 0.5 < first.plans[0][0] < 100
    (tmp_path / "checkpoints" / "step_00000050" / "state.json").unlink()  # as if it had stopped before the end
    second = Planned(1000)
    train(second, run_dir=tmp_path, max_minutes=5, resume=True, **QUIET)
    assert second.plans == first.plans
    assert min(step for step, _, _ in second.seen_batches) == 40


def test_a_machine_that_slows_down_is_planned_for_again(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("streampose.training.engine.time", SimpleNamespace(monotonic=lambda: clock.now))

    class Tires(Planned):
        def plan(self, steps_per_second, max_minutes):
            super().plan(steps_per_second, max_minutes)
            self.total_steps = round(steps_per_second * max_minutes * 60 * 0.95)

        def stage(self, step):
            return "one"

        def loss(self, batch, step):
            clock.now += 0.1 if step < 60 else 0.4
            return super().loss(batch, step)

    task = Tires(1000)
    result = train(task, run_dir=tmp_path, max_minutes=1, **QUIET)
    assert task.plans[0][0] == pytest.approx(10) and task.plans[-1][0] < 5
    assert result.stopped == "finished" and 100 < result.steps == task.total_steps < 300
    assert 50 < clock.now < 60
    assert json.loads((result.checkpoint / "state.json").read_text())["plans"] == task.plans


def test_a_plan_shorter_than_what_is_done_is_stretched(tmp_path):
    class Short(Planned):
        def plan(self, steps_per_second, max_minutes):
            super().plan(steps_per_second, max_minutes)
            self.total_steps = round(max_minutes * 20)

    task = Short(1000)
    result = train(task, run_dir=tmp_path, max_minutes=0.5, **QUIET)
    assert [round(minutes * 20) for _, minutes in task.plans] == [10, 15, 22, 34]  # 26 steps were done by then
    assert result.steps == 34 and result.stopped == "finished"


class Teaches(Planned):
    """A first stage of 3000 steps that leaves the detector alone, as one that teaches another network does."""

    def loss(self, batch, step):
        terms, weights = super().loss(batch, step)
        if step < 3000:
            terms["point"] = self.networks["helper"](batch["target"]).square().mean()
        return terms, weights

    def stage(self, step):
        return "teaching" if step < 3000 else "one"

    def plan(self, steps_per_second, max_minutes):
        super().plan(steps_per_second, max_minutes)
        self.total_steps = 5000


def test_a_detector_without_steps_of_its_own_is_neither_scored_nor_averaged(tmp_path):
    task, scored = Teaches(6000, pause=0.002), []
    before = task.networks["detector"].head.weight.detach().clone()
    result = train(
        task, run_dir=tmp_path, max_minutes=0.02, save_every=5, score=lambda _: scored.append(1) or 1.0, **QUIET
    )
    assert result.stopped == "time" and result.steps > 0 == result.detector_steps
    assert not result.learnt and not scored
    rate = result.steps / result.seconds
    assert result.minutes_left == pytest.approx((6000 - result.steps) / rate / 60)
    assert torch.equal(tensors_of(tmp_path)["ema/detector.head.weight"], before)
    state = json.loads((result.checkpoint / "state.json").read_text())
    assert task.plans and state["plans"] == []  # they were for a time that was too short

    again = Teaches(6000)
    train(again, run_dir=tmp_path, resume=True, max_minutes=0.02, **QUIET)
    assert again.plans and again.plans[0][1] > 0.02  # planned anew, with the time of what is done


def test_steps_of_the_detector_are_counted_over_all_sittings(tmp_path):
    first = train(ToyTask(1000, pause=0.002), run_dir=tmp_path, max_minutes=0.02, **QUIET)
    assert first.learnt and first.detector_steps == first.steps
    second = train(ToyTask(first.steps + 3), run_dir=tmp_path, resume=True, **QUIET)
    assert second.detector_steps == second.steps == first.steps + 3 and second.minutes_left == 0


def test_the_batch_comes_from_step_and_rank(tmp_path):
    task = ToyTask(5)
    train(task, run_dir=tmp_path, **QUIET)
    assert task.seen_batches == [(step, 0, 1) for step in range(5)]


def test_an_error_in_the_batch_thread_is_not_lost(tmp_path):
    class Breaks(ToyTask):
        def batch(self, step, rank, world):
            if step == 3:
                raise OSError("store went away")
            return super().batch(step, rank, world)

    with pytest.raises(OSError, match="store went away"):
        train(Breaks(10), run_dir=tmp_path, **QUIET)


def test_the_best_scored_checkpoint_is_kept(tmp_path):
    scores = iter([0.1, 0.9, 0.5, 0.4, 0.3])
    train(ToyTask(25), run_dir=tmp_path, save_every=5, score=lambda detector: next(scores), **QUIET)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == [
        "step_00000010",
        "step_00000020",
        "step_00000025",
    ]
    assert read_scores(tmp_path) == {"best": {"step": 10, "score": 0.9}, "last": {"step": 25, "score": 0.3}}
    assert find_checkpoint(tmp_path, best=True).name == "step_00000010"
    assert find_checkpoint(tmp_path).name == "step_00000025"


def test_a_slightly_better_score_does_not_speak_for_an_older_checkpoint(tmp_path):
    scores = iter([0.52, 0.5])
    train(ToyTask(10), run_dir=tmp_path, save_every=5, score=lambda detector: next(scores), **QUIET)
    assert find_checkpoint(tmp_path, best=True).name == "step_00000010"


def test_the_score_sees_the_averaged_detector(tmp_path):
    seen = []
    train(ToyTask(10), run_dir=tmp_path, score=lambda d: seen.append(d.head.weight.clone()) or 1.0, ema=0.9, **QUIET)
    assert torch.equal(seen[-1], tensors_of(tmp_path)["ema/detector.head.weight"])


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    train(ToyTask(3), run_dir=tmp_path, **QUIET)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(ToyTask(3), run_dir=tmp_path, **QUIET)


def test_resuming_with_other_networks_is_refused(tmp_path):
    train(ToyTask(3), run_dir=tmp_path, **QUIET)
    other = ToyTask(6)
    other.networks["detector"].head = torch.nn.Linear(196, 3)
    with pytest.raises(TrainingError, match="another configuration"):
        train(other, run_dir=tmp_path, resume=True, **QUIET)


def test_a_missing_device_is_an_error_not_a_fallback():
    with pytest.raises(TrainingError, match="unknown"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="not available"):
            choose_device("cuda")


def test_automatic_precision_measures_without_touching_the_weights(tmp_path):
    task = ToyTask(1)
    options = {**QUIET, "precision": "auto"}
    train(task, run_dir=tmp_path / "auto", **options)
    chosen = json.loads((find_checkpoint(tmp_path / "auto") / "state.json").read_text())["precision"]
    assert chosen in ("f32", "bf16")
    train(ToyTask(1), run_dir=tmp_path / "named", **{**QUIET, "precision": chosen})
    assert_identical(tmp_path / "auto", tmp_path / "named")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_it_learns_on_cuda(tmp_path):
    train(ToyTask(120), run_dir=tmp_path, device="cuda", precision="auto", log_every=1, picture_every=50)
    entries = read_log(tmp_path / "log.jsonl")
    assert np.mean([e["terms"]["point"] for e in entries[-10:]]) < 0.3 * entries[0]["terms"]["point"]


def test_two_processes_train_as_one(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, str(TOY), str(tmp_path), "12"],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    sums = {line for line in done.stdout.splitlines() if line.startswith("weights ")}
    assert len(sums) == 1, "the processes ended with different weights"
    entries = read_log(tmp_path / "log.jsonl")
    assert [entry["step"] for entry in entries] == list(range(1, 13))

    both = [ToyTask().batch(0, rank, 2) for rank in (0, 1)]  # the first loss is the mean over both halves
    assert not torch.equal(both[0]["images"], both[1]["images"])


def wait_for(condition, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
