import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.geometry.bones import bone_lengths, with_bones

HUMAN = load_skeleton("human17")


def test_lengths_and_their_change():
    poses = np.random.default_rng(0).normal(0, 1, (5, 3, 17, 3))
    poses[0, 0, 3] = np.nan
    lengths = bone_lengths(poses, HUMAN)
    assert lengths.shape == (5, 3, 16) and np.isnan(lengths[0, 0]).sum() == 1
    assert lengths[1, 2, 0] == pytest.approx(np.linalg.norm(poses[1, 2, 1] - poses[1, 2, 0]))
    wanted = np.linspace(0.1, 0.4, 16)
    for scale_root in (True, False):
        found = with_bones(poses[1], HUMAN, wanted, scale_root=scale_root)
        np.testing.assert_allclose(bone_lengths(found, HUMAN), np.broadcast_to(wanted, (3, 16)))
        np.testing.assert_allclose(
            np.linalg.norm(found[:, 0], axis=-1) == np.linalg.norm(poses[1][:, 0], axis=-1), not scale_root
        )
    with np.errstate(all="raise"):
        assert np.isnan(with_bones(np.zeros((1, 17, 3)), HUMAN, wanted)[0, 1:]).all()
