"""Self-train a model on a store: train, measure on frames that were held out, export, and promote what is better."""

from __future__ import annotations

import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
import yaml

from streampose import __version__
from streampose.config import Strict, load_config, load_skeleton, read_yaml, skeleton_from_dict, skeleton_to_dict
from streampose.console import logger
from streampose.errors import ConfigError, StoreError, StreamposeError, TrainingError
from streampose.files import write_text
from streampose.judging import DetectorJudge, Judge, LifterJudge
from streampose.methods.disentangle import DisentangleConfig, load_disentangle_config, make_disentangle_task
from streampose.methods.hypotheses import HypothesesConfig, load_hypotheses_config, make_hypotheses_task
from streampose.methods.landmarks import LandmarksConfig, load_landmarks_config, make_landmarks_task
from streampose.methods.mask import MaskConfig, load_mask_config, make_task
from streampose.methods.mirrornet import MirrorConfig, load_mirror_config, make_mirror_task
from streampose.methods.refine import RefineConfig, RefineTask, load_refine_config, make_alone_task, make_refine_task
from streampose.methods.tune import TuneConfig, load_tune_config, make_tune_task
from streampose.promotion import TrainingPart, choose_held_out
from streampose.runtime.bundle import default_bundle
from streampose.store.reader import StoreReader
from streampose.store.remote import url_of
from streampose.structures import Skeleton
from streampose.tracking.boxes import MARGIN
from streampose.training.checkpoint import find_checkpoint, has_checkpoint, load_networks, write_json
from streampose.training.devices import choose_device, join_world
from streampose.training.engine import EMA, Task, TrainResult, train
from streampose.training.initialise import initialise, read_joints, read_network
from streampose.training.log import write_git

UNSURE_MASKS = ("moving", "none")  # of ingest, that `mask` does not learn well from


class Method(NamedTuple):
    """One way to self-train: its settings, how they are read, and what makes the engine's task of a store.

    Adding a method: write `methods/<name>.py` with these three and a task that satisfies `training.engine.Task`,
    presets in `configs/methods/<name>.yaml`, and one line in METHODS. The settings need `seed`, `detector` (the preset
    of its network) and `input_size`.

    Attributes:
        judge: measures, exports and promotes what is trained; another kind of model needs one of its own.
        clips: whether the store must hold any.
    """

    schema: type[Strict]
    load: Callable[[str, Path | None, list[str]], Any]
    make_task: Callable[[StoreReader, Skeleton, Any, torch.device], Task]
    judge: Callable[[Any, StoreReader, Skeleton, Any, torch.device], Judge] = DetectorJudge
    clips: bool = True


METHODS = {
    "disentangle": Method(DisentangleConfig, load_disentangle_config, make_disentangle_task),
    "hypotheses": Method(
        HypothesesConfig, load_hypotheses_config, make_hypotheses_task, judge=LifterJudge, clips=False
    ),
    "landmarks": Method(LandmarksConfig, load_landmarks_config, make_landmarks_task),
    "mask": Method(MaskConfig, load_mask_config, make_task),
    "mirrornet": Method(MirrorConfig, load_mirror_config, make_mirror_task),
}
REFINEMENTS = {
    "triangulate": Method(RefineConfig, load_refine_config, make_refine_task),
    "masks": Method(RefineConfig, load_refine_config, make_alone_task),
    "labels": Method(TuneConfig, load_tune_config, make_tune_task),
}
WAYS = METHODS | REFINEMENTS


