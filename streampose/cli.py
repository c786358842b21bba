"""The command line: parses, then calls the verb of the same name. Heavy imports stay inside the handlers.

Exit codes: 0 all done; 1 some sources failed (each with its reason), or the time was too short to train a model; 2 the
call was wrong; 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.label_commands import labels_app, suggest
from streampose.live_commands import bridge, serve
from streampose.options import (
    Config,
    Json,
    LabelSets,
    Lifter,
    LogLevel,
    Model,
    Overrides,
    Overwrite,
    Precision,
    PriorName,
    Refine,
    Runtime,
    Seed,
    SkeletonName,
    Store,
    parse_size,
)
from streampose.prior_commands import prior_app
from streampose.run_verb import run_verb
from streampose.say import (
    say_calibration,
    say_metrics,
    say_refinement,
    say_run,
    say_sources,
    say_store,
    say_values,
    say_verdicts,
)

app = typer.Typer(
    name="streampose",
    help="From a folder of unlabelled videos to a live 2D/3D pose model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(prior_app, name="prior")

app.add_typer(labels_app, name="labels")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show:
        from streampose import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def ingest(
    paths: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of videos.")] = None,
    store: Store = Path("store.zarr"),
    skeleton: SkeletonName = "human17",
    sessions: Annotated[
        list[Path] | None,
        typer.Option("--session", help="Folder of one recording by several cameras, or a sessions.yaml."),
    ] = None,
    synchronise: Annotated[
        str | None, typer.Option(help="How their clocks are aligned: none, auto, audio, motion or timestamps.")
    ] = None,
    masks: Annotated[
        str, typer.Option(help="Foreground masks: auto, mog2, knn, median, moving (camera), sam or none.")
    ] = "auto",
    sam_checkpoint: Annotated[
        Path | None, typer.Option(help="Segment Anything's weights, for masks sam, or auto where the camera moves.")
    ] = None,
    sam_every: Annotated[int, typer.Option(help="Segment Anything draws every Nth frame; 5 without a GPU.")] = 1,
    sam_precision: Annotated[str, typer.Option(help="Arithmetic of Segment Anything: auto, bf16 or f32.")] = "auto",
    detector: Annotated[
        str, typer.Option(help="What finds subjects: motion, hog, torchvision:NAME=FILE or onnx:FILE.")
    ] = "motion",
    detector_class: Annotated[
        int | None, typer.Option(help="Number of the class that the detector is to find [default: people].")
    ] = None,
    crop_size: Annotated[int, typer.Option(help="Side of the stored crops in pixels.")] = 128,
    max_subjects: Annotated[int, typer.Option(help="Subjects followed at once.")] = 4,
    rate: Annotated[float, typer.Option(help="Frames a second, about, that become crops; 0 for all.")] = 10.0,
    workers: Annotated[int, typer.Option(help="Processes that share videos, and the parts of long ones.")] = 1,
    codec: Annotated[
        str,
        typer.Option(help="How a new store keeps crops: jpeg (a fifth of the bytes), zstd (every bit) or none."),
    ] = "jpeg",
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Videos -> crops, masks and frame pairs in a store."""

    def verb() -> dict[str, Any]:
        from streampose.ingestion.memory import keep_memory_flat

        keep_memory_flat()  # before the libraries that start threads
        from streampose.ingest import ingest as run

        if not paths and not sessions:
            raise typer.BadParameter("nothing to ingest: name videos or folders of them, or a --session")
        return run(
            paths or [], sessions=sessions or [], synchronise=synchronise,
            store=store, skeleton=skeleton, masks=masks, crop_size=crop_size, workers=workers,
            max_subjects=max_subjects, rate=rate, overwrite=overwrite, seed=seed, sam_checkpoint=sam_checkpoint,
            sam_every=sam_every, sam_precision=sam_precision, detector=detector, detector_class=detector_class,
            codec=codec,
        )  # fmt: skip

    run_verb(verb, say_sources, as_json, log_level, next_line="streampose selftrain")


