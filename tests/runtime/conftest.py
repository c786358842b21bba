import pytest
import torch

from streampose.config import load_skeleton
from streampose.export import export_detector
from streampose.models.detector import build_detector


@pytest.fixture(scope="session")
def detector():
    """An untrained detector of 17 joints on 64 px crops."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return build_detector("tiny", 17, 64).eval()


@pytest.fixture(scope="session")
def bundle_path(detector, tmp_path_factory):
    """That detector as a bundle; copy it before changing it."""
    path = tmp_path_factory.mktemp("models") / "current"
    export_detector(detector, load_skeleton("human17"), 64, path, padding=0.2, method="mask", preset="tiny")
    return path
