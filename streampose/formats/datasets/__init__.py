"""Datasets with labels, in the layouts in which they are handed out; the users bring them.

Adding a dataset: write `read_<name>(folder) -> Labelled`, list it in DATASETS, and build a tiny one in its test.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from streampose.errors import ConfigError
from streampose.formats.datasets.coco import read_coco_keypoints
from streampose.formats.datasets.human36m import read_human36m
from streampose.formats.datasets.labelled import Labelled
from streampose.formats.datasets.lsp import read_lsp, read_lspet
from streampose.formats.datasets.mpi_inf_3dhp import read_mpi_inf_3dhp
from streampose.formats.datasets.mpii import read_mpii

DATASETS: dict[str, Callable[[Path], Labelled]] = {
    "h36m": read_human36m,
    "h36m-simplified": partial(read_human36m, simplified=True),
    "3dhp": read_mpi_inf_3dhp,
    "mpii": read_mpii,
    "lsp": read_lsp,
    "lspet": read_lspet,
    "coco": read_coco_keypoints,
}


def read_dataset(spec: str) -> Labelled:
    """Read the test part of a dataset that is named with its folder, as in `lsp:PATH`.

    Raises:
        ConfigError: no such dataset, or its folder has another layout.
    """
    name, colon, folder = spec.partition(":")
    if name not in DATASETS or not colon or not folder:
        raise ConfigError(f"--dataset {spec}: expected NAME:FOLDER with one of {', '.join(DATASETS)}")
    if not Path(folder).is_dir():
        raise ConfigError(f"{folder}: no such folder; it must hold {name} as it is handed out")
    return DATASETS[name](Path(folder))