def selftrain(
    *,
    store: Path = Path("store.zarr"),
    method: str = "auto",
    refine: str | None = None,
    preset: str | None = None,
    skeleton: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    out: Path = Path("runs"),
    models: Path = Path("models"),
    max_minutes: float | None = None,
    resume: Path | bool = False,
    init: Path | None = None,
    labels: Sequence[str] = (),
    prior: str | None = None,
    force_promote: bool = False,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Train a pose model on a store without labels, and make it the current model if it is better.

    The end of every clip is held out; the model and the current one are compared on it by `free/score`. What lifts 2D
    joints (`hypotheses`) is compared on poses of its prior that were held out, and becomes `models/lifter` (`judging`).

    Args:
        store: what `streampose ingest` made.
        method, preset, config, overrides: what is trained and how; see configs/methods/. `auto` takes what suits the
            store: see `choose_method`. No preset: `tiny`.
        refine: `triangulate` refines a model, instead of training by a method, on what the calibrated views of the
            store's sessions say together, `masks` on bodies fitted to the masks of each clip (and to what sessions say
            together), `labels` on labelled frames. The model is `init`, else the current one, else the one that is
            shipped. Its network keeps its size; with another `preset`, `triangulate` and `masks` train a new one, and
            the model makes its first labels.
        skeleton: another skeleton than the store's.
        out: the run's folder is made in it.
        models: `current` in it is what the other commands use; the one before stays as `previous`.
        max_minutes: of all this, evaluation and export included; the schedule is fitted to it.
        resume: continue the last run in `out`, or the run in this folder, with its own configuration.
        init: run or bundle whose weights to start from; joints are matched by name.
        labels: names of sets of labels in the store that are learnt too, or `all`; `refine="labels"` takes all where
            none is named.
        prior: unpaired poses for methods that learn from them: the name of a prior in the store, `built-in`, or `none`.
        force_promote: make it the current model even if it measures worse.
        seed, device, precision: as the engine takes them; the seed is overruled by `--set seed=`.

    Returns:
        {"run", "method", "checkpoint", "promoted", "gate": why, and the difference with its interval, "metrics",
        "metrics_before", "bundle", "stopped", "seconds"}. Where the time ended before the detector had learnt, there is
        no model: `bundle` is None and `reason` says what to do.

    Raises:
        StoreError: no store, or nothing in it. ConfigError: wrong settings. TrainingError: see `training.engine`.
        KeyboardInterrupt: interrupted; a checkpoint is saved, and `resume` goes on.
    """
    began = time.monotonic()
    world = join_world(chosen := choose_device(device))
    if resume:
        run_dir = last_run(Path(out)) if resume is True else Path(resume)
        method, settings, shape, seed, init, store = read_run(run_dir)
        whole = open_reader(store, clips=WAYS[method].clips)
    else:
        whole = open_reader(Path(store), clips=refine is not None or method not in METHODS or METHODS[method].clips)
        if method == "auto" and refine is None:
            known = None if labels or prior else init or model_to_refine(Path(models))
            method, why = choose_method(whole, known, skeleton)
            logger.info("%s", why)
            refine = method if method in REFINEMENTS else None
        if refine is not None:
            method, init = refine, init or model_to_refine(Path(models))
            if refine not in REFINEMENTS:
                raise ConfigError(f"--refine {refine}: unknown; choose {', '.join(REFINEMENTS)}")
            preset, overrides = refined_network(refine, preset, init, overrides)
            labels = labels or (["all"] if refine == "labels" else [])
        elif method not in METHODS:
            raise ConfigError(f"--method {method}: unknown; choose auto, {', '.join(METHODS)}")
        preset = preset or "tiny"
        overrides = [*label_overrides(labels, method, whole), *prior_overrides(prior, method), *overrides]
        settings = WAYS[method].load(preset, config, [f"seed={seed}", *overrides])
        seed = settings.seed
        shape = whole.skeleton if skeleton is None else load_skeleton(skeleton)
        run_dir = Path(world.same(str(new_run(Path(out), method) if world.rank == 0 else "")))
        if world.rank == 0:
            write_run(run_dir, method, settings, shape, whole, seed=seed, init=init, preset=preset)

    reader = TrainingPart(whole.name, choose_held_out(whole.clips()))
    torch.manual_seed(seed)
    try:
        task = WAYS[method].make_task(reader, shape, settings, chosen)
    except StreamposeError:
        if not resume and world.rank == 0:
            shutil.rmtree(run_dir, ignore_errors=True)  # there is nothing to resume
        raise
    if init is not None and not (resume and has_checkpoint(run_dir)):
        begin_with(init, task, settings, shape)
    task.networks.to(chosen)
    judge = WAYS[method].judge(task, whole, shape, settings, chosen)
    before: dict[str, Any] = {}
    if (run_dir / "before.json").is_file():
        before = json.loads((run_dir / "before.json").read_text(encoding="utf-8"))
    elif world.rank == 0:
        start = judge.measure(task.networks["detector"])
        before = {"model": "untrained" if init is None else str(init), **start.metrics}
        write_json(run_dir / "before.json", before)
    logger.info(
        "%s: %s %s, %d joints, %d frames in %d clips, on %s",
        run_dir, method, type(settings).__name__, shape.num_joints, sum(c.num_frames for c in reader.clips()),
        len(reader.clips()), chosen,
    )  # fmt: skip
    trained = train(
        task, run_dir=run_dir, device=str(chosen), precision=precision, seed=seed, resume=bool(resume),
        ema=getattr(task, "ema", EMA),
        score=None if learns_from_labels(settings) else judge.score,  # labels mend what that cannot see
        max_minutes=None if max_minutes is None else training_minutes(max_minutes, time.monotonic() - began),
    )  # fmt: skip
    result: dict[str, Any] = {"run": str(run_dir), "method": method, "checkpoint": str(trained.checkpoint)}
    if world.rank != 0:
        return {**result, "promoted": False, "metrics": {}, "seconds": round(time.monotonic() - began, 1)}
    if not trained.learnt:
        reason = nothing_learnt(trained)
        logger.warning("%s: %s", run_dir, reason)
        return {
            **result,
            "promoted": False,
            "reason": reason,
            "metrics": {},
            "metrics_before": before,
            "bundle": None,
            "stopped": trained.stopped,
            "seconds": round(time.monotonic() - began, 1),
        }

    checkpoint = find_checkpoint(run_dir, best=True)
    task.networks["detector"].load_state_dict(load_networks(checkpoint)["detector"])
    new = judge.measure(task.networks["detector"])
    metrics = new.metrics
    bundle = run_dir / "bundle"
    exported = judge.export(checkpoint, bundle, metrics)
    name = judge.score_name
    logger.info(
        "%s: %s %.3f on what was held out; before training %.3f (%s)",
        run_dir, name, metrics[name], before[name], before["model"],
    )  # fmt: skip
    decision = judge.promote(bundle, Path(models), new, before, force=force_promote)
    return {
        **result,
        "checkpoint": str(checkpoint),
        "promoted": decision.promoted,
        "gate": decision.gate,
        "metrics": metrics,
        "metrics_before": decision.before,
        "bundle": str(bundle),
        **{name: value for name, value in exported.items() if name.startswith("parity")},
        "stopped": trained.stopped,
        "seconds": round(time.monotonic() - began, 1),
    }


def learns_from_labels(settings: Any) -> bool:
    """Whether a run's settings name sets of labels."""
    return bool(getattr(getattr(settings, "supervision", None), "labels", []))


