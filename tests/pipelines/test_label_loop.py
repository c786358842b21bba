"""The loop of suggesting, labelling, importing and learning, with an annotator who knows the truth."""

import numpy as np
import pytest

from streampose.ingest import ingest
from streampose.store.labels import read_labels
from streampose.synth import synth
from streampose.synthetic.truth import read_truth


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("label_loop.py")


def test_every_step_of_the_loop(pipeline, tmp_path):
    """Two rounds of three frames and as many at random; far too short to learn, so only what goes where is checked."""
    videos = tmp_path / "videos"
    synth(out=videos, videos=1, seconds=4, size=(128, 128), fps=12.5, seed=3)
    ingest([videos], store=tmp_path / "train.zarr", crop_size=64)
    (tmp_path / "test.zarr").symlink_to(tmp_path / "train.zarr")
    short = ["steps=2", "rounds=1", "round_steps=1", "batch_size=8"]
    rows = pipeline.run(
        work=tmp_path, train=videos, test=videos, rounds=2, frames=3, seeds=1, settings=short,
        round_settings=["steps=2", "rounds=0", "batch_size=8"],
    )  # fmt: skip
    assert [(row["how"], row["labels"]) for row in rows] == [("start", 0), ("suggested", 6), ("random", 6)]
    assert all(0 <= row["pck@0.1"] <= row["pck@0.2"] <= 1 for row in rows) and (tmp_path / "report.html").is_file()
    truth = read_truth(next(videos.glob("*.truth.npz")))
    for how in ("suggested", "random"):
        store = tmp_path / f"{how}-0" / "train.zarr"
        labels, annotator = read_labels(store), pipeline.Annotator(store, videos)
        assert len(set(zip(labels.clip, labels.frame, strict=True))) == 6 and set(labels.source) == {"truth"}
        for clip, frame, points, seen in zip(
            labels.clip, labels.frame, labels.keypoints, labels.visibility, strict=True
        ):
            places, visibility = annotator.places[clip]
            np.testing.assert_array_equal(seen, visibility[frame])
            np.testing.assert_allclose(points[seen > 0], places[frame][seen > 0], atol=0.01)
            number = annotator.reader.numbers(clip)[frame]
            assert np.array_equal(seen, truth.visibility[number, 0])
    again = pipeline.run(work=tmp_path, train=videos, test=videos, rounds=2, frames=3, seeds=1)
    assert again == rows  # what is finished is not done again


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_labels_lift_the_shipped_model(pipeline, tmp_path):
    """Five rounds of twenty suggested frames of SynthPose, or a hundred random ones; measured: 0.57, 0.56 from 0.43."""
    rows = {row["how"]: row for row in pipeline.run(work=tmp_path, seeds=1, settings=["steps=800"])}
    assert rows["random"]["pck@0.1"] > rows["start"]["pck@0.1"] + 0.05
    assert (
        rows["suggested"]["pck@0.1"] > rows["random"]["pck@0.1"] - 0.02
    )  # the difference is within the noise of a seed
