"""Evaluation on a small store whose truth is known: two subjects in one video, drawn as their own skeletons."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError
from streampose.evaluate import evaluate
from streampose.evaluation.compared import measure as measure_compared
from streampose.evaluation.free import measure_label_free
from streampose.evaluation.predicted import predict_clips
from streampose.evaluation.truth import compare_truth, match_truth
from streampose.formats.coco import open_coco
from streampose.geometry.crop import crop_from_source, square_box
from streampose.geometry.project import project_points
from streampose.metrics.label_free import render_skeletons
from streampose.runtime.sheet import Shown, predictions_picture
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source, write_pairs
from streampose.structures import Keypoints
from streampose.synthetic.truth import Truth, write_truth

HUMAN = load_skeleton("human17")
FRAMES, CROP, PADDING = 24, 64, 0.15
FOCAL, DEPTH = 8000.0, 40.0  # far away, so that weak perspective holds


def standing(rng: np.random.Generator) -> np.ndarray:
    """(K, 3) metres, y down, around the root; limbs turned a little."""
    pose = np.zeros((17, 3))
    for bone in HUMAN.bones:
        direction = np.array(bone.direction) + rng.normal(0, 0.15, 3)
        pose[bone.child] = pose[bone.parent] + 1.75 * bone.length * direction / np.linalg.norm(direction)
    return pose


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(store, folder with the truth, truth): subject 0 at the left, 1 at the right, each with its clip."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(0)
    poses = np.stack([standing(rng) for _ in range(2)])
    drift = np.linspace(-0.2, 0.2, FRAMES)
    joints_3d = poses[None] + np.array([[-0.8, 0, DEPTH], [0.8, 0, DEPTH]])[None, :, None]
    joints_3d = joints_3d + drift[:, None, None, None] * np.array([1, 0, 0])
    K = np.tile(np.array([[FOCAL, 0, 320], [0, FOCAL, 240], [0, 0, 1]]), (FRAMES, 1, 1))
    R, t = np.tile(np.eye(3), (FRAMES, 1, 1)), np.zeros((FRAMES, 3))
    joints_2d = np.stack([project_points(joints_3d[:, n], K, R, t) for n in range(2)], 1)
    visibility = np.full((FRAMES, 2, 17), 2, np.uint8)
    boxes = np.concatenate([joints_2d.min(2) - 8, joints_2d.max(2) + 8], -1)
    truth = Truth(
        joints=np.array(HUMAN.joints), joints_3d=joints_3d, joints_2d=joints_2d, visibility=visibility, boxes=boxes,
        masks=np.zeros((FRAMES, 480, 640), np.uint8), pts_seconds=np.arange(FRAMES) / 25, K=K, R=R, t=t,
        size=np.array([640, 480]),
    )  # fmt: skip
    write_truth(folder / "walk.truth.npz", truth)
    store = folder / "store.zarr"
    create_store(store, HUMAN, crop_size=CROP, margin=PADDING)
    clips = []
    for subject in (1, 0):  # the clips are not in the order of the subjects
        writer = ClipWriter(store, f"walk-{subject}", source="videos/walk.mp4", fps=25)
        for frame in range(FRAMES):
            box = square_box(boxes[frame, subject], PADDING)
            xy = crop_from_source(joints_2d[frame, subject], box, CROP)
            height = 1.75 * FOCAL / DEPTH * CROP / (box[2] - box[0])
            mask = render_skeletons(xy[None], np.array([height]), HUMAN, CROP)[0]
            image = np.repeat(mask[..., None], 3, -1) // 2
            image[0, 0] = (frame, subject, 0)  # so that the oracle below knows what it sees
            writer.append(image, mask, box, frame / 25, frame)
        writer.finish()
        clips.append(writer.id)
    publish_source(store, "walk", {"path": "videos/walk.mp4", "verdict": "ok", "reason": "", "clips": clips})
    empty = np.zeros(0)
    write_pairs(store, {"clip": np.zeros(0, "U1"), "i": empty, "j": empty, "seconds": empty, "motion": empty})
    return store, folder, truth


def oracle(truth: Truth, change=lambda keypoints: keypoints):
    """A model that knows the truth, then changes it."""

    def predict(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = []
        for crop in crops:
            frame, subject = int(crop[0, 0, 0]), int(crop[0, 0, 1])
            box = square_box(truth.boxes[frame, subject], PADDING)
            xy = crop_from_source(truth.joints_2d[frame, subject], box, CROP)
            relative = truth.joints_3d[frame, subject, :, 2] - truth.joints_3d[frame, subject, HUMAN.root, 2]
            z = relative * FOCAL / DEPTH * CROP / (box[2] - box[0])
            out.append(change(np.concatenate([xy, z[:, None]], -1)))
        return np.stack(out).astype(np.float32), np.ones((len(crops), 17), np.float32)

    return predict


def measure(matched, skeleton):
    """{name: (frames, joints)} of matched tracks, and the joints' names."""
    compared = compare_truth(matched, skeleton)
    return measure_compared(compared), list(compared.joints)


