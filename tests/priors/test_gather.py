import json
import re

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import ConfigError, StreamposeError
from streampose.formats.annotations import make_annotations
from streampose.formats.coco import open_coco
from streampose.formats.trc import write_trc
from streampose.prior import import_prior
from streampose.priors.gather import group_takes
from streampose.priors.read import Take
from streampose.store.priors import list_priors, read_prior
from streampose.structures import Keypoints
from streampose.synthetic.built_in_prior import built_in_prior
from streampose.synthetic.truth import Truth, write_truth

HUMAN, MOUSE = load_skeleton("human17"), load_skeleton("mouse")


@pytest.fixture(scope="module")
def poses():
    return built_in_prior(HUMAN, 64, seed=2).poses.astype(float)


def bvh(names, t_pose, arm_degrees):
    """A person with joints `names`: pelvis, then upper arm, forearm, hand, thigh, shin, foot of each side."""

    def joint(name, offset, *children):
        inner = "\n".join(children) or "End Site\n{\nOFFSET 0 -1 0\n}"
        return f"JOINT {name}\n{{\nOFFSET {offset}\nCHANNELS 3 Zrotation Yrotation Xrotation\n{inner}\n}}"

    def limb(side, sign):
        upper, fore, hand, thigh, shin, foot = (name.format(s=side[0].lower(), S=side) for name in names[1:])
        bone = (lambda n: f"{sign * n} 0 0") if t_pose else (lambda n: f"0 {-n} 0")
        arm = joint(upper, f"{sign * 18} 45 0", joint(fore, bone(28), joint(hand, bone(25))))
        return [arm, joint(thigh, f"{sign * 9} 0 0", joint(shin, "0 -42 0", joint(foot, "0 -40 0")))]

    body = "\n".join([*limb("Left", 1), *limb("Right", -1)])
    channels = "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
    rows = []
    for angle in arm_degrees:  # of both arms, up from hanging
        row = np.zeros(6 + 3 * 12)
        row[1] = 82
        row[6], row[6 + 18] = (angle - 90, 90 - angle) if t_pose else (angle, -angle)
        rows.append(" ".join(map(str, row)))
    head = f"HIERARCHY\nROOT {names[0]}\n{{\nOFFSET 0 0 0\n{channels}\n{body}\n}}\nMOTION\n"
    return f"{head}Frames: {len(rows)}\nFrame Time: 0.1\n" + "\n".join(rows) + "\n"


POSER = ("hip", "{s}Shldr", "{s}ForeArm", "{s}Hand", "{s}Thigh", "{s}Shin", "{s}Foot")
MIXAMO = tuple(f"mixamorig:{n}" for n in ("Hips", "{S}Arm", "{S}ForeArm", "{S}Hand", "{S}UpLeg", "{S}Leg", "{S}Foot"))
CMU = ("Hips", "{S}Arm", "{S}ForeArm", "{S}Hand", "{S}UpLeg", "{S}Leg", "{S}Foot")


def test_one_pose_from_three_kinds_of_bvh(tmp_path):
    angles = (0, 30, 90, 120)
    for name, names, t_pose in (("poser", POSER, False), ("mixamo", MIXAMO, True), ("cmu", CMU, True)):
        (tmp_path / f"{name}.bvh").write_text(bvh(names, t_pose, angles))
    result = import_prior([tmp_path], store=tmp_path / "s.zarr", name="three")
    assert (result["poses"], result["takes"], result["failed"], result["missing"]) == (12, 3, 0, [])
    prior = read_prior(tmp_path / "s.zarr", "three")
    one, two, three = (prior.poses[prior.takes == name] for name in ("poser", "mixamo", "cmu"))
    np.testing.assert_allclose(one, two, atol=1e-5)
    np.testing.assert_allclose(one, three, atol=1e-5)
    at = {name: one[:, k] for k, name in enumerate(HUMAN.joints)}
    assert (at["head"][:, 1] < -0.6).all() and (at["left_ankle"][:, 1] > 0.7).all()  # y points down
    arm = at["left_wrist"] - at["left_shoulder"]
    np.testing.assert_allclose(np.degrees(np.arctan2(np.abs(arm[:, [0, 2]]).max(1), arm[:, 1])), angles, atol=1e-3)
    np.testing.assert_allclose(prior.seconds[prior.takes == "cmu"], [0, 0.1, 0.2, 0.3])
    left = at["left_hip"] - at["right_hip"]
    nose = at["nose"] - at["thorax"]
    assert (np.cross(left, at["thorax"]) * nose).sum(-1).min() > 0  # left is left: no mirror image


