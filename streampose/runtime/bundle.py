"""A bundle: one exported model in a folder, readable by machines without torch and safe to open from strangers.

    bundle.json          schema version, skeleton, sizes, method, provenance, metrics, sha256 of every other file
    model.onnx           uint8 crops (B, S, S, 3) -> keypoints (B, K, 3) crop pixels, confidence (B, K)
    model.int8.onnx      the same with quantised convolutions; only where it was exported with `--precision int8`
    weights.safetensors  the detector, for the torch runtime and for fine-tuning

A bundle of kind `lifter` takes 2D joints instead of pictures (`runtime/lifter.py` runs it); its model.onnx is
joints (R, K, 2), visibility (R, K), codes (R, Z) -> poses (R, K, 3) metres along the camera's axes, placement (R, 3).

Opening one reads JSON, ONNX and safetensors only: nothing is unpickled, no path leaves the folder, every file is
the one that bundle.json names by its sha256, sizes are bounded, and the graphs are checked by `runtime.graph_check`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streampose.config import skeleton_from_dict, skeleton_to_dict
from streampose.errors import BundleError, ConfigError
from streampose.runtime.graph_check import check_graph, check_lifter_graph
from streampose.structures import Skeleton

SCHEMA_VERSION = 1
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
WEIGHTS_FILE = "weights.safetensors"
FILES = (MODEL_FILE, WEIGHTS_FILE)  # that every bundle has
MAX_JSON_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
MAX_JOINTS = 1024
MAX_NAME = 80  # letters of a name that is shown to people
MAX_TENSORS = 20_000


KINDS = {
    "detector": "it reads pictures; name it with --model",
    "lifter": "it lifts 2D joints and reads no pictures; name it with --lifter, beside a --model",
}
MISSING = {
    "detector": "no such model; train one with `streampose selftrain`, or name one with --model",
    "lifter": "no such lifter; train one with `streampose selftrain --method hypotheses`, or name one with --lifter",
}


class LifterPart(BaseModel):
    """What bundle.json says of a lifter besides what it says of every model.

    Attributes:
        code_size: Z of the codes.
        least_metres: standard deviation that is added to what the hypotheses spread by.
        seen, missing: for each joint, the factor on its covariance after which the true joint of poses of the prior lay
            in the 90 % region as often as it says, where the joint was given and where it was missing.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    code_size: int = Field(ge=1, le=256)
    least_metres: float = Field(gt=0, le=10)
    seen: list[float]
    missing: list[float]


