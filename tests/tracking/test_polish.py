"""All that is done to followed keypoints, together."""

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.structures import Keypoints
from streampose.tracking.polish import SMOOTHINGS, Polish

SKELETON = load_skeleton("human17")
BOX = np.array([[0.0, 0.0, 200.0, 200.0]])


def keypoints(xy: np.ndarray) -> Keypoints:
    N, K, _ = xy.shape
    return Keypoints(xy, np.full((N, K), 0.9), np.zeros((N, K)))


def pose(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(20, 180, (1, SKELETON.num_joints, 2))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_noise_is_smoothed_as_far_as_asked(smoothing):
    rng, polish, still, out = np.random.default_rng(0), Polish(SKELETON, smoothing=smoothing), pose(), []
    for n in range(60):
        answer = keypoints(still + rng.normal(size=still.shape))
        out.append(polish.apply(answer, (7,), BOX, (200, 200), n / 30).keypoints.xy)
    spread = np.array(out)[20:].std(0).mean()
    assert spread > 0.9 if smoothing == "none" else spread < 0.75


def test_a_jump_is_held_and_said():
    polish, still = Polish(SKELETON, smoothing="none"), pose()
    for n in range(5):
        polish.apply(keypoints(still), (1,), BOX, (200, 200), n / 30)
    jumped = still.copy()
    jumped[0, 4] += 70
    result = polish.apply(keypoints(jumped), (1,), BOX, (200, 200), 5 / 30)
    assert result.held[0].sum() == 1 and result.held[0, 4]
    np.testing.assert_allclose(result.keypoints.xy, still, atol=1e-9)
    assert result.keypoints.confidence[0, 4] == pytest.approx(0.45)


def test_exchanged_sides_are_put_back_and_said_once():
    polish, still = Polish(SKELETON, smoothing="none"), pose()
    said = []
    for n in range(12):
        xy = still[:, SKELETON.flip_index] if 5 <= n < 8 else still
        result = polish.apply(keypoints(xy), (1,), BOX, (200, 200), n / 30)
        np.testing.assert_allclose(result.keypoints.xy, still, atol=1e-9)
        said.append(bool(result.swapped[0]))
    assert [n for n, swapped in enumerate(said) if swapped] == [5, 8]


def test_subjects_do_not_disturb_each_other_and_may_change_places():
    polish, a, b = Polish(SKELETON), pose(1), pose(2)
    boxes = np.repeat(BOX, 2, 0)
    polish.apply(keypoints(np.concatenate([a, b])), (3, 8), boxes, (200, 200), 0.0)
    result = polish.apply(keypoints(np.concatenate([b, a])), (8, 3), boxes, (200, 200), 0.033)
    np.testing.assert_allclose(result.keypoints.xy, np.concatenate([b, a]), atol=1e-6)
    assert not result.held.any()


def test_what_was_given_is_left_as_it_was():
    polish, still = Polish(SKELETON), pose()
    given = keypoints(still + 5)
    before = given.xy.copy(), given.confidence.copy()
    for n in range(3):
        polish.apply(given, (1,), BOX, (200, 200), n / 30)
    np.testing.assert_array_equal(given.xy, before[0])
    np.testing.assert_array_equal(given.confidence, before[1])


def test_nobody_and_unknown_smoothing():
    result = Polish(SKELETON).apply(keypoints(np.zeros((0, 17, 2))), (), np.zeros((0, 4)), (9, 9), 0.0)
    assert result.visibility.shape == (0, 17)
    with pytest.raises(ConfigError, match="--smoothing spline"):
        Polish(SKELETON, smoothing="spline")
