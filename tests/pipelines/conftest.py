"""Pipelines are scripts and no package: they are loaded from their files."""

import importlib.util
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture(scope="session")
def load_pipeline():
    """`load_pipeline("label_loop.py")` is that script as a module."""

    def load(file: str):
        spec = importlib.util.spec_from_file_location(Path(file).stem + "_pipeline", PIPELINES / file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load