@app.command()
def selftrain(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="With --resume: the run to continue [default: the last].")
    ] = None,
    store: Store = Path("store.zarr"),
    method: Annotated[
        str,
        typer.Option(
            help="mask, landmarks, disentangle, mirrornet, hypotheses (lifts 2D to 3D); auto takes what suits the "
            "store: --refine masks where a model knows its joints, else mask or landmarks."
        ),
    ] = "auto",
    refine: Refine = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Size of the model and the run: tiny, small or base [default: tiny, or the refined model's]."
        ),
    ] = None,
    skeleton: Annotated[str | None, typer.Option(help="Skeleton [default: the store's].")] = None,
    config: Config = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    models: Annotated[Path, typer.Option(help="Folder of the promoted model.")] = Path("models"),
    max_minutes: Annotated[float | None, typer.Option(help="End cleanly after so many minutes.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run with its own settings.")] = False,
    init: Annotated[Path | None, typer.Option(help="Run or bundle to start from; joints are matched by name.")] = None,
    labels: LabelSets = None,
    prior: PriorName = None,
    force_promote: Annotated[bool, typer.Option("--force-promote", help="Promote even a worse model.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, f32 or bf16.")] = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Train a pose model on a store without labels."""
    if run_folder is not None and not resume:
        raise typer.BadParameter(f"{run_folder}: a run is named to continue it; add --resume")

    def verb() -> dict[str, Any]:
        from streampose.selftrain import selftrain as run

        return run(
            store=store, method=method, refine=refine, preset=preset, skeleton=skeleton, config=config,
            overrides=overrides or [], out=out, models=models, max_minutes=max_minutes, resume=run_folder or resume,
            init=init, labels=labels or [], prior=prior, seed=seed, device=device, precision=precision,
            force_promote=force_promote,
        )  # fmt: skip

    after = "streampose annotate ./videos   or   streampose serve --camera 0"
    if method == "hypotheses":
        after = "streampose annotate ./videos --lifter models/lifter"
    run_verb(verb, say_run, as_json, log_level, next_line=after)


@app.command()
def evaluate(
    store: Store = Path("store.zarr"),
    truth: Annotated[
        Path | None, typer.Option(help="Folder with exact truth (*.truth.npz), as synth writes it.")
    ] = None,
    model: Model = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Measure what annotate wrote into this folder instead; needs --truth.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:FOLDER",
            help="A labelled dataset by its own protocol: h36m, h36m-simplified, 3dhp, mpii, lsp, lspet or coco.",
        ),
    ] = None,
    spp: Annotated[
        float | None, typer.Option(help="Also after a linear map to the labels, fitted on this share of recordings.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="Also whether a body could do it, by this prior of the store, or built-in.")
    ] = None,
    lifter: Annotated[
        Path | None, typer.Option(help="Also the 3D poses that this bundle lifts from what is found; needs --truth.")
    ] = None,
    runtime: Runtime = "auto",
    precision: Precision = "f32",
    out: Annotated[Path | None, typer.Option(help="Folder for a report with pictures.")] = None,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Measure a model, with truth or without."""

    def verb() -> dict[str, Any]:
        from streampose.evaluate import evaluate as run

        return run(
            store=store, truth=truth, dataset=dataset, model=model, predictions=predictions, spp=spp, prior=prior,
            lifter=lifter, runtime=runtime, precision=precision, out=out,
        )  # fmt: skip

    run_verb(verb, say_metrics, as_json, log_level)


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A training run's folder, or a bundle.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("bundle"),
    runtime: Annotated[
        str, typer.Option(help="Runtime that the result is checked with: onnx, openvino, tensorrt or torch.")
    ] = "onnx",
    precision: Precision = "f32",
    store: Annotated[
        Path | None, typer.Option(help="Store whose crops calibrate int8 and are compared on [default: ./store.zarr].")
    ] = None,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Write a trained model as an ONNX bundle."""

    def verb() -> dict[str, Any]:
        from streampose.export import export as run

        return run(run=run_folder, out=out, runtime=runtime, precision=precision, store=store)

    run_verb(verb, say_values, as_json, log_level)


@app.command()
def annotate(
    paths: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of videos.")] = None,
    sessions: Annotated[
        list[Path] | None,
        typer.Option(
            "--session", help="Folder of one recording by calibrated cameras, or a sessions.yaml: also in 3D."
        ),
    ] = None,
    synchronise: Annotated[
        str | None, typer.Option(help="Cameras of a session: none, auto, audio, motion or timestamps.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("annotations"),
    model: Model = None,
    runtime: Runtime = "auto",
    precision: Precision = "f32",
    overlay: Annotated[bool, typer.Option(help="Also write a video with the skeletons drawn in.")] = True,
    smooth: Annotated[bool, typer.Option(help="Smooth along each track, without lag.")] = True,
    max_subjects: Annotated[int, typer.Option(help="Subjects followed at once.")] = 4,
    lifter: Lifter = None,
    batch: Annotated[int, typer.Option(help="Crops per inference.")] = 16,
    threads: Annotated[int | None, typer.Option(help="Cores for inference [default: half of them].")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Write keypoints and overlay videos for an archive; for sessions of calibrated cameras, also people in space."""
    if bool(paths) == bool(sessions):
        raise typer.BadParameter("name videos or folders of them, or a --session")

    def verb() -> dict[str, Any]:
        from streampose.annotate import annotate as videos
        from streampose.annotate_session import annotate_sessions

        options: dict[str, Any] = {
            "out": out, "model": model, "runtime": runtime, "precision": precision, "overlay": overlay,
            "smooth": smooth, "max_subjects": max_subjects, "batch": batch, "threads": threads, "overwrite": overwrite,
        }  # fmt: skip
        if sessions:
            return annotate_sessions(sessions, synchronise=synchronise, **options)
        return videos(paths or [], lifter=lifter, **options)

    run_verb(verb, say_sources, as_json, log_level)


