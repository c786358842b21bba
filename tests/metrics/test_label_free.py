from __future__ import annotations

import numpy as np
import pytest

from streampose.config import load_skeleton, skeleton_from_dict
from streampose.metrics.label_free import (
    bone_fit,
    bone_lengths,
    inside_mask,
    jitter,
    left_right_swaps,
    mask_iou,
    mirror_distance,
    render_skeletons,
    subject_sizes,
)

STICK = skeleton_from_dict(
    {
        "name": "stick",
        "root": "a",
        "joints": ["a", "b"],
        "bones": [{"joints": ["a", "b"], "length": 0.8, "radius": 0.1}],
        "torso": ["a", "b"],
    }
)


def capsule(a, b, radius: float, size: int) -> np.ndarray:
    """The pixels within `radius` of the segment a-b, by definition."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    y, x = np.mgrid[:size, :size]
    p = np.stack([x, y], -1) - a
    r = np.clip((p @ (b - a)) / max(((b - a) ** 2).sum(), 1e-9), 0, 1)
    return (np.linalg.norm(p - r[..., None] * (b - a), axis=-1) <= radius) * np.uint8(255)


@pytest.mark.parametrize(("a", "b"), [((20, 12), (20, 50)), ((10.5, 14.2), (48.7, 41.1)), ((30, 30), (30, 30))])
def test_bones_are_drawn_as_capsules_of_their_radius(a, b):
    drawn = render_skeletons(np.array([[a, b]]), np.array([60.0]), STICK, 64)
    assert mask_iou(drawn, capsule(a, b, 6.0, 64)[None])[0] > 0.9


@pytest.mark.parametrize(("reach", "end"), [(0, 40), (1, 46), (2.5, 55)])
def test_flesh_ends_where_the_bone_reaches_to(reach, end):
    values = {"name": "stick", "root": "a", "joints": ["a", "b"], "torso": ["a", "b"]}
    bone = {"joints": ["a", "b"], "length": 0.8, "radius": 0.1, "reach": reach}
    skeleton = skeleton_from_dict({**values, "bones": [bone]})
    (drawn,) = render_skeletons(np.array([[[30.0, 12.0], [30.0, 40.0]]]), np.array([60.0]), skeleton, 64)
    assert np.flatnonzero(drawn.any(1)).max() == pytest.approx(end, abs=1)
    assert np.flatnonzero(drawn.any(1)).min() == pytest.approx(6, abs=1)
    (short,) = render_skeletons(np.array([[[30.0, 12.0], [30.0, 13.0]]]), np.array([60.0]), skeleton, 64)
    assert np.flatnonzero(short.any(1)).max() >= 17  # the flesh of a bone seen from its end stays around its start


def test_a_bone_with_a_missing_end_is_not_drawn():
    assert not render_skeletons(np.array([[[np.nan, 3], [20, 20]]]), np.array([60.0]), STICK, 64).any()


def test_a_person_is_filled_between_shoulders_and_hips():
    human = load_skeleton("human17")
    place = np.full((17, 2), np.nan)
    for name, xy in {
        "left_shoulder": (70, 30),
        "right_shoulder": (50, 30),
        "left_hip": (66, 60),
        "right_hip": (54, 60),
    }.items():
        place[human.joints.index(name)] = xy
    drawn = render_skeletons(place[None], np.array([100.0]), human, 128)[0]
    assert drawn[45, 52:68].all()


def test_mask_iou_by_hand():
    a, b = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)
    a[0, :4] = 255
    b[0, 2:6] = 255
    values = mask_iou(a, b)
    assert values[0] == pytest.approx(16 / 48)
    assert np.isnan(values[1])  # no mask, no number


def test_inside_mask_by_hand():
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, 2, 5] = 255  # row 2, column 5
    xy = np.array([[[5.4, 1.6], [2.0, 5.0], [-3.0, 2.0], [np.nan, 2.0]]] * 2)
    np.testing.assert_array_equal(inside_mask(xy, masks)[0], [1, 0, 0, 0])
    assert np.isnan(inside_mask(xy, masks)[1]).all()


def test_jitter_is_zero_in_even_motion_at_uneven_times():
    seconds = np.array([0, 0.03, 0.1, 0.12, 0.2])
    xy = seconds[:, None, None] * np.array([[[30.0, -10.0], [0.0, 0.0]]])
    np.testing.assert_allclose(jitter(xy, seconds, np.full(5, 100.0)), 0, atol=1e-6)


def test_jitter_measures_acceleration_in_body_sizes():
    seconds = np.arange(20) / 25
    xy = 0.5 * 40 * seconds[:, None, None] ** 2 * np.array([[[1.0, 0.0]]])  # 40 px/s^2
    np.testing.assert_allclose(jitter(xy, seconds, np.full(20, 80.0)), 0.5, rtol=1e-6)


def test_jitter_does_not_bridge_gaps():
    seconds = np.array([0, 0.04, 0.08, 5.0, 5.04, 5.08])
    xy = np.zeros((6, 1, 2))
    xy[3:] = 1000
    values = jitter(xy, seconds, np.full(6, 10.0))
    np.testing.assert_array_equal(np.isnan(values[:, 0]), [False, True, True, False])
    assert jitter(xy[:2], seconds[:2], np.full(2, 10.0)).shape == (0, 1)


def test_left_right_swaps_are_counted():
    seconds = np.arange(6) / 25
    xy = np.zeros((6, 2, 2))
    xy[:, 0] = [40, 0]
    xy[3:] = xy[3:, ::-1]  # from the fourth frame on the names are exchanged
    found = left_right_swaps(xy, seconds, np.full(6, 100.0), ((0, 1),))
    np.testing.assert_array_equal(found[:, 0], [0, 0, 1, 0, 0])


def test_joints_that_cross_each_other_are_not_swaps():
    seconds = np.arange(41) / 25
    xy = np.zeros((41, 2, 2))
    xy[:, 0, 0] = np.linspace(-30, 30, 41)
    xy[:, 1, 0] = np.linspace(30, -30, 41)
    assert np.nansum(left_right_swaps(xy, seconds, np.full(41, 100.0), ((0, 1),))) == 0


def test_subject_size_remembers_the_standing_height():
    masks = np.zeros((50, 64, 64), np.uint8)
    masks[:, 30:62, 20:30] = 255  # sitting: 32 of 64 pixels
    masks[10:20, 4:62, 20:30] = 255  # standing: 58
    boxes = np.tile([0.0, 0.0, 128.0, 128.0], (50, 1))
    sizes = subject_sizes(masks, boxes, np.arange(50) / 10)
    assert sizes[15] == pytest.approx(116)
    assert sizes[30] == pytest.approx(116)  # it stood not long ago
    assert sizes[49] == pytest.approx(64)  # it stood more than three seconds ago


def test_bone_lengths_by_hand():
    human = load_skeleton("human17")
    xy = np.zeros((2, 17, 2))
    bone = human.bones[1]
    xy[0, bone.child] = [30, 40]
    found = bone_lengths(xy, np.array([100.0, 100.0]), human)
    assert found[0, 1] == pytest.approx(0.5) and found[1, 1] == 0


def test_bone_fit_is_of_the_longest_projections():
    human = load_skeleton("human17")
    true = np.array([bone.length for bone in human.bones])
    shares = np.abs(np.sin(np.linspace(0, np.pi, 200)))[:, None]  # a body that turns: every bone is foreshortened
    assert bone_fit(true * shares, human) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(bone_fit(2 * true * shares, human), 0.5, atol=0.02)
    np.testing.assert_allclose(bone_fit(0.5 * true * shares, human), 0.5, atol=0.02)


def test_bones_that_are_never_seen_have_no_fit():
    human = load_skeleton("human17")
    lengths = np.tile([bone.length for bone in human.bones], (5, 1))
    lengths[:, 3] = np.nan
    lengths[0, 4] = np.nan
    found = bone_fit(lengths, human)
    assert np.isnan(found[3]) and found[4] == pytest.approx(1)
    assert np.isnan(bone_fit(np.zeros((0, len(human.bones))), human)).all()
    assert (bone_fit(np.zeros((3, len(human.bones))), human) < 1e-3).all()  # all joints in one place


def test_mirror_distance_exchanges_left_and_right():
    xy = np.array([[[0.0, 0.0], [10.0, 0.0], [30.0, 0.0]]])
    mirrored = xy[:, [0, 2, 1]]  # in the mirror the right hand is called left
    np.testing.assert_array_equal(mirror_distance(xy, mirrored, np.array([100.0]), [0, 2, 1]), [[0, 0, 0]])
    np.testing.assert_allclose(mirror_distance(xy, xy, np.array([100.0]), [0, 2, 1]), [[0, 0.2, 0.2]])