def test_bad_files_are_told_and_the_rest_goes_on(tmp_path, poses):
    np.savez(tmp_path / "good.npz", poses=poses, joints=np.array(HUMAN.joints))
    (tmp_path / "cut.bvh").write_text(bvh(CMU, True, (0, 1))[:-40])
    (tmp_path / "motion.txt").write_text("no motion")
    (tmp_path / "words.json").write_text("[1, 2")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "noise.npy").write_bytes(b"\x93NUMPY\x01")
    np.save(tmp_path / "names.npy", np.zeros((3, 5, 3)))
    np.savez(tmp_path / "pickled.npz", poses=np.array([{}], object))
    np.savez(tmp_path / "flat.npz", poses=np.zeros((5, 34)))
    (tmp_path / "LICENSE.txt").write_text("not a motion")
    (tmp_path / "markers.c3d").write_bytes(b"no")
    result = import_prior([tmp_path], store=tmp_path / "s.zarr", name="mixed")
    told = {re.sub(".*/", "", entry["source"]): entry for entry in result["sources"]}
    assert "LICENSE.txt" not in told and told["good.npz"]["verdict"] == "ok" and result["poses"] == 64
    bad = {name: entry["reason"] for name, entry in told.items() if entry["verdict"] == "quarantined"}
    assert len(bad) == result["failed"] == 9 == len(told) - 1
    assert all(reason and "\n" not in reason for reason in bad.values())
    assert "5 joints, but 0 names; name them with --joints" in bad["names.npy"]
    with pytest.raises(StreamposeError, match=r"cut.bvh: no pose could be read \(.*values, but"):
        import_prior([tmp_path / "cut.bvh"], store=tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="no such file"):
        import_prior([tmp_path / "nowhere"], store=tmp_path / "s.zarr")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="no file with poses"):
        import_prior([tmp_path / "other"], store=tmp_path / "s.zarr")


def test_names_are_not_taken_twice(tmp_path, poses):
    np.savez(tmp_path / "a.npz", poses=poses, joints=np.array(HUMAN.joints))
    store = tmp_path / "s.zarr"
    assert import_prior([tmp_path / "a.npz"], store=store)["prior"] == "a"
    with pytest.raises(ConfigError, match="has a prior a; give another --name, or --overwrite"):
        import_prior([tmp_path / "a.npz"], store=store)
    import_prior([tmp_path / "a.npz"], store=store, overwrite=True)
    import_prior([tmp_path / "a.npz"], store=store, name="b", skeleton="mpii16")
    assert [(entry["name"], len(entry["joints"])) for entry in list_priors(store)] == [("a", 17), ("b", 16)]


def test_arrays_in_other_axes_and_units_give_the_same_prior(tmp_path, poses):
    store = tmp_path / "s.zarr"
    up_y = poses * (1, -1, -1) * 100
    up_z = np.stack([poses[..., 0], poses[..., 2], -poses[..., 1]], -1) * 1000
    names = ",".join(HUMAN.joints)
    for name, values, up, unit in (("own", poses, "-y", "m"), ("y", up_y, "y", "cm"), ("z", up_z, "z", "mm")):
        np.save(tmp_path / f"{name}.npy", values)
        for keep in (True, False):
            import_prior(
                [tmp_path / f"{name}.npy"], store=store, name=f"{name} {keep}", up=up, unit=unit, keep_bones=keep,
                joints=names, keep_impossible=True,
            )  # fmt: skip
        np.testing.assert_allclose(read_prior(store, f"{name} True").poses, poses, atol=1e-5)
        same = read_prior(store, f"{name} False").poses
        np.testing.assert_allclose(same, read_prior(store, "own False").poses, atol=1e-5)
    assert np.linalg.norm(same[:, 2] - same[:, 1], axis=-1).std() < 1e-6  # one thigh for all


