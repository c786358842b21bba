"""The whole pipeline on synthetic videos whose true poses are known: make, ingest, self-train, evaluate, annotate,
serve a burst, and leave one report with pictures. Stages that are finished are skipped when the demo is run again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streampose.console import add_log_file, logger
from streampose.errors import TrainingError
from streampose.files import write_text
from streampose.report import Picture, Section, Table, write_report

PRESET = "tiny"
TRAIN_VIDEOS, TEST_VIDEOS = 10, 4
SECONDS = 8.0  # of each video
LIVE_SECONDS = 6.0


def demo(
    *, out: Path = Path("demo"), max_minutes: float = 5.0, overwrite: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Run the pipeline on SynthPose and write `report.html`.

    Args:
        out: folder of the demo; everything is inside it.
        max_minutes: time for self-training. No label is used: truth serves the evaluation only.
        overwrite: start anew instead of going on.
        seed: of the training; the videos are those of the benchmark.

    Returns:
        {"report", "metrics", "metrics_untrained", "latency_ms", "seconds"}; metrics are on unseen subjects.
    """
    began = time.monotonic()
    if overwrite and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    add_log_file(out / "demo.log")
    stages = _run_stages(out, max_minutes, seed)
    report = write_report(out / "report.html", "streampose demo", _sections(out, stages))
    logger.info("open %s", report)
    return {
        "report": str(report),
        "metrics": stages["evaluate"]["metrics"],
        "metrics_untrained": stages["evaluate_untrained"]["metrics"],
        "latency_ms": stages["live"]["latency_ms"],
        "seconds": round(time.monotonic() - began, 1),
    }


def _run_stages(out: Path, max_minutes: float, seed: int) -> dict[str, dict[str, Any]]:
    """The user's lines, one after the other, on the demo's own videos."""
    from streampose.annotate import annotate
    from streampose.evaluate import evaluate
    from streampose.ingest import ingest
    from streampose.selftrain import selftrain
    from streampose.server.session import build_session, run_burst
    from streampose.synthetic.synthpose import make_synthpose

    seen, unseen = out / "videos", out / "unseen"
    seen_store, unseen_store = out / "store.zarr", out / "unseen.zarr"
    runs, model, untrained = out / "runs", out / "models" / "current", out / "models" / "untrained"

    def make() -> dict[str, Any]:
        return {
            "train": make_synthpose(seen, "train", videos=TRAIN_VIDEOS, seconds=SECONDS),
            "test": make_synthpose(unseen, "test", videos=TEST_VIDEOS, seconds=SECONDS),
        }

    def train() -> dict[str, Any]:
        going = runs.is_dir() and any(runs.iterdir())
        result = selftrain(
            store=seen_store, method="mask", preset=PRESET, out=runs, models=out / "models", max_minutes=max_minutes,
            seed=seed, resume=going,
        )  # fmt: skip
        if result["bundle"] is None:
            raise TrainingError(f"{out}: {max_minutes:g} minutes were too short to learn; run the demo again to go on")
        return result

    def evaluate_untrained() -> dict[str, Any]:
        _export_untrained(untrained, seed)
        return evaluate(store=unseen_store, truth=unseen, model=untrained)

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "synth": make,
        "ingest": lambda: ingest([seen], store=seen_store, seed=seed),
        "ingest_unseen": lambda: ingest([unseen], store=unseen_store, seed=seed),
        "selftrain": train,
        "evaluate": lambda: evaluate(store=unseen_store, truth=unseen, model=model, out=out / "evaluation"),
        "evaluate_untrained": evaluate_untrained,
        "annotate": lambda: annotate([unseen], out=out / "annotations", model=model),
        "live": lambda: run_burst(build_session(str(min(unseen.glob("*.mp4"))), model), LIVE_SECONDS),
    }
    return {name: _once(out / "stages" / f"{name}.json", name, function) for name, function in work.items()}


