"""Refining on sessions: the body that is fitted to several views, and the labels and batches that come of it."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.methods.mask_data import make_frames
from streampose.methods.mask_labels import Labels
from streampose.methods.mask_prior import random_figures
from streampose.methods.mask_space import Cameras, look
from streampose.methods.mask_views import Instants, _rays, no_instants
from streampose.methods.refine import RefineConfig, RefineTask, load_refine_config, name_alike, places
from streampose.methods.refine_alone import first_places, stand_alone, thin_out
from streampose.methods.refine_fit import _project, body_tables, depth_inside, fit_body
from streampose.synthetic.scene import look_at

SKELETON = load_skeleton("human17")
SIZE, VIEWS, MOMENTS, METRES = 64, 4, 12, 1.75


@pytest.fixture(scope="module")
def scene():
    """A body that moves from one random pose to another, its masks in four views, and the exact joints."""
    figures = random_figures(SKELETON, 2, np.random.default_rng(4)).joints
    share = np.linspace(0, 1, MOMENTS)[:, None, None]
    world = ((1 - share) * figures[0] + share * figures[1]) * METRES
    world = np.stack([world[..., 0], world[..., 2], -world[..., 1]], -1)  # the figure's up is the world's z
    rays, R, t, boxes = [], [], [], []
    for view in range(VIEWS):
        angle, distance = 0.4 + 2 * np.pi * view / VIEWS, 4.0 + view
        place = np.array([distance * np.cos(angle), distance * np.sin(angle), 0.8])
        rotation, translation = look_at(place, np.zeros(3))
        K = np.array([[100.0 * distance, 0, 160], [0, 100.0 * distance, 160], [0, 0, 1]])
        box = np.tile([160.0 - 120, 160.0 - 120, 160.0 + 120, 160.0 + 120], (MOMENTS, 1))
        boxes.append(box)
        rays.append(_rays(box, K))
        R.append(np.repeat(rotation[None], MOMENTS, 0))
        t.append(np.repeat(translation[None], MOMENTS, 0))
    stacked = [torch.from_numpy(np.stack(values, 1)).float() for values in (rays, R, t)]
    cameras = Cameras(*stacked)
    tables = body_tables(SKELETON)
    metres = torch.from_numpy(world).float()
    _, starts, ends, thick = _project(metres, tables.radius * METRES, cameras, tables, SKELETON.root)
    line = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    grid = torch.from_numpy(np.stack(np.meshgrid(line, line), -1).reshape(1, -1, 2)).float()
    deep = depth_inside(grid, starts.flatten(0, 1), ends.flatten(0, 1), thick.flatten(0, 1))
    masks = ((deep > 0).numpy() * 255).astype(np.uint8).reshape(MOMENTS, VIEWS, SIZE, SIZE)
    return world, cameras, masks, np.stack(boxes)


def test_depth_inside_of_a_tapered_capsule():
    starts, ends = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    points = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [1.0, 0.3], [-0.4, 0.0], [2.0, 0.0]]])
    deep = depth_inside(points, starts, ends, torch.tensor([[[0.2, 0.1]]]))
    torch.testing.assert_close(deep, torch.tensor([[0.2, 0.15, -0.2, -0.2, -0.9]]), atol=2e-4, rtol=0)


def test_depth_inside_is_that_of_the_capsule_that_is_deepest_with_its_gradient():
    generator = torch.Generator().manual_seed(0)
    points, starts, ends = (2 * torch.rand(3, n, 2, generator=generator) - 1 for n in (40, 7, 7))
    radii = 0.1 * torch.rand(3, 7, 2, generator=generator)
    starts.requires_grad_()
    single = [depth_inside(points, *(values[:, n : n + 1] for values in (starts, ends, radii))) for n in range(7)]
    every, deepest = depth_inside(points, starts, ends, radii), torch.stack(single, -1).amax(-1)
    torch.testing.assert_close(every, deepest, atol=1e-4, rtol=0)
    slopes = [torch.autograd.grad(deep.sigmoid().sum(), starts)[0] for deep in (every, deepest)]
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=0)


def test_the_fit_moves_disturbed_joints_onto_the_body(scene):
    world, cameras, masks, _ = scene
    rng = np.random.default_rng(0)
    habits = rng.normal(0, 0.09, (1, SKELETON.num_joints, 3))  # the same at every moment, as a detector's are
    start = world + habits + rng.normal(0, 0.03, world.shape)
    seen = np.ones((MOMENTS, VIEWS), bool)
    detections = look(torch.from_numpy(start).float(), cameras, SKELETON.root).numpy()[..., :2]
    confidence = np.full(detections.shape[:3], 0.5)
    fitted, shape = fit_body(
        SKELETON, cameras, seen, masks, detections, confidence, start, np.arange(MOMENTS) * 0.1, steps=150
    )

    def error(joints):
        return np.linalg.norm(joints - world, axis=-1).mean()

    assert error(start) > 0.12
    assert error(fitted) < 0.6 * error(start)
    assert shape.scale == pytest.approx(METRES, rel=0.15)
    bones = [(bone.parent, bone.child) for bone in SKELETON.bones]
    lengths = np.stack([np.linalg.norm(fitted[:, a] - fitted[:, b], axis=-1) for a, b in bones], 1)
    assert (lengths.std(0) / lengths.mean(0)).max() < 0.15  # one body, not one a moment


def test_the_fit_bears_missing_views_masks_and_joints(scene):
    world, cameras, masks, _ = scene
    seen = np.ones((MOMENTS, VIEWS), bool)
    seen[3, 0] = seen[4, :2] = False
    empty = masks.copy()
    empty[5, 1] = 0
    start = world.copy()
    start[:, 3] = np.nan  # a joint that was never found
    start[2] = np.nan
    detections = look(torch.from_numpy(world).float(), cameras, SKELETON.root).numpy()[..., :2]
    detections[6, 0, 4] = np.nan
    fitted, _ = fit_body(
        SKELETON, cameras, seen, empty, detections, np.full(detections.shape[:3], 0.5), start,
        np.arange(MOMENTS) * 0.1, steps=60,
    )  # fmt: skip
    assert np.isfinite(fitted).all()
    known = [j for j in range(SKELETON.num_joints) if j != 3]
    assert np.linalg.norm(fitted - world, axis=-1)[:, known].mean() < 0.12


def test_places_are_where_the_rays_meet(scene):
    world, cameras, _, _ = scene
    seen_joints = look(torch.from_numpy(world).float(), cameras, SKELETON.root).numpy()
    labels = Labels(seen_joints.reshape(-1, SKELETON.num_joints, 3), np.ones((MOMENTS * VIEWS, SKELETON.num_joints)))
    index = np.arange(MOMENTS * VIEWS).reshape(MOMENTS, VIEWS)
    seen = np.ones_like(index, bool)
    seen[1, 1:] = False
    found = places(labels, index, seen, cameras)
    assert np.isnan(found[1]).all()  # one view alone
    np.testing.assert_allclose(np.delete(found, 1, 0), np.delete(world, 1, 0), atol=1e-3)


def test_readings_take_the_names_of_the_settled_labels():
    rng = np.random.default_rng(1)
    settled = Labels(rng.uniform(-1, 1, (2, 17, 3)), np.ones((2, 17)))
    flip = SKELETON.flip_index
    own = Labels(settled.keypoints.copy(), rng.random((2, 17)))
    own.keypoints[1] = own.keypoints[1][flip]
    named = name_alike(own, settled, flip)
    np.testing.assert_allclose(named.keypoints, settled.keypoints)
    np.testing.assert_array_equal(named.confidence[0], own.confidence[0])
    np.testing.assert_array_equal(named.confidence[1], own.confidence[1][flip])


@pytest.fixture
def task(scene):
    """A task of one session and eight single frames."""
    _, cameras, masks, boxes = scene
    rng = np.random.default_rng(2)
    single = 8
    every = np.concatenate([masks.swapaxes(0, 1).reshape(-1, SIZE, SIZE), masks[:single, 0]])
    crops = rng.integers(0, 255, (*every.shape, 3)).astype(np.uint8)
    clip = np.repeat(np.arange(VIEWS + 1), [MOMENTS] * VIEWS + [single])
    seconds = np.concatenate([np.tile(np.arange(MOMENTS) * 0.1, VIEWS), np.arange(single) * 0.1])
    frames = make_frames(
        crops, every, np.concatenate([boxes.reshape(-1, 4), boxes[0, :single]]).astype(np.float32), clip, seconds
    )
    pad = [np.zeros((single, *values.shape[2:])) for values in cameras[:3]]
    rays, R, t = (
        np.concatenate([values.numpy().swapaxes(0, 1).reshape(-1, *values.shape[2:]), extra])
        for values, extra in zip(cameras[:3], pad, strict=True)
    )
    table = np.arange(VIEWS * MOMENTS).reshape(VIEWS, MOMENTS).T
    instants = Instants(
        table, np.zeros(MOMENTS, int), np.arange(MOMENTS) * 0.1, rays.astype(np.float32), R, t, np.full(len(every), -1)
    )
    torch.manual_seed(0)
    return RefineTask(frames, instants, SKELETON, RefineConfig(steps=4, rounds=2, fit_steps=3, batch_size=8))


def test_labels_of_sessions_are_named_and_those_of_single_frames_are_not(task):
    batch = task.batch(0)
    terms, weights = task.loss(batch, 0)
    assert terms.keys() == weights.keys() and all(torch.isfinite(term) for term in terms.values())
    assert int(task.labels.named.sum()) == VIEWS * MOMENTS and not task.labels.named[-8:].any()
    assert torch.isfinite(task.labels.keypoints).all()
    sure = task.labels.confidence
    assert ((sure >= 0) & (sure <= 1)).all()


def test_labels_are_made_once_a_round_by_the_teacher(task):
    task.loss(task.batch(0), 0)
    first = task.labels.keypoints.clone()
    task.loss(task.batch(1), 1)
    assert torch.equal(task.labels.keypoints, first) and int(task.labels.made) == 1
    with torch.no_grad():
        for parameter in task.detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    before = [parameter.clone() for parameter in task.teacher.parameters()]
    task.loss(task.batch(4), 4)
    assert int(task.labels.made) == 2 and task.stage(4) == "round 2"
    moved = [(a - b).abs().max() for a, b in zip(before, task.teacher.parameters(), strict=True)]
    apart = [(a - b).abs().max() for a, b in zip(task.detector.parameters(), before, strict=True)]
    assert 0 < max(moved) < 0.01 * max(apart)  # a running average, not a copy


def test_labels_are_made_in_full_precision(task):
    with torch.autocast("cpu", torch.bfloat16):
        task.loss(task.batch(0), 0)
    made = task.labels.keypoints.clone()
    task.labels.made.zero_()
    task._made = None
    task.loss(task.batch(0), 0)
    torch.testing.assert_close(made, task.labels.keypoints)


def test_batches_depend_on_seed_and_step_only(task):
    for name, value in task.batch(3).items():
        assert torch.equal(value, task.batch(3)[name])
    assert not torch.equal(task.batch(3)["images"], task.batch(4)["images"])


def test_every_moment_is_fitted_once(task, monkeypatch):
    monkeypatch.setattr("streampose.methods.refine.WINDOW", 5)
    monkeypatch.setattr("streampose.methods.refine.OVERLAP", 2)
    task.instants.seconds[7:] += 5.0  # the recording pauses: no window reaches over it
    rows = [rows[core] for _, rows, core in task._windows(task.instants)]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(MOMENTS))
    for _, window, _ in task._windows(task.instants):
        assert np.diff(task.instants.seconds[window]).max() < 1


def test_gradients_leave_the_teacher_alone(task):
    terms, weights = task.loss(task.batch(0), 0)
    sum(weights[name] * term for name, term in terms.items()).backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert any(parameter.grad is not None for parameter in task.detector.parameters())


def test_plan_fits_the_rounds_to_the_time(task):
    task.plan(10.0, 10.0)
    assert task.total_steps == 2 * task.round_steps
    assert 0.8 * 6000 < task.total_steps < 6000
    assert task.stage(0) == "round 1" and task.stage(task.total_steps) == "round 2"


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="huge"):
        load_refine_config("huge")
    with pytest.raises(ConfigError, match="colour"):
        load_refine_config("tiny", None, ["terms.colour=1"])


@pytest.fixture
def clip(scene):
    """What the first camera alone saw, and where the joints are in its crops, z in the crop's unit."""
    world, cameras, masks, boxes = scene
    crops = np.zeros((MOMENTS, SIZE, SIZE, 3), np.uint8)
    frames = make_frames(
        crops, masks[:, 0], boxes[0].astype(np.float32), np.zeros(MOMENTS, int), np.arange(MOMENTS) * 0.1
    )
    return frames, look(torch.from_numpy(world).float(), cameras, SKELETON.root).numpy()[:, 0]


