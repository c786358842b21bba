"""Looking for subjects and following them."""

import numpy as np
import pytest

from streampose.server import follow
from streampose.server.follow import Follower
from streampose.structures import Keypoints

IMAGE = np.zeros((480, 640, 3), np.uint8)


def answer(*subjects: tuple[float, float, float]) -> Keypoints:
    """Keypoints of subjects given as (x, y, confidence): four joints at the corners of a 100 px square."""
    corners = np.array([[-50, -50], [50, -50], [-50, 50], [50, 50]], np.float32)
    xy = np.array([corners + np.float32([x, y]) for x, y, _ in subjects], np.float32).reshape(-1, 4, 2)
    return Keypoints(xy, np.array([[c] * 4 for _, _, c in subjects], np.float32).reshape(-1, 4))


def box_of(xy, confidence):
    return np.concatenate([xy.min(0), xy.max(0)])


def make(motion, **kwargs) -> Follower:
    return Follower(lambda image: motion() if callable(motion) else motion, box_of, padding=0.1, **kwargs)


def test_motion_before_a_static_camera_is_looked_at():
    follower = make(np.array([[100.0, 100.0, 140.0, 200.0]]))
    np.testing.assert_allclose(follower.boxes(IMAGE), [[60, 90, 180, 210]])


def test_without_knowledge_of_motion_the_whole_frame_is_looked_at():
    np.testing.assert_allclose(make(None).boxes(IMAGE), [[0, -80, 640, 560]])


def test_the_box_follows_the_keypoints_and_the_id_stays():
    follower = make(np.array([[200.0, 200.0, 300.0, 300.0]]))
    for n in range(40):
        x = 250 + 3 * n
        assert len(follower.boxes(IMAGE)) == 1
        assert follower.update(answer((x, 250, 0.8))).all()
    subject = follower.subjects[0]
    centre = (subject.box[0] + subject.box[2]) / 2
    assert subject.id == 0
    assert abs(centre - x) < 10  # lags by less than a tenth of the subject
    assert subject.box[2] - subject.box[0] == pytest.approx(100, abs=5)


def test_an_unsure_subject_that_does_not_move_is_given_up_and_looked_for_again():
    follower = make(None)
    follower.boxes(IMAGE)
    follower.update(answer((250, 250, 0.8)))
    for n in range(follow.PATIENCE):
        assert len(follower.subjects) == 1, n
        follower.boxes(IMAGE)
        follower.update(answer((250, 250, 0.3)))  # above the floor, but far below its usual 0.8
    assert follower.subjects == []
    follower.boxes(IMAGE)
    assert follower.subjects[0].id == 1


def test_an_unsure_subject_is_led_by_the_movement_and_keeps_its_id():
    moving = [np.array([[200.0, 200.0, 300.0, 300.0]])]
    follower = make(lambda: moving[0])
    for n in range(30):
        x = 200 + 5 * n
        moving[0] = np.array([[x, 200.0, x + 100, 300.0]])
        follower.boxes(IMAGE)
        assert follower.update(answer((320, 240, 0.05))).tolist() == [True], n  # the model has no idea
    subject = follower.subjects[0]
    assert subject.id == 0 and not subject.sure
    assert abs((subject.box[0] + subject.box[2]) / 2 - (x + 50)) < 15


