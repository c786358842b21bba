"""Unpaired poses for methods that learn from them: import files of poses into a store, list and draw what is there."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampose.config import load_skeleton, skeleton_from_dict
from streampose.errors import ConfigError
from streampose.priors.gather import Gathering, gather_prior
from streampose.priors.pages import write_prior_page
from streampose.priors.read import Reading, find_pose_files
from streampose.priors.retarget import AXES
from streampose.priors.statistics import describe_prior
from streampose.store.priors import list_priors, read_prior, write_prior
from streampose.store.schema import open_store
from streampose.structures import Skeleton
from streampose.synthetic.built_in_prior import NAME as BUILT_IN
from streampose.synthetic.built_in_prior import built_in_prior

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
SHOWN = 2048  # poses of the built-in prior that are drawn


def import_prior(
    paths: Sequence[Path],
    *,
    store: Path = Path("store.zarr"),
    name: str | None = None,
    skeleton: str | None = None,
    dimensions: int | None = None,
    mapping: Sequence[str] = (),
    joints: str | None = None,
    group_by: str | None = None,
    up: str = "-y",
    unit: str = "m",
    keep_bones: bool = False,
    rate: float | None = None,
    least_known: float = 0.5,
    keep_impossible: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Read poses from files and folders and keep them in a store as one prior.

    Reads .bvh, DeepMimic .txt, COCO keypoints .json (also what `annotate` writes), DeepLabCut .csv and .h5, SLEAP .slp,
    .trc and .c3d markers, SynthPose *.truth.npz, and .npy / .npz arrays (N, K, 2 or 3) of poses. A file that cannot be
    read is told of, and the rest goes on. Bone rotations (BVH, DeepMimic) go onto an average body; bare 3D positions
    keep the directions of their bones and get that body's lengths.

    Args:
        name: of the prior; the first path's name where none is given.
        skeleton: whose joints to keep; `none` for the file's own; the store's where nothing is said, else human17.
        dimensions: 2 or 3, where files have both, or where arrays (N, K, 3) are 2D with a confidence.
        mapping: `theirs=ours` joints that the names do not tell.
        joints: names of an array's joints, with commas.
        group_by: pattern whose brackets match, in a file's path, what a split must not divide.
        up, unit: of arrays and of BVH for subjects that are no people: -y, y or z; m, cm or mm.
        keep_bones: leave bare positions their own bone lengths.
        rate: poses a second of recordings; all where None.
        least_known: share of the joints that a pose must have.
        keep_impossible: keep 3D poses of people that no body could take (a head in the back), too.
        overwrite: replace a prior of the same name.

    Returns:
        {"store", "prior", "poses", "dimensions", "takes", "groups", "joints": known ones, "missing": those that no file
        has, "sources": [{source, verdict, reason, poses, left_out, takes}], "failed": how many, "seconds"}

    Raises:
        ConfigError: an option that means nothing. StoreError: the store cannot be written, or has such a prior.
        StreamposeError: no file gave a pose.
    """
    start = time.monotonic()
    store, paths = Path(store), [Path(path) for path in paths]
    files = find_pose_files(paths)
    name = name or re.sub(r"\.(truth|keypoints)$", "", paths[0].resolve().stem)
    if not overwrite and (store / "zarr.json").is_file():
        known = [entry["name"] for entry in list_priors(store)]
        if name in known:
            raise ConfigError(f"{store}: has a prior {name}; give another --name, or --overwrite")
    shape = _skeleton(store, skeleton)
    if up not in AXES or unit not in UNITS:
        raise ConfigError(f"--up {up}, --unit {unit}: choose {', '.join(AXES)}, and {', '.join(UNITS)}")
    if dimensions not in (None, 2, 3):
        raise ConfigError(f"--dimensions {dimensions}: 2 or 3")
    if rate is not None and not rate > 0:
        raise ConfigError(f"--rate {rate:g}: poses a second, above 0")
    names = tuple(part.strip() for part in joints.split(",")) if joints else ()
    reading = Reading(shape, dimensions, up, UNITS[unit], names)
    gathering = Gathering(_pairs(mapping), _pattern(group_by), keep_bones, rate, least_known, keep_impossible)
    described = ", ".join(path.name for path in paths[:4]) + (" ..." if len(paths) > 4 else "")
    prior, told = gather_prior(files, reading, gathering, name, f"{len(files)} files of {described}")
    write_prior(store, prior, shape)
    there = np.isfinite(prior.poses).all(-1).any(0)
    return {
        "store": str(store), "prior": name, "poses": len(prior), "dimensions": prior.dimensions,
        "takes": len(set(prior.takes.tolist())), "groups": len(set(prior.groups.tolist())),
        "joints": [joint for joint, known in zip(prior.joints, there, strict=True) if known],
        "missing": [joint for joint, known in zip(prior.joints, there, strict=True) if not known],
        "sources": told, "failed": sum(entry["verdict"] == "quarantined" for entry in told),
        "seconds": time.monotonic() - start,
    }  # fmt: skip


def priors(*, store: Path = Path("store.zarr")) -> dict[str, Any]:
    """What priors a store holds: {"store", "priors": [{name, source, count, dimensions, joints, groups, takes}]}.

    Raises:
        StoreError: no store.
    """
    return {"store": str(store), "priors": list_priors(store)}


def inspect_prior(
    name: str | None = None,
    *,
    store: Path = Path("store.zarr"),
    skeleton: str | None = None,
    out: Path = Path("prior"),
    seed: int = 0,
) -> dict[str, Any]:
    """Draw a prior: a page with statistics, a sheet of poses as PNG, and for 3D poses a page in which they turn.

    Args:
        name: the store's only prior where none is given; `built-in` for the one that needs no file.
        skeleton: whose bones are drawn [default: the store's, else human17].

    Returns:
        {"prior", "page", "sheet", "turning": path or None, "statistics": {...}}

    Raises:
        StoreError: no store, or no such prior. ConfigError: several priors and none named.
    """
    store = Path(store)
    shape = _skeleton(store, skeleton) or load_skeleton("human17")
    if name == BUILT_IN:
        prior = built_in_prior(shape, SHOWN, seed)
    else:
        known = [entry["name"] for entry in list_priors(store)]
        if name is None and len(known) != 1:
            there = ", ".join(known) or "none; `streampose prior import` makes one"
            raise ConfigError(f"{store}: which prior? There are: {there}")
        prior = read_prior(store, name or known[0])
        if set(prior.joints) & set(shape.joints):
            prior = prior.for_skeleton(shape)
    statistics = describe_prior(prior, shape)
    files = write_prior_page(Path(out), prior, shape, statistics, seed)
    return {"prior": prior.name, **files, "statistics": statistics}


def _skeleton(store: Path, name: str | None) -> Skeleton | None:
    """The skeleton that is meant: None for the file's own joints."""
    if name is not None:
        return None if name == "none" else load_skeleton(name)
    if (store / "zarr.json").is_file():
        return skeleton_from_dict(open_store(store)["skeleton"], f"{store}: skeleton")
    return load_skeleton("human17")


def _pairs(mapping: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in mapping:
        theirs, separator, ours = text.rpartition("=")
        if not separator or not theirs or not ours:
            raise ConfigError(f"--map {text}: expected theirs=ours, as in --map snout=nose")
        pairs[theirs] = ours
    return pairs


def _pattern(group_by: str | None) -> re.Pattern[str] | None:
    try:
        return None if group_by is None else re.compile(group_by)
    except re.error as error:
        raise ConfigError(f"--group-by {group_by}: not a pattern ({error})") from None
