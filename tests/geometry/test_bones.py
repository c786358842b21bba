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


def test_bones_give_way_in_depth_first():
    rng = np.random.default_rng(1)
    poses = rng.normal(0, 0.3, (40, 17, 3))
    wanted = np.full(16, 0.35)
    fitted = {depth: with_bones(poses, HUMAN, wanted, scale_root=False, depth=depth) for depth in (1.0, 3.0, 30.0)}
    for found in fitted.values():
        np.testing.assert_allclose(bone_lengths(found, HUMAN), np.full((40, 16), 0.35), atol=1e-6)
    parents, children = ([getattr(bone, end) for bone in HUMAN.bones] for end in ("parent", "child"))
    moved = [
        np.abs((f[:, children] - f[:, parents]) - (poses[:, children] - poses[:, parents])) for f in fitted.values()
    ]
    flat = [change[..., :2].mean() for change in moved]
    assert flat[0] > 1.15 * flat[1] > 1.05 * flat[2]
    # A bone that is seen too short by half: its way in the picture stays, its depth grows.
    one = np.zeros((1, 17, 3))
    for bone in HUMAN.bones:
        one[:, bone.child] = one[:, bone.parent] + (0.2, 0.0, 0.02)
    found = with_bones(one, HUMAN, np.full(16, 0.4), scale_root=False, depth=30.0)
    np.testing.assert_allclose(found[0, 1], (0.2, 0, np.sqrt(0.4**2 - 0.2**2)), atol=0.002)
    np.testing.assert_allclose(
        with_bones(one * (1, 1, -1), HUMAN, np.full(16, 0.4), depth=30.0)[0, 1, 2], -found[0, 1, 2]
    )
    assert np.isnan(with_bones(np.zeros((1, 17, 3)), HUMAN, wanted, depth=3.0)[0, 1:]).all()
