"""Tiny datasets in the official layouts; every picture has a colour of its own, so that a test knows who is seen."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from streampose.config import load_skeleton
from streampose.formats.datasets import human36m, mpi_inf_3dhp, mpii
from streampose.video.encode import VideoWriter

HUMAN = load_skeleton("human17")
SIZE, FOCAL, CENTRE, DEPTH_MM = 160, 900.0, 79.5, 12_000.0
STEP = 12  # grey levels between pictures


def grey(number: int) -> int:
    return 20 + STEP * number


def number_of(crop: np.ndarray) -> int:
    """Which picture a crop is from: by the colour in its middle."""
    middle = crop[crop.shape[0] // 2 - 4 : crop.shape[0] // 2 + 4, crop.shape[1] // 2 - 4 : crop.shape[1] // 2 + 4]
    return round((float(middle.mean()) - 20) / STEP)


def poses(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standing people: (count, 17, 2) pixels and (count, 17, 3) mm in the camera's frame, joints as in human17."""
    rng = np.random.default_rng(seed)
    xyz = np.zeros((count, 17, 3))
    for number in range(count):
        for bone in HUMAN.bones:
            direction = np.array(bone.direction) + rng.normal(0, 0.2, 3)
            direction /= np.linalg.norm(direction)
            xyz[number, bone.child] = xyz[number, bone.parent] + 1700 * bone.length * direction
    xyz += [0, 0, DEPTH_MM]
    return FOCAL * xyz[..., :2] / xyz[..., 2:] + CENTRE, xyz


def joint(name: str) -> int:
    return HUMAN.joints.index(name)


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), grey(number), np.uint8))


def lsp_points(xy: np.ndarray) -> np.ndarray:
    """human17 joints (N, 17, 2) -> the 14 of LSP (N, 14, 2)."""
    names = [
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
        "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "nose", "head",
    ]  # fmt: skip
    return xy[:, [joint(name) for name in names]]


def write_lsp(folder: Path, count: int = 3) -> np.ndarray:
    """1000 training people at the origin, then `count` of the test part: returns their human17 joints."""
    from scipy.io import savemat

    xy, _ = poses(count)
    joints = np.zeros((3, 14, 1000 + count))
    joints[:2, :, 1000:] = lsp_points(xy).transpose(2, 1, 0) + 1  # Matlab counts from one
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "joints.mat", {"joints": joints})
    for number in range(count):
        write_image(folder / "images" / f"im{1001 + number}.jpg", number)
    return xy


def write_lspet(folder: Path, count: int = 3) -> np.ndarray:
    """The first person's left wrist (joint 12) is not visible; the last has no visible joint at all."""
    from scipy.io import savemat

    xy, _ = poses(count)
    joints = np.ones((14, 3, count))
    joints[:, :2] = lsp_points(xy).transpose(1, 2, 0) + 1
    joints[11, :, 0] = -3, -7, 0
    joints[:, 2, -1] = 0
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "joints.mat", {"joints": joints})
    for number in range(count):
        write_image(folder / "images" / f"im{number + 1:05d}.jpg", number)
    return xy


MPII_NAMES = {"upper_neck": "nose", "head_top": "head"}  # the others are called as in human17


