import cv2
import numpy as np
import pytest

from streampose.geometry.distortion import project
from streampose.structures import Camera
from streampose.tracking.across_views import Candidate, choose_subject, find_candidates, in_view, levelled, upwards

SIZE = (640, 480)
MAN, BYSTANDER = (
    (np.array([0.1, 0.2, 1.8]), np.array([0.1, 0.2, 0.0])),
    (np.array([2.0, 1.0, 1.7]), np.array([2.0, 1.0, 0.0])),
)


def camera(degrees, roll=0.0, up=(0, 0, 1)):
    """A camera 5 m from the z axis that looks at the middle of a person, rolled about its own axis."""
    place = np.array([5 * np.cos(np.radians(degrees)), 5 * np.sin(np.radians(degrees)), 1.6])
    forward = np.array([0, 0, 0.9]) - place
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right = right / np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    R = cv2.Rodrigues(np.array([0, 0, np.radians(roll)]))[0] @ R
    if up != (0, 0, 1):  # the same scene in a world whose y axis points down
        turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        R, place = R @ turn.T, turn @ place
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    return Camera(K, R, -R @ place, SIZE)


CAMERAS = [camera(0, 20), camera(80), camera(190, -28), camera(270, 5)]


def seen(person, view, score=0.6, shift=(0, 0)):
    return Candidate(project(np.stack(person), CAMERAS[view]) + shift, score)


def noise(rng, number):
    found = []
    for _ in range(number):
        x, y, height = rng.uniform(0, 640), rng.uniform(0, 300), rng.uniform(60, 250)
        found.append(Candidate(np.array([[x, y], [x, y + height]]), rng.uniform(0.36, 0.42)))
    return found


def test_up_is_the_axis_that_rolled_cameras_agree_about():
    np.testing.assert_array_equal(upwards(CAMERAS), [0, 0, 1])
    np.testing.assert_array_equal(upwards([camera(a, r, up=(0, -1, 0)) for a, r in ((0, 20), (90, -25))]), [0, -1, 0])


def test_a_levelled_picture_shows_people_upright():
    for one in CAMERAS:
        affine, size = levelled(one, np.array([0.0, 0, 1]))
        head, foot = project(np.stack(MAN), one) @ affine[:, :2].T + affine[:, 2]
        assert foot[1] - head[1] > 100 and abs(foot[0] - head[0]) < 0.05 * (foot[1] - head[1])
        corners = np.array([[0, 0], [640, 0], [0, 480], [640, 480]]) @ affine[:, :2].T + affine[:, 2]
        assert (corners > -2).all() and (corners < np.array(size) + 2).all()  # nothing is cut off


def test_candidates_are_given_in_pixels_of_the_source():
    one = CAMERAS[0]
    affine, _ = levelled(one, np.array([0.0, 0, 1]))
    head, foot = project(np.stack(MAN), one) @ affine[:, :2].T + affine[:, 2]

    def detect(image):
        assert image.shape == (720, levelled(one, np.array([0.0, 0, 1]))[1][0], 3)
        x = (head[0] + foot[0]) / 2
        return np.array([[x - 30, head[1], x + 30, foot[1]]]), np.array([0.8])

    (found,) = find_candidates(np.zeros((480, 640, 3), np.uint8), one, np.array([0.0, 0, 1]), detect)
    np.testing.assert_allclose(found.line, project(np.stack(MAN), one), atol=4)
    assert found.score == 0.8


@pytest.mark.parametrize("seed", range(5))
def test_who_is_seen_doubtfully_by_all_goes_before_who_is_seen_clearly_by_some(seed):
    rng = np.random.default_rng(seed)
    found = [[seen(MAN, v, 0.52, rng.normal(0, 6, 2)), *noise(rng, 4)] for v in range(4)]
    for v in (0, 1):
        found[v].append(seen(BYSTANDER, v, 0.8))
    subject = choose_subject(found, CAMERAS)
    assert subject.seen.all()
    np.testing.assert_allclose(subject.head, MAN[0], atol=0.15)
    np.testing.assert_allclose(subject.foot, MAN[1], atol=0.15)
    assert all(in_view(subject, one) for one in CAMERAS)


def test_a_view_that_misses_the_subject_does_not_keep_it_from_being_found():
    subject = choose_subject([[seen(MAN, 0)], [], [seen(MAN, 2)], [seen(BYSTANDER, 3, 0.9)]], CAMERAS)
    assert subject.seen.tolist() == [True, False, True, False]
    np.testing.assert_allclose(subject.head, MAN[0], atol=1e-6)


def test_nobody_is_chosen_where_no_two_views_agree():
    assert choose_subject([[], [], [], []], CAMERAS) is None
    assert choose_subject([[seen(MAN, 0)], [seen(BYSTANDER, 1)], [], []], CAMERAS) is None
    lying = (np.array([0.9, 0, 0.3]), np.array([-0.9, 0, 0.3]))
    assert choose_subject([[seen(lying, v)] for v in range(4)], CAMERAS) is None
    giant = (np.array([0, 0, 3.5]), np.array([0.0, 0, 0]))
    assert choose_subject([[seen(giant, v)] for v in range(4)], CAMERAS) is None