def test_joints_stand_where_the_made_up_camera_sees_them(clip):
    frames, points = clip
    frames.boxes[6:] += 30  # the crop follows
    alone = stand_alone(frames, np.zeros(MOMENTS, bool))
    index = np.arange(MOMENTS)
    world = first_places(points, frames, alone, index)
    cameras = Cameras(*(torch.from_numpy(values) for values in alone.cameras_of(index[:, None]).values()))
    seen = look(torch.from_numpy(world).float(), cameras, SKELETON.root).numpy()[:, 0]
    np.testing.assert_allclose(seen, points - points[:, SKELETON.root, None] * (0, 0, 1), atol=0.02)
    tall = np.ptp(world.reshape(-1, 3), 0)
    assert 1.0 < tall[1] < 2.5 and np.isfinite(world).all()  # metres of a person
    assert len(stand_alone(frames, np.ones(MOMENTS, bool))) == 0


def test_of_long_recordings_stretches_are_kept_and_all_that_sessions_show():
    count = 1000
    picture = np.full((count, 8, 8), 255, np.uint8)
    clip = np.repeat([0, 1], [700, 300])
    frames = make_frames(
        np.zeros((count, 8, 8, 3), np.uint8), picture, np.tile([0, 0, 8, 8.0], (count, 1)), clip, np.arange(count) / 10
    )
    shown = np.zeros(count, bool)
    shown[:50] = True
    kept = thin_out(frames, shown, 400)
    assert 300 <= len(kept) - 50 <= 400
    assert (kept.seconds[:50] == frames.seconds[:50]).all() and set(kept.clip) == {0, 1}
    assert (np.diff(kept.seconds) > 0.15).sum() <= 4  # stretches, not scattered frames
    assert thin_out(frames, shown, 950) is frames


