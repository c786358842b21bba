"""Pseudo-labels: views map back, sides become consistent along a clip, smoothing."""

import numpy as np
import torch

from streampose.methods.mask_labels import Labels, along_clips, flip_path, merge, predict_labels

FLIP = [1, 0, 2]


def centroid_network(images):
    """Three joints that a mask tells exactly: its left edge, its right edge, its centre."""
    B, _, _, W = images.shape
    grid = (torch.arange(W) + 0.5) * 2 / W - 1
    weight = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    x, y = (weight.sum(1) * grid).sum(1), (weight.sum(2) * grid).sum(1)
    spread = (weight.sum(1) * (grid - x[:, None]) ** 2).sum(1).sqrt()
    ends = [torch.stack([x + offset * spread, y, 0 * x], -1) for offset in (-1, 1, 0)]
    return torch.stack(ends, 1), torch.ones(B, 3)


def test_views_are_mapped_back_and_agree():
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[0, 20:30, 10:40] = 255
    masks[1, 30:50, 30:50] = 255
    labels = predict_labels(centroid_network, masks, FLIP, torch.device("cpu"))
    expected = np.array([[24.5, 24.5], [39.5, 39.5]]) / 32 + 1 / 64 - 1
    np.testing.assert_allclose(labels.keypoints[:, 2, :2], expected, atol=0.02)
    assert np.all(labels.keypoints[:, 0, 0] < labels.keypoints[:, 1, 0])
    assert labels.confidence[:, 2].min() > 0.8


def test_merging_aligns_sides_and_doubts_what_differs():
    one = torch.tensor([[[-0.5, 0.0, 0.1], [0.5, 0.0, 0.2], [0.0, 0.5, 0.0]]])
    views = torch.stack([one, one[:, FLIP]])
    mean, confidence = merge(views, torch.ones(2, 1, 3), FLIP)
    torch.testing.assert_close(mean[..., :2], one[..., :2])
    torch.testing.assert_close(confidence, torch.ones(1, 3))
    views[1, 0, 2, 1] = -0.5
    assert merge(views, torch.ones(2, 1, 3), FLIP)[1][0, 2] < 0.05


def test_flip_path_undoes_swaps():
    t = np.arange(20)[:, None]
    points = np.stack(
        [np.hstack([t * 0.1, 0 * t]), np.hstack([t * 0.1 + 3, 0 * t]), np.hstack([t * 0.1, 5 + 0 * t])], 1
    )
    swapped = np.zeros(20, bool)
    swapped[[3, 4, 11]] = True
    points[swapped] = points[swapped][:, FLIP]
    np.testing.assert_array_equal(flip_path(points, np.ones((20, 3)), FLIP), swapped)


def test_along_clips_smooths_in_source_pixels(painted):
    """A still subject stays still although its box moves."""
    frames, _, _ = painted
    K, source = 3, np.array([[60.0, 70.0], [80.0, 70.0], [70.0, 90.0]])
    boxes = frames.boxes + np.arange(len(frames), dtype=np.float32)[:, None]
    moving = type(frames)(**{**vars(frames), "boxes": boxes})
    side = (boxes[:, 2] - boxes[:, 0])[:, None, None]
    keypoints = np.zeros((len(frames), K, 3), np.float32)
    keypoints[..., :2] = (source - boxes[:, None, :2]) * 2 / side - 1
    labels = along_clips(Labels(keypoints, np.ones((len(frames), K), np.float32)), moving, FLIP, smoothing=0.1)
    np.testing.assert_allclose(labels.keypoints, keypoints, atol=1e-4)
    noisy = keypoints + np.random.default_rng(0).normal(0, 0.05, keypoints.shape).astype(np.float32)
    noisy[..., 1, :2] = keypoints[..., 1, :2]
    labels = along_clips(Labels(noisy, np.ones((len(frames), K), np.float32)), moving, FLIP, smoothing=0.1)
    assert np.abs(labels.keypoints - keypoints)[..., :2].mean() < 0.6 * np.abs(noisy - keypoints)[..., :2].mean()


def test_a_model_is_trusted_when_joints_pass_each_other(painted):
    """Someone turns round: the path alone lets the joints bounce; renamed single frames are put right all the same."""
    frames, _, _ = painted
    T = len(frames)
    x = np.linspace(-0.5, 0.55, T)
    keypoints = np.zeros((T, 3, 3), np.float32)
    keypoints[:, 0, 0], keypoints[:, 1, 0], keypoints[:, 2, 1] = x, -x, 0.5
    still = type(frames)(**{**vars(frames), "boxes": np.repeat(frames.boxes[:1], T, 0), "clip": np.zeros(T, int)})
    sure = np.ones((T, 3), np.float32)
    read = keypoints.copy()
    read[2] = read[2][FLIP]
    alone = along_clips(Labels(read, sure), still, FLIP, smoothing=0)
    assert np.abs(alone.keypoints - keypoints).max() > 0.5
    trusted = along_clips(Labels(read, sure), still, FLIP, smoothing=0, trust=np.full(T, 0.02))
    np.testing.assert_allclose(trusted.keypoints, keypoints, atol=1e-5)


def test_across_views_settles_sides_over_time_and_corrects_a_view():
    from streampose.config import load_skeleton
    from streampose.geometry.project import project_points
    from streampose.methods.mask_labels import across_views
    from streampose.methods.mask_prior import random_figures
    from streampose.methods.mask_space import Anatomy
    from streampose.methods.mask_views import Instants, _rays
    from streampose.synthetic.scene import look_at

    skeleton, rng = load_skeleton("human17"), np.random.default_rng(2)
    start, end = random_figures(skeleton, 2, rng).joints * 1.7
    moments = 10
    body = start + np.linspace(0, 1, moments)[:, None, None] * (end - start) * 0.3
    body = np.stack([body[..., 0], body[..., 2], -body[..., 1]], -1)  # z up
    exact, rays, Rs, ts = [], [], [], []
    for angle in (0.2, 1.9, 3.3, 5.0):
        R, t = look_at(np.array([5 * np.cos(angle), 5 * np.sin(angle), 1.3]), np.zeros(3))
        K, box = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.array([[200.0, 120, 440, 360]])
        exact.append((project_points(body, K, R, t) + 0.5 - box[0, :2]) / 120 - 1)
        rays.append(np.repeat(_rays(box, K), moments, 0))
        Rs.append(np.repeat(R[None], moments, 0))
        ts.append(np.repeat(t[None], moments, 0))
    N = 4 * moments
    exact = np.concatenate(exact)
    instants = Instants(
        np.arange(N).reshape(4, moments).T, np.zeros(moments, int), np.arange(moments) * 0.1,
        np.concatenate(rays).astype(np.float32), np.concatenate(Rs), np.concatenate(ts), np.full(N, -1),
    )  # fmt: skip
    seen = np.concatenate([exact + rng.normal(0, 0.01, exact.shape), np.zeros((N, 17, 1))], -1).astype(np.float32)
    swapped = np.random.default_rng(0).random(N) < 0.5
    seen[swapped] = seen[swapped][:, skeleton.flip_index]
    seen[3, 5] += 0.8  # one view of one moment is far off
    labels = Labels(seen, np.full((N, 17), 0.8, np.float32))
    found, named = across_views(labels, instants, skeleton, Anatomy(skeleton))
    errors = np.linalg.norm(found.keypoints[..., :2] - exact, axis=-1)
    assert named.all() and errors.mean() < 0.02 and errors[3, 5] < 0.1
    assert np.linalg.norm(seen[..., :2] - exact, axis=-1).mean() > 0.05  # what it started from
    assert found.confidence.min() > 0.6