app.command()(serve)
app.command()(bridge)


@app.command()
def inspect(
    store: Annotated[Path, typer.Argument(help="The store: folder or URL; with --sources also videos.")] = Path(
        "store.zarr"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder for the page and its contact sheet.")] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Only the verdicts and lost stretches of its sources, or of videos.")
    ] = False,
    videos: Annotated[
        bool, typer.Option("--videos", help="Show frames of the videos too, with the subjects' boxes; reads them.")
    ] = False,
    decoder: Annotated[
        str, typer.Option(help="What fetches these frames: pyav, or decord where it proves to give the same ones.")
    ] = "pyav",
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Show what a store holds, with pictures."""

    def verb() -> dict[str, Any]:
        from streampose.inspect import inspect as run
        from streampose.inspect import inspect_sources

        return inspect_sources(store) if sources else run(store, out=out, videos=videos, decoder=decoder)

    run_verb(verb, say_verdicts if sources else say_store, as_json, log_level)


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder of the videos.")] = Path("synth"),
    videos: Annotated[int, typer.Option(help="How many videos.")] = 4,
    seconds: Annotated[float, typer.Option(help="Length of each.")] = 10.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Width and height in pixels; one number for both.")] = "256",
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 25.0,
    subjects: Annotated[int, typer.Option(help="People in each video.")] = 1,
    cameras: Annotated[int, typer.Option(help="Synchronised cameras.")] = 1,
    moving_camera: Annotated[bool, typer.Option("--moving-camera", help="The camera moves.")] = False,
    occluders: Annotated[bool, typer.Option("--occluders", help="Things stand in the way.")] = False,
    motion: Annotated[str, typer.Option(help="procedural, or a BVH/DeepMimic file or folder.")] = "procedural",
    body: Annotated[str, typer.Option(help="capsules, or the folder of a MakeHuman body.")] = "capsules",
    skeleton: SkeletonName = "human17",
    preset: Annotated[
        str | None,
        typer.Option(help="hard, multiview, synthpose-train or synthpose-test; what it sets goes before the options."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Render synthetic people with exact truth."""
    width_height = parse_size(size)

    def verb() -> dict[str, Any]:
        from streampose.synth import synth as run

        return run(
            out=out, videos=videos, seconds=seconds, size=width_height, fps=fps, subjects=subjects, cameras=cameras,
            moving_camera=moving_camera, occluders=occluders, motion=motion, body=body, skeleton=skeleton,
            preset=preset, seed=seed,
        )  # fmt: skip

    run_verb(verb, say_values, as_json, log_level)


