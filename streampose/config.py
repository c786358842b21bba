"""Load and validate YAML: skeletons and method configurations, with `key=value` overrides. Unknown keys raise."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streampose.errors import ConfigError
from streampose.structures import Bone, Skeleton

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error instead of a typo that does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def configs_folder() -> Path:
    """The shipped `configs/`: inside the installed package, else beside it in a source checkout."""
    installed = Path(str(resources.files("streampose"))) / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "configs"


def load_config(
    schema: type[Model],
    path: str | Path | None = None,
    overrides: list[str] | tuple[str, ...] = (),
    base: dict[str, Any] | None = None,
) -> Model:
    """Read a configuration: the schema's defaults, `base`, then the file, then `key=value` overrides (dots descend).

    Raises:
        ConfigError: no such file, not YAML, an unknown key or a value of the wrong type; all problems in one message.
    """
    values = merge_values(base or {}, _read_yaml(Path(path)) if path is not None else {})
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override}: expected key=value, for example --set seed=3")
        node = values
        *parents, leaf = key.split(".")
        for name in parents:
            node[name] = node[name].copy() if isinstance(node.get(name), dict) else node.get(name, {})
            node = node[name]
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {name} is a value, not a group of values")
        node[leaf] = yaml.safe_load(text)
    return _validate(schema, values, str(path or "configuration"))


def load_preset(
    schema: type[Model],
    method: str,
    preset: str,
    path: str | Path | None = None,
    overrides: list[str] | tuple[str, ...] = (),
) -> Model:
    """Read a preset of `configs/methods/METHOD.yaml`, then a file of changes to it, then `key=value` overrides.

    Raises:
        ConfigError: no such preset, and what `load_config` raises.
    """
    presets = _read_yaml(configs_folder() / "methods" / f"{method}.yaml")
    if preset not in presets:
        raise ConfigError(f"preset {preset!r}: {method} has {', '.join(presets)}")
    return load_config(schema, path, overrides, base=presets[preset] or {})


def merge_values(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested values in which those of `changes` replace or extend the ones of `base`."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = merge_values(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The values of a YAML file that holds a mapping.

    Raises:
        ConfigError: no such file, not readable, not YAML, or not a mapping.
    """
    return _read_yaml(path)


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """Read a skeleton: the name of a shipped one (`human17`, `coco17`, `mpii16`, `mouse`) or a YAML file of one's own.

    Raises:
        ConfigError: no such skeleton, an unknown key, or a bone, pair or connection that names a missing joint.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = configs_folder() / "skeletons" / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
            raise ConfigError(f"skeleton {name_or_path}: not shipped (there are {known}); or name a .yaml file")
    return skeleton_from_dict(_read_yaml(path), str(path))


def skeleton_from_dict(values: dict[str, Any], where: str = "skeleton") -> Skeleton:
    """Build a skeleton from the content of its YAML file (bundles and stores carry it as JSON)."""
    read = _validate(_SkeletonFile, values, where)
    index = {name: i for i, name in enumerate(read.joints)}
    if len(index) != len(read.joints):
        raise ConfigError(f"{where}: a joint is listed twice")

    def joint(name: str, key: str) -> int:
        if name not in index:
            raise ConfigError(f"{where}: {key} names the joint {name!r}, which is not in joints")
        return index[name]

    bones = []
    for bone in read.bones:
        parent, child = (joint(name, "bones") for name in bone.joints)
        direction = np.asarray(bone.direction, float)
        if not np.linalg.norm(direction) > 0:
            raise ConfigError(f"{where}: bone {bone.joints[0]}-{bone.joints[1]} has a direction of length zero")
        x, y, z = np.round(direction / np.linalg.norm(direction), 9)
        max_length = 1.15 * bone.length if bone.max_length is None else bone.max_length
        bones.append(
            Bone(
                parent, child, bone.length, max_length, bone.radius, (float(x), float(y), float(z)),
                bone.swing_degrees, bone.arm, bone.constant, bone.toward, bone.reach,
            )
        )  # fmt: skip

    def pair(names: tuple[str, str], key: str) -> tuple[int, int]:
        return joint(names[0], key), joint(names[1], key)

    return Skeleton(
        name=read.name,
        joints=tuple(read.joints),
        root=joint(read.root, "root"),
        bones=tuple(bones),
        flip_pairs=tuple(pair(names, "flip_pairs") for names in read.flip_pairs),
        torso=pair(read.torso, "torso"),
        head=pair(read.head, "head") if read.head else None,
        midpoints=tuple((joint(mid, "midpoints"), *pair(ends, "midpoints")) for mid, ends in read.midpoints.items()),
        warmup=pair(read.warmup, "warmup") if read.warmup else None,
        connections={
            stage: tuple(pair(names, f"connections.{stage}") for names in pairs)
            for stage, pairs in read.connections.items()
        },
        turn_degrees=read.turn_degrees,
    )  # fmt: skip


def skeleton_to_dict(skeleton: Skeleton) -> dict[str, Any]:
    """The content of a skeleton's YAML file; `skeleton_from_dict` reads it back to an equal skeleton."""
    names = skeleton.joints
    values: dict[str, Any] = {
        "name": skeleton.name,
        "root": names[skeleton.root],
        "joints": list(names),
        "flip_pairs": [[names[a], names[b]] for a, b in skeleton.flip_pairs],
        "torso": [names[joint] for joint in skeleton.torso],
        "midpoints": {names[m]: [names[a], names[b]] for m, a, b in skeleton.midpoints},
        "bones": [
            {
                "joints": [names[bone.parent], names[bone.child]],
                "length": bone.length,
                "max_length": bone.max_length,
                "radius": bone.radius,
                "direction": list(bone.direction),
                "swing_degrees": bone.swing_degrees,
                "arm": bone.arm,
                "constant": bone.constant,
                "toward": list(bone.toward),
                "reach": bone.reach,
            }
            for bone in skeleton.bones
        ],
        "turn_degrees": list(skeleton.turn_degrees),
        "connections": {
            stage: [[names[a], names[b]] for a, b in pairs] for stage, pairs in skeleton.connections.items()
        },
    }
    if skeleton.head:
        values["head"] = [names[joint] for joint in skeleton.head]
    if skeleton.warmup:
        values["warmup"] = [names[joint] for joint in skeleton.warmup]
    return values