def write_mpii(folder: Path, *, split: bool = False) -> np.ndarray:
    """Three training images and one of the test part; the first shows two people, the second one without labels.

    Joint 9 (head top) of the last person is not labelled. Returns the human17 joints of the labelled three.
    """
    from scipy.io import savemat

    xy, _ = poses(3)

    def person(number: int) -> dict:
        points = [
            {"x": xy[number, joint(MPII_NAMES.get(name, name)), 0] + 1, "id": k, "is_visible": 1,
             "y": xy[number, joint(MPII_NAMES.get(name, name)), 1] + 1}
            for k, name in enumerate(mpii.JOINTS)
            if not (number == 2 and name == "head_top")
        ]  # fmt: skip
        return {
            "x1": 10.0, "y1": 20.0, "x2": 40.0, "y2": 60.0, "annopoints": {"point": np.array(points)},
            "scale": 0.6, "objpos": {"x": 80.0 + 4 * number, "y": 71.0},
        }  # fmt: skip

    unlabelled = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0, "annopoints": [], "scale": [], "objpos": []}
    people = [np.array([person(0), person(1)]), person(2), unlabelled, []]
    names = [f"{n:09d}.jpg" for n in (15601864, 15599452, 5808361, 86617615)]
    release = {
        "annolist": np.array([
            {"image": {"name": name}, "annorect": rects, "frame_sec": [], "vididx": []}
            for name, rects in zip(names, people, strict=True)
        ]),
        "img_train": np.array([1, 1, 1, 0]), "version": "12",
        "act": np.array([{"act_name": "curling", "cat_name": c, "act_id": 1} for c in ("sports", "sports", "", "")]),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / mpii.LABELS, {"RELEASE": release})
    for number, name in enumerate(names):
        write_image(folder / "images" / name, number)
    if split:
        (folder / "annot").mkdir()
        chosen = [{"image": names[0], "center": [84.0, 71.0], "scale": 0.6, "joints": [], "joints_vis": []}]
        (folder / "annot" / "valid.json").write_text(json.dumps(chosen))
    return xy


def write_coco(folder: Path) -> np.ndarray:
    """Two images; a person whose nose is occluded and left ear unlabelled, another, a crowd, one without joints."""
    from streampose.formats.datasets import coco

    xy, _ = poses(2)
    names = [name if name in HUMAN.joints else "head" for name in coco.JOINTS]
    points = np.concatenate([xy[:, [joint(name) for name in names]], np.full((2, 17, 1), 2.0)], -1)
    points[0, 0, 2] = 1
    points[0, coco.JOINTS.index("left_ear")] = 0

    def annotation(number: int, image: int, keypoints: np.ndarray, **changes) -> dict:
        seen = int((keypoints[:, 2] > 0).sum())
        return {
            "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 900.0, "num_keypoints": seen,
            "bbox": [30.5, 10.0, 90.0, 140.0], "keypoints": keypoints.reshape(-1).tolist(), "segmentation": [],
        } | changes  # fmt: skip

    content = {
        "images": [{"id": 70 + n, "file_name": f"{70 + n:012d}.jpg", "width": SIZE, "height": SIZE} for n in range(2)],
        "annotations": [
            annotation(1, 70, points[0]), annotation(2, 71, points[1]), annotation(3, 71, points[1], iscrowd=1),
            annotation(4, 71, np.zeros((17, 3))),
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(coco.JOINTS), "skeleton": []}],
    }  # fmt: skip
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
    for number in range(2):
        write_image(folder / "val2017" / f"{70 + number:012d}.jpg", number)
    return xy


def write_cdf(path: Path, values: np.ndarray) -> None:
    """`Pose`, (1, T, D) doubles, as in the pose files of Human3.6M."""
    from cdflib.cdfwrite import CDF

    path.parent.mkdir(parents=True, exist_ok=True)
    file = CDF(path, cdf_spec={"Majority": "row_major"})
    spec = {
        "Variable": "Pose", "Data_Type": CDF.CDF_DOUBLE, "Num_Elements": 1, "Rec_Vary": True, "Var_Type": "zVariable",
        "Dim_Sizes": list(values.shape),
    }  # fmt: skip
    file.write_var(spec, var_data=values[None].astype(np.float64))
    file.close()