@app.command()
def calibrate(
    paths: Annotated[list[Path], typer.Argument(help="Folders (or videos), one a camera; or their common folder.")],
    square_mm: Annotated[float | None, typer.Option(help="Side of a square of the board in millimetres.")] = None,
    out: Annotated[Path | None, typer.Option(help="The calibration, .toml or .json [calibration.toml].")] = None,
    board: Annotated[str, typer.Option(help="checkerboard or charuco.")] = "checkerboard",
    corners: Annotated[str, typer.Option(help="Inner corners, columns x rows: those between four squares.")] = "7x4",
    marker_mm: Annotated[float | None, typer.Option(help="Side of a ChArUco marker [default: 3/4 square].")] = None,
    dictionary: Annotated[str, typer.Option(help="Dictionary of the ChArUco markers.")] = "DICT_5X5_100",
    lens: Annotated[str, typer.Option(help="none, radial, radtan or fisheye.")] = "radial",
    together: Annotated[bool, typer.Option("--together", help="The pictures are of the same moments.")] = False,
    synchronise: Annotated[str, typer.Option(help="Of videos: none, auto, audio, motion or timestamps.")] = "none",
    floor: Annotated[str | None, typer.Option(help="Moment in which the board lies on the floor: z = 0.")] = None,
    every_seconds: Annotated[float, typer.Option(help="Time between the frames of a video that are used.")] = 0.5,
    report: Annotated[Path | None, typer.Option(help="HTML page of the report [default: beside --out].")] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="No board: PATHS is a calibrated session (or store) of people; improve it.")
    ] = False,
    keypoints: Annotated[
        Path | None, typer.Option(help="--refine: folder of keypoints (ours, OpenPose, DLC) [default: annotate].")
    ] = None,
    focal: Annotated[bool, typer.Option("--focal", help="--refine: the focal lengths too.")] = False,
    keep: Annotated[str, typer.Option(help="--refine: what stays in place: rig or first (camera).")] = "rig",
    model: Model = None,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Photos or videos of a board -> lenses and places of cameras; or better places from people whom they saw."""
    if refine == (square_mm is not None) or (refine and len(paths) > 1):
        raise typer.BadParameter("give --square-mm for a board, or --refine with one session")

    def verb() -> dict[str, Any]:
        from streampose.calibrate import calibrate as run
        from streampose.refine_cameras import refine_session

        if refine or square_mm is None:
            return refine_session(
                paths[0], out=out, keypoints=keypoints, focal=focal, keep=keep, model=model, report=report
            )
        return run(
            paths, out=out or Path("calibration.toml"), board=board, corners=corners, square_mm=square_mm,
            marker_mm=marker_mm, dictionary=dictionary, lens=lens, together=together, synchronise=synchronise,
            floor=floor, every_seconds=every_seconds, report=report,
        )  # fmt: skip

    run_verb(verb, say_refinement if refine else say_calibration, as_json, log_level)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("demo"),
    max_minutes: Annotated[float, typer.Option(help="Time for training.")] = 5.0,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Run everything on synthetic videos; leave a report."""

    def verb() -> dict[str, Any]:
        from streampose.demo import demo as run

        return run(out=out, max_minutes=max_minutes, overwrite=overwrite, seed=seed)

    run_verb(verb, say_values, as_json, log_level)


@app.command()
def doctor(as_json: Json = False, log_level: LogLevel = "info") -> None:
    """Say what this machine can do, and what is missing."""

    def verb() -> dict[str, Any]:
        from streampose.doctor import doctor as run

        return run()

    run_verb(verb, say_values, as_json, log_level)


app.command()(suggest)


def main() -> None:
    """Entry point of the `streampose` command."""
    app()


if __name__ == "__main__":
    main()
