import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.formats.openpose import MODELS
from streampose.priors.names import match_joints, split_side

HUMAN, COCO, MOUSE = (load_skeleton(name) for name in ("human17", "coco17", "mouse"))
H36M = (
    "Hip RHip RKnee RFoot LHip LKnee LFoot Spine Thorax Neck/Nose Head LShoulder LElbow LWrist RShoulder RElbow RWrist"
)
MIXAMO = (
    "mixamorig:Hips mixamorig:Spine mixamorig:Spine1 mixamorig:Neck mixamorig:Head mixamorig:LeftShoulder "
    "mixamorig:LeftArm mixamorig:LeftForeArm mixamorig:LeftHand mixamorig:LeftUpLeg mixamorig:LeftLeg "
    "mixamorig:LeftFoot mixamorig:RightShoulder mixamorig:RightArm mixamorig:RightForeArm mixamorig:RightHand "
    "mixamorig:RightUpLeg mixamorig:RightLeg mixamorig:RightFoot"
)
POSER = (
    "hip abdomen chest neck head lCollar lShldr lForeArm lHand lThigh lShin lFoot rShldr rForeArm rThigh rShin rFoot"
)


def named(theirs, skeleton=HUMAN, given=None):
    return {ours: theirs[place] for ours, place in match_joints(theirs, skeleton, given).items()}


@pytest.mark.parametrize(
    "name",
    ["left_knee", "LeftKnee", "lKnee", "LKnee", "knee_l", "knee.L", "Left Knee", "mixamorig:LeftKnee", "leftknee"],
)
def test_spellings_of_one_joint(name):
    assert split_side(name) == ("left", "knee")
    assert named([name]) == {"left_knee": name}


def test_human36m_and_motion_capture_names():
    assert [named(H36M.split())[joint] for joint in HUMAN.joints] == H36M.split()
    found = named(MIXAMO.split())
    assert found["left_shoulder"] == "mixamorig:LeftArm"  # its LeftShoulder is the collar bone's joint
    assert found["right_hip"] == "mixamorig:RightUpLeg" and found["pelvis"] == "mixamorig:Hips"
    assert found["left_ankle"] == "mixamorig:LeftFoot" and found["left_wrist"] == "mixamorig:LeftHand"
    found = named(POSER.split())
    assert (found["pelvis"], found["left_hip"], found["right_elbow"]) == ("hip", "lThigh", "rForeArm")
    assert found["left_shoulder"] == "lShldr"


def test_other_tools_and_animals():
    assert set(COCO.joints) <= set(named(MODELS["BODY_25"], COCO))
    found = named(["snout", "leftear", "rightear", "tailbase"], MOUSE)
    assert found == {"nose": "snout", "left_ear": "leftear", "right_ear": "rightear", "tail_base": "tailbase"}
    assert named(["L1A", "L1B"], MOUSE) == {}


def test_what_is_given_goes_first():
    found = named(["paw", "nose", "snout"], MOUSE, {"snout": "nose", "paw": "left_hip"})
    assert found == {"nose": "snout", "left_hip": "paw"}
    with pytest.raises(ConfigError, match="the file has no joint tail"):
        match_joints(["nose"], MOUSE, {"tail": "tail_tip"})
    with pytest.raises(ConfigError, match="skeleton mouse has no joint knee"):
        match_joints(["nose"], MOUSE, {"nose": "knee"})
