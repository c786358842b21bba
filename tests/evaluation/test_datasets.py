"""Models that know the labels, on tiny datasets: what they are measured at is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.evaluate import evaluate
from streampose.evaluation.compared import measure
from streampose.evaluation.datasets import compare_labels, predict_people, read_pictures
from streampose.evaluation.summary import summarise
from streampose.formats.datasets import read_dataset
from streampose.formats.datasets.labelled import Picture
from streampose.geometry.crop import crop_from_source, square_box

from ..formats.datasets.tiny import (
    DEPTH_MM,
    FOCAL,
    HUMAN,
    SIZE,
    joint,
    number_of,
    poses,
    write_3dhp_test,
    write_coco,
    write_h36m,
    write_lsp,
    write_mpii,
)

MPII16 = load_skeleton("mpii16")
S, PADDING = 64, 0.1


def found_by(labelled, xy, xyz=None, change=lambda keypoints: keypoints, people=None):
    """Keypoints of a model that knows who is in each picture: xy (P, K, 2) of the pictures' numbers; and the boxes."""
    boxes = {}
    for box, picture in zip(square_box(labelled.boxes, PADDING), labelled.pictures, strict=True):
        boxes.setdefault(picture, []).append(box)

    def predict(crops):
        out = []
        for crop in crops:
            number = number_of(crop)
            box = next(b for p, found in boxes.items() if people[p] == number for b in found)
            keypoints = np.zeros((xy.shape[1], 3))
            keypoints[:, :2] = crop_from_source(xy[number], box, S)
            if xyz is not None:
                z = (xyz[number, :, 2] - xyz[number, 0, 2]) * FOCAL / DEPTH_MM
                keypoints[:, 2] = z * S / (box[2] - box[0])
            out.append(change(keypoints))
        return np.stack(out), np.ones((len(crops), xy.shape[1]))

    return predict_people(predict, S, PADDING, labelled)


def numbers(labelled):
    """Picture -> the number of its colour, in the order of the files."""
    files = sorted({picture.path for picture in labelled.pictures})
    return {
        picture: files.index(picture.path) if picture.frame is None else picture.frame % 3
        for picture in labelled.pictures
    }


def test_lsp_is_perfect_for_a_model_that_knows_it(tmp_path):
    xy = write_lsp(tmp_path)
    labelled = read_dataset(f"lsp:{tmp_path}")
    keypoints, confidence, boxes = found_by(labelled, xy, people=numbers(labelled))
    compared = compare_labels(labelled, keypoints, boxes, HUMAN)
    _, metrics, intervals = summarise(compared)
    # LSP's pelvis is the middle of the hips and its thorax that of the shoulders, which the drawn poses nearly have.
    assert metrics["pck@0.2"] == 1 and metrics["mse_percent"] < 1.5
    assert set(compared.joints) == set(HUMAN.joints) - {"spine", "nose"}  # head_top is our head
    assert intervals["pck@0.2"] == [1, 1] and confidence.shape == (3, 17)


def test_pck_on_lsp_by_hand(tmp_path):
    """All joints of one of three people are moved by 0.25 torsos, the others by 0.15."""
    xy = write_lsp(tmp_path)
    torso = np.linalg.norm(xy[:, joint("left_shoulder")] - xy[:, joint("right_hip")], axis=-1)
    moved = xy + (torso * [0.25, 0.15, 0.15])[:, None, None] * [1.0, 0.0]
    labelled = read_dataset(f"lsp:{tmp_path}")
    keypoints, _, boxes = found_by(labelled, moved, people=numbers(labelled))
    errors = measure(compare_labels(labelled, keypoints, boxes, HUMAN))
    own = [list(HUMAN.joints).index(n) for n in ("left_knee", "right_wrist")]
    columns = [list(compare_labels(labelled, keypoints, boxes, HUMAN).columns).index(c) for c in own]
    np.testing.assert_array_equal(errors["pck@0.2"][:, columns], [[0, 0], [1, 1], [1, 1]])


