"""`streampose prior import | list | inspect`: parses, then calls the functions of `prior.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streampose.options import Json, LogLevel, Overwrite, Seed, Store
from streampose.run_verb import run_verb

prior_app = typer.Typer(
    help="Unpaired poses that methods learn from: import, list, draw.", no_args_is_help=True, rich_markup_mode=None
)


@prior_app.command("import")
def import_command(
    paths: Annotated[
        list[Path], typer.Argument(help="BVH, DeepMimic, COCO, DeepLabCut, SLEAP, truth or array files; folders.")
    ],
    store: Store = Path("store.zarr"),
    name: Annotated[str | None, typer.Option(help="Name of the prior [default: the first path's].")] = None,
    skeleton: Annotated[
        str | None, typer.Option(help="Whose joints to keep [default: the store's]; none for the file's own.")
    ] = None,
    dimensions: Annotated[int | None, typer.Option(help="2 or 3, where the files have both.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="theirs=ours: a joint that its name does not tell; repeat.")
    ] = None,
    joints: Annotated[str | None, typer.Option(help="Names of an array's joints, with commas between.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="What its brackets match in a file's path is never divided by a split."),
    ] = None,
    up: Annotated[str, typer.Option(help="The way up in arrays of positions: -y, y or z.")] = "-y",
    unit: Annotated[str, typer.Option(help="Unit of arrays of positions: m, cm or mm.")] = "m",
    keep_bones: Annotated[
        bool, typer.Option("--keep-bones", help="Leave bare positions their bone lengths; else an average body's.")
    ] = False,
    rate: Annotated[float | None, typer.Option(help="Poses a second of recordings [default: all].")] = None,
    least_known: Annotated[float, typer.Option(help="Share of the joints that a pose must have.")] = 0.5,
    keep_impossible: Annotated[
        bool, typer.Option("--keep-impossible", help="Keep people's 3D poses that no body could take, too.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Poses of motion capture, labels or arrays -> a prior in a store."""

    def verb() -> dict[str, Any]:
        from streampose.prior import import_prior

        return import_prior(
            paths, store=store, name=name, skeleton=skeleton, dimensions=dimensions, mapping=mapping or (),
            joints=joints, group_by=group_by, up=up, unit=unit, keep_bones=keep_bones, rate=rate,
            least_known=least_known, keep_impossible=keep_impossible, overwrite=overwrite,
        )  # fmt: skip

    run_verb(verb, say_import, as_json, log_level)


@prior_app.command("list")
def list_command(store: Store = Path("store.zarr"), as_json: Json = False, log_level: LogLevel = "info") -> None:
    """Say which priors a store holds."""

    def verb() -> dict[str, Any]:
        from streampose.prior import priors

        return priors(store=store)

    run_verb(verb, say_priors, as_json, log_level)


@prior_app.command("inspect")
def inspect_command(
    name: Annotated[str | None, typer.Argument(help="The prior [default: the only one]; or built-in.")] = None,
    store: Store = Path("store.zarr"),
    skeleton: Annotated[str | None, typer.Option(help="Whose bones are drawn [default: the store's].")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pages.")] = Path("prior"),
    seed: Seed = 0,
    as_json: Json = False,
    log_level: LogLevel = "info",
) -> None:
    """Draw a prior's poses, turn them, and count."""

    def verb() -> dict[str, Any]:
        from streampose.prior import inspect_prior

        return inspect_prior(name, store=store, skeleton=skeleton, out=out, seed=seed)

    run_verb(verb, say_inspection, as_json, log_level)


def say_import(result: dict[str, Any]) -> None:
    for entry in result["sources"]:
        reason = f" ({entry['reason']})" if entry["reason"] else ""
        left_out = f", {entry['left_out']} left out" if entry["left_out"] else ""
        print(f"{entry['source']}: {entry['verdict']}{reason}, {entry['poses']} poses{left_out}")
    missing = f"; no file has {', '.join(result['missing'])}" if result["missing"] else ""
    print(
        f"{result['store']}: prior {result['prior']}, {result['poses']} {result['dimensions']}D poses of "
        f"{result['takes']} takes in {result['groups']} groups{missing}"
    )


def say_priors(result: dict[str, Any]) -> None:
    for entry in result["priors"]:
        print(
            f"{entry['name']}: {entry['count']} {entry['dimensions']}D poses of {len(entry['takes'])} takes in "
            f"{len(entry['groups'])} groups, {len(entry['joints'])} joints ({entry['source']})"
        )
    if not result["priors"]:
        print(f"{result['store']}: no priors; `streampose prior import` makes one")


def say_inspection(result: dict[str, Any]) -> None:
    numbers = result["statistics"]
    smallest, _, largest = numbers["group_sizes"]
    print(
        f"{result['prior']}: {numbers['poses']} {numbers['dimensions']}D poses of {numbers['takes']} takes in "
        f"{numbers['groups']} groups of {smallest} to {largest}"
    )
    print(f"look at {', '.join(result[key] for key in ('page', 'sheet', 'turning') if result[key])}")