def test_of_two_boxes_the_surer_one_wins_over_a_ghost():
    follower = make(np.array([[400.0, 300.0, 500.0, 400.0], [100.0, 100.0, 200.0, 200.0]]))
    for _ in range(3):
        boxes = follower.boxes(IMAGE)
        scores = [0.6 if box[0] < 300 else 0.05 for box in boxes]
        follower.update(
            answer(*[((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, s) for b, s in zip(boxes, scores, strict=True)])
        )
    assert len(follower.subjects) == 1 and follower.subjects[0].box[0] < 300


def test_what_is_unsure_at_first_sight_is_no_subject():
    follower = make(None)
    follower.boxes(IMAGE)
    assert not follower.update(answer((320, 240, 0.05))).any()
    assert follower.subjects == []


def test_on_an_empty_static_scene_the_whole_frame_is_tried_only_now_and_then():
    follower = make(np.zeros((0, 4)))
    tried = []
    for _ in range(3 * follow.LOOK_EVERY):
        boxes = follower.boxes(IMAGE)
        tried.append(len(boxes))
        follower.update(answer(*[(320, 240, 0.05)] * len(boxes)))
    assert sum(tried) == 3


def test_a_box_that_leaves_the_picture_is_given_up():
    follower = make(np.array([[560.0, 200.0, 640.0, 280.0]]))
    follower.boxes(IMAGE)
    follower.update(answer((630, 240, 0.8)))
    follower.boxes(IMAGE)
    kept = [follower.update(answer((720, 240, 0.8))).any()]
    while kept[-1] and len(kept) < 10:
        follower.boxes(IMAGE)
        kept.append(follower.update(answer((720, 240, 0.8))).any())
    assert not kept[-1]


def test_several_subjects_are_followed_but_never_the_same_one_twice():
    motion = np.array([[100.0, 100.0, 200.0, 200.0], [400.0, 100.0, 500.0, 200.0], [300.0, 300.0, 400.0, 400.0]])
    follower = make(motion, max_subjects=2)
    assert len(follower.boxes(IMAGE)) == 3  # one more is tried than are wanted
    kept = follower.update(answer((150, 150, 0.8), (450, 150, 0.4), (350, 350, 0.7)))
    assert kept.tolist() == [True, False, True]  # the surest two
    follower.boxes(IMAGE)
    for _ in range(10):
        kept = follower.update(answer(*[(150, 150, 0.8)] * len(follower.subjects)))
        follower.boxes(IMAGE)
        if len(kept) == 2 and not kept[1]:
            break
    assert kept.tolist() == [True, False]  # both boxes slid onto one subject: the later one goes


def test_a_sure_subject_far_from_all_movement_is_given_up():
    follower = make(np.array([[400.0, 300.0, 500.0, 400.0]]))
    follower.boxes(IMAGE)
    while follower.update(answer((100, 100, 0.9))).any():  # sure, but of a picture on the wall
        follower.learn(IMAGE)
        follower.boxes(IMAGE)
        assert follower._frame < 100
    assert follower._frame <= (follow.STRAY_LOOKS + 1) * follow.LOOK_EVERY


def test_a_box_that_shrank_is_led_back_to_the_size_of_what_moves():
    follower = make(np.array([[200.0, 100.0, 300.0, 300.0]]))  # (130, 80, 370, 320) when square and padded
    follower.boxes(IMAGE)
    follower.update(answer((250, 200, 0.9)))
    follower.subjects[0].box = np.array([200.0, 150.0, 300.0, 250.0], np.float32)
    follower._frame = follow.LOOK_EVERY
    follower._looked = False
    follower.learn(IMAGE)
    side = follower.subjects[0].box[2] - follower.subjects[0].box[0]
    assert side == 100  # too far off to be sure that it is the same: counted
    assert follower.subjects[0].stray_looks == 1
    follower.subjects[0].box = np.array([180.0, 130.0, 320.0, 270.0], np.float32)
    follower.learn(IMAGE)
    assert follower.subjects[0].box[2] - follower.subjects[0].box[0] == 140 + follow.BOX_STEP * (240 - 140)
    assert follower.subjects[0].stray_looks == 0


def test_who_stands_still_stays_while_all_movement_belongs_to_another():
    follower = make(np.array([[400.0, 300.0, 500.0, 400.0], [100.0, 100.0, 200.0, 200.0]]), max_subjects=2)
    follower.boxes(IMAGE)
    follower.update(answer((450, 350, 0.9), (150, 150, 0.9)))
    follower._find_motion = lambda image: np.array([[400.0, 300.0, 500.0, 400.0]])
    for _ in range(100):
        follower.learn(IMAGE)
        follower.boxes(IMAGE)
        assert follower.update(answer((450, 350, 0.9), (150, 150, 0.9))).all()


def test_nobody_is_a_valid_answer():
    follower = make(np.zeros((0, 4)))
    assert follower.boxes(IMAGE).shape == (0, 4)
    assert follower.update(answer()).shape == (0,)