def test_h36m_in_both_protocols(tmp_path):
    xy, xyz = write_h36m(tmp_path, {"S9": ["Directions", "Sitting"]}, cameras=("54138969", "55011271"))
    labelled = read_dataset(f"h36m:{tmp_path}")
    keypoints, _, boxes = found_by(labelled, xy, xyz, people=numbers(labelled))
    compared = compare_labels(labelled, keypoints, boxes, HUMAN)
    errors, metrics, _ = summarise(compared)
    assert metrics["mse_percent"] < 1e-3 and metrics["mpjpe_mm"] < 15  # what weak perspective costs at 12 m
    assert metrics["pa_mpjpe_mm"] < metrics["mpjpe_mm"] and metrics["ambiguity_ratio"] == 0
    assert errors["mpjpe_mm"].shape == (12, 17)


def test_a_depth_mirrored_pose_is_an_error_in_both_protocols(tmp_path):
    xy, xyz = write_h36m(tmp_path, {"S9": ["Directions"]})
    labelled = read_dataset(f"h36m:{tmp_path}")
    mirrored = xyz.copy()
    mirrored[..., 2] = 2 * xyz[:, :1, 2] - xyz[..., 2]
    keypoints, _, boxes = found_by(labelled, xy, mirrored, people=numbers(labelled))
    _, metrics, _ = summarise(compare_labels(labelled, keypoints, boxes, HUMAN))
    assert metrics["mse_percent"] < 1e-3 and metrics["mpjpe_mm"] > 60 and metrics["pa_mpjpe_mm"] > 30


def test_views_that_disagree_about_left_are_counted(tmp_path):
    """Two cameras; a model that swaps sides in the first one only: every moment has one of two views swapped."""
    xy, xyz = write_h36m(tmp_path, {"S9": ["Directions"]}, cameras=("54138969", "55011271"))
    labelled = read_dataset(f"h36m:{tmp_path}")
    keypoints, _, boxes = found_by(labelled, xy, xyz, people=numbers(labelled))
    first = np.array(["54138969" in picture.path.name for picture in labelled.pictures])
    keypoints[first] = keypoints[first][:, HUMAN.flip_index]
    _, metrics, _ = summarise(compare_labels(labelled, keypoints, boxes, HUMAN))
    assert metrics["ambiguity_ratio"] == pytest.approx(0.5)
    keypoints = keypoints[:, HUMAN.flip_index]
    keypoints[first] = keypoints[first][:, HUMAN.flip_index]  # now all are swapped: wrong, but of one mind
    _, metrics, _ = summarise(compare_labels(labelled, keypoints, boxes, HUMAN))
    assert metrics["ambiguity_ratio"] == 0 and metrics["pck@0.2"] < 0.9


def test_mpi_inf_3dhp_leaves_pelvis_and_spine_out(tmp_path):
    xy, xyz = write_3dhp_test(tmp_path)
    labelled = read_dataset(f"3dhp:{tmp_path}")
    keypoints, _, boxes = found_by(labelled, xy, xyz, people={p: int(p.path.stem[4:]) - 1 for p in labelled.pictures})
    compared = compare_labels(labelled, keypoints, boxes, HUMAN)
    errors, metrics, _ = summarise(compared)
    assert metrics["pck3d@150mm"] == 1 and metrics["auc3d"] > 0.85
    counted = {compared.joints[i] for i in np.flatnonzero(np.isfinite(errors["pck3d@150mm"]).any(0))}
    assert counted == set(HUMAN.joints) - {"pelvis", "spine", "nose"}
    assert np.isfinite(errors["mpjpe_mm"][:, 0]).all()


def test_pckh_on_mpii_uses_the_head_box(tmp_path):
    """The head size is 30 px: 14 px off is right, 16 px off is wrong, whatever the skeleton's own head says."""
    xy = write_mpii(tmp_path, split=True)
    names = [{"upper_neck": "nose", "head_top": "head"}.get(name, name) for name in MPII16.joints]
    truth = xy[:, [joint(name) for name in names]]
    labelled = read_dataset(f"mpii:{tmp_path}")
    for pixels, expected in ((14, 1), (16, 0)):
        keypoints, _, boxes = found_by(labelled, truth[[1]] + [pixels, 0], people={labelled.pictures[0]: 0})
        compared = compare_labels(labelled, keypoints, boxes, MPII16)
        errors = measure(compared)["pckh@0.5"]
        left_out = np.isin(compared.joints, ("pelvis", "thorax"))
        assert np.isnan(errors[:, left_out]).all() and (errors[:, ~left_out] == expected).all()


