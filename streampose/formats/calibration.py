"""Camera calibrations from files: Pose2Sim and Anipose TOML, OpenCV YAML/XML, Qualisys, and our JSON.

Every reader gives `{name: Camera}` in the file's order, `x_cam = R @ x_world + t` in metres, pixel centres at integers.
A camera without a place in the world has `posed=False`; one whose file gives no image size has size (0, 0).
Adding a format: a `_read_*` below and its line in `read_calibration`.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.errors import ConfigError
from streampose.geometry.camera import camera_from_dict, camera_to_dict
from streampose.structures import Camera

CALIBRATION_SUFFIXES = (".toml", ".json", ".yaml", ".yml", ".xml", ".qca.txt")
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
QUALISYS_SUBPIXELS = 64  # lengths on the sensor are in 1/64 pixel; distortion has no unit

# What people call the same thing in OpenCV's files.
K_NAMES = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "intrinsic_matrix", "K", "M")
D_NAMES = ("distortion_coefficients", "Distortion_Coefficients", "dist_coeffs", "distCoeffs", "distortion", "dist", "D")
R_NAMES = ("R", "Rot", "rotation", "rotation_matrix", "rvec")
T_NAMES = ("T", "t", "translation", "translation_vector", "tvec")


def read_calibration(path: Path | str, *, unit: str = "m") -> dict[str, Camera]:
    """Read the cameras of a calibration file; its suffix and content say which format it is.

    Args:
        path: .toml (Pose2Sim, Anipose), .json (ours), .yaml/.yml/.xml (OpenCV FileStorage; `intri.yml` takes the
            `extri.yml` beside it along), .xml or .qca.txt (Qualisys).
        unit: of the translations, `m`, `cm` or `mm`, where the format does not fix it (TOML, OpenCV).

    Raises:
        ConfigError: no such file, not a calibration, damaged, or a camera that cannot be.
    """
    path = Path(path)
    if unit not in METRES:
        raise ConfigError(f"{path}: unit {unit!r} of the calibration is not known; choose {', '.join(METRES)}")
    text = _read_text(path)
    if path.name.lower().endswith(".qca.txt") or "<intrinsic" in text:
        cameras = _read_qualisys(path, text)
    elif path.suffix == ".toml":
        cameras = _read_toml(path, text, METRES[unit])
    elif path.suffix == ".json":
        cameras = _read_json(path, text)
    elif path.suffix in (".yaml", ".yml", ".xml"):
        cameras = _read_opencv(path, METRES[unit])
    else:
        raise ConfigError(f"{path}: not a calibration; known are {', '.join(CALIBRATION_SUFFIXES)}")
    if not cameras:
        raise ConfigError(f"{path}: no camera in it")
    return cameras


def write_calibration(
    path: Path | str, cameras: Mapping[str, Camera], metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write cameras as our JSON or as Pose2Sim/Anipose TOML, by the suffix; published by a rename.

    Args:
        metadata: numbers and texts about how the calibration was made.

    Raises:
        ConfigError: another suffix.
    """
    path = Path(path)
    writers: dict[str, Callable[..., str]] = {".json": _json_text, ".toml": _toml_text}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: calibrations are written as {' or '.join(writers)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(writers[path.suffix](cameras, metadata or {}), encoding="utf-8")
    unfinished.replace(path)
    return path


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None


def _read_toml(path: Path, text: str, metres: float) -> dict[str, Camera]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    cameras: dict[str, Camera] = {}
    for key, table in tables.items():
        if isinstance(table, dict) and "matrix" in table:
            values = {
                "K": table["matrix"], "size": table.get("size"), "distortion": table.get("distortions"),
                "fisheye": table.get("fisheye", False), "R": table.get("rotation"), "t": table.get("translation"),
            }  # fmt: skip
            _add(cameras, str(table.get("name", key)), camera_from_dict(values, f"{path}: {key}", metres), path)
    return cameras


def _read_json(path: Path, text: str) -> dict[str, Camera]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("cameras"), list):
        raise ConfigError(f"{path}: not a calibration of streampose (no list `cameras`)")
    cameras: dict[str, Camera] = {}
    for number, values in enumerate(content["cameras"]):
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: camera {number} is {type(values).__name__}, expected name, size, K ...")
        name = str(values.get("name", f"cam{number + 1:02d}"))
        _add(cameras, name, camera_from_dict(values, f"{path}: {name}"), path)
    return cameras


