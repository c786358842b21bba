import cv2
import numpy as np
import pytest

from streampose.geometry.distortion import project
from streampose.masks.volume import SubjectVolume
from streampose.structures import Camera

SIZE = (480, 360)
# ends, radius in metres and colour: a man in shorts with his arms held out, 1.75 m tall
LIMBS = [
    ((0, 0, 1.0), (0, 0, 1.42), 0.15, (190, 140, 110)), ((0, 0, 1.5), (0, 0, 1.65), 0.1, (40, 140, 160)),
    ((0, 0.08, 0.95), (0, 0.1, 0.6), 0.09, (25, 25, 30)), ((0, -0.08, 0.95), (0, -0.1, 0.6), 0.09, (25, 25, 30)),
    ((0, 0.1, 0.6), (0, 0.12, 0.06), 0.06, (190, 140, 110)), ((0, -0.1, 0.6), (0, -0.12, 0.06), 0.06, (190, 140, 110)),
    ((0, 0.15, 1.4), (0, 0.8, 1.4), 0.05, (190, 140, 110)), ((0, -0.15, 1.4), (0, -0.8, 1.4), 0.05, (190, 140, 110)),
]  # fmt: skip
FURNITURE = [(120, 60, 50), (200, 200, 150), (70, 90, 130), (230, 230, 225), (60, 110, 70), (130, 125, 120)]
HEAD, FOOT = np.array([0.0, 0, 1.75]), np.array([0.0, 0, 0])


def camera(degrees, roll):
    place = np.array([4 * np.cos(np.radians(degrees)), 4 * np.sin(np.radians(degrees)), 1.7])
    forward = np.array([0, 0, 0.9]) - place
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right = right / np.linalg.norm(right)
    R = cv2.Rodrigues(np.array([0, 0, np.radians(roll)]))[0] @ np.stack([right, np.cross(forward, right), forward])
    K = np.array([[420.0, 0, 240], [0, 420, 180], [0, 0, 1]])
    return Camera(K, R, -R @ place, SIZE, np.array([-0.02, 0.01, 0, 0]))


CAMERAS = [camera(20, 15), camera(75, -5), camera(200, 0), camera(330, -25)]


def photograph(one, seed, shift=(0, 0, 0)):
    """The man in a room with furniture, a skin coloured box right beside him; and his true mask."""
    rng = np.random.default_rng(seed)
    image = np.full((SIZE[1], SIZE[0], 3), (170, 175, 180), np.uint8)
    image[200:] = (90, 80, 75)
    for _ in range(25):
        x, y, w, h = rng.integers((0, 0, 20, 20), (460, 340, 90, 70))
        colour = FURNITURE[rng.integers(len(FURNITURE))]
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
    middle = project(np.array([[0, 0, 1.2]]) + shift, one)[0]
    cv2.rectangle(image, *(tuple(int(v) for v in middle + d) for d in ((35, -30), (80, 20))), (190, 140, 110), -1)
    mask = np.zeros(SIZE[::-1], np.uint8)
    for start, end, radius, colour in LIMBS:
        for share in np.linspace(0, 1, 60):
            point = np.array(start) + share * (np.array(end) - np.array(start)) + shift
            x, y = project(point[None], one)[0]
            depth = one.R[2] @ point + one.t[2]
            for canvas, value in ((image, colour), (mask, 255)):
                cv2.circle(canvas, (round(x), round(y)), max(1, round(420 * radius / depth)), value, -1)
    noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(noisy, (3, 3), 0), mask


def overlaps(found, truths):
    scores = []
    for (mask, affine), truth in zip(found, truths, strict=True):
        whole = cv2.warpAffine(mask, affine, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 127
        scores.append((whole & (truth > 0)).sum() / (whole | (truth > 0)).sum())
    return scores


def test_one_body_is_found_in_all_views_and_followed():
    rough = (HEAD + np.array([0.05, -0.05, 0.03]), FOOT - np.array([0.05, 0.02, 0.12]))  # as detectors' boxes say it
    volume = SubjectVolume(CAMERAS, *rough)
    for number in range(4):
        shift = np.array([0.05, 0.02, 0]) * number
        taken = [photograph(one, seed, shift) for seed, one in enumerate(CAMERAS)]
        scores = overlaps(volume.segment([image for image, _ in taken]), [truth for _, truth in taken])
        assert min(scores) > 0.6 and np.mean(scores) > 0.7, (number, scores)
    assert np.linalg.norm(((volume.head + volume.foot) / 2 - (HEAD + FOOT) / 2 - shift)[:2]) < 0.12


def test_a_calibration_that_is_a_little_wrong_costs_little():
    wrong = [
        Camera(c.K + np.array([[0, 0, d], [0, 0, -d], [0, 0, 0]]), c.R, c.t, c.size, c.distortion)
        for c, d in zip(CAMERAS, (3, -3, 3, -3), strict=True)
    ]
    taken = [photograph(one, seed) for seed, one in enumerate(CAMERAS)]
    found = SubjectVolume(wrong, HEAD, FOOT).segment([image for image, _ in taken])
    assert min(overlaps(found, [truth for _, truth in taken])) > 0.6


@pytest.mark.parametrize("views", [2, 3])
def test_two_views_are_enough_and_masks_are_clean(views):
    taken = [photograph(one, seed) for seed, one in enumerate(CAMERAS[:views])]
    found = SubjectVolume(CAMERAS[:views], HEAD, FOOT).segment([image for image, _ in taken])
    assert min(overlaps(found, [truth for _, truth in taken])) > 0.5
    for mask, affine in found:
        assert mask.shape == (256, 256) and set(np.unique(mask)) <= {0, 255} and affine.shape == (2, 3)