def measured(scene, change=lambda keypoints: keypoints) -> tuple[dict[str, float], dict[str, float]]:
    store, folder, truth = scene
    found = list(predict_clips(oracle(truth, change), CROP, HUMAN, StoreReader(store)))
    errors, _ = measure(match_truth(found, folder, PADDING), HUMAN)
    return {name: float(np.nanmean(values)) for name, values in errors.items()}, measure_label_free(found, HUMAN)[0]


def test_the_truth_scores_perfectly(scene):
    metrics, free = measured(scene)
    assert metrics["pck@0.2"] == metrics["pckh@0.5"] == metrics["pck3d@150mm"] == 1
    assert metrics["mse_percent"] < 0.01
    assert metrics["mpjpe_mm"] < 10 and metrics["n_mpjpe_mm"] < 10 and metrics["pa_mpjpe_mm"] < 10
    assert metrics["auc3d"] > 0.9
    assert free["free/mask_iou"] > 0.9 and free["free/inside_mask"] > 0.99
    assert free["free/left_right_swaps"] == 0 and free["free/jitter"] < 2


def test_flips_are_forgiven_only_where_they_are_allowed(scene):
    metrics, free = measured(scene, lambda keypoints: keypoints[HUMAN.flip_index])
    assert metrics["pck@0.2"] < 0.8 and metrics["pck@0.2/flips"] == 1
    assert metrics["mpjpe_mm"] > 50 and metrics["mpjpe_mm/flips"] < 10
    assert metrics["pa_mpjpe_mm"] > 20 and metrics["pa_mpjpe_mm/flips"] < 10
    assert free["free/mask_iou"] > 0.9  # nothing without labels can see it


def test_a_mirrored_depth_is_an_error(scene):
    metrics, _ = measured(scene, lambda keypoints: keypoints * [1, 1, -1])
    assert metrics["pck@0.2"] == 1
    assert metrics["mpjpe_mm"] > 50 and metrics["pa_mpjpe_mm"] > 20


def test_a_model_without_metric_scale(scene):
    """Everything twice as large around the root: MPJPE sees it, N-MPJPE does not."""

    def larger(keypoints):
        return keypoints[:1] + 2 * (keypoints - keypoints[:1])

    metrics, _ = measured(scene, larger)
    assert metrics["mpjpe_mm"] > 200 and metrics["n_mpjpe_mm"] < 10


def test_a_shift_by_hand(scene):
    metrics, _ = measured(scene, lambda keypoints: keypoints + np.array([3.2, 0, 0]))
    assert metrics["mse_percent"] == pytest.approx(100 * 3.2 / CROP, rel=1e-3)
    assert metrics["mpjpe_mm"] < 10  # relative to the root


def test_joints_outside_the_picture_do_not_count(scene, tmp_path):
    store, _, truth = scene
    visibility = truth.visibility.copy()
    visibility[:, :, HUMAN.joints.index("head")] = 0
    parts = {name: getattr(truth, name) for name in truth.__dataclass_fields__}
    write_truth(tmp_path / "walk.truth.npz", Truth(**parts | {"visibility": visibility}))
    found = list(predict_clips(oracle(truth), CROP, HUMAN, StoreReader(store)))
    errors, joints = measure(match_truth(found, tmp_path, PADDING), HUMAN)
    assert np.isnan(errors["pck@0.2"][:, joints.index("head")]).all()
    assert np.isfinite(errors["pck@0.2"]).sum() == 2 * FRAMES * 16


def test_each_clip_is_compared_with_its_own_subject(scene):
    store, folder, truth = scene
    found = list(predict_clips(oracle(truth), CROP, HUMAN, StoreReader(store)))
    assert [match.subject for match in match_truth(found, folder, PADDING)] == [1, 0]


def test_joints_are_matched_by_name(scene, tmp_path):
    """The truth names its joints in another order and knows fewer of them."""
    store, _, truth = scene
    order = np.random.default_rng(0).permutation(17)[:15]
    order = order[[HUMAN.joints[i] != "nose" for i in order]]
    parts = {name: getattr(truth, name) for name in truth.__dataclass_fields__}
    parts |= {name: parts[name][:, :, order] for name in ("joints_3d", "joints_2d", "visibility")}
    write_truth(tmp_path / "walk.truth.npz", Truth(**parts | {"joints": truth.joints[order]}))
    found = list(predict_clips(oracle(truth), CROP, HUMAN, StoreReader(store)))
    errors, joints = measure(match_truth(found, tmp_path, PADDING), HUMAN)
    assert set(joints) == set(truth.joints[order]) and "nose" not in joints
    assert np.nanmax(errors["mse_percent"]) < 0.01
    assert "pckh@0.5" not in errors  # there is no head segment without the nose