def _read_opencv(path: Path, metres: float) -> dict[str, Camera]:
    nodes = _storage(path)
    if path.stem == "intri" and path.with_name(f"extri{path.suffix}").is_file():
        nodes |= _storage(path.with_name(f"extri{path.suffix}"))
    groups: dict[str, dict[str, Any]] = {}
    if _pick(nodes, K_NAMES) is not None:
        groups[path.stem] = nodes
    for name, node in nodes.items():
        if isinstance(node, dict) and _pick(node, K_NAMES) is not None:
            groups[name] = node
        elif np.shape(node) == (3, 3) and (match := re.fullmatch(rf"({'|'.join(K_NAMES)})_?(\w+)", name)):  # K_left, M1
            groups.setdefault(match[2], _with_suffix(nodes, match[2]))
    if set(groups) == {"1", "2"} and "R" in nodes and "T" in nodes:  # OpenCV's stereo sample: the second from the first
        for key in ("1", "2"):
            for name in ("R", "T"):  # R1, R2 of that sample rectify; they place no camera
                groups[key].pop(name, None)
        groups["1"] |= {"R": np.eye(3), "T": np.zeros(3)}
        groups["2"] |= {"R": nodes["R"], "T": nodes["T"]}
    cameras: dict[str, Camera] = {}
    for name, group in groups.items():
        group = {key: value for key, value in nodes.items() if key.startswith("image") or key == "size"} | group
        values = {
            "K": _pick(group, K_NAMES), "distortion": _pick(group, D_NAMES), "R": _pick(group, R_NAMES),
            "t": _pick(group, T_NAMES), "size": _opencv_size(group),
            "fisheye": group.get("fisheye") or "fisheye" in str(_pick(group, ("distortion_model", "model"))),
        }  # fmt: skip
        _add(cameras, name, camera_from_dict(values, f"{path}: {name}", metres), path)
    return cameras


def _with_suffix(nodes: dict[str, Any], suffix: str) -> dict[str, Any]:
    """The parts of one camera where each name ends in the camera's: K1, D1 ... or K_left, dist_left ..."""
    group: dict[str, Any] = {}
    for names in (K_NAMES, D_NAMES, R_NAMES, T_NAMES, ("image_width", "W"), ("image_height", "H")):
        found = [nodes[name] for base in names for name in (f"{base}_{suffix}", base + suffix) if name in nodes]
        group |= {names[0]: found[0]} if found else {}
    return group


def _opencv_size(group: dict[str, Any]) -> list[float] | None:
    sides = [
        _pick(group, (name, name.replace("_w", "_W").replace("_h", "_H"))) for name in ("image_width", "image_height")
    ]
    size = sides if all(sides) else _pick(group, ("size", "image_size", "imageSize", "resolution"))
    return None if size is None else [float(side) for side in np.ravel(size)]