def test_coco_counts_what_is_labelled(tmp_path):
    write_coco(tmp_path)
    labelled = read_dataset(f"coco:{tmp_path}")
    skeleton = load_skeleton("coco17")
    keypoints = np.concatenate([np.nan_to_num(labelled.xy), np.zeros((2, 17, 1))], -1)
    errors = measure(compare_labels(labelled, keypoints, square_box(labelled.boxes, PADDING), skeleton))
    assert np.isfinite(errors["pck@0.2"]).sum() == 2 * 17 - 1 and np.nanmin(errors["pck@0.2"]) == 1
    assert "mpjpe_mm" not in errors


def test_a_picture_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.jpg: not there; the labels name this picture"):
        next(read_pictures([Picture(tmp_path / "gone.jpg")]))
    (tmp_path / "bad.jpg").write_text("no picture")
    with pytest.raises(ConfigError, match=r"bad\.jpg: cannot be read"):
        next(read_pictures([Picture(tmp_path / "bad.jpg")]))


def test_frames_of_a_video_come_by_their_numbers(tmp_path):
    write_h36m(tmp_path, {"S9": ["Posing"]}, frames=20)
    video = tmp_path / "S9" / "Videos" / "Posing.54138969.mp4"
    found = dict(read_pictures([Picture(video, frame) for frame in (1, 5, 6, 18)]))
    assert [number_of(found[n]) for n in range(4)] == [1, 2, 0, 0]


@pytest.mark.parametrize("name", ["lsp", "h36m-simplified"])
def test_the_verb_measures_a_dataset_and_writes_a_report(tmp_path, walker_bundle, name):
    if name == "lsp":
        write_lsp(tmp_path / "data")
    else:
        write_h36m(tmp_path / "data", {"S9": ["Directions", "Sitting"], "S11": ["Posing 1"]})
    spec = f"{name}:{tmp_path / 'data'}"
    result = evaluate(dataset=spec, model=walker_bundle, runtime="onnx", spp=0.5, out=tmp_path / "report")
    assert result["samples"] == {"lsp": 3, "h36m-simplified": 6}[name]
    assert result["groups"] == {"lsp": 3, "h36m-simplified": 2}[name]
    assert "pck@0.2" in result["metrics"] and "mse_percent/spp" in result["metrics"]
    assert set(result["per_activity"].get("mpjpe_mm", {})) == ({"Directions", "Posing"} if name != "lsp" else set())
    low, high = result["intervals"]["mse_percent"]
    assert low - 1e-9 <= result["metrics"]["mse_percent"] <= high + 1e-9
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.index("Worst cases") < page.index("By joint") and ("By activity" in page) == (name != "lsp")
    assert (tmp_path / "report" / "predictions.png").stat().st_size > 5000


def test_datasets_bring_their_own_labels(tmp_path, walker_bundle):
    write_lsp(tmp_path)
    with pytest.raises(ConfigError, match="leave --truth out"):
        evaluate(dataset=f"lsp:{tmp_path}", truth=tmp_path, model=walker_bundle)
    with pytest.raises(ConfigError, match=r"--spp 1\.5: a share between 0 and 1"):
        evaluate(dataset=f"lsp:{tmp_path}", model=walker_bundle, runtime="onnx", spp=1.5)


def test_a_skeleton_without_a_common_joint_says_so(tmp_path):
    write_lsp(tmp_path)
    labelled = read_dataset(f"lsp:{tmp_path}")
    labelled = replace(labelled, joints=tuple(f"tentacle_{number}" for number in range(16)))
    with pytest.raises(ConfigError, match="LSP has none of the joints of human17"):
        compare_labels(labelled, np.zeros((3, 17, 3)), labelled.boxes, HUMAN)


def test_poses_fit_into_the_pictures():
    xy, _ = poses(3)
    assert (xy > 0).all() and (xy < SIZE).all()