@dataclass(frozen=True)
class Bundle:
    """What a bundle's folder holds.

    Attributes:
        path: the folder.
        skeleton: the joints that the model predicts.
        input_size: side S of the square crops in pixels; 0 for a lifter.
        padding: the boxes that the model was trained on: the subject's mask box, made square, plus this share a side.
        method, preset: how it was trained and how large it is.
        precision: what it was exported for and checked with.
        provenance: run, step, creation time, version.
        metrics: {name: value} as measured when it was exported.
        sha256: {file: hex digest}.
        lifter: what a lifter needs to run; None for a detector.
    """

    path: Path
    skeleton: Skeleton
    input_size: int
    padding: float
    method: str
    preset: str
    precision: str
    provenance: dict[str, Any]
    metrics: dict[str, float]
    sha256: dict[str, str]
    lifter: LifterPart | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return "detector" if self.lifter is None else "lifter"

    @property
    def model_path(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def int8_path(self) -> Path | None:
        """The quantised graph; None where there is none."""
        return self.path / INT8_FILE if INT8_FILE in self.sha256 else None

    def graph_path(self, precision: str) -> Path:
        """The graph to run at a precision.

        Raises:
            BundleError: `int8`, and the bundle has no quantised graph.
        """
        if precision != "int8":
            return self.model_path
        if self.int8_path is None:
            raise BundleError(
                f"{self.path}: has no int8 graph; make one with `streampose export {self.path} --precision int8 "
                "--store STORE --out FOLDER`, or choose another --precision"
            )
        return self.int8_path

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS_FILE


class _BundleFile(BaseModel):
    model_config = ConfigDict(extra="ignore")  # fields may be added within a schema version

    schema_version: int
    skeleton: dict[str, Any]
    kind: Literal["detector", "lifter"] = "detector"
    input_size: int = Field(ge=16, le=1024)
    padding: float = Field(ge=0, le=2)
    method: str = Field(default="", max_length=MAX_NAME)
    preset: str = Field(default="", max_length=MAX_NAME)
    precision: str = Field(default="f32", max_length=MAX_NAME)
    provenance: dict[str, Any] = {}
    metrics: dict[str, float | None] = {}
    sha256: dict[str, str]
    lifter: LifterPart | None = None


def default_bundle() -> Path:
    """The model to use where none is named: ./models/current, else the one shipped with the package."""
    current = Path("models/current")
    shipped = Path(__file__).resolve().parent.parent / "default_bundle"
    return current if current.is_dir() or not shipped.is_dir() else shipped


def load_bundle(path: str | Path, kind: str | None = "detector") -> Bundle:
    """Open and verify a bundle.

    Args:
        kind: that it has to be of, one of `KINDS`; None for any.

    Raises:
        BundleError: of another kind, missing, damaged (a file is not what was exported), newer than this version, or
            unsafe.
    """
    path = Path(path)
    description = path / "bundle.json"
    if not path.is_dir():
        raise BundleError(f"{path}: {MISSING[kind or 'detector']}")
    if not description.is_file():
        raise BundleError(f"{path}: not a bundle (bundle.json is missing); export it again with `streampose export`")
    if description.resolve().parent != path.resolve():
        raise BundleError(f"{description}: a link that leaves the bundle; replace it by the file itself")
    read = _read_description(description)
    try:
        skeleton = skeleton_from_dict(read.skeleton, f"{description}: skeleton")
    except (ConfigError, ValueError, OverflowError) as error:
        message = " ".join(str(error).split())[:500]
        raise BundleError(f"{message}; export the model again") from None
    if kind is not None and read.kind != kind:
        raise BundleError(f"{path}: is a {read.kind}, not a {kind}: {KINDS[read.kind]}")
    if skeleton.num_joints > MAX_JOINTS:
        raise BundleError(f"{description}: {skeleton.num_joints} joints; at most {MAX_JOINTS} are accepted")
    for name in (skeleton.name, *skeleton.joints, read.method, read.preset):
        if len(name) > MAX_NAME or not name.isprintable() or set(name) & set("<>&\"'`"):
            raise BundleError(f"{description}: the name {name[:MAX_NAME]!r} is not accepted; export the model again")
    files = (*FILES, INT8_FILE) if INT8_FILE in read.sha256 else FILES
    for name in files:
        _verify_file(path, name, read.sha256.get(name))
    _check_weights(path / WEIGHTS_FILE)
    lifter = _lifter_part(description, read, skeleton.num_joints)
    bundle = Bundle(
        path=path,
        skeleton=skeleton,
        input_size=0 if lifter else read.input_size,
        padding=read.padding,
        method=read.method,
        preset=read.preset,
        precision=read.precision,
        provenance=read.provenance,
        metrics={name: value for name, value in read.metrics.items() if value is not None},
        sha256={name: read.sha256[name] for name in files},
        lifter=lifter,
    )
    for name in files:
        if name != WEIGHTS_FILE and lifter is not None:
            check_lifter_graph(path / name, skeleton.num_joints, lifter.code_size)
        elif name != WEIGHTS_FILE:
            check_graph(path / name, bundle.input_size, skeleton.num_joints)
    return bundle


def _lifter_part(description: Path, read: _BundleFile, num_joints: int) -> LifterPart | None:
    """What bundle.json says of a lifter; None for a detector."""
    if read.kind == "detector":
        return None
    if read.lifter is None:
        raise BundleError(f"{description}: says nothing of its lifter; export the model again")
    for factors in (read.lifter.seen, read.lifter.missing):
        if len(factors) != num_joints or not all(0 < factor < 1e6 for factor in factors):
            raise BundleError(f"{description}: lifter: needs one factor above 0 for each joint; export the model again")
    return read.lifter


def write_bundle(
    path: str | Path,
    *,
    model: Path,
    weights: Path,
    skeleton: Skeleton,
    input_size: int,
    padding: float,
    method: str,
    preset: str,
    provenance: dict[str, Any],
    metrics: dict[str, float] | None = None,
    precision: str = "f32",
    int8: Path | None = None,
    lifter: LifterPart | None = None,
) -> Bundle:
    """Put a bundle's files together and publish the folder by rename; what stood at `path` before is replaced.

    Args:
        model, weights, int8: files to copy in; `int8` is the quantised graph, where there is one.
        lifter: makes it a bundle of that kind.

    Raises:
        BundleError: `path` is something else than a bundle, or the files do not fit each other.
    """
    path = Path(path)
    if path.exists() and not (path / "bundle.json").is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError(f"{path}: exists and is not a bundle; choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        shutil.copyfile(model, staging / MODEL_FILE)
        shutil.copyfile(weights, staging / WEIGHTS_FILE)
        if int8 is not None:
            shutil.copyfile(int8, staging / INT8_FILE)
        content = {
            "schema_version": SCHEMA_VERSION,
            "kind": "detector" if lifter is None else "lifter",
            "method": method,
            "preset": preset,
            "precision": precision,
            "input_size": input_size,
            "padding": padding,
            "normalisation": "inside the graph: uint8 RGB / 255" if lifter is None else "inside the graph",
            "skeleton": skeleton_to_dict(skeleton),
            "provenance": provenance,
            "metrics": {name: float(value) for name, value in (metrics or {}).items() if value == value},
            "sha256": {file.name: _sha256(file) for file in sorted(staging.iterdir())},
        }
        if lifter is not None:
            content |= {"lifter": lifter.model_dump()}
        (staging / "bundle.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        staging.chmod(0o755)
        load_bundle(staging, None)
        _replace_folder(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_bundle(path, None)


def _check_weights(path: Path) -> None:
    """The file is safetensors: a list of numbers and nothing else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            count = len(list(file.keys()))
    except (SafetensorError, OSError, ValueError) as error:
        message = " ".join(str(error).split())[:80]
        raise BundleError(f"{path}: not a safetensors file ({message}); export the model again") from None
    if count > MAX_TENSORS:
        raise BundleError(f"{path}: holds {count} tensors, at most {MAX_TENSORS} are accepted; export the model again")


def _read_description(path: Path) -> _BundleFile:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BundleError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MB; this is not a bundle of streampose")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path}: not valid JSON ({str(error)[:80]}); export the model again") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"{path}: has no schema_version; this is not a bundle of streampose")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: written by a newer streampose (bundle schema {version}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade streampose, or export the model again with this one"
        )
    try:
        return _BundleFile.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        raise BundleError(f"{path}: {problems}; export the model again") from None


def _verify_file(folder: Path, name: str, digest: str | None) -> None:
    file = folder / name
    if not file.is_file():
        raise BundleError(f"{file}: missing from the bundle; copy the whole folder again, or export the model again")
    if file.resolve().parent != folder.resolve():
        raise BundleError(f"{file}: a link that leaves the bundle; replace it by the file itself")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BundleError(f"{file}: larger than {MAX_FILE_BYTES >> 30} GB; this is not a bundle of streampose")
    try:
        found = _sha256(file)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    if found != digest:
        raise BundleError(f"{file}: damaged (its sha256 is not the one in bundle.json); copy or export it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace_folder(new: Path, old: Path) -> None:
    """Move `new` to where `old` is; `old` may be missing, a folder, or a link to one (then the link is replaced)."""
    if old.is_symlink():
        old.unlink()
    if not old.exists():
        os.replace(new, old)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{old.name}.", dir=old.parent))
    os.replace(old, aside / "old")
    try:
        os.replace(new, old)
    except OSError:
        os.replace(aside / "old", old)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
