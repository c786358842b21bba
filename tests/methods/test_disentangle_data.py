"""Which frames of a store have a known pose, unpaired poses, sketches; and self-training from them as a whole."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import ConfigError, TrainingError
from streampose.formats.points import Points, open_points
from streampose.geometry.project import project_points
from streampose.methods.disentangle_data import (
    Known,
    add_labelled,
    keep_share,
    mirror_poses,
    read_targets,
    turn_poses,
)
from streampose.methods.disentangle_pairs import box_overlap, read_pairs
from streampose.methods.disentangle_targets import distance_image, draw_sketch
from streampose.methods.mask_data import read_frames
from streampose.methods.supervision import Labelled
from streampose.metrics.label_free import render_skeletons
from streampose.runtime.predictor import load_predictor
from streampose.selftrain import selftrain
from streampose.store.priors import Prior, write_prior
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.sessions import write_session
from streampose.store.writer import ClipWriter, publish_source
from streampose.structures import Camera, Session, View
from streampose.synthetic.truth import Truth, write_truth

HUMAN = load_skeleton("human17")
FRAMES, CROP, SIDE = 12, 64, 128
BOX = np.array([16, 8, 112, 104], np.float32)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def standing() -> np.ndarray:
    """A person of 1.7 m in the rest pose, y down, the root at the origin: (17, 3)."""
    pose = np.zeros((17, 3))
    for bone in HUMAN.bones:
        pose[bone.child] = pose[bone.parent] + 1.7 * bone.length * np.array(bone.direction)
    return pose


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A store of two videos, `known` and `unknown`, and the truth of `known`: (store, folder, pose in the camera)."""
    folder = tmp_path_factory.mktemp("disentangle")
    store, rng = folder / "store.zarr", np.random.default_rng(0)
    create_store(store, HUMAN, crop_size=CROP)
    K, R, t = np.array([[150.0, 0, 63.5], [0, 150, 55.5], [0, 0, 1]]), np.eye(3), np.array([0.0, 0.0, 4.0])
    sway = np.stack([turn_poses(standing()[None], (0, 40, 0), rng)[0] for _ in range(FRAMES)])
    xy = project_points(sway, K, R, t)
    for name in ("known", "unknown"):
        writer = ClipWriter(store, name, source=f"{name}.mp4", fps=25)
        for frame in range(FRAMES):
            in_crop = (xy[frame] + 0.5 - BOX[:2]) * CROP / (BOX[2] - BOX[0]) - 0.5
            mask = render_skeletons(in_crop[None], np.array([46.0]), HUMAN, CROP)[0]
            image = np.full((CROP, CROP, 3), 90, np.uint8)
            image[mask > 127] = (190, 60, 60)
            writer.append(image, mask, BOX, frame / 25, frame)
        writer.finish()
        publish_source(store, name, {"path": f"{name}.mp4", "verdict": "ok", "reason": "", "clips": [name]})
    low, high = xy.min(1) - 4, xy.max(1) + 4
    truth = Truth(
        joints=np.array(HUMAN.joints), joints_3d=sway[:, None], joints_2d=xy[:, None],
        visibility=np.full((FRAMES, 1, 17), 2, np.uint8), boxes=np.concatenate([low, high], -1)[:, None],
        masks=np.zeros((FRAMES, SIDE, SIDE), np.uint8), pts_seconds=np.arange(FRAMES) / 25,
        K=np.tile(K, (FRAMES, 1, 1)), R=np.tile(R, (FRAMES, 1, 1)), t=np.tile(t, (FRAMES, 1)),
        size=np.array([SIDE, SIDE]),
    )  # fmt: skip
    write_truth(folder / "known.truth.npz", truth)
    return store, folder, sway


def test_pairs_are_found_by_video_box_and_time(filmed):
    store, folder, pose = filmed
    reader = StoreReader(store)
    frames = read_frames(reader, CROP, 64)
    known = read_pairs(reader, frames, HUMAN, folder)
    assert known.paired.tolist() == np.flatnonzero(frames.seconds >= 0)[: len(known.paired)].tolist()
    assert len(known.paired) == FRAMES and len(known.labelled) == 0
    np.testing.assert_allclose(known.pose[:FRAMES], pose, atol=1e-5)
    drawn = ((known.xy[0] + 1) * CROP / 2 - 0.5).round().astype(int)
    assert (frames.masks[0][drawn[:, 1], drawn[:, 0]] > 127).mean() > 0.9  # the joints lie on the body


