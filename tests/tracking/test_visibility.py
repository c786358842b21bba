"""Visible, occluded, absent."""

import numpy as np

from streampose.config import load_skeleton
from streampose.structures import Keypoints
from streampose.tracking.visibility import ABSENT, OCCLUDED, VISIBLE, cover, judge_visibility

SKELETON = load_skeleton("human17")
J = SKELETON.joints.index


def standing() -> tuple[np.ndarray, np.ndarray]:
    """The rest pose, 200 px tall: (K, 2), (K,)."""
    pose = np.zeros((SKELETON.num_joints, 3))
    for bone in SKELETON.bones:
        pose[bone.child] = pose[bone.parent] + bone.length * np.array(bone.direction)
    pose = pose * 200 + (150, 150, 0)
    return pose[:, :2], pose[:, 2]


def judge(xy, z, confidence=0.9, size=(300, 300), masks=None):
    confidence = np.broadcast_to(np.asarray(confidence, float), (1, len(xy))).copy()
    return judge_visibility(Keypoints(xy[None], confidence, None if z is None else z[None]), SKELETON, size, masks)[0]


def test_who_stands_before_the_camera_is_visible():
    xy, z = standing()
    seen = judge(xy, z)
    limbs = [k for k, name in enumerate(SKELETON.joints) if name.split("_")[-1] in ("ankle", "knee", "wrist", "elbow")]
    assert (seen[limbs] == VISIBLE).all()


def test_a_wrist_behind_the_trunk_is_occluded_and_before_it_visible():
    xy, z = standing()
    wrist, spine, thorax = J("left_wrist"), J("spine"), J("thorax")
    xy[wrist] = (xy[spine] + xy[thorax]) / 2
    for depth, expected in ((60.0, OCCLUDED), (-60.0, VISIBLE)):
        z[wrist] = z[spine] + depth
        assert judge(xy, z)[wrist] == expected
    z[wrist] = z[spine] + 60
    assert cover(xy, z, SKELETON)[wrist] > 0.2


def test_outside_of_the_picture_or_unknown_is_absent():
    xy, z = standing()
    confidence = np.full(len(xy), 0.9)
    confidence[J("left_knee")] = 0.02
    xy[J("right_ankle")] = (150, 305)
    seen = judge(xy, z, confidence)
    assert seen[J("right_ankle")] == ABSENT and seen[J("left_knee")] == ABSENT


def test_a_joint_off_the_mask_is_hidden():
    xy, _ = standing()
    mask = np.full((1, 300, 300), 255, np.uint8)
    x, y = np.rint(xy[J("left_ankle")]).astype(int)
    mask[0, y - 3 : y + 4, x - 3 : x + 4] = 0
    seen = judge(xy, None, masks=mask)
    assert seen[J("left_ankle")] == OCCLUDED and seen[J("right_ankle")] == VISIBLE


def test_nobody():
    empty = Keypoints(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 17)))
    assert judge_visibility(empty, SKELETON, (10, 10)).shape == (0, 17)
