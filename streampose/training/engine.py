"""The engine: it moves batches, steps the optimiser, saves, resumes and logs; what is learnt belongs to the task.

A run that is interrupted, or killed with -9, and resumed gives on a CPU the same weights bit for bit as one that never
stopped: batches depend on (seed, step, rank) only, and torch is seeded anew from them at every step.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from streampose.console import logger, progress
from streampose.errors import TrainingError
from streampose.training.checkpoint import (
    find_checkpoint,
    has_checkpoint,
    load_checkpoint,
    restore,
    save_checkpoint,
    write_score,
)
from streampose.training.devices import World, autocast, choose_device, choose_precision, join_world
from streampose.training.log import RunLog
from streampose.training.prefetch import Batch, Prefetcher, to_device

FIRST_STEPS, TIMED_STEPS = 5, 20  # of a sitting: not timed, and timed at least before `task.plan` is called
SECONDS_BETWEEN_MESSAGES = 60.0  # where no progress bar is shown
SECONDS_BETWEEN_SAVES = 300.0  # at most, where `save_every` steps take longer
EMA = 0.999  # decay of the detector's running average, where nothing else is said
LEAST_SHARE = 0.01  # of the steps that a task has before it is planned; a detector that had fewer has learnt nothing


class Task(Protocol):
    """What a method hands to the engine.

    Optional: `plan(steps_per_second, max_minutes)` fits the schedule to a time budget, of which the steps done so far
    are part. It is called after a few timed steps where there is a budget, and again, as long as the first stage lasts,
    when the rate has changed. The arguments of all calls are kept in the checkpoint and given again on a resume, so it
    must depend on nothing else. `minutes_left(start, step, minutes)` says what the configured schedule still needs if
    the steps from `start` to `step` took so many minutes. `ema` is the decay of the detector's running average where a
    short run must not remember its start; `selftrain` passes it on.

    Attributes:
        networks: all that is trained and saved; `detector` is exported, and its running average is kept.
        total_steps: how many steps the schedule has (after `plan`).
    """

    networks: nn.ModuleDict
    total_steps: int

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """CPU tensors. Depends on (seed, step, rank) only; runs in a thread, so it must not use torch's global RNG."""
        ...

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Named terms (scalars) and their weights; the keys must match."""
        ...

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """At least `lr`; also `weight_decay`, and `<network>.lr` for a network that differs."""
        ...

    def stage(self, step: int) -> str:
        """Name of the current stage of the cascade, for the log."""
        ...

    def picture(self, batch: dict[str, Tensor], step: int) -> np.ndarray | None:
        """An RGB uint8 grid that shows what is learnt, or None."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended.

    Attributes:
        checkpoint: folder of the last checkpoint.
        steps: steps done, all sittings together.
        detector_steps: those of them that trained the detector.
        learnt: whether these are enough to speak of a model. Where they are not, the checkpoint holds no plan, so that
            a resume fits the schedule to its own time.
        minutes_left: what the configured schedule still needs, about; None where no step was done.
        stopped: `finished`, or `time` where max_minutes ended it before its schedule.
        seconds: of this sitting.
        loss, terms: as logged last: the weighted loss and its terms, means over `log_every` steps.
    """

    run_dir: Path
    checkpoint: Path
    steps: int
    detector_steps: int
    learnt: bool
    minutes_left: float | None
    stopped: str
    seconds: float
    loss: float
    terms: dict[str, float]


def train(
    task: Task,
    *,
    run_dir: Path,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    max_minutes: float | None = None,
    save_every: int = 500,
    log_every: int = 20,
    picture_every: int = 250,
    resume: bool = False,
    ema: float = EMA,
    clip_norm: float = 1.0,
    score: Callable[[nn.Module], float] | None = None,
) -> TrainResult:
    """Train a task to the end of its schedule or of the time, whichever comes first.

    Ctrl-C and SIGTERM save a checkpoint, then raise KeyboardInterrupt; a second one does not wait. Started by
    `torchrun`, the processes average their gradients, and the first one writes the run folder.

    Args:
        run_dir: the run's folder; made where it is missing.
        max_minutes: of this sitting.
        resume: continue from the newest checkpoint in run_dir (from the start where there is none).
        ema: decay of the detector's running average (shorter over the first steps, where it would remember chance).
        clip_norm: largest norm of the gradient of each network; 0 for no limit.
        score: judges the averaged detector (higher is better) at every save once it has learnt; the best one's
            checkpoint is kept.

    Raises:
        TrainingError: terms and weights do not match; a term or gradient is NaN or infinite (the last good checkpoint
            stays); the run was made with other networks; the device is not there; the disk is full.
        KeyboardInterrupt: interrupted, after saving.
    """
    run_dir = Path(run_dir)
    chosen = choose_device(device)
    if not resume and has_checkpoint(run_dir):
        raise TrainingError(f"{run_dir}: holds a run already; continue it with --resume, or name another folder")
    world = join_world(chosen)
    torch.manual_seed(_mix(seed, 0, 0))
    task.networks.to(chosen).train()
    _broadcast(task.networks, world)
    average = copy.deepcopy(task.networks["detector"]).requires_grad_(False)
    averaged = {f"detector.{name}": tensor for name, tensor in average.state_dict().items()}
    live = {f"detector.{name}": tensor for name, tensor in task.networks["detector"].state_dict().items()}
    settings = task.optimiser_settings(0)
    optimiser = torch.optim.AdamW(
        [
            {"params": parameters, "network": name}
            for name, network in task.networks.items()
            if (parameters := [p for p in network.parameters() if p.requires_grad])
        ],
        lr=settings["lr"],
        weight_decay=0.0,
    )
    state: dict[str, Any] = {"seed": seed, "precision": None, "plans": [], "detector_steps": 0}
    start, configured = 0, task.total_steps
    least = max(1, round(LEAST_SHARE * configured))
    if resume and has_checkpoint(run_dir):
        checkpoint = load_checkpoint(run_dir)
        restore(checkpoint, task.networks, averaged, optimiser)
        start = int(checkpoint.state["step"])
        state.update({key: checkpoint.state[key] for key in state if key != "detector_steps"})
        state["detector_steps"] = int(checkpoint.state.get("detector_steps", start))
        seed = state["seed"]
        for plan in state["plans"]:
            task.plan(*plan)  # type: ignore[attr-defined]
        logger.info("%s: continuing after step %d", run_dir, start)
    if state["precision"] is None or precision != "auto":
        state["precision"] = _measured_precision(task, precision, chosen, start, seed, world)

    log = RunLog(run_dir, start) if world.rank == 0 else None
    began = time.monotonic()
    last: dict[str, Any] = {"loss": math.nan, "terms": {}}
    recent: dict[str, list[float]] = {}  # since the last line of the log; "" is the weighted sum

    def save(step: int) -> Path:
        """Checkpoint, score; called by the first process only."""
        folder = save_checkpoint(run_dir, step, task.networks, averaged, optimiser, state)
        if score is not None and state["detector_steps"] >= least:
            value = float(score(average.eval()))
            if math.isfinite(value):
                write_score(run_dir, step, value)
            assert log is not None
            log.entry({"step": step, "stage": task.stage(max(step - 1, 0)), "score": value})
        return folder

    def make(at: int) -> Batch:
        return task.batch(at, world.rank, world.size)

    def prefetch(at: int) -> Prefetcher:
        return Prefetcher(make, at, task.total_steps, pin=chosen.type == "cuda")

    step, saved = start, start if start else -1
    stopped = "finished"
    batches = prefetch(step)
    message_at, saved_at, window = began, began, (began, step)
    clock = _Clock(task, start, None if state["plans"] else max_minutes)
    try:
        with _interruption() as interrupted, progress("Training", task.total_steps, unit="steps") as bar:
            bar.advance(start)
            while step < task.total_steps:
                batch = to_device(batches.next(), chosen)
                torch.manual_seed(_mix(seed, step, world.rank))
                with autocast(chosen, state["precision"]):
                    terms, weights = task.loss(batch, step)
                total = weighted_sum(terms, weights)
                late = max_minutes is not None and time.monotonic() - began > 60 * max_minutes
                numbers = torch.stack([total.detach(), *(term.detach().float() for term in terms.values())])
                flags = torch.tensor([late, interrupted(), clock.rate(step) / world.size], device=numbers.device)
                loss, *values, any_late, any_interrupt, rate = world.mean(torch.cat([numbers, flags])).tolist()
                _check_finite(dict(zip(terms, values, strict=True)), loss, step, run_dir)

                optimiser.zero_grad(set_to_none=True)
                total.backward()
                world.average_gradients(task.networks.parameters())
                norms = _clip(task.networks, clip_norm, step, run_dir)
                settings = task.optimiser_settings(step)
                _apply(settings, optimiser)
                optimiser.step()
                if "detector" in norms:
                    own = state["detector_steps"]
                    _average(averaged, live, min(ema, (1 + own) / (10 + own)))
                    state["detector_steps"] += 1
                step += 1

                now = time.monotonic()
                if log is not None:
                    for name, value in zip(("", *terms), (loss, *values), strict=True):
                        recent.setdefault(name, []).append(value)
                bar.advance(1, note=f"{task.stage(step - 1)}  loss {loss:.4f}")
                if log is not None and (step % log_every == 0 or step == task.total_steps or any_late):
                    speed = (step - window[1]) / max(now - window[0], 1e-9)
                    window = (now, step)
                    means = {name: sum(found) / len(found) for name, found in recent.items()}
                    last = {"loss": means.pop(""), "terms": means}
                    recent.clear()
                    entry = {"step": step, "stage": task.stage(step - 1), **last, "weights": weights}
                    entry |= {"settings": settings, "gradient_norm": norms, "steps_per_second": round(speed, 3)}
                    log.entry(entry | {"seconds": round(now - began, 1)})
                if log is not None and now - message_at > SECONDS_BETWEEN_MESSAGES:
                    message_at = now
                    left = (task.total_steps - step) * (now - began) / max(step - start, 1) / 60
                    note = f"{step}/{task.total_steps} {task.stage(step - 1)} loss {loss:.4f}, {left:.0f} min left"
                    logger.info("training: step %s", note)
                if log is not None and picture_every and (step % picture_every == 0 or step in (10, task.total_steps)):
                    with torch.no_grad(), autocast(chosen, state["precision"]):
                        image = task.picture(batch, step)
                    if image is not None:
                        log.picture(image, step)
                due = step % save_every == 0 or now - saved_at > SECONDS_BETWEEN_SAVES
                if due and step < task.total_steps and world.rank == 0:
                    save(step)
                    saved, saved_at = step, time.monotonic()
                if rate > 0 and max_minutes is not None:
                    minutes = max_minutes + start / rate / 60  # the steps of earlier sittings had their own time
                    for _ in range(20):
                        state["plans"].append([rate, minutes])
                        task.plan(rate, minutes)  # type: ignore[attr-defined]
                        if task.total_steps > step:
                            break
                        minutes *= 1.5  # too little time for what is done already: go on until it is over
                    bar.set_total(task.total_steps)
                    batches.close()
                    batches = prefetch(step)
                if any_interrupt:
                    if saved != step and world.rank == 0:
                        save_checkpoint(run_dir, step, task.networks, averaged, optimiser, state)
                    logger.info("%s: interrupted after step %d; saved, continue with --resume", run_dir, step)
                    raise KeyboardInterrupt
                if any_late:
                    stopped = "time"
                    break
            if not (learnt := state["detector_steps"] >= least):
                state["plans"], saved = [], -1
            if saved != step and world.rank == 0:
                save(step)
    finally:
        batches.close()
        if log is not None:
            log.close()
    world.same(None)  # the others wait until the files are written
    seconds = time.monotonic() - began
    return TrainResult(
        run_dir, find_checkpoint(run_dir), step, state["detector_steps"], learnt,
        _minutes_left(task, configured, start, step, seconds / 60), stopped, seconds, last["loss"], last["terms"],
    )  # fmt: skip


def _minutes_left(task: Task, configured: int, start: int, step: int, minutes: float) -> float | None:
    if step == start:
        return None
    if hasattr(task, "minutes_left"):
        return float(task.minutes_left(start, step, minutes))
    return max(configured - step, 0) * minutes / (step - start)


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The loss: the sum of the terms times their weights.

    Raises:
        TrainingError: a term has no weight or a weight has no term, so that a loss would silently never run.
    """
    if terms.keys() != weights.keys():
        lonely_terms, lonely_weights = sorted(terms.keys() - weights.keys()), sorted(weights.keys() - terms.keys())
        raise TrainingError(
            f"loss: terms without a weight {lonely_terms}, weights without a term {lonely_weights}; the keys must match"
        )
    if not terms:
        raise TrainingError("loss: the task returned no term")
    return torch.stack([terms[name].float() * weights[name] for name in terms]).sum()


