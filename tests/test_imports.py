"""Imports run one way; serving and annotating stay free of torch. Fails on an import that runs against the layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streampose"

# Who may import whom, below everything the foundation: errors, structures, config, console.
FOUNDATION = {"errors", "structures", "config", "console", "files", "report"}
MAY_IMPORT = {
    "errors": set(),
    "structures": {"errors"},
    "config": {"errors", "structures"},
    "console": {"errors"},
    "files": set(),
    "report": {"errors", "files"},
    "geometry": FOUNDATION,
    "models": FOUNDATION | {"geometry"},
    "losses": FOUNDATION,
    "metrics": FOUNDATION | {"geometry"},
    "video": FOUNDATION | {"geometry"},
    "masks": FOUNDATION | {"geometry"},
    "tracking": FOUNDATION | {"geometry", "masks"},
    "store": FOUNDATION | {"geometry"},
    "formats": FOUNDATION | {"geometry"},
    "synthetic": FOUNDATION | {"geometry", "video", "formats", "store"},
    "priors": FOUNDATION | {"geometry", "store", "formats", "synthetic", "metrics"},
    "training": FOUNDATION | {"geometry"},
    "methods": FOUNDATION
    | {"geometry", "models", "losses", "metrics", "training", "store", "masks", "synthetic", "formats"},
    "ingestion": FOUNDATION | {"geometry", "video", "masks", "tracking", "store"},
    "inspection": FOUNDATION | {"store", "video"},
    "runtime": FOUNDATION | {"geometry", "video", "tracking", "masks"},
    "evaluation": FOUNDATION
    | {"geometry", "metrics", "video", "masks", "store", "formats", "synthetic", "runtime", "methods"},
    "labelling": FOUNDATION | {"geometry", "metrics", "video", "store", "formats", "evaluation"},
    "server": FOUNDATION | {"geometry", "video", "tracking", "masks", "runtime", "store", "formats"},
}
EXCEPTIONS = {
    "runtime/torch.py": {"models"},  # eager PyTorch runs the network itself; the other runtimes never see it
    "methods/hypotheses_data.py": {"runtime"},  # the current 2D model reads the store's clips
    # other people's networks need torchvision, and only where they are asked for
    **{path: {"models"} for path in ("masks/sam.py", "masks/sam2.py", "tracking/detectors.py")},
}
VERBS = {path.stem for path in PACKAGE.glob("*.py")} - FOUNDATION - {"__init__", "cli"}


def imported_parts(path: Path) -> set[str]:
    """Top-level parts of streampose that a file imports, anywhere in it."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "streampose":
            names = node.module.split(".")[1:]
            parts |= {names[0]} if names else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("streampose.")}
    return {part for part in parts if not part.startswith("__")}


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_layers(part):
    folder = PACKAGE / part
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]
    wrong = {}
    for file in files:
        name = file.relative_to(PACKAGE).as_posix()
        if extra := imported_parts(file) - MAY_IMPORT[part] - {part} - EXCEPTIONS.get(name, set()):
            wrong[name] = sorted(extra)
    assert not wrong


def test_verbs_never_import_the_command_line():
    assert not [verb for verb in VERBS if "cli" in imported_parts(PACKAGE / f"{verb}.py")]


def test_every_module_belongs_to_a_known_part():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(MAY_IMPORT)


@pytest.mark.parametrize("modules", ["serve,server.app,server.session", "annotate,ingest,inspect,runtime.predictor"])
def test_serving_and_annotating_do_not_import_torch(modules):
    lines = [f"import streampose.{module}" for module in modules.split(",")]
    code = "import sys; " + "; ".join(lines) + "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