def _storage(path: Path) -> dict[str, Any]:
    """Everything in a FileStorage as nested dicts, lists, numbers, texts and arrays."""
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        root = storage.root() if storage.isOpened() else None
        content = None if root is None else {name: _storage_node(root.getNode(name)) for name in root.keys()}  # noqa: SIM118
        storage.release()
    except (cv2.error, SystemError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not OpenCV's YAML or XML ({' '.join(str(error).split())[-160:]})") from None
    if content is None:
        raise ConfigError(f"{path}: not OpenCV's YAML or XML (its first line is %YAML:1.0 or <?xml ...>)")
    return content


def _storage_node(node: Any) -> Any:
    if node.isMap():
        keys = set(node.keys())
        if {"rows", "cols", "data"} <= keys:
            if "dt" in keys:
                return node.mat()
            data = [node.getNode("data").at(i).real() for i in range(node.getNode("data").size())]  # as ROS writes it
            return np.reshape(data, (int(node.getNode("rows").real()), int(node.getNode("cols").real())))
        return {name: _storage_node(node.getNode(name)) for name in node.keys()}  # noqa: SIM118
    if node.isSeq():
        return [_storage_node(node.at(i)) for i in range(node.size())]
    if node.isInt() or node.isReal():
        return node.real()
    return node.string() if node.isString() else None


def _read_qualisys(path: Path, text: str) -> dict[str, Camera]:
    """Qualisys' export: lengths on the sensor in 1/64 pixel, positions of the cameras in the world in mm, axes y up.

    Its distortion needs no scaling: on the photos that belong to such a file, the coefficients as they stand are those
    that a calibration finds, and 1/64 of them are not.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ConfigError(f"{path}: has a document type of its own, which no calibration needs; not read")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path}: not valid XML ({error})") from None
    cameras: dict[str, Camera] = {}
    for camera in root.iter("camera"):
        where = f"{path}: camera {camera.get('serial', '?')}"
        inner, place = camera.find("intrinsic"), camera.find("transform")
        if inner is None or camera.get("active") == "0":
            continue
        fov = camera.find("fov_video")
        s = 1 / QUALISYS_SUBPIXELS
        left, top = (0.0, 0.0) if fov is None else (_attribute(fov, key, where) for key in ("left", "top"))
        if fov is not None:
            size = (_attribute(fov, "right", where) - left + 1, _attribute(fov, "bottom", where) - top + 1)
        else:
            ends = [[_attribute(inner, f"sensor{end}{axis}", where) for end in ("Min", "Max")] for axis in "UV"]
            size = tuple(math.ceil((high - low) * s) for low, high in ends)  # type: ignore[assignment]
        fu, fv, cu, cv, skew = (
            _attribute(inner, key, where) * s
            for key in ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV", "skew")
        )
        radial = [_attribute(inner, f"radialDistortion{i}", where) for i in (1, 2, 3)]
        tangential = [_attribute(inner, f"tangentalDistortion{i}", where) for i in (1, 2)]
        values: dict[str, Any] = {
            "K": [[fu, skew, cu - left], [0, fv, cv - top], [0, 0, 1]],
            "distortion": [*radial[:2], *tangential, radial[2]],
            "size": size,
        }
        if place is not None:
            axes = np.array([[_attribute(place, f"r{i}{j}", where) for j in (1, 2, 3)] for i in (1, 2, 3)])
            position = np.array([_attribute(place, axis, where) for axis in "xyz"]) / 1000
            R = np.diag([1.0, -1.0, -1.0]) @ axes  # theirs look along -z with y up
            values |= {"R": R, "t": -R @ position}
        _add(cameras, camera.get("serial", f"cam{len(cameras) + 1:02d}"), camera_from_dict(values, where), path)
    return cameras


def _attribute(element: ElementTree.Element, key: str, where: str) -> float:
    try:
        return float(element.attrib[key])
    except (KeyError, ValueError):
        raise ConfigError(f"{where}: {element.tag} has no number {key} (is {element.get(key)!r})") from None


def _add(cameras: dict[str, Camera], name: str, camera: Camera, path: Path) -> None:
    if name in cameras:
        raise ConfigError(f"{path}: two cameras are called {name}")
    cameras[name] = camera


def _pick(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if name in values and not isinstance(values[name], dict)), None)


def _json_text(cameras: Mapping[str, Camera], metadata: Mapping[str, Any]) -> str:
    listed = [{"name": name, **camera_to_dict(camera)} for name, camera in cameras.items()]
    return json.dumps({"streampose_calibration": 1, "cameras": listed, "metadata": dict(metadata)}, indent=1) + "\n"


def _toml_text(cameras: Mapping[str, Camera], metadata: Mapping[str, Any]) -> str:
    lines = []
    for number, (name, camera) in enumerate(cameras.items(), start=1):
        values = camera_to_dict(camera)
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) and name != "metadata" else f"cam_{number:02d}"
        lines += [
            f"[{key}]",
            f"name = {_toml(name)}",
            f"size = {_toml([float(v) for v in camera.size])}",
            f"matrix = {_toml(values['K'])}",
            f"distortions = {_toml(values['distortion'] or [0.0] * 4)}",
        ]
        if camera.posed:
            lines.append(f"rotation = {_toml(cv2.Rodrigues(np.asarray(camera.R, float))[0].ravel().tolist())}")
            lines.append(f"translation = {_toml(values['t'])}")
        lines += [f"fisheye = {_toml(camera.fisheye)}", ""]
    defaults = {"adjusted": False, "error": 0.0}
    lines += ["[metadata]", *(f"{key} = {_toml(value)}" for key, value in (defaults | dict(metadata)).items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(float(value))
    return json.dumps(value, ensure_ascii=True)  # texts and whole numbers are written alike in JSON and TOML
