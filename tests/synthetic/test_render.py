import cv2
import numpy as np
import pytest

from streampose.synthetic.render import rasterise, shade

K = np.array([[100.0, 0, 31.5], [0, 100.0, 31.5], [0, 0, 1]])
SIZE = (64, 48)


def at_pixels(xy, z):
    """Points of the camera frame that project to the given pixels."""
    xy, z = np.asarray(xy, float), np.asarray(z, float)
    return np.column_stack([(xy[:, 0] - 31.5) / 100 * z, (xy[:, 1] - 31.5) / 100 * z, z])


def test_a_triangle_covers_the_pixels_whose_centres_lie_in_it():
    corners = [(10.2, 5.3), (14.1, 40.7), (50.6, 20.4)]  # counter-clockwise as seen (y down)
    seen = rasterise(at_pixels(corners, [2, 2, 2]), K, np.array([[0, 1, 2]]), SIZE)
    contour = np.array(corners, np.float32)
    expected = [
        y * 64 + x
        for y in range(48)
        for x in range(64)
        if cv2.pointPolygonTest(contour, (float(x), float(y)), False) > 0
    ]
    assert seen.pixel.tolist() == expected
    assert np.allclose(seen.z.ravel()[seen.pixel], 2, atol=1e-5)
    assert np.isinf(seen.z).sum() == 64 * 48 - len(expected)


def test_triangles_seen_from_behind_or_too_near_are_left_out():
    corners = at_pixels([(10, 5), (14, 40), (50, 20)], [2, 2, 2])
    assert len(rasterise(corners, K, np.array([[0, 2, 1]]), SIZE).pixel) == 0
    assert len(rasterise(corners * 0.01, K, np.array([[0, 1, 2]]), SIZE).pixel) == 0


def test_the_nearer_of_two_triangles_is_seen_whatever_their_order():
    corners = [(5, 5), (5, 45), (60, 25)]
    points = np.concatenate([at_pixels(corners, [3, 3, 3]), at_pixels(corners, [2, 2, 2])])
    for faces, nearest in ((np.array([[0, 1, 2], [3, 4, 5]]), 1), (np.array([[3, 4, 5], [0, 1, 2]]), 0)):
        assert (rasterise(points, K, faces, SIZE).face == nearest).all()


def test_crossing_triangles_share_the_image_by_depth():
    corners = [(4, 4), (4, 44), (60, 24)]
    points = np.concatenate([at_pixels(corners, [1, 1, 3]), at_pixels(corners, [3, 3, 1])])
    seen = rasterise(points, K, np.array([[0, 1, 2], [3, 4, 5]]), SIZE)
    x = seen.pixel % 64
    assert (seen.face[x < 25] == 0).all() and (seen.face[x > 55] == 1).all()


def test_depth_is_perspective_correct():
    points = at_pixels([(4, 4), (4, 44), (60, 24)], [1, 1, 3])
    seen = rasterise(points, K, np.array([[0, 1, 2]]), SIZE)
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    x, y = seen.pixel % 64, seen.pixel // 64
    rays = np.column_stack([(x - 31.5) / 100, (y - 31.5) / 100, np.ones(len(x))])
    assert np.allclose(seen.z.ravel()[seen.pixel], points[0] @ normal / (rays @ normal), rtol=1e-4)


def test_a_mesh_leaves_no_gaps_between_its_triangles():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(2, 61, 12), np.linspace(2, 45, 9)), -1)
    grid[1:-1, 1:-1] += rng.uniform(-1.5, 1.5, grid[1:-1, 1:-1].shape)
    index = np.arange(12 * 9).reshape(9, 12)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)])
    seen = rasterise(at_pixels(grid.reshape(-1, 2), np.full(108, 2.0)), K, faces, SIZE)
    assert len(seen.pixel) == (61 - 2 + 1) * (45 - 2 + 1)


def test_colours_are_texture_times_light():
    points = at_pixels([(4, 4), (4, 44), (60, 24)], [2, 2, 2])
    faces, uv = np.array([[0, 1, 2]]), np.array([[0.0, 0], [0, 1], [1, 0.5]])
    atlas = np.zeros((2, 4, 4, 3), np.float32)
    atlas[1] = [0.2, 0.4, 0.8]
    seen = rasterise(points, K, faces, SIZE)
    colours = shade(seen, faces, np.full((3, 3), 0.5), uv, np.array([1]), atlas)
    assert colours.shape == (len(seen.pixel), 3)
    assert colours == pytest.approx(np.tile([0.1, 0.2, 0.4], (len(colours), 1)), abs=1e-5)