def test_the_verb_measures_a_bundle_and_writes_a_report(scene, walker_bundle, tmp_path):
    store, folder, _ = scene
    result = evaluate(store=store, truth=folder, model=walker_bundle, runtime="onnx", out=tmp_path / "report")
    assert result["samples"] == 2 * FRAMES and result["clips"] == {"compared": 2, "without_truth": 0}
    for name in ("pck@0.2", "pck@0.2/flips", "mpjpe_mm", "pa_mpjpe_mm/flips", "free/mask_iou", "free/jitter"):
        assert np.isfinite(result["metrics"][name])
    assert 0 <= result["metrics"]["pck@0.2"] <= result["metrics"]["pck@0.2/flips"] <= 1
    assert set(result["per_joint"]["pck@0.2"]) == set(HUMAN.joints)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == result
    assert "left_wrist" in (tmp_path / "report" / "report.html").read_text()
    assert (tmp_path / "report" / "predictions.png").stat().st_size > 10_000


def test_boxes_are_compared_with_the_margin_that_the_crops_were_cut_with(scene, walker_bundle, tmp_path, caplog):
    store, folder, _ = scene
    evaluate(store=store, truth=folder, model=walker_bundle, runtime="onnx")
    assert "margin" not in caplog.text  # the bundle was trained with the same
    other = tmp_path / "other.zarr"
    shutil.copytree(store, other)
    text = (other / "zarr.json").read_text()
    assert f'"margin": {PADDING}' in text
    (other / "zarr.json").write_text(text.replace(f'"margin": {PADDING}', '"margin": 0.4'))
    evaluate(store=other, truth=folder, model=walker_bundle, runtime="onnx")
    assert f"margin of 0.4, the model was trained with {PADDING}" in caplog.text


def test_without_truth_the_label_free_metrics_are_there(scene, walker_bundle, tmp_path):
    store, _, _ = scene
    result = evaluate(store=store, model=walker_bundle, runtime="onnx", out=tmp_path)
    assert result["metrics"] and all(name.startswith("free/") for name in result["metrics"])
    assert result["samples"] == 2 * FRAMES
    assert (tmp_path / "predictions.png").is_file()


def test_a_prior_says_how_many_poses_a_body_could_take(scene, walker_bundle, tmp_path):
    store, folder, truth = scene
    result = evaluate(store=store, model=walker_bundle, runtime="onnx", prior="built-in")
    assert 0 <= result["metrics"]["free/plausible"] <= 1 and "left_knee" in result["per_joint"]["free/joint_limits"]
    with pytest.raises(StoreError, match="no prior nobody"):
        evaluate(store=store, model=walker_bundle, runtime="onnx", prior="nobody")
    with open_coco(tmp_path / "walk.keypoints.json", HUMAN, source="walk.mp4", size=(640, 480)) as writer:
        box = square_box(truth.boxes[0, :1], PADDING)
        writer.write(0, 0.0, Keypoints(truth.joints_2d[0, :1], np.ones((1, 17))), [7], box)
    with pytest.raises(ConfigError, match="have no depth"):
        evaluate(predictions=tmp_path, truth=folder, prior="built-in")


def test_written_predictions_are_measured_too(scene, tmp_path):
    _, folder, truth = scene
    with open_coco(tmp_path / "walk.keypoints.json", HUMAN, source="walk.mp4", size=(640, 480)) as writer:
        for frame in range(FRAMES):
            keypoints = Keypoints(truth.joints_2d[frame], np.ones((2, 17)))
            writer.write(frame, frame / 25, keypoints, [7, 9], square_box(truth.boxes[frame], PADDING))
    result = evaluate(predictions=tmp_path, truth=folder)
    assert result["samples"] == 2 * FRAMES
    assert result["metrics"]["pck@0.2"] == 1 and result["metrics"]["mse_percent"] < 0.1
    assert not any("mpjpe" in name or name.startswith("free/") for name in result["metrics"])


def test_errors_say_what_to_do(scene, walker_bundle, tmp_path):
    store, folder, _ = scene
    with pytest.raises(StoreError, match="streampose ingest"):
        evaluate(store=tmp_path / "none.zarr", model=walker_bundle)
    with pytest.raises(ConfigError, match=r"no \*.truth.npz"):
        evaluate(store=store, truth=tmp_path, model=walker_bundle, runtime="onnx")
    (tmp_path / "other.truth.npz").write_bytes((folder / "walk.truth.npz").read_bytes())
    with pytest.raises(ConfigError, match="no truth that fits"):
        evaluate(store=store, truth=tmp_path, model=walker_bundle, runtime="onnx")
    with pytest.raises(ConfigError, match="give --truth"):
        evaluate(predictions=tmp_path)


def test_the_sheet_shows_prediction_and_truth(scene):
    _, _, truth = scene
    frame = np.full((64, 64, 3), 90, np.uint8)
    xy = crop_from_source(truth.joints_2d[0, 0], square_box(truth.boxes[0, 0], PADDING), 64)
    cell = Shown(frame, xy, np.ones(17), xy, None, "clip")
    sheet = predictions_picture({"best": [cell, cell], "worst": [cell]}, HUMAN, tile=128)
    assert sheet.shape == (2 * (28 + 128 + 18), 2 * (256 + 8), 3)
    left, right = sheet[28:156, :128], sheet[28:156, 128:256]
    assert (left != 90).any() and (right != 90).any()
