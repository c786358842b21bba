"""Frames worth labelling: found where a model is wrong, different from each other, in a package that comes back."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError
from streampose.labelling.choose import Candidates, choose_frames, stretches
from streampose.labels import import_labels
from streampose.store.labels import read_labels, write_labels
from streampose.store.reader import ClipInfo, StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source
from streampose.suggest import suggest

HUMAN = load_skeleton("human17")
SIZE = 64


@pytest.fixture
def store(tmp_path) -> Path:
    """One clip of a red shirt that wanders about, as the fixture `walker_bundle` knows it, with a frame without it."""
    path = tmp_path / "store.zarr"
    create_store(path, HUMAN, crop_size=SIZE, codec="zstd")
    rng = np.random.default_rng(0)
    writer = ClipWriter(path, "walk-000", source="walk.mp4", fps=10)
    for t in range(40):
        crop = rng.integers(60, 90, (SIZE, SIZE, 3), dtype=np.uint8)
        x, y = 12 + (7 * t) % 36, 16 + (5 * t) % 24
        if t != 23:
            crop[y : y + 14, x : x + 10] = (220, 30, 30)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[y - 8 : y + 30, x : x + 10] = 255
        writer.append(crop, mask, np.array([0, 0, 128.0, 128.0]), t / 10, t)
    writer.finish()
    publish_source(path, "walk", {"path": "walk.mp4", "verdict": "ok", "probe": {}, "clips": ["walk-000"]})
    return path


def test_a_package_comes_back_as_labels(store, tmp_path, walker_bundle):
    result = suggest(
        store=store, frames=6, tool="cvat", out=tmp_path / "p", model=walker_bundle, runtime="onnx", side=128
    )
    assert result["frames"] == 6 and result["looked_at"] == 40 and result["confidence"] <= result["confidence_of_all"]
    pictures = sorted((tmp_path / "p" / "pictures").iterdir())
    about = json.loads((tmp_path / "p" / "package.json").read_text())
    assert len(pictures) == 6 and sorted(about["pictures"]) == [path.name for path in pictures]
    assert 23 in [frame["frame"] for frame in about["frames"]]  # in which the model finds nothing
    assert cv2.imread(str(pictures[0])).shape == (128, 128, 3)
    drawing = json.loads((tmp_path / "p" / "cvat_labels.json").read_text())[0]
    assert len(drawing["sublabels"]) == 17 and drawing["svg"].count("<circle") == 17
    back = import_labels([tmp_path / "p" / "annotations.xml"], store=store, name="hand", who="ann")
    assert back["matched"] == 6 and back["annotators"] == ["ann"]
    reader, labels = StoreReader(store), read_labels(store)
    from streampose.runtime.predictor import load_predictor

    frames = reader.read("walk-000", labels.frame.tolist()).frames
    expected, _ = load_predictor(walker_bundle, "onnx").predict_crops(frames)
    np.testing.assert_allclose(labels.keypoints, expected[..., :2], atol=0.01)
    more = suggest(store=store, frames=50, tool="napari", out=tmp_path / "q", model=walker_bundle, runtime="onnx")
    assert more["frames"] == 34  # those with labels are not chosen again
    with pytest.raises(StoreError, match="every frame has labels"):
        write_labels(store, "all", _all(reader))
        suggest(store=store, frames=1, out=tmp_path / "r", model=walker_bundle, runtime="onnx")


def _all(reader):
    from streampose.store.labels import Labels

    points = np.zeros((40, 1, 2), np.float32)
    return Labels(
        np.full(40, "walk-000"), np.arange(40), points, np.full((40, 1), 2, np.uint8), np.full(40, "x"), ("nose",)
    )


def test_at_random_and_what_is_refused(store, tmp_path, walker_bundle):
    options = {"store": store, "model": walker_bundle, "runtime": "onnx", "at_random": True, "tool": "coco", "side": 64}
    chosen = []
    for n, seed in enumerate((1, 1, 2)):
        suggest(frames=5, out=tmp_path / str(n), seed=seed, **options)
        chosen.append(json.loads((tmp_path / str(n) / "package.json").read_text())["pictures"])
    assert chosen[0] == chosen[1] != chosen[2]
    with pytest.raises(ConfigError, match="not empty"):
        suggest(frames=5, out=tmp_path / "0", **options)
    with pytest.raises(ConfigError, match="choose label-studio"):
        suggest(frames=5, out=tmp_path / "x", **(options | {"tool": "paint"}))
    with pytest.raises(ConfigError, match="at least one"):
        suggest(frames=0, out=tmp_path / "x", **options)


def candidates(features, doubt):
    N = len(features)
    return Candidates(
        np.full(N, "a"), np.arange(N), np.zeros((N, 1, 2)), np.ones((N, 1)), np.asarray(features, float),
        {"unsure": np.asarray(doubt, float)},
    )  # fmt: skip


def test_of_a_large_store_stretches_all_over_it_are_looked_at():
    clips = [ClipInfo(f"c{n}", "a.mp4", frames, 64, 10.0, (frames,), {}) for n, frames in enumerate((300, 20, 1000))]
    assert stretches(clips, 2000) == [(clip, 0, clip.num_frames) for clip in clips] and stretches([]) == []
    found = stretches(clips, 250)
    assert 150 <= sum(end - first for _, first, end in found) <= 250 and len(found) == 10
    assert all(0 <= first < end <= clip.num_frames for clip, first, end in found)
    assert {"c0", "c2"} <= {clip.id for clip, _, _ in found} and len(
        {(clip.id, first) for clip, first, _ in found}
    ) == 10


def test_what_is_chosen_stands_for_many_doubtful_frames():
    crowd = np.concatenate([np.full((8, 1), 0.0), np.full((8, 1), 5.0), [[9.0]]])  # two crowds and one odd frame
    assert {int(i) // 8 for i in choose_frames(candidates(crowd, [1] * 17), 2)} == {0, 1}
    sure = choose_frames(candidates(crowd, [0] * 8 + [9] * 8 + [0]), 2)
    assert sure[0] // 8 == 1  # the crowd of which the model is unsure goes first
    doubtful = choose_frames(candidates(crowd, [0] * 8 + [1] * 8 + [9]), 3)
    assert {int(i) // 8 for i in doubtful} == {0, 1, 2}
    far = choose_frames(candidates(crowd, [1] * 17), 2, labelled=[("a", 0)])
    assert 0 not in far and far[0] // 8 == 1  # what looks like a labelled frame is worth nothing
    assert sorted(choose_frames(candidates(crowd, [1] * 17), 99)) == list(range(17))
    assert (candidates(crowd, [np.nan] * 17).doubt() == 0.5).all()