class _BoneFile(Strict):
    joints: tuple[str, str]
    length: float = Field(gt=0)
    max_length: float | None = Field(default=None, gt=0)
    radius: float = Field(gt=0)
    direction: tuple[float, float, float] = (0.0, 1.0, 0.0)
    swing_degrees: float = Field(default=45.0, ge=0, le=180)
    arm: bool = False
    constant: bool = False
    toward: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reach: float = Field(default=1.0, ge=0)


class _SkeletonFile(Strict):
    name: str
    joints: list[str] = Field(min_length=2)
    root: str
    bones: list[_BoneFile]
    flip_pairs: list[tuple[str, str]] = []
    torso: tuple[str, str]
    head: tuple[str, str] | None = None
    midpoints: dict[str, tuple[str, str]] = {}
    warmup: tuple[str, str] | None = None
    connections: dict[str, list[tuple[str, str]]] = {}
    turn_degrees: tuple[float, float, float] = (15.0, 180.0, 15.0)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected key: value lines, found {type(values).__name__}")
    return values


def _validate(schema: type[Model], values: dict[str, Any], where: str) -> Model:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                problems.append(f"unknown key {key!r} (known: {', '.join(schema.model_fields)})")
            else:
                problems.append(f"{key}: {problem['msg']}, got {problem['input']!r}")
        raise ConfigError(f"{where}: " + "; ".join(problems)) from None
