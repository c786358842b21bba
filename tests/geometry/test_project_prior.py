import numpy as np

from streampose.geometry.project_prior import fit_to_crop, project_randomly, random_views


def poses(count=400, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (count, 17, 3)) * (0.25, 0.5, 0.25)
    points[3, 5] = np.nan
    points[4] = np.nan
    return points


def test_views_are_rotations_from_every_side():
    points = poses()
    seen = random_views(points, np.random.default_rng(0))
    known = np.isfinite(points[:, :, 0])
    np.testing.assert_array_equal(np.isfinite(seen).all(-1), known)
    lengths = [np.linalg.norm(p[:, :-1] - p[:, 1:], axis=-1) for p in (points, seen)]
    np.testing.assert_allclose(*lengths, atol=1e-12)
    axes = random_views(np.broadcast_to(np.eye(3), (2000, 3, 3)), np.random.default_rng(0))
    assert (np.linalg.det(np.swapaxes(axes, 1, 2)) > 0.999).all()  # no mirror images
    right = axes[:, 0]
    assert np.histogram(np.arctan2(right[:, 2], right[:, 0]), 8, (-np.pi, np.pi))[0].min() > 190
    down = axes[:, 1, 1]  # how much of the subject's down is the picture's down
    assert down.mean() > 0.97 and (down > 0.5).all()


def test_projections_fill_the_crop_and_are_seeded():
    points = poses()
    seen = project_randomly(points, np.random.default_rng(1), shift=0.0)
    np.testing.assert_array_equal(seen, project_randomly(points, np.random.default_rng(1), shift=0.0))
    np.testing.assert_array_equal(np.isfinite(seen[..., 0]), np.isfinite(points[..., 0]))
    whole = np.isfinite(seen).all((1, 2))
    side = (seen[whole].max(1) - seen[whole].min(1)).max(-1)
    assert side.min() >= 1.2 - 1e-9 and side.max() <= 1.7 + 1e-9
    middle = (seen[whole].max(1) + seen[whole].min(1)) / 2
    np.testing.assert_allclose(middle, 0, atol=1e-12)
    moved = project_randomly(points, np.random.default_rng(1), shift=0.05)[whole]
    assert 0.08 < ((moved.max(1) + moved.min(1)) / 2).std() < 0.12


def test_near_things_are_larger():
    far_and_near = np.zeros((1000, 4, 3))
    far_and_near[:, :2, 0] = far_and_near[:, 2:, 0] = (-0.5, 0.5)
    far_and_near[:, :2, 2], far_and_near[:, 2:, 2] = 0.5, -0.5
    rng = np.random.default_rng(0)
    seen = project_randomly(far_and_near, rng, distance=(2.0, 2.0), elevation_degrees=0, roll_degrees=0)
    widths = np.abs(seen[:, 1::2, 0] - seen[:, ::2, 0])
    assert widths.max(1).mean() / widths.min(1).mean() > 1.3
    flat = project_randomly(far_and_near, rng, distance=(1e6, 1e6), elevation_degrees=0, roll_degrees=0)
    np.testing.assert_allclose(flat[:, 1] - flat[:, 0], flat[:, 3] - flat[:, 2], atol=1e-5)


def test_a_2d_pose_is_brought_into_the_crop():
    pose = np.array([[[100.0, 40], [140, 120], [np.nan, np.nan]], [[7, 7], [7, 7], [7, 7]], [[np.nan] * 2] * 3])
    found = fit_to_crop(pose, fill=(0.5, 0.5))
    np.testing.assert_allclose(found[0, :2], [[-0.25, -0.5], [0.25, 0.5]])
    np.testing.assert_array_equal(found[1], np.zeros((3, 2)))
    assert np.isnan(found[0, 2]).all() and np.isnan(found[2]).all()
