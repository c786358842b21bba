import json
import os
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.formats.deepmimic import JOINTS, VALUES, matrices_from_quaternions, read_deepmimic


def frame(**values: list[float]) -> list[float]:
    row = [0.1, 1.0, 2.0, 3.0]
    for name, _, width in JOINTS:
        row += values.get(name, [1, 0, 0, 0] if width == 4 else [0.0])
    return row


def test_reads_joints_in_the_world(tmp_path):
    path = tmp_path / "move.txt"
    half = np.sqrt(0.5)
    frames = [frame(), frame(left_hip=[half, 0, 0, half], left_knee=[np.pi / 2])]  # 90 degrees about z, twice
    path.write_text(json.dumps({"Loop": "wrap", "Frames": frames}))
    motion = read_deepmimic(path)
    assert motion.loop and np.allclose(motion.times_seconds, [0, 0.1]) and np.allclose(motion.root[0], [1, 2, 3])
    assert np.allclose(motion.rotations[0], np.eye(3))
    knee = motion.names.index("left_knee")
    assert np.allclose(motion.rotations[1, knee] @ [1, 0, 0], [-1, 0, 0])
    assert np.allclose(motion.rotations[1, motion.names.index("right_knee")], np.eye(3))


def test_quaternions_of_any_length_give_rotations():
    rotations = matrices_from_quaternions(np.random.default_rng(0).normal(size=(20, 4)) * 5)
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(rotations), 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "not a DeepMimic motion"),
        ('{"Loop": "none"}', "Frames"),
        (json.dumps({"Frames": [[1, 2], [3, 4]]}), f"expected two or more of {VALUES} values"),
        (json.dumps({"Frames": [frame()]}), "two or more"),
    ],
)
def test_other_files_are_refused(tmp_path, text, reason):
    path = tmp_path / "move.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_deepmimic(path)


def test_real_motions():
    folder = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mocap/deepmimic"
    if not folder.is_dir():
        pytest.skip("needs the shared motion files: set STREAMPOSE_DATA to the data folder")
    walk = read_deepmimic(folder / "humanoid3d_walk.txt")
    assert 0.75 < walk.root[:, 1].mean() < 1.0
    assert walk.root[-1, 0] - walk.root[0, 0] > 0.8  # it walks forward, along x
    knees = walk.rotations[:, walk.names.index("left_knee")] @ [0, -1.0, 0]
    hips = walk.rotations[:, walk.names.index("left_hip")] @ [0, -1.0, 0]
    assert (np.cross(hips, knees)[:, 2] < 0.05).all()  # knees bend backwards only