def _mix(seed: int, step: int, rank: int) -> int:
    """A seed of its own for every (seed, step, rank)."""
    return int(np.random.SeedSequence((abs(seed), step, rank)).generate_state(1, np.uint64)[0] >> 1)


def _measured_precision(task: Task, precision: str, device: torch.device, step: int, seed: int, world: World) -> str:
    batch: dict[str, Tensor] = {}

    def trial() -> Tensor:
        if not batch:
            batch.update(to_device(task.batch(step, world.rank, world.size), device))
        torch.manual_seed(_mix(seed, step, world.rank))
        return weighted_sum(*task.loss(batch, step))

    return world.same(choose_precision(precision, device, trial, task.networks))


def _check_finite(terms: dict[str, float], loss: float, step: int, run_dir: Path) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad or not math.isfinite(loss):
        names = ", ".join(f"{name} is {terms[name]}" for name in bad) or f"the weighted sum is {loss}"
        raise TrainingError(f"training stopped at step {step}: {names}; {_last_good(run_dir)}")


def _last_good(run_dir: Path) -> str:
    if has_checkpoint(run_dir):
        return f"the last good checkpoint is {find_checkpoint(run_dir)}; lower the learning rate and --init it"
    return "no checkpoint was saved before; start again with a lower learning rate"


