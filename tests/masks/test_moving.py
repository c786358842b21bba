import cv2
import numpy as np
import pytest

from streampose.masks.background import BackgroundModel, model_size
from streampose.masks.moving import (
    MovingForeground,
    camera_shift,
    colour_distance,
    find_motion,
    look_ahead,
    refine_by_colour,
)
from streampose.masks.moving import _Picture as Picture
from streampose.synth import synth
from streampose.synthetic.truth import read_truth, truth_path
from streampose.tracking.boxes import box_iou, find_blobs, join_fragments
from streampose.video.decode import open_video

W, H = 192, 128


def wall(seed=0):
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(60, 200, (20, 30, 3), dtype=np.uint8), (480, 320), interpolation=cv2.INTER_NEAREST)
    return cv2.GaussianBlur(coarse, (5, 5), 1.2)


def pan(count, speed=(2.0, 1.0), walk=3.0, seed=0):
    """A camera that pans over a wall before which somebody walks the other way: pictures and masks."""
    big, pictures, masks = wall(), [], []
    rng = np.random.default_rng(seed)
    for n in range(count):
        turn = np.array([[1, 0, 60 + speed[0] * n], [0, 1, 60 + speed[1] * n]], np.float32)
        image = cv2.warpAffine(big, turn, (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        mask = np.zeros((H, W), np.uint8)
        for canvas, colour in ((image, (20, 20, 30)), (mask, 255)):
            cv2.ellipse(canvas, (round(150 - walk * n), 66), (10, 32), 0, 0, 360, colour, -1)
        pictures.append(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8))
        masks.append(mask)
    return pictures, masks


def run(pictures, fps=25.0):
    source = MovingForeground(fps)
    frames = ((picture, n == 0) for n, picture in enumerate(pictures))
    for small, _, later in look_ahead(frames, lambda small: small, source.look_ahead):
        yield source.apply(None, small, later), source.steady


def iou(a, b):
    union = ((a > 0) | (b > 0)).sum()
    return ((a > 0) & (b > 0)).sum() / union if union else 1.0


@pytest.mark.parametrize("stride", [1, 2])
def test_look_ahead_hands_on_everything_and_stops_at_cuts(stride):
    frames = [(n, n in (0, 5)) for n in range(8)]
    seen = list(look_ahead(iter(frames), lambda n: np.full(1, n) if n % stride == 0 else None, 2))
    assert [item[:2] for item in seen] == frames
    later = [[int(picture[0]) for picture in item[2]] for item in seen]
    if stride == 1:
        assert later == [[1, 2], [2, 3], [3, 4], [4], [], [6, 7], [7], []]
    else:
        assert later == [[2, 4], [2, 4], [4], [4], [], [6], [], []]
    assert len(list(look_ahead(iter(frames[:1]), lambda n: None, 3))) == 1
    assert not list(look_ahead(iter([]), lambda n: None, 3))


def test_look_ahead_holds_few_frames():
    given = []

    def frames():
        for n in range(10):
            given.append(n)
            yield n, False

    walk = look_ahead(frames(), lambda n: np.zeros(1), 3)
    assert next(walk)[0] == 0 and given == [0, 1, 2, 3]


def test_the_cameras_motion_is_found_in_spite_of_somebody():
    pictures, masks = pan(9)
    motion = find_motion(Picture(pictures[0]), Picture(pictures[8]), cv2.dilate(masks[0], np.ones((5, 5))))
    assert motion is not None and motion.inliers > 0.7
    places = np.array([[[20, 20]], [[100, 60]], [[170, 110]]], np.float32)
    moved = cv2.perspectiveTransform(places, motion.planes[0]) - places
    np.testing.assert_allclose(moved.reshape(-1, 2), [[-16, -8]] * 3, atol=0.4)
    assert camera_shift(pictures) == pytest.approx(np.hypot(16, 8) / W, abs=0.005)
    assert camera_shift(pictures[:1]) is None
    assert find_motion(Picture(pictures[0]), Picture(np.full((H, W, 3), 90, np.uint8))) is None


def test_a_walker_is_found_while_the_camera_pans():
    pictures, masks = pan(36)
    found = [iou(mask, true) for (mask, steady), true in zip(run(pictures), masks, strict=True) if steady]
    assert len(found) == 36 and np.mean(found) > 0.75 and np.mean(np.array(found) > 0.6) > 0.85


def test_an_empty_wall_stays_empty():
    big = wall(1)
    pictures = []
    for n in range(24):
        turn = cv2.getRotationMatrix2D((240, 160), 0.4 * n, 1 + 0.004 * n)
        pictures.append(cv2.warpAffine(big, turn, (480, 320))[96:224, 144:336].copy())
    assert all(np.count_nonzero(mask) < 0.01 * mask.size for mask, _ in run(pictures))


def test_motion_that_cannot_be_found_is_said():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (H, W, 3), dtype=np.uint8) for _ in range(14)]
    results = list(run(noise))
    assert not any(steady for _, steady in results[:-1]) and not any(mask.any() for mask, _ in results[:-1])
    pictures, masks = pan(30)
    results = list(run(noise[:6] + pictures))  # it recovers
    assert all(steady for _, steady in results[20:])
    assert np.mean([iou(mask, true) for (mask, _), true in zip(results[20:], masks[14:], strict=True)]) > 0.6


