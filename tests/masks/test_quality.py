import cv2
import numpy as np
import pytest

from streampose.masks.quality import Quality, border_share, crop_sharpness

S, SIZE = 64, (640, 480)
SQUARE = np.array([200, 150, 328, 278], np.float32)


def figure(radius=20, seed=0):
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(60, 200, (16, 16, 3), dtype=np.uint8), (S, S), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((S, S), np.uint8)
    cv2.circle(mask, (32, 32), radius, 255, -1)
    image[mask > 0] = cv2.resize(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8), (S, S))[mask > 0]
    return image, mask


def rated(*frames):
    quality = Quality(SIZE)
    return [quality.rate(*frame) for frame in frames]


def test_good_frames_are_good():
    image, mask = figure()
    assert min(rated(*[(image, mask, SQUARE)] * 5)) > 0.8


def test_a_jump_of_the_area_lowers_it_and_a_turn_of_the_box_does_not():
    image, mask = figure()
    large = figure(28)
    values = rated(*[(image, mask, SQUARE)] * 5, (*large, SQUARE), (image, mask, SQUARE))
    assert values[5] < 0.5 * values[4] and values[6] > 0.9 * values[4]
    closer = np.array([200, 150, 300, 250], np.float32)  # the same subject, cut closer
    grown = figure(round(20 * 128 / 100))
    assert rated(*[(image, mask, SQUARE)] * 5, (*grown, closer))[5] > 0.8 * values[4]


def test_a_subject_at_the_border_is_worth_less():
    image, mask = figure()
    cut = mask.copy()
    cut[:, :20] = 0
    outside = np.array([-40, 150, 88, 278], np.float32)  # column 20 is the picture's first
    assert border_share(cut > 0, outside, SIZE) > 0.1
    assert border_share(mask > 0, SQUARE, SIZE) == 0
    assert rated((image, cut, outside))[0] < 0.4 * rated((image, cut, SQUARE))[0]
    below = np.array([200, 380, 328, 508], np.float32)  # row 50 is the first beyond the picture
    cut = mask.copy()
    cut[50:] = 0
    assert border_share(cut > 0, below, SIZE) > 0.05


@pytest.mark.parametrize("kernel", [(9, 1), (1, 9), (7, 7)])
def test_blur_lowers_it(kernel):
    image, mask = figure()
    blurred = cv2.blur(image, kernel)
    inside = mask > 0
    assert crop_sharpness(blurred, inside) < 0.4 * crop_sharpness(image, inside)
    values = rated(*[(image, mask, SQUARE)] * 5, (blurred, mask, SQUARE))
    assert values[5] < 0.7 * values[4]


def test_contrast_and_light_do_not_matter_much():
    image, mask = figure()
    dim = (image * 0.5 + 20).astype(np.uint8)
    assert rated((dim, mask, SQUARE))[0] > 0.8 * rated((image, mask, SQUARE))[0]


def test_frames_without_masks_are_rated_by_their_sharpness():
    image, mask = figure()
    sharp, blurred = rated((image, 0 * mask, SQUARE), (cv2.blur(image, (9, 9)), 0 * mask, SQUARE))
    assert 0 < blurred < 0.6 * sharp <= 1
    grey = np.full((S, S, 3), 90, np.uint8)
    assert 0 <= rated((grey, mask, SQUARE))[0] < 0.05
