import os
from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.synthetic.body import skin_body
from streampose.synthetic.makehuman import read_makehuman
from streampose.synthetic.rig import BONE, BONES, Motion, bone_heads, bone_transforms, landmarks_3d


@pytest.fixture(scope="module")
def model():
    data = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (data / "bodies/makehuman").is_dir():
        pytest.skip("needs the shared MakeHuman mesh: set STREAMPOSE_DATA to the data folder")
    return read_makehuman(data / "bodies/makehuman")


def test_people_differ_in_shape_and_have_all_joints(model):
    people = [model.person(np.random.default_rng(seed)) for seed in range(4)]
    heights = [np.ptp(person.vertices[:, 2]) for person in people]
    assert min(heights) > 1.45 and max(heights) < 2.05 and np.ptp(heights) > 0.05
    for person in people:
        assert np.allclose(person.weights.sum(1), 1, atol=1e-4)
        assert set(load_skeleton("human17").joints) | set(load_skeleton("coco17").joints) <= set(person.rig.landmarks)
        lengths = np.array([*person.rig.leg, *person.rig.arm]) / np.ptp(person.vertices[:, 2])
        assert np.allclose(lengths, [0.24, 0.245, 0.15, 0.145], atol=0.025)


def test_the_rest_pose_hangs_the_arms_and_joints_stay_inside(model):
    person = model.person(np.random.default_rng(0))
    rest = Motion(np.tile(np.eye(3), (1, len(BONES), 1, 1)), np.zeros((1, 3)))
    transforms = bone_transforms(person.rig, rest)
    vertices, _ = skin_body(person, transforms[0])
    assert np.ptp(vertices[:, 1]) < 0.75 * np.ptp(person.vertices[:, 1])  # modelled with the arms away from the body
    heads = bone_heads(person.rig, rest)[0]
    for name in ("left_hand", "right_hand", "left_shin", "right_foot", "left_forearm"):
        assert np.linalg.norm(vertices - heads[BONE[name]], axis=1).min() < 0.09
    nose, top, left, right = landmarks_3d(person.rig, transforms, ("nose", "head", "left_wrist", "right_wrist"))[0]
    assert top[2] == pytest.approx(vertices[:, 2].max(), abs=0.03) and nose[0] > 0.08 and left[1] > 0 > right[1]


def test_bending_a_knee_moves_the_shin_only(model):
    person = model.person(np.random.default_rng(1))
    rotations = np.tile(np.eye(3), (2, len(BONES), 1, 1))
    back = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])  # the shin points backwards
    rotations[1, [BONE["left_shin"], BONE["left_foot"]]] = back
    transforms = bone_transforms(person.rig, Motion(rotations, np.zeros((2, 3))))
    still, bent = (skin_body(person, moved)[0] for moved in transforms)
    moved = np.linalg.norm(bent - still, axis=1) > 0.01
    part = person.weights.argmax(1)
    assert moved[np.isin(part, [BONE["left_shin"], BONE["left_foot"]])].mean() > 0.9
    assert not moved[np.isin(part, [BONE["right_shin"], BONE["head"], BONE["left_hand"]])].any()
    assert landmarks_3d(person.rig, transforms, ("left_ankle",))[1, 0, 0] < -0.2


def test_a_folder_without_the_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"base\.obj: cannot be read"):
        read_makehuman(tmp_path)
    (tmp_path / "base.obj").write_text("v 0 0 0\n")
    (tmp_path / "rig.cmu_mb.json").write_text("{}")
    (tmp_path / "weights.cmu_mb.json").write_text('{"weights": {}}')
    with pytest.raises(ConfigError, match="not the MakeHuman model"):
        read_makehuman(tmp_path)
