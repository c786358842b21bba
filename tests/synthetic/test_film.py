import av
import cv2
import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.geometry.project import camera_from_world, project_points
from streampose.synthetic.body import procedural_body
from streampose.synthetic.film import Actor, Optics, Stage, film, mask_box, visible
from streampose.synthetic.motion import procedural_motion
from streampose.synthetic.rig import BONE
from streampose.synthetic.scene import Surroundings, make_cameras, make_occluders, make_regions
from streampose.synthetic.truth import read_truth, truth_path

JOINTS = load_skeleton("human17").joints


def shoot(tmp_path, seed=0, subjects=1, moving=False, occluders=False, frames=12, size=(160, 128)):
    rng = np.random.default_rng(seed)
    paths, side_room, distance = make_cameras(1, frames, 25.0, size, subjects, moving, rng)
    actors = []
    for region in make_regions(subjects, paths[0], side_room, distance, rng):
        body = procedural_body(rng)
        actors.append(Actor(body, procedural_motion(body.rig, region, frames, 25.0, rng)))
    things = make_occluders(paths[0], side_room, distance, rng) if occluders else None
    stage = Stage(actors, Surroundings(rng, size), things)
    video = tmp_path / f"shot_{seed}.mp4"
    return video, film(video, stage, paths[0], Optics(0.5, 2.0), JOINTS, 25.0, rng), stage


@pytest.mark.parametrize(("moving", "subjects"), [(False, 1), (True, 2)])
def test_truth_is_exact_and_belongs_to_the_frames(tmp_path, moving, subjects):
    video, truth, _ = shoot(tmp_path, moving=moving, subjects=subjects)
    stored = read_truth(truth_path(video))
    assert np.array_equal(stored.joints_2d, truth.joints_2d) and np.array_equal(stored.masks, truth.masks)
    projected = project_points(truth.joints_3d, truth.K[:, None], truth.R[:, None], truth.t[:, None])
    assert np.abs(projected - truth.joints_2d).max() < 1e-3
    # Written out once more by hand, for one joint of the last frame.
    x, y, z = truth.R[-1] @ truth.joints_3d[-1, -1, 5] + truth.t[-1]
    by_hand = [truth.K[-1, 0, 0] * x / z + truth.K[-1, 0, 2], truth.K[-1, 1, 1] * y / z + truth.K[-1, 1, 2]]
    assert truth.joints_2d[-1, -1, 5] == pytest.approx(by_hand, abs=1e-9)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
    assert times == pytest.approx(truth.pts_seconds, abs=1e-4)
    assert (np.ptp(truth.t, 0).max() > 0) == moving


def test_masks_are_where_the_picture_differs_from_the_empty_scene(tmp_path):
    video, truth, stage = shoot(tmp_path, seed=4, size=(256, 256))
    empty = stage.surroundings.background(truth.K[0], truth.R[0], truth.t[0]) * 255
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, mask in zip(frames, truth.masks, strict=True):
        difference = np.abs(frame.astype(np.float32) - np.clip(empty, 0, 255)).max(-1)
        inside = cv2.erode((mask > 0).astype(np.uint8), np.ones((3, 3))) > 0
        outside = cv2.dilate((mask > 0).astype(np.uint8), np.ones((9, 9))) == 0
        assert np.median(difference[inside]) > 4 * np.median(difference[outside])
        assert 0.01 < (mask > 0).mean() < 0.4


def test_joints_lie_on_their_subject_and_boxes_around_it(tmp_path):
    _, truth, _ = shoot(tmp_path, seed=2, frames=20, size=(256, 256))
    on_body = []
    for frame in range(20):
        mask = cv2.dilate((truth.masks[frame] == 1).astype(np.uint8), np.ones((5, 5))) > 0
        x, y = np.rint(truth.joints_2d[frame, 0]).astype(int).T
        inside = (x >= 0) & (x < 256) & (y >= 0) & (y < 256)
        on_body += mask[y[inside], x[inside]].tolist()
        rows, columns = np.nonzero(truth.masks[frame] == 1)
        assert truth.boxes[frame, 0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.mean(on_body) > 0.99


def test_who_stands_behind_is_occluded(tmp_path):
    """Two people in line with the camera: the far one's trunk is hidden, the near one's is seen."""
    rng = np.random.default_rng(0)
    (path,), _, _ = make_cameras(1, 1, 25.0, (256, 256), 1, False, rng)
    forward = path.R[0, 2] * (1, 1, 0) / np.linalg.norm(path.R[0, 2, :2])
    body = procedural_body(rng)
    region = make_regions(1, path, 1.0, 3.0, rng)[0]
    motion = procedural_motion(body.rig, region, 1, 25.0, np.random.default_rng(5))
    there = [
        Actor(body, type(motion)(motion.rotations, motion.root * (0, 0, 1) + forward * far)) for far in (0.8, -0.3)
    ]
    truth = film(
        tmp_path / "a.mp4", Stage(there, Surroundings(rng, (256, 256)), None), path, Optics(0, 1), JOINTS, 25, rng
    )
    trunk = [JOINTS.index(name) for name in ("spine", "thorax", "pelvis")]
    assert (truth.visibility[0, 0, trunk] == 1).all()
    near = truth.masks[0] == 2
    assert near.sum() > 3 * (truth.masks[0] == 1).sum() > 0 or not (truth.masks[0] == 1).any()
    assert (truth.visibility[0, 1] == 2).mean() > 0.5


def test_things_in_front_hide_people_and_belong_to_nobody(tmp_path):
    hidden_pixels = 0
    for seed in range(4):
        _, free, _ = shoot(tmp_path, seed=seed, frames=10)
        _, blocked, stage = shoot(tmp_path, seed=seed, frames=10, occluders=True)
        assert np.array_equal(free.joints_3d, blocked.joints_3d)
        assert ((blocked.masks == free.masks) | (blocked.masks == 0)).all()
        assert (blocked.visibility <= free.visibility).all()
        assert (stage.face_ids == 0).sum() == len(stage.things.faces)
        hidden_pixels += (blocked.masks != free.masks).sum()
        if (blocked.masks != free.masks).mean() > 0.02:
            assert (blocked.visibility < free.visibility).any()
    assert hidden_pixels > 500


def test_visibility_by_depth():
    surface = np.full((10, 10), np.inf, np.float32)
    surface[5, 5] = 2.0
    points = np.array([[[5.0, 5], [5, 5], [5.4, 4.6], [9.4, 3], [9.6, 3], [-0.6, 3], [np.nan, np.nan]]])
    z, depths = np.array([[2.1, 2.3, 2.05, 5, 5, 5, 5]]), np.full((1, 7), 0.2)
    assert visible(points, z, depths, surface).tolist() == [[2, 1, 2, 2, 0, 0, 0]]


def test_the_box_of_nothing_is_nan():
    assert np.isnan(mask_box(np.zeros((4, 5), bool))).all()


def test_the_camera_looks_at_upright_people_from_outside(tmp_path):
    _, truth, stage = shoot(tmp_path, seed=9, frames=4)
    z = camera_from_world(truth.joints_3d[:, 0], truth.R, truth.t)[..., 2]
    assert (z > 1).all()
    up = project_points(np.array([[0, 0, 0.0], [0, 0, 1.7]]), truth.K[0], truth.R[0], truth.t[0])
    assert up[1, 1] < up[0, 1] - 30
    assert stage.heads[0].shape == (4, len(BONE), 3)
