"""Files of poses -> one prior: joints by name, bones of one length, groups that belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import logger, progress
from streampose.errors import ConfigError, StreamposeError
from streampose.geometry.bones import with_bones
from streampose.metrics.plausibility import Limits, judge, learn_limits
from streampose.priors.names import match_joints
from streampose.priors.read import Reading, Take, read_takes
from streampose.priors.retarget import about_root, bone_lengths_of, is_human
from streampose.store.priors import Prior, joints_by_name
from streampose.synthetic.built_in_prior import built_in_prior

PARTNERS, FEWEST = 4, 60  # so many takes of one length, and not short, are of one recording; more are cut to a length
# Beyond a limit of the built-in prior: high kicks and rolls stay, a head in the back does not.
IMPOSSIBLE_DEGREES = 45.0
CMU_TAKE = re.compile(r"(\d+)_\d+")  # of performer 05: 05_14


@dataclass(frozen=True)
class Gathering:
    """What becomes of the takes.

    Attributes:
        given: their joint -> ours, beyond the table of names.
        group_by: pattern; what its brackets match in a file's path is the group of its takes. None for the rules of
            `group_takes`.
        keep_bones: leave the bones as long as they are.
        rate: poses a second that are kept; None for all.
        least_known: share of a take's joints that a pose must have.
        keep_impossible: keep 3D poses of people that no body could take, too.
    """

    given: Mapping[str, str]
    group_by: re.Pattern[str] | None = None
    keep_bones: bool = False
    rate: float | None = None
    least_known: float = 0.5
    keep_impossible: bool = False


def gather_prior(
    files: Sequence[Path], reading: Reading, gathering: Gathering, name: str, source: str
) -> tuple[Prior, list[dict[str, Any]]]:
    """Read all files; one that cannot be read is told of in one line, and the rest goes on.

    Returns:
        the prior, and for each file {source, verdict, reason, poses, left_out, takes}; the verdict is `repaired` where
        poses were left out because no body could take them.

    Raises:
        StreamposeError: no file gave a pose.
    """
    takes: list[Take] = []
    told: list[dict[str, Any]] = []
    limits: Limits | None = None
    with progress("Reading poses", len(files), "files") as bar:
        for file in files:
            entry: dict[str, Any] = {
                "source": str(file),
                "verdict": "ok",
                "reason": "",
                "poses": 0,
                "left_out": 0,
                "takes": [],
            }
            try:
                found = [_fit(take, reading, gathering) for take in read_takes(file, reading)]
                if takes:
                    _check_alike(file, found[0][0], takes[0])
                for take, left_out in found:
                    if _is_judged(take, reading, gathering):
                        limits = limits or _human_limits(reading)
                        take, impossible, why = _possible(take, limits)
                        if why:
                            logger.warning("%s: %s", file, why)
                            entry |= {"verdict": "repaired", "reason": why}
                        left_out += impossible
                    entry["left_out"] += left_out
                    if _is_known(take, takes):
                        entry["reason"] = "the motion of another file, seen by another camera"
                    elif len(take.poses):
                        named = replace(take, name=_unique(take.name, takes), group=_group(file, take, gathering))
                        takes.append(named)
                        entry["poses"] += len(take.poses)
                        entry["takes"].append(named.name)
                if entry["verdict"] == "repaired" and not entry["poses"]:
                    entry["verdict"] = "quarantined"
            except StreamposeError as error:
                entry |= {"verdict": "quarantined", "reason": str(error).removeprefix(f"{file}: ")}
                logger.warning("%s", error)
            told.append(entry)
            bar.advance()
    if not takes:
        reason = next((entry["reason"] for entry in told if entry["reason"]), "too few joints are known")
        raise StreamposeError(f"{told[0]['source'] if told else name}: no pose could be read ({reason})")
    if gathering.group_by is None:
        takes = group_takes(takes)
    poses = np.concatenate([take.poses for take in takes])
    if poses.shape[2] == 3 and reading.skeleton is not None:
        if not gathering.keep_bones:
            ours = np.concatenate([np.full(len(take.poses), take.retargeted) for take in takes])
            poses[~ours] = with_bones(poses[~ours], reading.skeleton, bone_lengths_of(reading.skeleton, poses))
        poses = about_root(poses, reading.skeleton)
    counts = [len(take.poses) for take in takes]
    groups, names = (np.repeat([getattr(take, key) for take in takes], counts) for key in ("group", "name"))
    seconds = np.concatenate([take.seconds for take in takes])
    return Prior(name, poses, takes[0].joints, groups, source, names, seconds), told


def group_takes(takes: Sequence[Take]) -> list[Take]:
    """Put takes into one group that a split must not divide.

    Takes whose names differ in their number only and that are as long as each other to the frame are of one recording:
    the partners of a dance. Names like those of the CMU recordings (05_14) begin with the performer's number.
    """
    takes = [replace(take, group=m[1]) if (m := CMU_TAKE.fullmatch(take.group)) else take for take in takes]
    alike = defaultdict(list)
    for number, take in enumerate(takes):
        alike[re.sub(r"\d+", "", take.name), take.frames or len(take.poses)].append(number)
    prefixes = defaultdict(set)
    for prefix, length in alike:
        prefixes[prefix].add(length)
    result = list(takes)
    for (prefix, length), members in alike.items():
        groups = {takes[number].group for number in members}
        if length >= FEWEST and len(groups) > 1 and len(members) <= PARTNERS and len(prefixes[prefix]) > 1:
            together = " + ".join(sorted(groups))
            logger.info("%s: as long as each other to the frame, so never divided", together)
            for number in members:
                result[number] = replace(takes[number], group=together)
    return result


def _fit(take: Take, reading: Reading, gathering: Gathering) -> tuple[Take, int]:
    """A take with the joints that are wanted, and how many poses were left out because too few joints are known."""
    joints, poses = take.joints, take.poses
    if reading.skeleton is not None and not take.retargeted:
        index = match_joints(joints, reading.skeleton, gathering.given)
        if not index:
            raise StreamposeError(
                f"none of its joints ({', '.join(joints[:8])}{'...' if len(joints) > 8 else ''}) is one of skeleton "
                f"{reading.skeleton.name}; say which with --map theirs=ours"
            )
        poses = joints_by_name(poses[:, list(index.values())], list(index), reading.skeleton)
        joints = reading.skeleton.joints
    known = np.isfinite(poses).all(-1)
    enough = known.sum(1) >= np.maximum(gathering.least_known * known.any(0).sum(), 1)
    kept = enough.copy()
    if gathering.rate is not None and np.isfinite(take.seconds).all():
        slot = np.floor(take.seconds * gathering.rate + 1e-6)
        kept &= np.isin(np.arange(len(slot)), np.unique(slot, return_index=True)[1])
    fitted = replace(
        take, joints=joints, poses=poses[kept].astype(float), seconds=take.seconds[kept], frames=len(poses)
    )
    return fitted, int((~enough).sum())


def _is_judged(take: Take, reading: Reading, gathering: Gathering) -> bool:
    human = reading.skeleton is not None and is_human(reading.skeleton)
    return human and take.poses.shape[2] == 3 and not gathering.keep_impossible


def _human_limits(reading: Reading) -> Limits:
    """What people can do at all."""
    assert reading.skeleton is not None
    prior = built_in_prior(reading.skeleton, 2000)
    return learn_limits(prior.poses, prior.groups, reading.skeleton)


def _possible(take: Take, limits: Limits) -> tuple[Take, int, str]:
    """A take without the poses that no body could take, how many these are, and which joint is wrong.

    Of a take that is mostly wrong nothing is kept: its other poses are hardly better.
    """
    beyond = np.nan_to_num(judge(take.poses, limits).excess_degrees)
    wrong = (beyond > IMPOSSIBLE_DEGREES).any(1)
    if not wrong.any():
        return take, 0, ""
    worst = int((beyond > IMPOSSIBLE_DEGREES).sum(0).argmax())
    joint = limits.skeleton.joints[limits.skeleton.bones[worst].child]
    why = f"{int(wrong.sum())} of {len(wrong)} poses left out that no body could take, mostly the {joint}"
    if wrong.mean() > 0.5:
        wrong[:], why = True, f"{why}; so the rest, too (--keep-impossible keeps all)"
    return replace(take, poses=take.poses[~wrong], seconds=take.seconds[~wrong]), int(wrong.sum()), why


def _check_alike(file: Path, take: Take, first: Take) -> None:
    D, first_D = take.poses.shape[2], first.poses.shape[2]
    if first_D != D:
        raise StreamposeError(f"{file}: {D}D poses among {first_D}D ones; import them under another --name")
    if take.joints != first.joints:
        raise StreamposeError(f"{file}: other joints than {first.name} ({', '.join(take.joints[:8])}); give --skeleton")


def _is_known(take: Take, takes: Sequence[Take]) -> bool:
    """Whether another camera's file has given the same motion."""
    return take.poses.shape[2] == 3 and any(
        take.group == other.group
        and take.poses.shape == other.poses.shape
        and np.allclose(take.poses, other.poses, atol=1e-6, equal_nan=True)
        for other in takes
    )


def _group(file: Path, take: Take, gathering: Gathering) -> str:
    if gathering.group_by is None:
        return take.group
    found = gathering.group_by.search(file.as_posix())
    if found is None:
        raise ConfigError(f"{file}: --group-by {gathering.group_by.pattern} matches nothing in its path")
    return " ".join(found.groups() or (found.group(),))


def _unique(name: str, takes: Sequence[Take]) -> str:
    used = {take.name for take in takes}
    return next(n for n in (name, *(f"{name} ({i})" for i in range(2, len(takes) + 3))) if n not in used)
