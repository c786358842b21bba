"""Every format of labels gives back what it was given: joints to 0.01 px, names, visibility, pictures, annotators."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streampose.errors import StreamposeError
from streampose.formats.annotations import join_annotations, make_annotations, match_names, plain_name
from streampose.formats.coco import read_coco
from streampose.formats.coco_labels import read_coco_labels, write_coco_labels
from streampose.formats.cvat import read_cvat, write_cvat
from streampose.formats.dlc import read_dlc_csv
from streampose.formats.dlc_labels import read_dlc_labels, write_dlc_labels, write_lightning_pose
from streampose.formats.label_studio import label_config, read_label_studio, write_label_studio
from streampose.formats.napari import read_napari, write_napari
from streampose.formats.sleap import read_sleap, write_sleap

JOINTS = ("nose", "left wrist", "tail,tip", 'größe "x" & <y>')
WHO = "ann"


def labels(seed, rows=6, subjects=1, joints=JOINTS, cut_out=True):
    """Random labels: `rows` pictures, each with so many subjects; every row places something, every joint is placed."""
    rng = np.random.default_rng(seed)
    R, K = rows * subjects, len(joints)
    seen = rng.integers(0, 3, (R, K))
    seen[np.arange(R), rng.integers(0, K, R)] = 2
    seen[0] = 1 + np.arange(K) % 2
    number = np.repeat(rng.permutation(5000)[:rows], subjects)
    boxes = np.sort(rng.uniform(0, 400, (R, 2, 2)), 1).reshape(R, 4)
    return make_annotations(
        joints, rng.uniform(-20, 700, (R, K, 2)), seen, boxes=boxes, size=np.tile([640, 480], (R, 1)), who=[WHO] * R,
        image=[f"walk-000__{n:06d}.png" for n in number] if cut_out else [""] * R,
        video=[""] * R if cut_out else ["videos/walk one.mp4"] * R, frame_index=[-1] * R if cut_out else number,
        edges=[(0, 1), (1, 2)],
    )  # fmt: skip


def key(one, r):
    points = np.nan_to_num(one.xy[r], nan=-999.0)
    return (str(one.image[r]), int(one.frame_index[r]), *(round(float(v)) for v in points.sum(0)))


def assert_same(found, expected, tolerance=0.01, who=True):
    """The same rows in any order, joints by name."""
    assert set(found.joints) == set(expected.joints) and len(found) == len(expected)
    columns = [found.joints.index(name) for name in expected.joints]
    left = list(range(len(expected)))
    for r in range(len(found)):
        match = [
            e for e in left
            if np.array_equal(found.visibility[r, columns], expected.visibility[e])
            and np.allclose(found.xy[r][columns], expected.xy[e], atol=tolerance, rtol=0, equal_nan=True)
        ]  # fmt: skip
        assert match, f"row {r} is none of those that were written"
        left.remove(match[0])
        if who:
            assert found.who[r] == expected.who[match[0]]
    assert not left


def write_and_read(name, folder, one):
    if name == "coco":
        return read_coco_labels(write_coco_labels(folder / "a.json", one))
    if name == "dlc csv":
        return read_dlc_labels(write_dlc_labels(folder / "dlc", one, WHO, h5=False))
    if name == "dlc h5":
        pytest.importorskip("tables", reason="pytables is not installed; pip install 'streampose[dlc]'")
        write_dlc_labels(folder / "dlc5", one, WHO)
        for table in (folder / "dlc5").rglob("CollectedData_ann.csv"):
            table.unlink()
        assert list((folder / "dlc5").rglob("*.h5"))
        return read_dlc_labels(folder / "dlc5")
    if name == "lightning-pose":
        return read_dlc_labels(write_lightning_pose(folder / "lp", one, WHO))
    if name == "sleap":
        pytest.importorskip("sleap_io", reason="sleap-io is not installed; pip install 'streampose[sleap]'")
        return read_sleap(write_sleap(folder / "a.slp", one, WHO))
    if name == "label-studio":
        return read_label_studio(write_label_studio(folder / "tasks.json", one))
    if name == "cvat":
        return read_cvat(write_cvat(folder / "annotations.xml", one, WHO))
    return read_napari(write_napari(folder / "points.csv", one))


FRAMES = ("coco", "dlc csv", "dlc h5", "lightning-pose", "sleap", "label-studio", "napari")
CUT_OUT = ("coco", "label-studio", "cvat", "napari")


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_videos(name, tmp_path):
    one = labels(3, cut_out=False)
    found = write_and_read(name, tmp_path, one)
    assert_same(found, one)
    assert sorted(found.frame_index) == sorted(one.frame_index)
    assert {v.rsplit("/")[-1].removesuffix(".mp4") for v in found.video} == {"walk one"}


@pytest.mark.parametrize("name", CUT_OUT)
def test_cut_out_pictures(name, tmp_path):
    one = labels(4)
    found = write_and_read(name, tmp_path, one)
    assert_same(found, one)
    assert sorted(found.image) == sorted(one.image)


@pytest.mark.parametrize("name", ["coco", "dlc csv", "dlc h5", "sleap", "label-studio", "cvat", "napari"])
def test_several_subjects_in_a_frame(name, tmp_path):
    one = labels(5, subjects=3, rows=3, cut_out=name == "cvat")
    assert_same(write_and_read(name, tmp_path, one), one)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5))
@pytest.mark.parametrize("name", ["coco", "dlc csv", "lightning-pose", "label-studio", "cvat", "napari"])
def test_any_values(name, tmp_path, seed, rows):
    one = labels(seed, rows, cut_out=name in ("cvat", "label-studio"))
    folder = tmp_path / f"{seed}-{rows}"
    folder.mkdir(exist_ok=True)
    assert_same(write_and_read(name, folder, one), one)


def test_the_sizes_and_edges_that_tools_show(tmp_path):
    one = labels(1)
    found = write_and_read("coco", tmp_path, one)
    assert found.edges == one.edges and (found.size == (640, 480)).all()
    np.testing.assert_allclose(found.boxes, one.boxes, atol=1e-3)
    assert read_coco(tmp_path / "a.json")["joints"] == list(JOINTS)  # an ordinary COCO file
    write_and_read("dlc csv", tmp_path, labels(1, cut_out=False))
    table = read_dlc_csv(next((tmp_path / "dlc").rglob("CollectedData_ann.csv")))
    assert table.joints == JOINTS and len(table.xy) == 6


def test_annotators_of_one_picture_stay_apart(tmp_path):
    first, second = labels(1), labels(2)
    both = join_annotations([first, second])
    both = make_annotations(
        both.joints, both.xy, both.visibility, size=both.size, image=[*first.image, *first.image],
        who=["ann"] * 6 + ["bob"] * 6,
    )  # fmt: skip
    for name in ("coco", "label-studio", "napari"):
        assert_same(write_and_read(name, tmp_path, both), both)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert len(tasks) == 6 and all(len(task["annotations"]) == 2 for task in tasks)


def test_predictions_are_no_labels(tmp_path):
    one = labels(1)
    shown = make_annotations(
        one.joints, one.xy, one.visibility, image=one.image, size=one.size, confidence=one.xy[..., 0] * 0 + 0.5
    )
    path = write_label_studio(tmp_path / "tasks.json", shown, predicted=True)
    tasks = json.loads(path.read_text())
    assert len(tasks) == 6 and tasks[0]["predictions"][0]["score"] == pytest.approx(0.5, abs=0.5)
    assert len(read_label_studio(path)) == 0
    tasks[2]["annotations"] = [{"completed_by": 7, "result": tasks[2]["predictions"][0]["result"]}]  # submitted
    path.write_text(json.dumps(tasks))
    found = read_label_studio(path)
    assert len(found) == 1 and found.who[0] == "7" and set(found.joints) == set(JOINTS)
    pytest.importorskip("sleap_io", reason="sleap-io is not installed; pip install 'streampose[sleap]'")
    frames = labels(1, cut_out=False)
    assert len(read_sleap(write_sleap(tmp_path / "p.slp", frames, predicted=True))) == 0


def test_tables_of_predictions_are_refused(tmp_path, shared_data):
    (tmp_path / "p.csv").write_text("scorer,n,n,n\nbodyparts,a,a,a\ncoords,x,y,likelihood\n0,1,2,0.9\n")
    for path in (tmp_path / "p.csv", shared_data / "fly_three_cameras" / "cam_A_keypoints.csv"):
        with pytest.raises(StreamposeError, match="a model's predictions"):
            read_dlc_labels(path)


def test_what_label_studio_writes_itself(tmp_path):
    """As its export looks: a point in percent, image of a local folder, an annotation that was skipped."""
    value = {"x": 50.0, "y": 25.0, "width": 0.5, "keypointlabels": ["nose"]}
    point = {
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": value,
        "id": "a1",
        "from_name": "kp",
        "to_name": "img",
        "type": "keypointlabels",
        "origin": "manual",
    }
    task = {
        "id": 4,
        "data": {"image": "/data/local-files/?d=pics/a.png"},
        "annotations": [
            {"id": 1, "completed_by": {"id": 1, "email": "a@b.c"}, "result": [point]},
            {"id": 2, "was_cancelled": True, "result": []},
        ],
    }
    (tmp_path / "e.json").write_text(json.dumps([task]))
    found = read_label_studio(tmp_path / "e.json")
    assert found.image.tolist() == ["pics/a.png"] and found.who.tolist() == ["a@b.c"]
    np.testing.assert_allclose(found.xy[0, 0], [99.5, 24.5])
    assert "Label value='größe" in label_config(JOINTS) or "größe" in label_config(JOINTS)


def test_what_cvat_writes_itself(tmp_path):
    xml = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><source>walk.mp4</source><owner><username>eve</username></owner>
<original_size><width>320</width><height>240</height></original_size></task></meta>
<track id="0" label="person"><skeleton frame="3" keyframe="1" outside="0" label="person">
<points label="nose" outside="0" occluded="1" points="10.5,20.5"/>
<points label="ear" outside="1" occluded="0" points="1,1"/>
</skeleton><skeleton frame="4" keyframe="0" outside="0"><points label="nose" points="11,21"/></skeleton></track>
<image id="0" name="a.png" width="64" height="64"><points label="ear" occluded="0" points="5.00,6.00"/>
<points label="nose" occluded="0" points="7.00,8.00"/></image></annotations>"""
    (tmp_path / "a.xml").write_text(xml)
    found = read_cvat(tmp_path / "a.xml")
    assert found.joints == ("ear", "nose") and set(found.who) == {"eve"} and len(found) == 2
    np.testing.assert_allclose(found.xy[0], [[4.5, 5.5], [6.5, 7.5]])
    assert (found.video[1], found.frame_index[1], found.visibility[1].tolist()) == ("walk.mp4", 3, [0, 1])
    np.testing.assert_allclose(found.xy[1, 1], [10, 20])
    assert found.size.tolist() == [[64, 64], [320, 240]]
    (tmp_path / "b.xml").write_text('<!DOCTYPE a [<!ENTITY x "y">]><annotations/>')
    with pytest.raises(StreamposeError, match="entities"):
        read_cvat(tmp_path / "b.xml")


