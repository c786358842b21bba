import time

import numpy as np
import pytest

from streampose.masks.geodesic import geodesic_weights, geodesic_weights_batch


def disk(size=64, centre=(32, 32), radius=12):
    y, x = np.mgrid[:size, :size]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_disk_grows_from_the_centre_and_away_from_the_edge():
    weights = geodesic_weights(disk())
    assert weights.dtype == np.float32 and weights.shape == (64, 64)
    assert weights[32, 32] == pytest.approx(1.0)
    # eleven pixels from the centre, unit is half the crop
    assert weights[32, 43] == pytest.approx(1 + 11 * 2 / 64, abs=0.02)
    assert weights[32, 60] == pytest.approx(1 + 16 * 2 / 64, abs=0.01)


def test_foreground_distance_stays_inside_the_mask():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:54, 10:16] = 255  # a horseshoe: the tips are near to each other but far on foot
    mask[10:54, 40:46] = 255
    mask[48:54, 10:46] = 255
    weights = geodesic_weights(mask)
    assert weights[10, 12] > 1 + 40 * 2 / 64
    assert weights[12, 12] > weights[30, 12] > weights[50, 12]


def test_centroid_outside_the_mask_starts_at_the_nearest_pixel():
    ring = disk(radius=24) & ~disk(radius=18)
    assert not ring[32, 32]
    weights = geodesic_weights(ring)
    assert np.isfinite(weights).all()
    assert weights[ring].min() == pytest.approx(1.0)
    assert weights[ring].max() > 1 + 50 * 2 / 64  # the way round the ring, not across it
    assert weights[32, 32] == pytest.approx(1 + 18 * 2 / 64, abs=0.02)


def test_a_part_of_its_own_is_reached_by_the_straight_way():
    mask = disk(radius=8)
    mask[30:34, 50:60] = True
    weights = geodesic_weights(mask)
    assert np.isfinite(weights).all()
    centre = np.argwhere(mask).mean(0)
    assert weights[32, 50] == pytest.approx(1 + (50 - centre[1]) * 2 / 64, abs=0.05)
    assert weights[32, 59] > weights[32, 50]


@pytest.mark.parametrize("mask", [np.zeros((32, 32), bool), np.ones((32, 32), bool), np.eye(32, dtype=bool)])
def test_empty_full_and_corner_touching_masks_are_finite(mask):
    weights = geodesic_weights(mask)
    assert np.isfinite(weights).all() and weights.min() >= 1
    if not mask.any():
        assert (weights == 1).all()


def test_batch_equals_one_by_one_and_is_fast():
    masks = np.stack([disk(radius=r) for r in range(5, 25)])
    batch = geodesic_weights_batch(masks)
    np.testing.assert_allclose(batch[3], geodesic_weights(masks[3]), rtol=1e-6)
    seconds = []
    for _ in range(30):
        start = time.thread_time()
        geodesic_weights(masks[-1])
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.002
