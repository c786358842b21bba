import cv2
import numpy as np
import pytest

from streampose.geometry.crop import crop_from_source, crop_resize, resize_points, source_from_crop, square_box


def test_points_go_there_and_back():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 500, (3, 7, 2))
    boxes = np.array([[10, 20, 210, 220], [0, 0, 64, 64], [-30.5, 7, 40.5, 78]], float)
    assert np.allclose(source_from_crop(crop_from_source(xy, boxes, 128), boxes, 128), xy)


def test_pixel_centres_are_integers():
    # A box of exactly the image at its own size changes nothing; half the size averages two pixels.
    assert np.allclose(crop_from_source(np.array([[3.0, 4.0]]), np.array([0, 0, 8, 8]), 8), [[3, 4]])
    assert np.allclose(crop_from_source(np.array([[0.5, 0.5]]), np.array([0, 0, 8, 8]), 4), [[0, 0]])
    assert np.allclose(resize_points(np.array([0.5, 0.5]), 0.5), [0, 0])


def test_square_box_keeps_the_centre():
    assert np.allclose(square_box(np.array([10, 20, 30, 60]), padding=0.25), [-10, 10, 50, 70])


@pytest.mark.parametrize("box", [(20, 30, 84, 94), (20, 30, 276, 286), (3, 5, 387, 389), (-40, -20, 200, 220)])
def test_a_spot_in_the_image_lands_where_its_point_lands(box):
    image = np.zeros((400, 400), np.uint8)
    spot = np.array([61.0, 72.0])
    cv2.circle(image, (61, 72), 6, 255, -1)
    crop = crop_resize(image, np.array(box, float), 64).astype(float)
    found = np.array([(crop * np.arange(64)[None]).sum(), (crop * np.arange(64)[:, None]).sum()]) / crop.sum()
    expected = crop_from_source(spot[None], np.array(box, float), 64)[0]
    assert np.abs(found - expected).max() < 0.15


def test_outside_is_the_border_value():
    crop = crop_resize(np.full((10, 10, 3), 200, np.uint8), np.array([-100, -100, -50, -50.0]), 16, border_value=7)
    assert (crop == 7).all()


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        crop_resize(np.zeros((4, 4), np.uint8), np.array([3, 3, 3, 5.0]), 8)