def test_labels_take_half_of_the_time_at_most(task):
    task.alone = stand_alone(task.frames, np.zeros(len(task.frames), bool))
    labelling = task._labelling_seconds() / 60
    task.plan(10.0, 10 * labelling)
    assert task.rounds == 2 and task.total_steps == 2 * task.round_steps
    task.plan(10.0, 2.2 * labelling)
    assert task.rounds == 1 and task.total_steps == task.round_steps and task.stage(10**6) == "round 1"


def test_a_body_is_fitted_to_the_masks_of_one_view(clip):
    frames, points = clip
    rng = np.random.default_rng(3)
    habits = rng.normal(0, 0.12, (1, SKELETON.num_joints, 3))  # the same at every moment, as a detector's are
    own = Labels((points + habits).astype(np.float32), np.full(points.shape[:2], 0.5, np.float32))
    config = RefineConfig(fit_steps=150)
    alone = stand_alone(frames, np.zeros(MOMENTS, bool))
    task = RefineTask(frames, no_instants(MOMENTS), SKELETON, config, alone)
    labels, named = task.make_labels(own)

    def error(keypoints):
        return np.linalg.norm((keypoints - points)[..., :2], axis=-1).mean()

    assert error(labels.keypoints) < 0.75 * error(own.keypoints)
    assert named.all()
    as_they_are = RefineTask(frames, no_instants(MOMENTS), SKELETON, config)
    assert error(as_they_are.make_labels(own)[0].keypoints) > 0.9 * error(own.keypoints)
