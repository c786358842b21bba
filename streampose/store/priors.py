"""Priors in a store: unpaired 2D or 3D poses, with what each pose was taken from.

    priors/<id>/        attributes: name, source, joints, groups, takes
    priors/<id>/poses   (N, K, 2 or 3) float32, NaN where a joint is missing
    priors/<id>/group, take, seconds   (N,) numbers into the attributes' lists, and the time of each pose in its take

A prior is published by one rename. A store needs no clips to hold one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError
from streampose.store.copy import folders_in
from streampose.store.remote import url_of
from streampose.store.schema import CODECS, create_store, locked, open_store, read_attributes, write_group, writing
from streampose.store.sessions import session_id
from streampose.store.writer import temporary_folder, write_array
from streampose.structures import Skeleton, check_shape

CROP_SIZE = 128  # of a store that is made for a prior; ingest gives it another where it is asked to
SAME_JOINT = (("head", "head_top"), ("neck", "upper_neck"))  # two names of one place
BETWEEN = {  # joint -> two that it lies in the middle of
    "pelvis": ("left_hip", "right_hip"), "thorax": ("left_shoulder", "right_shoulder"), "spine": ("pelvis", "thorax"),
}  # fmt: skip


@dataclass(frozen=True)
class Prior:
    """N poses of K joints that belong to no picture.

    Attributes:
        name: unique in its store.
        poses: (N, K, 2 or 3) float32, NaN where a joint is missing. 3D: metres, x right, y down, z forward, the subject
            faces any way; 2D: the source's pixels, y down.
        joints: K names.
        groups: (N,) str, what must not be divided between training and test: a performer, a dance, a video.
        source: where the poses are from, for people.
        takes: (N,) str, the recording of each pose; the poses of a take are in order of time.
        seconds: (N,) time of each pose in its take; NaN where nobody knows.
    """

    name: str
    poses: np.ndarray
    joints: tuple[str, ...]
    groups: np.ndarray
    source: str = ""
    takes: np.ndarray = field(default_factory=lambda: np.zeros(0, str))
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if self.poses.ndim != 3 or self.poses.shape[2] not in (2, 3):
            raise ValueError(f"Prior.poses has shape {self.poses.shape}, expected (N, K, 2) or (N, K, 3)")
        N, K, _ = self.poses.shape
        object.__setattr__(self, "poses", np.asarray(self.poses, np.float32))
        object.__setattr__(self, "joints", tuple(self.joints))
        object.__setattr__(self, "groups", np.asarray(self.groups, str))
        takes = self.takes if len(self.takes) else self.groups
        object.__setattr__(self, "takes", np.asarray(takes, str))
        seconds = self.seconds if len(self.seconds) else np.full(N, np.nan)
        object.__setattr__(self, "seconds", np.asarray(seconds, float))
        if len(self.joints) != K or len(set(self.joints)) != K:
            raise ValueError(f"Prior.joints has {len(set(self.joints))} different names, but the poses {K} joints")
        for name in ("groups", "takes", "seconds"):
            check_shape(f"Prior.{name}", getattr(self, name), (N,))

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return self.poses.shape[2]

    def pick(self, index: np.ndarray | slice) -> Prior:
        """Some of the poses, by their places or by a mask."""
        return replace(
            self, poses=self.poses[index], groups=self.groups[index], takes=self.takes[index],
            seconds=self.seconds[index],
        )  # fmt: skip

    def for_skeleton(self, skeleton: Skeleton) -> Prior:
        """The poses in the order of a skeleton's joints, found by name.

        A joint that is missing but lies in the middle of two others is put there (`BETWEEN`, the skeleton's midpoints);
        what is still missing is NaN.

        Raises:
            ConfigError: none of the joints is known.
        """
        points = joints_by_name(self.poses, self.joints, skeleton)
        if not np.isfinite(points).any() and len(self):
            raise ConfigError(
                f"prior {self.name}: none of its joints ({', '.join(self.joints)}) is one of skeleton {skeleton.name}; "
                "import it again with --map theirs=ours"
            )
        return replace(self, poses=points, joints=skeleton.joints)

    def split(self, fraction: float, seed: int = 0) -> tuple[Prior, Prior]:
        """(train, test) by groups, so that no group is on both sides.

        Args:
            fraction: share of the poses that the test holds at least, as far as groups allow; both sides get a group.

        Raises:
            ConfigError: a fraction outside (0, 1), or fewer than two groups.
        """
        names, index, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        if not 0 < fraction < 1:
            raise ConfigError(f"prior {self.name}: a share of {fraction:g} for the test; it lies between 0 and 1")
        if len(names) < 2:
            raise ConfigError(f"prior {self.name}: it is one group ({', '.join(names)}), which must not be divided")
        order = np.random.default_rng(seed).permutation(len(names))
        enough = int(np.searchsorted(np.cumsum(counts[order]), fraction * len(self))) + 1
        test = np.isin(index, order[: min(enough, len(names) - 1)])
        return self.pick(~test), self.pick(test)


def joints_by_name(points: np.ndarray, joints: Sequence[str], skeleton: Skeleton) -> np.ndarray:
    """Points in the order of a skeleton's joints: (N, J, D) -> (N, K, D), NaN where a joint is missing."""
    known = {name: points[:, j] for j, name in enumerate(joints)}
    for one, other in SAME_JOINT:
        if (one in known) != (other in known):
            known[one] = known[other] = known[one if one in known else other]
    names = skeleton.joints
    middles = BETWEEN | {names[middle]: (names[left], names[right]) for middle, left, right in skeleton.midpoints}
    for middle, (left, right) in middles.items():
        if middle not in known and left in known and right in known:
            known[middle] = (known[left] + known[right]) / 2
    missing = np.full((len(points), points.shape[2]), np.nan, np.float32)
    return np.stack([np.asarray(known.get(name, missing), np.float32) for name in skeleton.joints], 1)


def write_prior(store: Path, prior: Prior, skeleton: Skeleton | None = None) -> str:
    """Write a prior into a store, or replace the one of the same name.

    Args:
        store: a folder; where there is none, a store without clips is made.
        skeleton: of a store that is made; human17 where none is given.

    Returns:
        The prior's id.

    Raises:
        StoreError: it cannot be written, or somebody else writes to the store.
    """
    store = _local(store)
    if not len(prior):
        raise StoreError(f"prior {prior.name}: it holds no pose")
    if not (store / "zarr.json").is_file():
        create_store(store, skeleton or load_skeleton("human17"), crop_size=CROP_SIZE, draft=True)
    open_store(store)
    groups, group = np.unique(prior.groups, return_inverse=True)
    takes, take = np.unique(prior.takes, return_inverse=True)
    columns = {
        "poses": prior.poses, "group": group.astype(np.int32), "take": take.astype(np.int32), "seconds": prior.seconds,
    }  # fmt: skip
    attributes = {
        "name": prior.name, "source": prior.source, "joints": list(prior.joints), "groups": groups.tolist(),
        "takes": takes.tolist(), "count": len(prior), "dimensions": prior.dimensions,
    }  # fmt: skip
    identity = session_id(prior.name)
    with locked(store), writing(store):
        priors = store / "priors"
        if not (priors / "zarr.json").is_file():
            priors.mkdir(exist_ok=True)
            write_group(priors, {})
        temporary = temporary_folder(store)
        for name, values in columns.items():
            write_array(temporary / name, values, CODECS["zstd"], chunk_frames=len(values))
        write_group(temporary, attributes)
        destination = priors / identity
        if destination.exists():
            os.rename(destination, temporary_folder(store) / "prior")
        os.rename(temporary, destination)
    return identity


def read_prior(store: Path, name: str) -> Prior:
    """Read a prior by its name.

    Raises:
        StoreError: no store, no such prior, or it is damaged.
    """
    store = _local(store)
    open_store(store)
    folder = store / "priors" / session_id(name)
    if not folder.is_dir():
        known = ", ".join(entry["name"] for entry in list_priors(store)) or "none"
        raise StoreError(f"{store}: no prior {name} (there are: {known}); `streampose prior import` makes one")
    attributes = read_attributes(folder)
    try:
        columns = {part: _read_array(folder / part) for part in ("poses", "group", "take", "seconds")}
        groups, takes = (np.array(attributes[key], str) for key in ("groups", "takes"))
        return Prior(
            attributes["name"], columns["poses"], tuple(attributes["joints"]), groups[columns["group"]],
            attributes["source"], takes[columns["take"]], columns["seconds"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:160]
        raise StoreError(f"{folder}: damaged ({reason}); import the prior again") from None


def list_priors(store: Path) -> list[dict[str, Any]]:
    """What a store's priors are, without their poses: name, source, count, dimensions, joints, groups, takes.

    Raises:
        StoreError: no store, or a damaged prior.
    """
    store = _local(store)
    open_store(store)
    return [read_attributes(folder) for folder in folders_in(store / "priors")]


def _read_array(folder: Path) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{os.path.abspath(folder)}/"}}
    return np.asarray(ts.open(spec, open=True, read=True).result().read().result())


def _local(store: Path | str) -> Path:
    if url_of(store) is not None:
        raise StoreError(f"{store}: priors are kept in stores on this machine; name a folder with --store")
    return Path(store)
