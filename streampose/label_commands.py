"""The commands about labels: `streampose labels import | export | list | remove` and `streampose suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.options import Json, LogLevel, Model, Runtime, Seed, Store
from streampose.run_verb import run_verb
from streampose.say import say_values

labels_app = typer.Typer(
    help="Labels of other tools in the store: import, export, list, remove.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
TOOLS = "coco, dlc, lightning-pose, sleap, label-studio, cvat or napari"


@labels_app.command("import")
def import_command(
    paths: Annotated[list[Path], typer.Argument(help="Files that labelling tools wrote, or folders of them.")],
    store: Store = Path("store.zarr"),
    name: Annotated[str | None, typer.Option(help="Name of the set of labels [default: the file's].")] = None,
    kind: Annotated[str, typer.Option("--format", help=f"Whose files they are: auto, {TOOLS}.")] = "auto",
    joints: Annotated[
        list[str] | None, typer.Option("--joint", help="THEIRS=OURS: a joint that has another name; may be repeated.")
    ] = None,
    who: Annotated[str, typer.Option(help="Who made them, where the files do not say.")] = "",
    tolerance_seconds: Annotated[
        float | None, typer.Option(help="How far a time may be from a frame's [default: half a frame].")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Forget what the set held before.")] = False,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Bring labels into the store: joints by name, frames by video and number or time."""

    def verb() -> dict[str, Any]:
        from streampose.labels import import_labels as run

        return run(
            paths, store=str(store), name=name, kind=kind, joints=joints or [], who=who,
            tolerance_seconds=tolerance_seconds, replace=replace,
        )  # fmt: skip

    run_verb(verb, say_import, as_json, log_level, next_line="streampose selftrain --refine labels")


@labels_app.command("export")
def export_command(
    names: Annotated[list[str] | None, typer.Argument(help="Sets of labels [default: all].")] = None,
    store: Store = Path("store.zarr"),
    kind: Annotated[str, typer.Option("--format", help=f"Tool to write for: {TOOLS}.")] = "coco",
    out: Annotated[Path, typer.Option(help="Folder of what is written.")] = Path("labels"),
    side: Annotated[int, typer.Option(help="Side in pixels of the pictures for label-studio, cvat, napari.")] = 512,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Write labels of the store for another tool."""

    def verb() -> dict[str, Any]:
        from streampose.labels import export_labels as run

        return run(store=str(store), names=names or [], kind=kind, out=out, side=side)

    run_verb(verb, say_values, as_json, log_level)


@labels_app.command("list")
def list_command(store: Store = Path("store.zarr"), as_json: Json = False, log_level: LogLevel = "info") -> None:
    """Say which labels the store holds."""

    def verb() -> dict[str, Any]:
        from streampose.labels import list_labels as run

        return run(store=str(store))

    run_verb(verb, say_sets, as_json, log_level)


@labels_app.command("remove")
def remove_command(
    names: Annotated[list[str], typer.Argument(help="Sets of labels to take out of the store.")],
    store: Store = Path("store.zarr"),
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Take sets of labels out of the store."""

    def verb() -> dict[str, Any]:
        from streampose.labels import remove_labels as run

        return run(names, store=str(store))

    run_verb(verb, say_values, as_json, log_level)


def suggest(
    store: Store = Path("store.zarr"),
    frames: Annotated[int, typer.Option(help="How many frames.")] = 50,
    tool: Annotated[
        str, typer.Option("--for", help="Tool that labels them: label-studio, cvat, sleap, napari or coco.")
    ] = "label-studio",
    out: Annotated[Path, typer.Option(help="Folder of the package.")] = Path("to-label"),
    model: Model = None,
    runtime: Runtime = "auto",
    side: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 512,
    at_random: Annotated[bool, typer.Option("--at-random", help="Any frames, to compare with.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Choose frames worth labelling and write a package for a labelling tool, predictions to correct included."""

    def verb() -> dict[str, Any]:
        from streampose.suggest import suggest as run

        return run(
            store=str(store), frames=frames, tool=tool, out=out, model=model, runtime=runtime, side=side,
            at_random=at_random, seed=seed,
        )  # fmt: skip

    run_verb(verb, say_values, as_json, log_level, next_line="streampose labels import FILE")


def say_import(result: dict[str, Any]) -> None:
    people = ", ".join(result["annotators"])
    print(
        f"{result['store']}: {result['matched']} of {result['rows']} labels of {result['frames']} frames by {people} "
        f"-> labels {result['labels']}, which has {result['total']} now"
    )
    for reason, count in result["unmatched"].items():
        print(f"  left out: {count}: {reason}")
    for theirs, ours in result["joints"].items():
        if ours != theirs:
            print(f"  {theirs} -> {ours or 'no such joint in the skeleton; kept, not learnt'}")


def say_sets(result: dict[str, Any]) -> None:
    for entry in result["labels"]:
        people = ", ".join(entry["annotators"])
        print(f"{entry['name']}: {entry['rows']} labels of {entry['frames']} frames by {people}")
        print("  " + ", ".join(f"{joint} {count}" for joint, count in entry["joints"].items()))
    if not result["labels"]:
        print(f"{result['store']}: no labels")
