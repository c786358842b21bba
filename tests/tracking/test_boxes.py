import numpy as np

from streampose.tracking.boxes import box_iou, find_blobs, join_fragments, steady_square, subject_boxes, touches_border


def test_steady_square_holds_the_subject_with_a_margin():
    rng = np.random.default_rng(0)
    for _ in range(50):
        corners = rng.uniform(0, 200, (13, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(20, 90, (13, 2))], 1)
        boxes[rng.random(13) < 0.3] = np.nan
        boxes[6] = [80, 60, 120, 160]
        square = steady_square(boxes, 6, margin=0.1)
        np.testing.assert_allclose(square[2] - square[0], square[3] - square[1], rtol=1e-5)
        assert square[0] <= 80 - 9.9 and square[1] <= 60 - 9.9 and square[2] >= 120 + 9.9 and square[3] >= 160 + 9.9


def test_steady_square_is_steadier_than_the_boxes():
    rng = np.random.default_rng(1)
    jitter = rng.normal(0, 4, (60, 2))
    boxes = np.concatenate([jitter + 100, jitter + np.array([140, 200])], 1)
    squares = np.stack([steady_square(boxes[t - 6 : t + 7], 6) for t in range(6, 54)])
    centres = (squares[:, :2] + squares[:, 2:]) / 2
    assert centres.std(0).max() < 0.6 * jitter.std(0).min()


def test_fragments_over_each_other_join_and_neighbours_do_not():
    mask = np.zeros((100, 200), np.uint8)
    mask[10:40, 50:70] = mask[46:80, 52:68] = 255  # torn in two
    mask[10:80, 110:130] = 255  # somebody else
    joined = join_fragments(find_blobs(mask)[1])
    assert sorted(tuple(blob.box) for blob in joined) == [(50, 10, 70, 80), (110, 10, 130, 80)]


def test_subject_boxes_are_in_source_pixels_largest_first():
    mask = np.zeros((90, 160), np.uint8)
    mask[20:60, 30:50] = 255
    mask[20:40, 100:110] = 255
    boxes = subject_boxes(mask, (1280, 720), margin=0.0)
    np.testing.assert_allclose(boxes[0], [160, 160, 480, 480], atol=1)
    assert len(boxes) == 2 and len(subject_boxes(np.zeros_like(mask), (1280, 720))) == 0


def test_iou_and_border():
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(box_iou(a, np.array([[5, 0, 15, 10]], np.float32)), [[1 / 3], [0]])
    assert touches_border(a[0], (100, 100)) and not touches_border(a[1], (100, 100))
