"""Drawn faces: their 68 points lie where the picture shows them, and `landmarks` learns to find them (slow)."""

import numpy as np
import pytest

from streampose.methods.landmarks_data import make_crops


@pytest.fixture(scope="module")
def pipeline(load_pipeline):
    return load_pipeline("reproduce/landmarks_faces.py")


def test_points_are_in_the_order_of_300_w_and_have_their_counterparts(pipeline):
    of, shape = pipeline.parts(), pipeline.base_shape()
    assert shape.shape == (68, 3) and of["jaw"][-1] == 16 and of["inner_lips"] == list(range(60, 68))
    assert shape[36, 0] < shape[39, 0] < shape[42, 0] < shape[45, 0]  # corners of the eyes
    assert shape[8, 1] == shape[:, 1].max() and shape[30, 2] == shape[:, 2].min()  # chin below, nose in front
    skeleton = pipeline.face_skeleton()
    flip = skeleton.flip_index
    np.testing.assert_allclose(shape[flip, 0], -shape[:, 0], atol=0.01)
    np.testing.assert_allclose(shape[flip, 1], shape[:, 1], atol=0.01)
    assert skeleton.num_joints == 68 and len(skeleton.bones) == 67


def test_pictures_show_the_points(pipeline):
    faces = pipeline.make_faces(4, 9)
    assert faces.crops.shape == (40, 64, 64, 3) and np.abs(faces.points).max() < 1.1
    again = pipeline.make_faces(4, 9)
    assert (again.crops == faces.crops).all()
    pixels = ((faces.points + 1) * 32 - 0.5).round().astype(int).clip(0, 63)
    grey = faces.crops.astype(float).mean(-1)
    rows = np.arange(40)
    opened = faces.points[:, 41, 1] - faces.points[:, 37, 1] > 0.15  # both lids are apart
    eye = pixels[:, 36:42].mean(1).round().astype(int)
    cheek = pixels[:, [41, 48]].mean(1).round().astype(int)
    contrast = np.abs(grey[rows, eye[:, 1], eye[:, 0]] - grey[rows, cheek[:, 1], cheek[:, 0]])
    assert np.median(contrast[opened]) > 15
    of_clip = faces.crops.reshape(4, 10, -1).astype(float)
    within = np.abs(of_clip[:, :1] - of_clip).mean()
    assert within < 0.7 * np.abs(of_clip - of_clip[[1, 2, 3, 0]]).mean()  # one identity a clip


def test_the_method_takes_points_for_bones(pipeline):
    faces = pipeline.make_faces(2, 5)
    data = make_crops(faces.crops, faces.clip, np.arange(20.0))
    few = ["steps.skeletons=1", "steps.figures=1", "steps.landmarks=1", "steps.reading=1"]
    few += ["batch_size=2", "discriminator_width=4"]
    task = pipeline.make_task(data, faces.points, few)
    for step in range(4):
        terms, weights = task.loss(task.batch(step), step)
        assert terms.keys() == weights.keys() and all(np.isfinite(float(term.detach())) for term in terms.values())
    assert pipeline.find(task, faces.crops).shape == (20, 68, 2)
    assert pipeline.error_percent(faces.points, faces.points) == 0


@pytest.mark.slow
def test_points_of_faces_converge(pipeline, tmp_path):
    steps = ["steps.skeletons=400", "steps.figures=400", "steps.landmarks=500", "steps.reading=200"]
    found = pipeline.reproduce(tmp_path, steps, identities=60)
    assert found["landmarks"] < 0.7 * found["mean_pose"] < found["untrained"]
    assert (tmp_path / "faces.png").is_file()