def choose_method(reader: StoreReader, model: Path | None = None, skeleton: str | None = None) -> tuple[str, str]:
    """What to do where no method is named, and why.

    Where most frames have masks to be trusted, `masks` refines a model that has the skeleton's joints, and `mask`
    begins from nothing where there is none; `landmarks` needs no masks.

    Args:
        model: run or bundle that could be refined.
        skeleton: another one than the store's.
    """
    clips = reader.clips()
    frames = sum(clip.num_frames for clip in clips)
    sure = sum(clip.num_frames for clip in clips if clip.attributes.get("masks") not in UNSURE_MASKS)
    told = f"{sure} of {frames} frames have masks of a still camera or of sam"
    if 2 * sure < frames:
        return "landmarks", f"--method landmarks: only {told}; it learns from frame pairs and unpaired poses instead"
    shape = reader.skeleton if skeleton is None else load_skeleton(skeleton)
    if model is not None and set(read_joints(model)) == set(shape.joints):
        return "masks", f"--refine masks: {told}, and {model} knows these joints; --method mask begins from nothing"
    return "mask", f"--method mask: {told}"


def prior_overrides(prior: str | None, method: str) -> list[str]:
    """The setting that names unpaired poses.

    Raises:
        ConfigError: the method has none.
    """
    if prior is None:
        return []
    if "prior" not in WAYS[method].schema.model_fields:
        raise ConfigError(f"--prior {prior}: method {method} learns from no unpaired poses; use --method landmarks")
    return [f"prior={prior}"]


def nothing_learnt(trained: TrainResult) -> str:
    """What to say where training ended before the detector had steps enough of its own."""
    minutes = "" if trained.minutes_left is None else f" --max-minutes {max(1, math.ceil(trained.minutes_left))}"
    return (
        f"no model: the time ended after {trained.steps} steps, {trained.detector_steps} of them the detector's own; "
        f"go on with `streampose selftrain --resume {trained.run_dir}{minutes}`"
    )


# --------------------------------------------------------------------------------------------------------- run folders


