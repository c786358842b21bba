"""A bundle: one exported model in a folder, readable by machines without torch and safe to open from strangers.

    bundle.json          schema version, skeleton, sizes, method, provenance, metrics, sha256 of every other file
    model.onnx           uint8 crops (B, S, S, 3) -> keypoints (B, K, 3) crop pixels, confidence (B, K)
    weights.safetensors  the detector, for the torch runtime and for fine-tuning

Opening one reads JSON, ONNX and safetensors only: nothing is unpickled, no path leaves the folder, sizes are bounded,
and the graph may use standard ONNX operators only, without control flow or data kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streampose.config import skeleton_from_dict, skeleton_to_dict
from streampose.errors import BundleError, ConfigError
from streampose.structures import Skeleton

SCHEMA_VERSION = 1
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"
FILES = (MODEL_FILE, WEIGHTS_FILE)
MAX_JSON_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
FORBIDDEN_OPERATORS = {"Loop", "Scan", "If", "SequenceMap", "StringNormalizer", "TfIdfVectorizer"}


@dataclass(frozen=True)
class Bundle:
    """What a bundle's folder holds.

    Attributes:
        path: the folder.
        skeleton: the joints that the model predicts.
        input_size: side S of the square crops in pixels.
        padding: the boxes that the model was trained on: the subject's mask box, made square, plus this share a side.
        method, preset: how it was trained and how large it is.
        precision: what the weights in the graph are: `f32`.
        provenance: run, step, creation time, version.
        metrics: {name: value} as measured when it was exported.
        sha256: {file: hex digest}.
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

    @property
    def model_path(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS_FILE


class _BundleFile(BaseModel):
    model_config = ConfigDict(extra="ignore")  # fields may be added within a schema version

    schema_version: int
    skeleton: dict[str, Any]
    input_size: int = Field(ge=16, le=1024)
    padding: float = Field(ge=0, le=2)
    method: str = ""
    preset: str = ""
    precision: str = "f32"
    provenance: dict[str, Any] = {}
    metrics: dict[str, float | None] = {}
    sha256: dict[str, str]


def default_bundle() -> Path:
    """The model to use where none is named: ./models/current, else the one shipped with the package."""
    current = Path("models/current")
    shipped = Path(__file__).resolve().parent.parent / "default_bundle"
    return current if current.is_dir() or not shipped.is_dir() else shipped


def load_bundle(path: str | Path) -> Bundle:
    """Open and verify a bundle.

    Raises:
        BundleError: missing, damaged (a file is not what was exported), newer than this version, or unsafe.
    """
    path = Path(path)
    description = path / "bundle.json"
    if not path.is_dir():
        raise BundleError(f"{path}: no such model; train one with `streampose selftrain`, or name one with --model")
    if not description.is_file():
        raise BundleError(f"{path}: not a bundle (bundle.json is missing); export it again with `streampose export`")
    read = _read_description(description)
    try:
        skeleton = skeleton_from_dict(read.skeleton, f"{description}: skeleton")
    except ConfigError as error:
        raise BundleError(f"{error}; export the model again") from None
    if skeleton.num_joints > 1024:
        raise BundleError(f"{description}: {skeleton.num_joints} joints; at most 1024 are accepted")
    for name in FILES:
        _verify_file(path, name, read.sha256.get(name))
    bundle = Bundle(
        path=path,
        skeleton=skeleton,
        input_size=read.input_size,
        padding=read.padding,
        method=read.method,
        preset=read.preset,
        precision=read.precision,
        provenance=read.provenance,
        metrics={name: value for name, value in read.metrics.items() if value is not None},
        sha256={name: read.sha256[name] for name in FILES},
    )
    check_graph(bundle.model_path, bundle.input_size, skeleton.num_joints)
    return bundle


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
) -> Bundle:
    """Put a bundle's files together and publish the folder by rename; what stood at `path` before is replaced.

    Args:
        model, weights: files to copy in.

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
        content = {
            "schema_version": SCHEMA_VERSION,
            "method": method,
            "preset": preset,
            "precision": precision,
            "input_size": input_size,
            "padding": padding,
            "normalisation": "inside the graph: uint8 RGB / 255",
            "skeleton": skeleton_to_dict(skeleton),
            "provenance": provenance,
            "metrics": {name: float(value) for name, value in (metrics or {}).items() if value == value},
            "sha256": {name: _sha256(staging / name) for name in FILES},
        }
        (staging / "bundle.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        staging.chmod(0o755)
        load_bundle(staging)
        _replace_folder(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_bundle(path)


def check_graph(path: Path, input_size: int, num_joints: int) -> None:
    """Refuse a graph that could read files, run unknown code or does not have the bundle's inputs and outputs.

    Raises:
        BundleError: in one line.
    """
    import onnx
    from google.protobuf.message import DecodeError

    mend = "do not use this bundle; export the model again"
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise BundleError(f"{path}: not an ONNX file ({' '.join(str(error).split())[:80]}); {mend}") from None
    if len(model.functions) or any(opset.domain not in ("", "ai.onnx") for opset in model.opset_import):
        raise BundleError(f"{path}: uses operators outside the ONNX standard; {mend}")
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type in FORBIDDEN_OPERATORS:
            raise BundleError(f"{path}: uses the operator {node.domain}{node.op_type}, which is not accepted; {mend}")
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        if any(attribute.HasField("g") or len(attribute.graphs) for attribute in node.attribute):
            raise BundleError(f"{path}: holds a graph inside the operator {node.op_type}; {mend}")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) for tensor in tensors):
        raise BundleError(f"{path}: keeps weights outside of the file; {mend}")
    found = {
        value.name: [d.dim_value or None for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    expected = {
        "crops": [None, input_size, input_size, 3],
        "keypoints": [None, num_joints, 3],
        "confidence": [None, num_joints],
    }
    if found != expected:
        raise BundleError(f"{path}: has inputs and outputs {found}, bundle.json says {expected}; {mend}")


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
        problems = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
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
