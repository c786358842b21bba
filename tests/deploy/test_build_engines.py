"""The script that builds engines ahead, called as a user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/build_engines.py"


def call(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_checks_without_a_gpu(walker_bundle):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; pip install tensorrt-rtx")
    done = call(walker_bundle, "--precision", "f16", "--precision", "int8", "--check")
    assert f"{walker_bundle} f16: tensorrt_rtx accepts it" in done.stdout
    assert done.returncode == 1 and "has no int8 graph" in done.stderr  # the other one was still built


def test_says_why_it_cannot_build(walker_bundle, tmp_path):
    done = call(tmp_path / "nothing")
    assert done.returncode == 1 and "no such model" in done.stderr and "Traceback" not in done.stderr