def new_run(out: Path, method: str) -> Path:
    """Make `out/<YYYYmmdd-HHMMSS>-<method>/`; with a number where that is taken."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{method}"
    for number in range(1, 1000):
        folder = out / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise TrainingError(f"{out}: too many runs in one second")


def last_run(out: Path) -> Path:
    """The newest run in a folder.

    Raises:
        TrainingError: there is none.
    """
    runs = sorted(path.parent for path in out.glob("*/config.yaml"))
    if not runs:
        raise TrainingError(f"{out}: no run to resume; start one without --resume")
    return runs[-1]


def write_run(
    run_dir: Path,
    method: str,
    settings: Strict,
    skeleton: Skeleton,
    reader: StoreReader,
    *,
    seed: int,
    init: Path | None,
    preset: str,
) -> None:
    """Write config.yaml (all that a resume, an export and a reader need) and git.txt."""
    values = {
        "method": method,
        "preset": getattr(settings, "detector", preset),  # the size of the network, which the export builds again
        "input_size": getattr(settings, "input_size", reader.crop_size),
        "padding": float(reader.attributes.get("margin", MARGIN)),
        "seed": seed,
        "store": reader.name,
        "init": None if init is None else str(init),
        "made": {
            "preset": preset,
            "streampose": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        },
        "skeleton": skeleton_to_dict(skeleton),
        "settings": settings.model_dump(mode="json"),
    }
    write_text(run_dir / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    write_git(run_dir)


def read_run(run_dir: Path) -> tuple[str, Any, Skeleton, int, Path | None, Path]:
    """Method, settings, skeleton, seed, --init and store of a run, from its config.yaml.

    Raises:
        ConfigError: missing, damaged, or of a method that this version does not have.
    """
    path = run_dir / "config.yaml"
    values = read_yaml(path)
    method = values.get("method")
    if method not in WAYS:
        raise ConfigError(f"{path}: method {method!r} is not one of {', '.join(WAYS)}")
    settings = load_config(WAYS[method].schema, base=values.get("settings", {}))
    skeleton = skeleton_from_dict(values.get("skeleton", {}), f"{path}: skeleton")
    init, store = values.get("init"), Path(values.get("store", "store.zarr"))
    return method, settings, skeleton, int(values.get("seed", 0)), None if init is None else Path(init), store


def open_reader(store: Path, *, clips: bool = True) -> StoreReader:
    """Open a store.

    Args:
        clips: whether there must be some in it.

    Raises:
        StoreError: there is none, or no clip in it.
    """
    if url_of(store) is None and not store.exists():
        raise StoreError(f"{store}: no store there; run `streampose ingest ./videos` first")
    reader = StoreReader(store)
    if clips and not reader.clips():
        raise StoreError(f"{store}: no clip in it; `streampose inspect {store}` says why each video gave none")
    return reader


def label_overrides(labels: Sequence[str], method: str, reader: StoreReader) -> list[str]:
    """What names the sets of labels in a method's settings.

    Raises:
        ConfigError: the method does not learn from labels. StoreError: there are no such labels.
    """
    if not labels:
        return []
    if "supervision" not in WAYS[method].schema.model_fields:
        able = [name for name, way in WAYS.items() if "supervision" in way.schema.model_fields]
        raise ConfigError(f"--labels: {method} does not learn from labels; these do: {', '.join(able)}")
    names = reader.label_names()
    wanted = names if list(labels) == ["all"] else list(labels)
    if missing := [name for name in wanted if name not in names] if wanted else ["all"]:
        there = ", ".join(names) or "none; bring some in with `streampose labels import FILE`"
        raise StoreError(f"{reader.name}: no labels {', '.join(missing)}; there are {there}")
    changes = [f"supervision.labels={json.dumps(wanted)}"]
    if "version" in getattr(WAYS[method].schema.model_fields["supervision"].annotation, "model_fields", {}):
        changes.append(f"supervision.version={json.dumps(reader.labels_version(wanted))}")
    return changes


def refined_network(refine: str, preset: str | None, init: Path, overrides: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Preset and settings of the network that is trained: those of the model it begins with, or a new one's.

    A network that `triangulate` and `masks` cannot train, one of `landmarks` say, teaches one of theirs.

    Raises:
        ConfigError: the way to refine needs the model's own network. TrainingError: `init` is no model.
    """
    own, size = read_network(init)
    grows = REFINEMENTS[refine].schema is RefineConfig
    if grows and preset is None and own not in get_args(RefineConfig.model_fields["detector"].annotation):
        preset = "tiny"
    if preset in (None, own):
        return own, [f"input_size={size}", *overrides]
    if not grows:
        raise ConfigError(
            f"--preset {preset}: --refine {refine} keeps the network of {init} ({own}); leave --preset out"
        )
    return str(preset), overrides


def begin_with(init: Path, task: Task, settings: Any, skeleton: Skeleton) -> None:
    """Take over the weights of a model that fit; a refinement of a model of another size has it make labels."""
    if isinstance(task, RefineTask) and (network := read_network(init)) != (settings.detector, settings.input_size):
        task.learn_from(init)
        logger.info("%s: makes the first labels of a network of another size", init)
        if network[0] != settings.detector:
            return
    logger.info("%s: taken over: %s", init, initialise(task.networks, init, skeleton.joints))


def model_to_refine(models: Path) -> Path:
    """The current model, else the one that comes with the package."""
    return models / "current" if (models / "current").exists() else default_bundle()


def training_minutes(max_minutes: float, used_seconds: float) -> float:
    """What of the user's time is left to train in, when evaluation and export get their share."""
    reserve = min(1.0, 0.1 * max_minutes)
    return max(max_minutes - used_seconds / 60 - reserve, 0.05 * max_minutes)