def test_small_misfits_are_no_difference():
    image = wall()[:H, :W]
    shifted = cv2.warpAffine(
        image, np.array([[1, 0, 0.4], [0, 1, 0.3]], np.float32), (W, H), borderMode=cv2.BORDER_REFLECT
    )
    assert (colour_distance(image, shifted)[4:-4, 4:-4] > 20).mean() < 0.002
    darker = image.copy()
    darker[40:80, 60:100] //= 2
    assert (colour_distance(image, darker)[44:76, 64:96] > 20).mean() > 0.95


def test_a_change_of_exposure_is_no_subject():
    pictures, masks = pan(20, walk=4.0)
    lit = [np.clip(picture.astype(int) + 15 * (n > 9), 0, 255).astype(np.uint8) for n, picture in enumerate(pictures)]
    for (mask, _), true in zip(run(lit), masks, strict=True):
        assert np.count_nonzero((mask > 0) & (true == 0)) < 0.06 * mask.size


def test_refined_outlines_snap_to_the_colours():
    image = wall()[:128, :128].copy()
    true = np.zeros((128, 128), np.uint8)
    cv2.ellipse(true, (64, 64), (18, 46), 0, 0, 360, 255, -1)
    image[true > 0] = (20, 20, 30)
    coarse = cv2.warpAffine(cv2.dilate(true, np.ones((7, 7))), np.array([[1, 0, 2], [0, 1, 2]], np.float32), (128, 128))
    fine = refine_by_colour(image, None, coarse)
    assert iou(coarse, true) < 0.85 and iou(fine, true) > 0.95
    np.testing.assert_array_equal(fine, refine_by_colour(image, None, coarse))
    assert not refine_by_colour(image, None, 0 * coarse).any()
    other = refine_by_colour(image, None, np.roll(coarse, 45, 1))  # nothing there that stands out
    assert set(np.unique(other)) <= {0, 255} and iou(other, np.roll(coarse, 45, 1)) > 0.4


def measure(masks, truth, size):
    """Mean IoU of masks, and the share of subjects with a blob whose box overlaps theirs by half."""
    overlaps, found = [], []
    scale = np.array([*size, *size]) / np.tile(truth.size, 2)
    for mask, true, boxes in zip(masks, truth.masks, truth.boxes, strict=True):
        small = cv2.resize((true > 0).astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        overlaps.append(iou(mask, (small > 127).astype(np.uint8)))
        blobs = join_fragments(find_blobs(mask)[1])
        there = np.stack([blob.box for blob in blobs]) if blobs else np.zeros((1, 4), np.float32)
        found += list((box_iou((boxes * scale).astype(np.float32), there) > 0.5).any(1))
    return float(np.mean(overlaps)), float(np.mean(found))


def test_rendered_people_are_found_where_a_background_model_finds_nobody(tmp_path):
    synth(out=tmp_path, videos=1, seconds=2.4, fps=12, size=(320, 240), moving_camera=True, seed=3)
    path = next(tmp_path.glob("*.mp4"))
    with open_video(path) as video:
        size = model_size(video.probe.width, video.probe.height)
        pictures = [frame.small(size).copy() for frame in video.frames()]
    truth = read_truth(truth_path(path))
    ours = measure([mask for mask, _ in run(pictures, 12)], truth, size)
    model = BackgroundModel("mog2")
    theirs = measure([model.apply(picture) for picture in pictures], truth, size)
    assert ours[0] > 0.5 and ours[1] > 0.8
    assert theirs[0] < 0.3 and theirs[1] < 0.3
