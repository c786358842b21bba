import os
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.synthetic.body import procedural_body
from streampose.synthetic.motion import Region
from streampose.synthetic.retarget import find_motions, read_recording, recorded_motion, rotation_between
from streampose.synthetic.rig import BONE, BONES, bone_heads

RIG = procedural_body(np.random.default_rng(0)).rig


def arm_bvh(side_angle: float) -> str:
    """A T-posed person with MotionBuilder names whose left arm turns about the forward axis, z, by an angle."""

    def joint(name: str, offset: str, *children: str) -> str:
        inner = "\n".join(children) or "End Site\n{\nOFFSET 0 -1 0\n}"
        return f"JOINT {name}\n{{\nOFFSET {offset}\nCHANNELS 3 Zrotation Yrotation Xrotation\n{inner}\n}}"

    def limb(side: str, sign: int) -> list[str]:
        hand = joint(f"{side}Hand", f"{sign * 25} 0 0")
        arm = joint(f"{side}Arm", f"{sign * 18} 45 0", joint(f"{side}ForeArm", f"{sign * 28} 0 0", hand))
        foot = joint(f"{side}Foot", "0 -40 0")
        return [arm, joint(f"{side}UpLeg", f"{sign * 9} 0 0", joint(f"{side}Leg", "0 -42 0", foot))]

    body = "\n".join([*limb("Left", 1), *limb("Right", -1)])
    channels = "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
    head = f"HIERARCHY\nROOT Hips\n{{\nOFFSET 0 0 0\n{channels}\n"
    row = np.zeros(6 + 3 * 12)
    row[1], row[6] = 82, side_angle  # the hips' height; the left arm's channels come first after the hips'
    rows = "\n".join(" ".join(map(str, row)) for _ in range(30))
    return f"{head}{body}\n}}\nMOTION\nFrames: 30\nFrame Time: 0.04\n{rows}\n"


@pytest.mark.parametrize(("angle", "direction"), [(0, (0, 1, 0)), (-90, (0, 0, -1)), (90, (0, 0, 1))])
def test_arms_of_a_t_pose_are_carried_over_by_their_direction(tmp_path, angle, direction):
    path = tmp_path / "pose.bvh"
    path.write_text(arm_bvh(angle))
    recording = read_recording(path)
    for bone in ("left_upper_arm", "left_forearm"):
        assert np.allclose(recording.rotations[0, BONE[bone]] @ [0, 0, -1], direction, atol=1e-9)
    assert np.allclose(recording.rotations[0, BONE["right_upper_arm"]] @ [0, 0, -1], [0, -1, 0], atol=1e-9)
    assert np.allclose(recording.rotations[0, BONE["left_thigh"]], np.eye(3))
    assert np.allclose(recording.root[0], [0, 0, 1])  # the hips stand one leg's length over the origin


def test_a_recorded_motion_fits_a_region_and_the_ground(tmp_path):
    path = tmp_path / "pose.bvh"
    path.write_text(arm_bvh(-90))
    region = Region(np.array([3.0, 4.0]), np.eye(2), np.array([0.5, 0.5]))
    motion = recorded_motion(read_recording(path), RIG, region, 100, 25.0, np.random.default_rng(0))
    assert motion.rotations.shape == (100, len(BONES), 3, 3)  # longer than the recording: it goes back and forth
    assert np.allclose(motion.root[:, :2], [3, 4], atol=1e-6)
    feet = bone_heads(RIG, motion)[:, [BONE["left_foot"], BONE["right_foot"]], 2]
    assert np.allclose(feet, RIG.ankle_height, atol=1e-6)


def test_unusable_motion_sources_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no motion files"):
        find_motions(tmp_path)
    path = tmp_path / "other.bvh"
    path.write_text(arm_bvh(0).replace("LeftArm", "Wing"))
    assert find_motions(tmp_path) == find_motions(path) == [path]
    with pytest.raises(ConfigError, match=r"no joint for left_upper_arm \(looked for lShldr, LeftArm, LeftShoulder\)"):
        read_recording(path)


def test_rotation_between_directions():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(size=(2, 3))
        rotation = rotation_between(a, b)
        assert np.allclose(rotation @ a / np.linalg.norm(a), b / np.linalg.norm(b))
        assert np.allclose(rotation @ np.cross(a, b), np.cross(a, b))  # about the common normal: the smallest
    with pytest.raises(ValueError, match="opposite"):
        rotation_between(np.array([1.0, 0, 0]), np.array([-2.0, 0, 0]))


def test_real_motions_stand_upright():
    folder = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mocap"
    if not folder.is_dir():
        pytest.skip("needs the shared motion files: set STREAMPOSE_DATA to the data folder")
    motions = find_motions(folder)
    assert len(motions) > 40
    region = Region(np.zeros(2), np.eye(2), np.array([1.0, 1.0]))
    for name in ("salsa_03.bvh", "martial_04.bvh", "humanoid3d_walk.txt"):
        path = next(path for path in motions if path.name == name)
        motion = recorded_motion(read_recording(path), RIG, region, 60, 25.0, np.random.default_rng(0))
        heads = bone_heads(RIG, motion)
        assert np.median(heads[:, BONE["head"], 2] - motion.root[:, 2]) > 0.45
        assert np.abs(heads[:, [BONE["left_foot"], BONE["right_foot"]], 2].min(1) - RIG.ankle_height).mean() < 0.1
        elbows, shoulders = heads[:, BONE["left_forearm"]], heads[:, BONE["left_upper_arm"]]
        left = motion.rotations[:, BONE["chest"], :, 1]
        across = ((shoulders - heads[:, BONE["right_upper_arm"]]) * left).sum(1)
        assert (across > 0.2).all() and np.isfinite(elbows).all()
