"""A bundle as a function of pictures answers as annotate and the server do."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

import streampose
from streampose.annotate import find_poses
from streampose.errors import BundleError
from streampose.runtime.find import Finder
from streampose.server.session import build_session
from streampose.server.uploads import find_in_image
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter
from streampose.video.live import LiveFrame
from streampose.video.walker import draw_walker

SIZE = (320, 240)


@pytest.fixture(scope="module")
def model(walker_bundle):
    return streampose.load(walker_bundle, threads=1)


@pytest.fixture(scope="module")
def film():
    """Pictures of the walker at 25 frames/s."""
    return [draw_walker(n / 25, SIZE) for n in range(60)]


def test_one_picture_as_the_server_answers_it(model, film):
    for image in film[::20]:
        ids, boxes, expected = find_in_image(image, model.predictor, [])
        poses = model(image)
        assert len(poses) == len(ids) == 1 and poses.ids == (0,)
        np.testing.assert_array_equal(poses.boxes, boxes)
        np.testing.assert_array_equal(poses.xy, expected.xy)
        np.testing.assert_array_equal(poses.confidence, expected.confidence)
        np.testing.assert_array_equal(poses.z, expected.z)
        tight = np.array([[100, 40, 180, 200]], np.float32)
        _, _, expected = find_in_image(image, model.predictor, list(tight))
        np.testing.assert_array_equal(model(image, tight).xy, expected.xy)
        assert poses.xy.shape == (1, len(model.joints), 2)


def test_many_pictures_as_one_by_one(model, film):
    pictures = [*film[::3], np.zeros((50, 40, 3), np.uint8)]  # the last one shows nobody and has another size
    for found, image in zip(model(pictures), pictures, strict=True):
        expected = model(image)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found.xy, expected.xy, atol=1e-2)
    assert len(model(pictures)[-1]) == 0
    stacked = model(np.stack(film[:3]))
    np.testing.assert_allclose(stacked[2].xy, model(film[2]).xy, atol=1e-2)
    assert model([]) == []
    boxes = [np.zeros((0, 4)), np.array([[100, 40, 180, 200], [0, 0, 90, 90]])]
    assert [len(poses) for poses in model(film[:2], boxes)] == [0, 2]


@pytest.mark.parametrize("smoothing", ["one-euro", "kalman", None])
def test_a_stream_as_serve_does_it(walker_bundle, film, smoothing):
    """The same pictures through a session of the server, step by step."""
    options = {} if smoothing is None else {"smoothing": smoothing}
    session = build_session("test", walker_bundle, threads=1, smooth=smoothing is not None, **options)
    slot = session.subscribe()
    model = streampose.load(walker_bundle, threads=1, smoothing=smoothing)
    seen = 0
    for n, image in enumerate(film):
        session._process({0: LiveFrame(image, n / 25, n + 1, n / 25, n / 25)})
        served, poses = slot.take(timeout=1), model.track(image, n / 25)
        assert poses.ids == served.ids
        np.testing.assert_array_equal(poses.xy, served.keypoints.xy)
        np.testing.assert_array_equal(poses.confidence, served.keypoints.confidence)
        np.testing.assert_array_equal(poses.z, served.keypoints.z)
        np.testing.assert_array_equal(poses.boxes, served.boxes)
        if smoothing is None:
            assert poses.visibility is None
        else:
            np.testing.assert_array_equal(poses.visibility, served.visibility)
        seen += len(poses)
    assert seen > 40


def test_boxes_of_annotate_give_its_keypoints(model, film, tmp_path):
    with VideoWriter(tmp_path / "walk.mp4", 25.0, SIZE) as writer:
        for image in film:
            writer.write(image)
    compared = 0
    with open_video(tmp_path / "walk.mp4") as video:
        found = Finder(tmp_path / "walk.mp4", model.predictor).find(video.frames(), video.probe)
        for frame, row, _ in find_poses(found, model.predictor, 16):
            if row.ids:
                centre, side = (row.boxes[:, :2] + row.boxes[:, 2:]) / 2, row.boxes[:, 2:] - row.boxes[:, :2]
                half = side / 2 / (1 + 2 * model.predictor.padding)
                poses = model(frame.image, np.concatenate([centre - half, centre + half], 1))
                # annotate crops from the decoder's planes, before they are RGB
                apart = np.abs(poses.xy - row.keypoints.xy) * model.predictor.input_size / side[:, None]
                assert apart.max() < 0.5  # crop pixels
                compared += 1
    assert compared > 30


def test_streams_do_not_mix(model, film):
    other = model.tracker(max_subjects=2)
    model.reset()
    first = [model.track(image, n / 25) for n, image in enumerate(film[:20])]
    model.reset()
    for n, (image, expected) in enumerate(zip(film[:20], first, strict=True)):
        other.track(film[-1 - n], n / 25)
        np.testing.assert_array_equal(model.track(image, n / 25).xy, expected.xy)


@pytest.mark.parametrize(
    "frame", ["park.jpg", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8),
              np.zeros((0, 4, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture(model, frame):
    with pytest.raises(ValueError, match="picture is"):
        model([frame])
    with pytest.raises(ValueError, match="picture is"):
        model.track(frame, 0.0)


def test_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such model"):
        streampose.load(tmp_path / "nothing")


def test_needs_no_torch(walker_bundle):
    code = (
        "import sys, streampose; assert 'cv2' not in sys.modules; import numpy as np;"
        f"model = streampose.load({str(walker_bundle)!r});"
        "frame = np.zeros((80, 90, 3), np.uint8); model(frame); model.track(frame, 0.0);"
        "sys.exit('torch' in sys.modules or 'fastapi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_it_takes_is_told():
    assert "load_model" in (inspect.getdoc(streampose.load) or "")


def test_a_lifter_beside_the_model_gives_poses_in_space(walker_bundle, lifter_bundle, model, film):
    lifting = streampose.load(walker_bundle, threads=1, lifter=lifter_bundle)
    poses = lifting(film[0])
    assert model(film[0]).lifted is None and poses.lifted.pose.shape == (1, len(lifting.joints), 3)
    assert poses.lifted.hypotheses.shape[:2] == (1, 10) and np.isfinite(poses.lifted.covariance).all()
    assert len(lifting(np.zeros((50, 40, 3), np.uint8)).lifted.pose) == 0
    for n in range(10):
        tracked = lifting.track(film[n], n / 25)
        assert len(tracked.lifted.pose) == len(tracked)
    with pytest.raises(BundleError, match="reads pictures"):
        streampose.load(walker_bundle, lifter=walker_bundle)