def test_pairs_come_from_several_cameras_too(filmed, tmp_path):
    store, _, pose = filmed
    camera = Camera(
        np.array([[150.0, 0, 63.5], [0, 150, 55.5], [0, 0, 1]]), np.eye(3), np.array([0, 0, 4.0]), (128, 128)
    )
    views = (View("a", Path("known.mp4"), None), View("b", Path("unknown.mp4"), camera, offset_seconds=1.0))
    write_session(store, Session("jump", views), ["known", "unknown"])
    times = np.arange(FRAMES) / 25 + 1
    both = np.stack([pose + 30.0, pose], 1).reshape(-1, 17, 3)  # somebody else far outside
    both[3, 5] = np.nan
    uncertainty = np.full((2 * FRAMES, 17), 0.01)
    uncertainty[5, 7] = 0.5
    points = Points(
        np.repeat(np.arange(FRAMES), 2), np.repeat(times, 2), np.tile([4, 9], FRAMES), both, uncertainty,
        np.ones((2 * FRAMES, 17)), np.full((2 * FRAMES, 17), 2),
    )  # fmt: skip
    (tmp_path / "jump").mkdir()
    with open_points(tmp_path / "jump" / "points.parquet", HUMAN, "jump", {"b": camera}) as file:
        file.write(points)
    reader = StoreReader(store)
    frames = read_frames(reader, CROP, 64)
    known = read_pairs(reader, frames, HUMAN, tmp_path)
    assert known.paired.tolist() == list(range(FRAMES, 2 * FRAMES))  # view `a` has no camera
    expected = pose.copy()
    expected[1, 5], expected[2, 7] = np.nan, np.nan  # missing, uncertain
    np.testing.assert_allclose(known.pose[FRAMES:], expected, atol=1e-5)
    drawn = ((known.xy[FRAMES] + 1) * CROP / 2 - 0.5).round().astype(int)
    assert (frames.masks[FRAMES][drawn[:, 1], drawn[:, 0]] > 127).mean() > 0.9


def test_pairs_that_do_not_fit_are_told(filmed, tmp_path):
    reader = StoreReader(filmed[0])
    frames = read_frames(reader, CROP, 64)
    with pytest.raises(TrainingError, match=r"truth.npz for some of known, unknown"):
        read_pairs(reader, frames, HUMAN, tmp_path)


def test_a_share_of_the_pairs_is_kept():
    known = Known(np.zeros((40, 17, 3), np.float32), np.zeros((40, 17, 2), np.float32))
    kept = keep_share(known, 0.25, 3)
    assert len(kept.paired) == 10 and np.isnan(kept.xy).any(2).any(1).sum() == 30
    assert (
        keep_share(known, 0.25, 3).paired.tolist() == kept.paired.tolist() != keep_share(known, 0.25, 4).paired.tolist()
    )
    assert len(keep_share(known, 0.001, 0).paired) == 2 and keep_share(known, 1.0, 0) is known


def test_2d_labels_come_after_the_frames(painted):
    frames, joints, _ = painted
    known = Known(np.zeros((24, 17, 3), np.float32), joints[..., :2].astype(np.float32))
    weight = np.ones((24, 17), np.float32)
    weight[:, 2] = 0
    more, both = add_labelled(frames, known, Labelled(frames, joints[..., :2], weight, np.full(24, "a")))
    assert len(more) == 48 and both.paired.tolist() == list(range(24)) and both.labelled.tolist() == list(range(24, 48))
    assert np.isnan(both.xy[30, 2]).all() and np.isfinite(both.xy[30, 3]).all()


