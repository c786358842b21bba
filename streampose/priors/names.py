"""Whose joint is whose: names of other tools' joints found in a skeleton, with a table for those that differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from streampose.errors import ConfigError
from streampose.structures import Skeleton

# What others call a joint (lower case, without its side) -> ours, the first that the skeleton has.
SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("hips", "root", "midhip", "hipcenter", "hipcentre", "sacrum"), ("pelvis",)),
    **dict.fromkeys(("shldr", "arm", "uparm", "upperarm"), ("shoulder",)),
    **dict.fromkeys(("forearm", "lowarm", "lowerarm"), ("elbow",)),
    "hand": ("wrist",),
    **dict.fromkeys(("thigh", "upleg", "upperleg", "femur"), ("hip",)),
    **dict.fromkeys(("leg", "lowleg", "lowerleg", "shin", "calf", "tibia"), ("knee",)),
    "foot": ("ankle",),
    **dict.fromkeys(("spine1", "chest", "torso"), ("spine",)),
    **dict.fromkeys(("upperchest", "neckbase", "c7"), ("thorax",)),
    "neck": ("neck", "upperneck", "thorax"),
    **dict.fromkeys(("headtop", "topofhead", "headend", "skull", "head"), ("head", "headtop")),
    **dict.fromkeys(("neck/nose", "neckornose", "snout", "nosetip"), ("nose",)),
    **dict.fromkeys(("tailend", "tail2"), ("tailtip",)),
    "tail1": ("tailmid",),
    **dict.fromkeys(("bodycenter", "center", "centre", "centroid", "body"), ("bodycentre",)),
}
SIDES = {"l": "left", "r": "right", "left": "left", "right": "right"}
ARMS = ("arm", "uparm", "upperarm")  # where a file has one of these, its "shoulder" is the collar bone's joint


def match_joints(theirs: Sequence[str], skeleton: Skeleton, given: Mapping[str, str] | None = None) -> dict[str, int]:
    """Our joint -> its place among theirs, for each joint of the skeleton that they have under some name.

    Args:
        given: their name -> ours, which goes before all else.

    Raises:
        ConfigError: a given name that is not one of theirs, or not one of the skeleton's.
    """
    found: dict[str, int] = {}
    for name, ours in (given or {}).items():
        if name not in theirs:
            raise ConfigError(f"--map {name}={ours}: the file has no joint {name} (it has {', '.join(theirs)})")
        if ours not in skeleton.joints:
            raise ConfigError(f"--map {name}={ours}: skeleton {skeleton.name} has no joint {ours}")
        found[ours] = list(theirs).index(name)
    split = [split_side(name) for name in theirs]
    collars = any(part in ARMS for _, part in split)
    wanted = {"".join(split_side(name)): name for name in skeleton.joints}
    for exactly in (True, False):
        for place, (side, part) in enumerate(split):
            if part == "hip" and not side:
                part = "pelvis"
            if part == "shoulder" and collars:
                part = "collar"
            names = (part,) if exactly else SYNONYMS.get(part, ())
            known = [wanted[side + name] for name in names if side + name in wanted]
            if known and known[0] not in found and theirs[place] not in (given or {}):
                found[known[0]] = place
    return found


def split_side(name: str) -> tuple[str, str]:
    """A joint's side (left, right or none) and the rest, however it is spelt: `mixamorig:LeftUpLeg` -> left, upleg."""
    name = re.sub(r"^\w+:|^mixamorig\d*_?", "", name.strip())
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = [word.lower() for word in re.split(r"[^0-9A-Za-z/]+", spaced) if word]
    side = next((SIDES[word] for word in words if word in SIDES), "")
    rest = "".join(word for word in words if word not in SIDES)
    if not side and (joined := re.fullmatch(r"(left|right)(\w+)", rest)):
        return joined[1], joined[2]
    return side, rest