def test_2d_of_coco_deeplabcut_and_arrays(tmp_path):
    store, rng = tmp_path / "s.zarr", np.random.default_rng(0)
    xy = rng.uniform(0, 100, (6, MOUSE.num_joints, 2))
    xy[0, 3] = np.nan
    with open_coco(tmp_path / "mice.json", MOUSE, source="mice.mp4", size=(100, 100)) as file:
        for t in range(6):
            confidence = np.where(np.isfinite(xy[None, t, :, 0]), 0.9, 0.0)
            file.write(t, t / 10, Keypoints(xy[None, t], confidence), [7], np.array([[0, 0, 9, 9.0]]))
    import_prior([tmp_path / "mice.json"], store=store, name="coco", skeleton="mouse")
    prior = read_prior(store, "coco")
    np.testing.assert_allclose(prior.poses, xy, atol=0.006)
    assert set(prior.groups) == {"mice"} and prior.dimensions == 2
    np.testing.assert_allclose(prior.seconds, np.arange(6) / 10)

    lines = ["scorer," + ",".join(["s"] * 6), "bodyparts,snout,snout,snout,tailbase,tailbase,tailbase"]
    lines += ["coords,x,y,likelihood,x,y,likelihood", "0,1,2,0.9,3,4,0.9", "1,5,6,0.9,7,8,0.1", "2,5,6,0.1,7,8,0.1"]
    (tmp_path / "dlc.csv").write_text("\n".join(lines) + "\n")
    result = import_prior([tmp_path / "dlc.csv"], store=store, skeleton="mouse")
    prior = read_prior(store, "dlc")
    nose, tail = (prior.poses[:, MOUSE.joints.index(name)] for name in ("nose", "tail_base"))
    np.testing.assert_array_equal(nose, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(tail, [[3, 4], [np.nan, np.nan]])
    assert result["sources"][0]["left_out"] == 1 and "left_ear" in result["missing"]

    three = np.concatenate([xy, rng.uniform(0.6, 1, (6, MOUSE.num_joints, 1))], -1)
    three[2, 4, 2] = 0.1
    np.savez(tmp_path / "scored.npz", keypoints=three, joints=np.array(MOUSE.joints))
    import_prior([tmp_path / "scored.npz"], store=store, skeleton="mouse", dimensions=2)
    prior = read_prior(store, "scored")
    assert prior.dimensions == 2 and np.isnan(prior.poses[2, 4]).all() and np.isfinite(prior.poses[1]).all()
    mixed = [tmp_path / "mice.json", tmp_path / "scored.npz"]
    result = import_prior(mixed, store=store, name="mixed", skeleton="mouse")
    assert "3D poses among 2D ones" in result["sources"][1]["reason"]


def test_photos_of_coco_are_groups_of_their_own(tmp_path):
    joints = list(load_skeleton("coco17").joints)
    images = [{"id": n, "file_name": f"{n:03d}.jpg", "width": 9, "height": 9} for n in range(5)]
    rows = [
        {"id": n, "image_id": n % 5, "keypoints": np.ones(51).tolist(), "bbox": [0, 0, 1, 1], "category_id": 1}
        for n in range(7)
    ]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "keypoints": joints}]}
    (tmp_path / "photos.json").write_text(json.dumps(content))
    result = import_prior([tmp_path / "photos.json"], store=tmp_path / "s.zarr")
    assert (result["poses"], result["groups"], result["missing"]) == (7, 5, ["head"])


def test_labels_of_sleap_and_deeplabcut(tmp_path):
    xy = np.random.default_rng(0).uniform(0, 90, (4, 3, 2)).round(3)
    rows = make_annotations(
        ("snout", "tailbase", "left_ear"), xy, video=["a.mp4", "a.mp4", "b.mp4", "b.mp4"], frame_index=[9, 3, 1, 2],
        size=np.full((4, 2), 90),
    )  # fmt: skip
    wanted = {"a": xy[[1, 0]], "b": xy[2:]}

    def check(path, name):
        import_prior([path], store=tmp_path / "s.zarr", name=name, skeleton="mouse")
        prior = read_prior(tmp_path / "s.zarr", name)
        index = [MOUSE.joints.index(joint) for joint in ("nose", "tail_base", "left_ear")]
        for video, points in wanted.items():
            np.testing.assert_allclose(prior.poses[prior.groups == video][:, index], points, atol=1e-3)

    if_sleap = pytest.importorskip("sleap_io")
    assert if_sleap
    from streampose.formats.sleap import write_sleap

    check(write_sleap(tmp_path / "labels.slp", rows), "sleap")
    pytest.importorskip("tables")
    from streampose.formats.dlc_labels import write_dlc_labels

    folder = write_dlc_labels(tmp_path / "dlc", rows, "me")
    both = sorted(folder.rglob("*.h5"))
    assert len(both) == 2
    import_prior(both, store=tmp_path / "s.zarr", name="dlc", skeleton="mouse")
    assert len(read_prior(tmp_path / "s.zarr", "dlc")) == 4