def test_unpaired_poses_of_a_store_and_built_in_ones(filmed):
    store, _, pose = filmed
    poses = pose + 5
    poses[0, 0] = np.nan  # nothing to be relative to
    write_prior(store, Prior("dances", poses.astype(np.float32), HUMAN.joints, np.full(FRAMES, "one")))
    reader = StoreReader(store)
    found = read_targets(reader, HUMAN, "dances", 100, 0)
    np.testing.assert_allclose(found, pose[1:], atol=1e-5)
    assert len(read_targets(reader, HUMAN, "dances", 5, 0)) == 5
    assert len(read_targets(reader, HUMAN, "none", 5, 0)) == 0
    assert read_targets(reader, HUMAN, "built-in", 8, 0).shape == (8, 17, 3)
    write_prior(store, Prior("flat", poses[..., :2].astype(np.float32), HUMAN.joints, np.full(FRAMES, "one")))
    with pytest.raises(ConfigError, match="2D"):
        read_targets(reader, HUMAN, "flat", 5, 0)


def test_turning_keeps_shapes_and_mirroring_exchanges_sides():
    rng, poses = np.random.default_rng(0), np.tile(standing(), (6, 1, 1)).astype(np.float32)
    turned = turn_poses(poses, (15, 180, 15), rng)
    gram = [p @ p.transpose(0, 2, 1) for p in (poses, turned)]
    np.testing.assert_allclose(gram[0], gram[1], atol=1e-5)
    assert np.linalg.norm(turned - poses, axis=-1).max() > 0.1
    upright = turn_poses(poses, (0, 180, 0), rng)
    np.testing.assert_allclose(upright[..., 1], poses[..., 1], atol=1e-6)
    mirrored = mirror_poses(poses, np.arange(6) < 3, HUMAN.flip_index)
    np.testing.assert_allclose(mirrored, poses, atol=1e-6)  # the rest pose is symmetric
    poses[:, HUMAN.joints.index("left_wrist"), 2] = -1
    there = mirror_poses(poses, np.ones(6, bool), HUMAN.flip_index)
    assert (there[:, HUMAN.joints.index("right_wrist"), 2] == -1).all()


def test_overlap_of_boxes():
    a, b = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 25, 10])
    assert box_overlap(a, a) == 1 and box_overlap(a, b) == 0.5 and box_overlap(a, b + 50) == 0


def test_sketches_follow_outlines_and_inner_edges():
    crop, mask = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64), np.uint8)
    cv2.rectangle(mask, (16, 8), (48, 56), 255, -1)
    crop[32:, :] = 30
    strokes = draw_sketch(crop, mask)
    assert strokes[8, 30] == 255 and strokes[40, 16] == 255  # the outline
    assert strokes[30:34, 24:40].any(0).all()  # where the colours meet
    assert not strokes[:6].any() and not strokes[45:52, 22:42].any()
    image = distance_image(strokes)
    assert image[8, 30] == 1 and 0 < image[7, 30] < 1 and image[0, 0] == 0
    assert not distance_image(np.zeros((8, 8), np.uint8)).any()


FEW = ["steps=6", "target_steps=1", "batch_size=4", "target_batch_size=4", "prior_poses=40"]


def test_selftrain_makes_a_bundle_that_serves(filmed, tmp_path):
    store, folder, _ = filmed
    options = {"device": "cpu", "precision": "f32", "out": tmp_path / "runs", "models": tmp_path / "models"}
    result = selftrain(store=store, method="disentangle", overrides=[*FEW, f"pairs={folder}"], **options)
    assert result["method"] == "disentangle" and result["promoted"] and result["stopped"] == "finished"
    assert list((Path(result["run"]) / "pictures").glob("*.png"))
    predictor = load_predictor(tmp_path / "models" / "current", "onnx")
    keypoints, confidence = predictor.predict_crops(np.full((2, 64, 64, 3), 80, np.uint8))
    assert keypoints.shape == (2, 17, 3) and np.isfinite(keypoints).all() and (confidence <= 1).all()


def test_selftrain_needs_pairs(filmed, tmp_path):
    with pytest.raises(ConfigError, match="--set pairs=FOLDER"):
        selftrain(store=filmed[0], method="disentangle", out=tmp_path / "runs", models=tmp_path / "models")
    assert not list((tmp_path / "runs").iterdir())  # nothing to resume
    with pytest.raises(ConfigError, match="no pose model"):
        selftrain(store=filmed[0], method="disentangle", preset="sketch", out=tmp_path, models=tmp_path / "models")
