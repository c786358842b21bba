"""Options that several commands share, as typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Token = Annotated[
    str | None, typer.Option(envvar="STREAMPOSE_TOKEN", help="What clients must show; random beyond loopback.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout; messages stay on stderr.")]
LogLevel = Annotated[str, typer.Option(help="How much is said: debug, info, warning or error.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Store = Annotated[
    Path,
    typer.Option(
        help="The store that ingest writes and the others read: a folder, or a URL as s3://bucket/store.zarr."
    ),
]
Model = Annotated[Path | None, typer.Option(help="Model bundle [default: ./models/current, else the shipped model].")]
Lifter = Annotated[
    Path | None, typer.Option(help="Bundle that lifts 2D joints, as models/lifter: also 3D poses, with uncertainty.")
]
Runtime = Annotated[
    str, typer.Option(help="What executes the model: auto, onnx, openvino, tensorrt, torch or torch-compile.")
]
Precision = Annotated[
    str, typer.Option(help="Arithmetic: f32, bf16 (openvino, torch), f16 (GPUs) or int8 (where it was exported).")
]
SkeletonName = Annotated[str, typer.Option(help="Skeleton: human17, coco17, mpii16, mouse or a YAML file of your own.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings that differ from the preset.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="One setting as key=value; may be repeated.")]
Refine = Annotated[
    str | None,
    typer.Option(
        help="Instead, refine a model: on masks, on labels, or by triangulate on sessions of calibrated cameras."
    ),
]
LabelSets = Annotated[
    list[str] | None, typer.Option("--labels", help="Set of labels to learn from too, or all; may be repeated.")
]
PriorName = Annotated[
    str | None,
    typer.Option("--prior", help="Unpaired poses to learn from: a prior of the store, built-in, or none."),
]
Recordings = Annotated[
    Path | None, typer.Option(help="Folder for what the page records; without it nothing is recorded.")
]
Collect = Annotated[
    Path | None, typer.Option(help="Store for hard moments, for the next selftrain; without it none are kept.")
]
Offer = Annotated[list[str] | None, typer.Option(help="A further source that the page may switch to; may be repeated.")]
Host = Annotated[str, typer.Option(help="Address to listen at; loopback unless you open it to others.")]
Calibration = Annotated[Path | None, typer.Option(help="Calibration of several cameras: gives the people in space.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do again what is already there.")]


def parse_size(text: str) -> tuple[int, int]:
    """`320x240` or `256` -> (width, height)."""
    numbers = text.lower().split("x")
    if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise typer.BadParameter(f"--size {text}: expected a number of pixels, or two as in 320x240")
    return int(numbers[0]), int(numbers[-1])