def _once(file: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a stage: read where it is finished, else worked for and then kept."""
    if file.is_file():
        logger.info("demo: %s is done already", name)
        return json.loads(file.read_text(encoding="utf-8"))
    logger.info("demo: %s", name)
    began = time.monotonic()
    result = json.loads(json.dumps(work(), default=str))
    result["stage_seconds"] = round(time.monotonic() - began, 1)
    write_text(file, json.dumps(result))
    return result


def _export_untrained(out: Path, seed: int) -> None:
    """The same network before any training, as the baseline."""
    import torch

    from streampose.config import load_skeleton
    from streampose.export import export_detector
    from streampose.methods.mask import load_mask_config
    from streampose.models.detector import build_detector

    torch.manual_seed(seed)
    skeleton, config = load_skeleton("human17"), load_mask_config(PRESET)
    detector = build_detector(config.detector, skeleton.num_joints, config.input_size)
    export_detector(detector, skeleton, config.input_size, out, method="untrained", preset=PRESET)


def _sections(out: Path, stages: dict[str, dict[str, Any]]) -> list[Section]:
    """The report: what was made, what was found, what was learnt, how well, how fast."""
    trained, live = stages["selftrain"], stages["live"]
    run = Path(trained["run"])
    metrics, untrained = stages["evaluate"]["metrics"], stages["evaluate_untrained"]["metrics"]
    errors = [[name, untrained.get(name, float("nan")), value] for name, value in metrics.items()]
    joints = stages["evaluate"]["per_joint"]
    names = [name for name in ("pck@0.2", "pck@0.2/flips", "mpjpe_mm") if name in joints]
    by_joint = [[joint, *(joints[name][joint] for name in names)] for joint in joints[names[0]]]
    latency = [["capture to publish", live["latency_ms"]["p50"], live["latency_ms"]["p95"]]]
    latency += [[name, times["p50"], times["p95"]] for name, times in live.get("stages_ms", {}).items()]
    pictures = sorted((run / "pictures").glob("*.*"))
    overlays = sorted(path for path in (out / "annotations").rglob("*.mp4"))
    clips = sum(len(source["clips"]) for source in stages["ingest"]["sources"])
    return [
        Section(
            "Predictions on people never seen in training",
            ["No label was used. Left: prediction, right: truth; best, middling and worst frames."],
            pictures=[Picture(out / "evaluation" / "predictions.png", "Predictions beside the truth")]
            + [Picture(path, f"Overlay video: {path.name}") for path in overlays[:1]],
        ),
        Section(
            "Errors",
            ["On unseen synthetic people; /flips takes the better of a prediction and its left-right swap."],
            tables=[Table(["metric", "untrained", "trained"], errors), Table(["joint", *names], by_joint)],
        ),
        Section(
            "What ingestion found",
            [f"{len(stages['ingest']['sources'])} videos, {clips} clips; crops with the outlines of their masks."],
            pictures=[Picture(_contact_sheet(out / "store.zarr"), "Contact sheet")],
        ),
        Section(
            "How it learnt",
            ["Crop, mask, skeleton mask, physique mask, prediction: at the start and at the end."],
            pictures=[Picture(run / "report" / "losses.png", "Loss curves")]
            + [Picture(path, path.stem) for path in ([pictures[0], pictures[-1]] if pictures else [])],
        ),
        Section(
            "Live",
            [
                f"{live['published']} frames published at {live['fps']:.1f} frames/s with {live['runtime']}, "
                f"{live['dropped']} dropped."
            ],
            tables=[Table(["milliseconds", "p50", "p95"], latency)],
        ),
        Section(
            "Time",
            tables=[Table(["stage", "seconds"], [[name, result["stage_seconds"]] for name, result in stages.items()])],
        ),
    ]


def _contact_sheet(store: Path) -> Any:
    from streampose.inspect import contact_sheet
    from streampose.store.reader import StoreReader

    return contact_sheet(StoreReader(store))
