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