def _clip(networks: nn.ModuleDict, clip_norm: float, step: int, run_dir: Path) -> dict[str, float]:
    """Clip each network's gradient to the norm; returns the norms before."""
    norms = {}
    for name, network in networks.items():
        parameters = [p for p in network.parameters() if p.grad is not None]
        if parameters:
            norm = nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm > 0 else math.inf)
            norms[name] = float(norm)
            if not math.isfinite(norms[name]):
                raise TrainingError(
                    f"training stopped at step {step}: the gradient of {name} is {norms[name]}; {_last_good(run_dir)}"
                )
    return norms


def _apply(settings: dict[str, float], optimiser: torch.optim.Optimizer) -> None:
    """Set lr and the like of every group; `<network>.<key>` goes to that network's group only."""
    for group in optimiser.param_groups:
        for key, value in settings.items():
            network, _, rest = key.rpartition(".")
            if rest not in group:
                raise TrainingError(f"optimiser_settings: {key} is not a setting of AdamW")
            if not network or network == group["network"]:
                group[rest] = value


def _average(averaged: dict[str, Tensor], live: dict[str, Tensor], decay: float) -> None:
    """Move the running average towards the live tensors, in place; counters and the like are copied."""
    names = [name for name, tensor in live.items() if tensor.is_floating_point()]
    with torch.no_grad():
        if names:
            torch._foreach_lerp_([averaged[name] for name in names], [live[name] for name in names], 1 - decay)
        for name in live.keys() - set(names):
            averaged[name].copy_(live[name])


def _broadcast(networks: nn.ModuleDict, world: World) -> None:
    """All processes start from the first one's weights."""
    if world.size > 1:
        for tensor in networks.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


class _Clock:
    """Says when `task.plan` is to be called, and with which rate: that of the whole sitting so far."""

    def __init__(self, task: Task, start: int, max_minutes: float | None):
        self._task, self._start, self._first_stage = task, start, task.stage(start)
        self._minutes = max_minutes if hasattr(task, "plan") else None
        self._began = self._next = self._planned = 0.0

    def rate(self, step: int) -> float:
        """Steps per second to plan with now; 0 where there is nothing to plan."""
        if self._minutes is None or self._task.stage(step) != self._first_stage:
            return 0.0
        now, done = time.monotonic(), step - self._start - FIRST_STEPS
        if done == 0:
            self._began = now
        if done < TIMED_STEPS or now < self._next:
            return 0.0
        rate = done / (now - self._began)
        self._next = now + 0.03 * 60 * self._minutes
        if self._planned and 0.9 < rate / self._planned < 1.1:
            return 0.0
        self._planned = rate
        return rate


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag that is read between steps; the second acts at once."""
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread only
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
