import cv2
import numpy as np
import pytest

from streampose.masks.background import BackgroundModel, is_shadow, match_light, same_view
from streampose.masks.learn import learn_background

H, W = 120, 160


def wall(seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (15, 20, 3), dtype=np.uint8)
    return cv2.resize(coarse, (W, H), interpolation=cv2.INTER_CUBIC)


def scene(x, seed=0, wobble=0.0, image=None):
    """A figure at x before a wall, with sensor noise: picture and true mask."""
    rng = np.random.default_rng(1000 * seed + round(10 * abs(x)))
    image = (wall() if image is None else image).copy()
    mask = np.zeros((H, W), np.uint8)
    for canvas, shirt, trousers in ((image, (170, 30, 160), (20, 20, 90)), (mask, 255, 255)):
        cv2.ellipse(canvas, (round(x + wobble), 50), (9, 22), 0, 0, 360, shirt, -1)
        cv2.rectangle(canvas, (round(x) - 7, 70), (round(x) + 7, 105), trousers, -1)
    noisy = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    return noisy, mask


def iou(a, b):
    return ((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum()


def test_the_empty_scene_is_found_behind_a_walker():
    samples = np.stack([scene(x)[0] for x in np.linspace(20, 140, 16)])
    learnt = learn_background(samples)
    assert np.abs(learnt.image.astype(int) - wall()).mean() < 2
    assert learnt.noise.shape == (H, W) and learnt.noise.max() < 9


def test_the_empty_scene_is_found_behind_somebody_who_stands_there_most_of_the_time():
    places = [60 + 3 * np.sin(t) for t in range(14)] + [75, 90, 105, 120, 130, 140]
    samples = np.stack([scene(x, seed=n, wobble=4 * np.sin(2 * n))[0] for n, x in enumerate(places)])
    median_error = np.abs(np.median(samples, 0) - wall()).max(-1) > 30
    learnt_error = np.abs(learn_background(samples).image.astype(int) - wall()).max(-1) > 30
    assert median_error.sum() > 400  # the plain median shows him
    assert learnt_error.sum() < 0.25 * median_error.sum()


@pytest.mark.parametrize("kind", ["mog2", "knn", "median"])
def test_masks_follow_a_walker(kind):
    samples = np.stack([scene(x)[0] for x in np.linspace(20, 140, 16)])
    model = BackgroundModel(kind, learn_background(samples), samples)
    for x in (30, 77, 122):
        image, true = scene(x, seed=3)
        assert iou(model.apply(image), true) > 0.75
    assert not model.apply(wall()).any()


def test_who_stands_still_does_not_melt_into_a_learnt_background():
    samples = np.stack([scene(x)[0] for x in np.linspace(20, 140, 16)])
    model = BackgroundModel("mog2", learn_background(samples), samples)
    image, true = scene(77, seed=3)
    for _ in range(300):
        mask = model.apply(image)
    assert iou(mask, true) > 0.75


def test_a_change_of_light_is_no_subject():
    samples = np.stack([scene(x)[0] for x in np.linspace(20, 140, 16)])
    model = BackgroundModel("median", learn_background(samples))
    flare = 25 * np.exp(-np.square(np.linspace(-1, 1, W)))[None, :, None]
    for change in (20.0, -15.0, flare):
        lit = np.clip(wall() + change, 0, 255).astype(np.uint8)
        assert np.count_nonzero(model.apply(lit)) < 0.01 * H * W
    lit, true = scene(77, seed=3, image=np.clip(wall() + flare, 0, 255).astype(np.uint8))
    assert iou(model.apply(lit), true) > 0.7


def test_match_light_leaves_an_equal_picture_alone():
    matched, steady = match_light(wall(), wall())
    np.testing.assert_array_equal(matched, wall())
    assert steady


def test_shadows_go_and_dark_things_stay():
    image = wall()
    image[80:100, 20:80] = (image[80:100, 20:80] * 0.7).astype(np.uint8)
    image[20:60, 100:120] = (50, 20, 20)
    everything = np.ones((H, W), bool)
    shadow = is_shadow(image, wall(), np.full((H, W), 2.0, np.float32), everything)
    assert shadow[84:96, 26:74].mean() > 0.8
    assert shadow[24:56, 104:116].mean() < 0.05


def test_untaught_model_adapts():
    model = BackgroundModel("mog2")
    for n in range(60):
        model.apply(scene(-50, seed=n)[0])
    image, true = scene(77, seed=99)
    assert iou(model.apply(image), true) > 0.6


def test_static_and_moving_camera_and_cut():
    assert same_view(scene(30)[0], scene(120, seed=5)[0])
    large = cv2.resize(wall(3), (2 * W, 2 * H))
    textured = np.clip(large + np.random.default_rng(0).normal(0, 30, large.shape), 0, 255).astype(np.uint8)
    textured = cv2.GaussianBlur(textured, (5, 5), 1.5)
    assert not same_view(textured[:H, :W], textured[3 : H + 3, 5 : W + 5])
    assert not same_view(wall(1), wall(2))


def test_unknown_kind():
    with pytest.raises(ValueError, match="choose one of mog2, knn, median"):
        BackgroundModel("sam")
