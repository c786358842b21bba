"""Frames in memory and their augmented views."""

from pathlib import Path

import numpy as np

from streampose.config import load_skeleton
from streampose.methods.mask_data import (
    Augmentation,
    at_moments,
    pixel_matrix,
    random_views,
    read_frames,
    resize_images,
    subject_sizes,
    without_subject,
)
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.sessions import write_session
from streampose.store.writer import ClipWriter, publish_source
from streampose.structures import Session, View

PLAIN = Augmentation(0, 0, 0, 0, 0, 0, 0, 0)


def test_without_augmentation_views_are_the_frames(painted):
    frames, _, _ = painted
    index = np.array([0, 5, 20])
    views = random_views(frames, index, np.random.default_rng(0), PLAIN)
    np.testing.assert_array_equal(views["images"], frames.crops[index])
    np.testing.assert_array_equal(views["masks"], frames.masks[index])
    np.testing.assert_allclose(views["matrix"], np.tile(np.eye(2, 3), (3, 1, 1)), atol=1e-6)


def test_frames_nearest_to_moments():
    np.testing.assert_array_equal(at_moments(np.arange(10) / 10, 0.3), [0, 3, 6, 9])
    np.testing.assert_array_equal(at_moments(np.array([0.12, 0.2, 0.31, 0.9]), 0.3), [0, 2, 3])
    assert len(at_moments(np.zeros(0), 0.3)) == 0


def test_views_of_a_large_session_stay_simultaneous(tmp_path):
    """Clips begin at other frames, one camera's clock is ahead, another one is twice as fast; every third is read."""
    store, size = tmp_path / "s.zarr", 16
    create_store(store, load_skeleton("human17"), crop_size=size)
    mask = np.zeros((size, size), np.uint8)
    mask[4:12, 4:12] = 255
    views = {"a": (0, 25.0, 0.0), "b": (7, 25.0, 0.0), "c": (4, 25.0, 1.01), "d": (3, 50.0, 0.0)}
    for name, (first, fps, offset) in views.items():
        clip = ClipWriter(store, f"{name}-0", source=f"{name}.mp4", fps=fps)
        for number in range(first, first + int(2 * fps)):
            seconds = number / fps - offset
            clip.append(np.zeros((size, size, 3), np.uint8), mask, np.array([0, 0, 9, 9], np.float32), seconds, number)
        clip.finish(motion=1.0)
        publish_source(store, name, {"path": f"{name}.mp4", "clips": [f"{name}-0"]})
    listed = tuple(View(name, Path(f"{name}.mp4"), None, offset) for name, (_, _, offset) in views.items())
    write_session(store, Session("s", listed), list(views))
    reader = StoreReader(store)
    total = sum(clip.num_frames for clip in reader.clips())
    frames = read_frames(reader, size, total * size * size * 4.5 / 2**20 / 2.5)
    offsets = np.array([offset for *_, offset in views.values()])
    times = [frames.seconds[frames.clip == n] + offsets[n] for n in range(len(views))]
    assert len(frames) <= total / 2.5
    for others in times[1:]:
        inside = times[0][(times[0] > others[0] - 0.02) & (times[0] < others[-1] + 0.02)]
        gaps = np.abs(inside[:, None] - others).min(1)
        assert len(inside) >= 10 and gaps.max() <= 0.02


def test_matrix_tells_where_the_subject_went(painted):
    frames, _, _ = painted
    how = Augmentation(25, 0.2, 0.1, 0.5, 0, 0, 0, 0)
    index = np.arange(12)
    views = random_views(frames, index, np.random.default_rng(1), how)
    grid = (np.arange(64) + 0.5) / 32 - 1
    centres = np.stack(np.meshgrid(grid, grid), -1)
    for b, i in enumerate(index):
        before = centres[frames.masks[i] > 127].mean(0)
        after = centres[views["masks"][b] > 127].mean(0)
        moved = views["matrix"][b] @ [*before, 1]
        if np.abs(centres[frames.masks[i] > 127] @ views["matrix"][b][:, :2].T).max() < 0.85:  # nothing left the view
            np.testing.assert_allclose(after, moved, atol=0.03)
    assert views["flipped"].any() and not views["flipped"].all()
    determinants = np.linalg.det(views["matrix"][:, :, :2])
    np.testing.assert_array_equal(determinants < 0, views["flipped"])
    np.testing.assert_allclose(views["height"], frames.height[index] * np.sqrt(np.abs(determinants)), rtol=1e-5)


def test_pixel_matrix_keeps_centres_integer():
    np.testing.assert_allclose(pixel_matrix(np.eye(2, 3), 10), np.eye(2, 3))
    mirror = pixel_matrix(np.array([[-1.0, 0, 0], [0, 1, 0]]), 10)
    np.testing.assert_allclose(mirror @ [0, 0, 1], [9, 0])
    shifted = pixel_matrix(np.array([[1.0, 0, 0.2], [0, 1, 0]]), 10)
    np.testing.assert_allclose(shifted @ [3, 4, 1], [4, 4])


def test_taking_the_subject_out():
    crop = np.full((32, 32, 3), 50, np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 12:20] = 255
    crop[mask > 0] = 255
    np.testing.assert_allclose(without_subject(crop, mask), 50, atol=1)


def test_empty_views_show_and_mask_nothing(painted):
    frames, _, _ = painted
    views = random_views(frames, np.array([1, 2]), np.random.default_rng(0), Augmentation(0, 0, 0, 0, 0, 0, 0, 1))
    assert views["empty"].all() and not views["masks"].any()
    assert np.abs(views["images"].astype(int) - 60).mean() < 12


def test_size_is_the_largest_of_some_seconds():
    masks = np.zeros((3, 20, 20), np.uint8)
    masks[0, 2:18, 5:8] = 255  # stands
    masks[1, 10:18, 5:12] = 255  # sits
    masks[2, 10:18, 5:12] = 255  # another subject
    boxes = np.tile(np.array([0, 0, 40, 40], np.float32), (3, 1))
    sizes = subject_sizes(masks, boxes, np.array([0, 0, 1]), np.array([0.0, 1.0, 0.0]))
    assert sizes[0] > 1.4 and sizes[1] > 1.4
    assert np.isclose(sizes[2], 0.8)


def test_resizing_keeps_kinds():
    assert resize_images(np.zeros((2, 8, 8, 3), np.uint8), 4).shape == (2, 4, 4, 3)
    assert resize_images(np.full((1, 8, 8), 255, np.uint8), 16).min() == 255
    assert resize_images(np.zeros((0, 8, 8), np.uint8), 4).shape == (0, 4, 4)