@pytest.mark.parametrize(
    "read", [read_coco_labels, read_cvat, read_label_studio, read_napari, read_dlc_labels, read_sleap]
)
def test_what_is_no_label_file_is_said(read, tmp_path):
    if read is read_sleap:
        pytest.importorskip("sleap_io", reason="sleap-io is not installed; pip install 'streampose[sleap]'")
    (tmp_path / "x").write_text("no\n1,2\n")
    for path in (tmp_path / "x", tmp_path / "none"):
        with pytest.raises(StreamposeError, match=str(path)):
            read(path)


def test_names_are_compared_without_their_spelling():
    same = ("left_knee", "Left Knee", "leftKnee", "LKnee", "knee_L", "L-Knee", "left.knee", "LEFT_KNEE")
    assert {plain_name(name) for name in same} == {"left_knee"} and plain_name("lower_lip") == "lower_lip"
    ours = ("left_knee", "right_knee", "nose")
    found = match_names(("LKnee", "nose", "snout", "ear"), ours, {"snout": "nose"})
    assert found == {"LKnee": "left_knee", "nose": "nose", "snout": "nose"}


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_a_strangers_h5_is_unpickled(tmp_path):
    pytest.importorskip("tables", reason="pytables is not installed; pip install 'streampose[dlc]'")
    h5py = pytest.importorskip("h5py")
    one = labels(0, cut_out=False)
    table = next(write_dlc_labels(tmp_path / "dlc", one, WHO).rglob("*.h5"))
    with h5py.File(table, "a") as file:
        group = file["df_with_missing"]
        group.attrs["encoding"] = np.bytes_(pickle.dumps(Trap(tmp_path / "sprung"), 0))
        group["axis0_level0"].attrs["kind"] = np.bytes_(pickle.dumps(Trap(tmp_path / "sprung"), 0))
    assert len(read_dlc_labels(table))
    assert not (tmp_path / "sprung").exists()