def write_h36m(
    folder: Path, recordings: dict[str, list[str]], *, frames: int = 130, cameras: tuple[str, ...] = ("54138969",)
) -> tuple[np.ndarray, np.ndarray]:
    """Recordings of subjects; frame t of a video is pose t mod 3 on the colour of that number: returns the poses."""
    xy, xyz = poses(3)
    order = np.arange(frames) % 3
    wide_xy, wide_xyz = np.full((frames, 32, 2), 5.0), np.full((frames, 32, 3), [5.0, 5, 9000])
    numbers = list(human36m.JOINTS.values())
    wide_xy[:, numbers], wide_xyz[:, numbers] = xy[order], xyz[order]
    for subject, names in recordings.items():
        for name in names:
            for camera in cameras:
                file = f"{name}.{camera}"
                features = folder / subject / "MyPoseFeatures"
                write_cdf(features / "D2_Positions" / f"{file}.cdf", wide_xy.reshape(frames, -1))
                write_cdf(features / "D3_Positions_mono" / f"{file}.cdf", wide_xyz.reshape(frames, -1))
                video = folder / subject / "Videos" / f"{file}.mp4"
                video.parent.mkdir(parents=True, exist_ok=True)
                with VideoWriter(video, 50, (SIZE, SIZE)) as writer:
                    for number in order:
                        writer.write(np.full((SIZE, SIZE, 3), grey(int(number)), np.uint8))
    return xy, xyz


def write_3dhp_test(folder: Path, frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """TS1 with frames of which the second is not valid: returns human17 joints."""
    import h5py

    xy, xyz = poses(frames)
    names = [{"head_middle": "nose"}.get(name, name) for name in mpi_inf_3dhp.JOINTS]
    columns = [joint(name) for name in names]
    sequence = folder / "TS1"
    sequence.mkdir(parents=True)
    with h5py.File(sequence / "annot_data.mat", "w") as file:
        file["valid_frame"] = np.array([[1.0], [0.0], *([[1.0]] * (frames - 2))])
        file["annot2"] = xy[:, None, columns]
        file["annot3"] = 0.9 * xyz[:, None, columns]
        file["univ_annot3"] = xyz[:, None, columns]
        file["activity_annotation"] = np.array([[1.0], [2.0], [7.0], *([[7.0]] * (frames - 3))])
        file["bb_crop"] = np.zeros((frames, 34))
    for number in range(frames):
        write_image(sequence / "imageSequence" / f"img_{number + 1:06d}.jpg", number)
    return xy, xyz


def write_3dhp_training(folder: Path, frames: int = 66) -> tuple[np.ndarray, np.ndarray]:
    """S7/Seq1 with two of fourteen cameras; frame t is pose t mod 3."""
    from scipy.io import savemat

    xy, xyz = poses(3)
    order = np.arange(frames) % 3
    pixels, space = np.full((frames, 28, 2), 9.0), np.full((frames, 28, 3), 9.0)
    for number, name in zip(mpi_inf_3dhp.TRAINING_NUMBERS, mpi_inf_3dhp.JOINTS, strict=True):
        column = joint({"head_middle": "nose"}.get(name, name))
        pixels[:, number], space[:, number] = xy[order, column], xyz[order, column]
    cells = {"annot2": pixels, "annot3": 0.9 * space, "univ_annot3": space}
    sequence = folder / "S7" / "Seq1"
    sequence.mkdir(parents=True)
    labels = {"frames": np.arange(frames)[:, None]}
    for name, values in cells.items():
        cell = np.empty((14, 1), object)
        for camera in range(14):
            cell[camera, 0] = values.reshape(frames, -1)
        labels[name] = cell
    savemat(sequence / "annot.mat", labels)
    for camera in (0, 1):
        (sequence / "imageSequence").mkdir(exist_ok=True)
        with VideoWriter(sequence / "imageSequence" / f"video_{camera}.mp4", 25, (SIZE, SIZE)) as writer:
            for number in order:
                writer.write(np.full((SIZE, SIZE, 3), grey(int(number)), np.uint8))
        video = sequence / "imageSequence" / f"video_{camera}.mp4"
        video.rename(video.with_suffix(".avi"))  # what a file is called does not tell what is in it
    return xy, xyz