def test_truth_of_several_cameras_counts_once(tmp_path, poses):
    T, K = 5, 17
    world = np.stack([poses[:T, :, 0], poses[:T, :, 2], -poses[:T, :, 1]], -1)[:, None]
    for camera in range(2):
        write_truth(
            tmp_path / f"video_000_cam{camera}.truth.npz",
            Truth(
                np.array(HUMAN.joints), world, np.ones((T, 1, K, 2)), np.full((T, 1, K), 2, np.uint8),
                np.zeros((T, 1, 4)), np.zeros((T, 8, 8), np.uint8), np.arange(T) / 25, np.tile(np.eye(3), (T, 1, 1)),
                np.tile(np.eye(3), (T, 1, 1)), np.zeros((T, 3)), np.array([8, 8]),
            ),
        )  # fmt: skip
    result = import_prior([tmp_path], store=tmp_path / "s.zarr", name="truth", keep_bones=True)
    assert result["poses"] == T and "another camera" in result["sources"][1]["reason"] and result["failed"] == 0
    np.testing.assert_allclose(read_prior(tmp_path / "s.zarr", "truth").poses, poses[:T], atol=1e-5)
    result = import_prior([tmp_path], store=tmp_path / "s.zarr", name="flat", dimensions=2)
    assert (result["poses"], result["groups"], result["dimensions"]) == (2 * T, 1, 2)


def test_markers_and_other_joints(tmp_path, poses):
    up_y = poses[:9] * (1, -1, -1)
    write_trc(tmp_path / "m.trc", HUMAN.joints, 30.0, 9, ((t / 30, up_y[t]) for t in range(9)))
    import_prior([tmp_path / "m.trc"], store=tmp_path / "s.zarr", keep_bones=True)
    np.testing.assert_allclose(read_prior(tmp_path / "s.zarr", "m").poses, poses[:9], atol=1e-4)
    np.savez(tmp_path / "face.npz", poses=np.random.default_rng(0).normal(0, 1, (4, 68, 2)), names=np.arange(68))
    result = import_prior([tmp_path / "face.npz"], store=tmp_path / "s.zarr", skeleton="none")
    assert len(result["joints"]) == 68
    with pytest.raises(StreamposeError, match=r"none of its joints .* --map theirs=ours"):
        import_prior([tmp_path / "face.npz"], store=tmp_path / "s.zarr", name="f")


def test_options_that_mean_nothing(tmp_path, poses):
    np.save(tmp_path / "a.npy", poses)
    for options, message in (
        ({"up": "x"}, "--up x"), ({"unit": "inch"}, "--unit inch"), ({"dimensions": 4}, "--dimensions 4"),
        ({"rate": 0}, "--rate 0"), ({"mapping": ["a"]}, "expected theirs=ours"), ({"group_by": "("}, "not a pattern"),
        ({"group_by": "zzz"}, "matches nothing"),
    ):  # fmt: skip
        with pytest.raises(StreamposeError, match=message):
            import_prior([tmp_path / "a.npy"], store=tmp_path / "s.zarr", **options)


def take(name, length=100):
    return Take(name, name, ("a",), np.zeros((length, 1, 3)), np.zeros(length))


def test_partners_and_performers_are_groups():
    takes = [take("salsa_01", 90), take("salsa_16", 90), take("salsa_02", 80), take("salsa_17", 80), take("kick_1", 80)]
    groups = [t.group for t in group_takes(takes)]
    assert groups == ["salsa_01 + salsa_16"] * 2 + ["salsa_02 + salsa_17"] * 2 + ["kick_1"]
    cut = [take(f"clip_{n}", 300) for n in range(9)]  # all cut to one length: that says nothing
    assert [t.group for t in group_takes(cut)] == [t.name for t in cut]
    assert [t.group for t in group_takes([take("05_14", 9), take("05_15", 8), take("60_01", 7)])] == ["05", "05", "60"]


def test_groups_by_a_pattern_and_poses_at_a_rate(tmp_path):
    for performer in ("anna", "ben"):
        (tmp_path / performer).mkdir()
        for n in range(2):
            (tmp_path / performer / f"{n}.bvh").write_text(bvh(CMU, True, range(10)))
    result = import_prior(
        [tmp_path], store=tmp_path / "s.zarr", name="two", group_by=r"(anna|ben)/", rate=5,
    )  # fmt: skip
    prior = read_prior(tmp_path / "s.zarr", "two")
    assert set(prior.groups) == {"anna", "ben"} and result["takes"] == 4 and len(prior) == 20
    np.testing.assert_allclose(prior.seconds[:5], np.arange(5) / 5)
