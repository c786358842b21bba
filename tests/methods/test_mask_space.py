"""Eq. 10: what several views say together, its gradients, missing views, lenses, and who is left."""

import numpy as np
import pytest
import torch

from streampose.config import load_skeleton
from streampose.geometry.distortion import project
from streampose.methods.mask_prior import random_figures
from streampose.methods.mask_space import Anatomy, Cameras, choose_namings, look, to_rays, triangulate_views
from streampose.methods.mask_views import _rays
from streampose.structures import Camera
from streampose.synthetic.scene import look_at

SKELETON = load_skeleton("human17")
FLIP = torch.tensor(SKELETON.flip_index)


@pytest.fixture(scope="module")
def bodies():
    """(G, K, 3) people of 1.7 m, upright in the world (z up) and turned every way."""
    joints = random_figures(SKELETON, 6, np.random.default_rng(0)).joints * 1.7
    return torch.from_numpy(np.stack([joints[..., 0], joints[..., 2], -joints[..., 1]], -1).astype(np.float32))


def rig(count: int, distortion=(), views: int = 4) -> tuple[Cameras, list[Camera], np.ndarray]:
    """`count` times the same cameras around the origin, whose crops are boxes of their own."""
    cameras, boxes = [], []
    for view in range(views):
        angle, distance = 0.4 + 2 * np.pi * view / views, (3.0, 7.0, 4.0, 9.0)[view % 4]
        place = np.array([distance * np.cos(angle), distance * np.sin(angle), 1.5])
        R, t = look_at(place, np.zeros(3))
        K = np.array([[150.0 * distance, 0, 320], [0, 150.0 * distance, 240], [0, 0, 1]])
        cameras.append(Camera(K, R, t, (640, 480), np.array(distortion, float)))
        boxes.append([320 - 200 + 3 * view, 240 - 200, 320 + 200 + 3 * view, 240 + 200])
    rays = np.stack([_rays(np.array([box], np.float32), c.K)[0] for c, box in zip(cameras, boxes, strict=True)])
    parts = [rays, np.stack([c.R for c in cameras]), np.stack([c.t for c in cameras])]
    expanded = [torch.from_numpy(np.repeat(part[None], count, 0).astype(np.float32)) for part in parts]
    return Cameras(*expanded), cameras, np.array(boxes, float)


def in_crops(bodies, cameras, boxes):
    """Exact crop coordinates by the package's own projection: (G, V, K, 2)."""
    pixels = np.stack([project(bodies.numpy(), camera) for camera in cameras], 1)
    half = (boxes[:, 2] - boxes[:, 0])[:, None, None] / 2
    return torch.from_numpy((pixels + 0.5 - boxes[:, None, :2]) / half - 1).float()


def test_exact_views_give_the_point_and_its_depths(bodies):
    cameras, real, boxes = rig(len(bodies))
    xy = in_crops(bodies, real, boxes)
    seen = torch.ones(xy.shape[:2], dtype=torch.bool)
    space = triangulate_views(xy, torch.ones(xy.shape[:-1]), seen, cameras, SKELETON.root, None)
    torch.testing.assert_close(space.world, bodies, atol=1e-4, rtol=0)
    torch.testing.assert_close(space.keypoints[..., :2], xy, atol=1e-4, rtol=0)
    assert space.agreement.min() > 0.999
    local = (cameras.R[:, :, None] * bodies[:, None, :, None]).sum(-1) + cameras.t[:, :, None]
    depth = local[..., 2] - local[:, :, SKELETON.root, None][..., 2]
    pixels_a_metre = 150.0 * torch.tensor([3.0, 7.0, 4.0, 9.0])[:, None] / local[:, :, SKELETON.root, None][..., 2]
    torch.testing.assert_close(space.keypoints[..., 2], depth * pixels_a_metre / 200, atol=1e-4, rtol=0)


def test_gradients_flow_to_all_views(bodies):
    cameras, real, boxes = rig(len(bodies))
    xy = (in_crops(bodies, real, boxes) + 0.03 * torch.randn(6, 4, 17, 2)).requires_grad_()
    seen = torch.ones(6, 4, dtype=torch.bool)
    target = in_crops(bodies, real, boxes)
    space = triangulate_views(xy, torch.ones(6, 4, 17), seen, cameras, SKELETON.root, None)
    loss = ((space.keypoints[:, 0, :, :2] - target[:, 0]) ** 2).sum()  # the first view's picture alone
    (slope,) = torch.autograd.grad(loss, xy)
    assert slope.isfinite().all()
    assert (slope.abs().sum((0, 2, 3)) > 0.01).all()


def test_missing_views_are_masked_and_one_view_is_none(bodies):
    cameras, real, boxes = rig(len(bodies))
    xy = in_crops(bodies, real, boxes)
    xy[:, 1] = 0.7  # nonsense in a view that misses the moment
    seen = torch.tensor([[True, False, True, True]]).repeat(6, 1)
    seen[5] = torch.tensor([True, False, False, False])
    xy.requires_grad_()
    anatomy = Anatomy(SKELETON)
    space = triangulate_views(xy, torch.ones(6, 4, 17), seen, cameras, SKELETON.root, anatomy, reweigh=2)
    torch.testing.assert_close(space.world[:5], bodies[:5], atol=1e-3, rtol=0)
    assert (space.agreement[:, 1] == 0).all() and (space.agreement[5] == 0).all()
    assert (space.agreement[:5, [0, 2, 3]] > 0.99).all()
    torch.nan_to_num(space.keypoints[:5]).square().sum().backward()
    assert xy.grad.isfinite().all() and (xy.grad[:, 1] == 0).all() and (xy.grad[5] == 0).all()


@pytest.mark.parametrize("distortion", [(-0.25, 0.08, 0.001, -0.002), (0.1, 0.02, 0.0, 0.001, 0.01)])
def test_lenses_both_ways(bodies, distortion):
    from streampose.geometry.distortion import distort, undistort

    cameras, real, boxes = rig(len(bodies), distortion)

    def bend(xy, inverse):
        return (undistort if inverse else distort)(xy, np.array(distortion), False)

    bent = cameras._replace(bend=bend)
    xy = in_crops(bodies, real, boxes).requires_grad_()
    seen = torch.ones(6, 4, dtype=torch.bool)
    space = triangulate_views(xy, torch.ones(6, 4, 17), seen, bent, SKELETON.root, None)
    torch.testing.assert_close(space.world, bodies, atol=1e-3, rtol=0)
    torch.testing.assert_close(space.keypoints[..., :2], xy.detach(), atol=1e-3, rtol=0)
    one = space.keypoints[0, 1, 4, 0]
    (slope,) = torch.autograd.grad(one, xy)
    moved = xy.detach().clone()
    moved[0, 2, 4, 1] += 1e-2
    again = triangulate_views(moved, torch.ones(6, 4, 17), seen, bent, SKELETON.root, None).keypoints[0, 1, 4, 0]
    assert float((again - one).detach() / 1e-2) == pytest.approx(float(slope[0, 2, 4, 1]), rel=0.05, abs=1e-3)


def test_mixed_namings_are_settled_by_anatomy(bodies):
    cameras, real, boxes = rig(len(bodies))
    xy = in_crops(bodies, real, boxes)
    torch.manual_seed(1)
    swapped = torch.rand(6, 4) < 0.5
    mixed = torch.where(swapped[..., None, None], xy[:, :, FLIP], xy) + 0.02 * torch.randn_like(xy)
    anatomy = Anatomy(SKELETON)
    assert anatomy.tells
    body = (anatomy.fits(bodies) > 0).float().mean()
    torch.testing.assert_close(anatomy.fits(bodies[:, FLIP]), -anatomy.fits(bodies))
    assert body == 1  # drawn figures face as their file says
    chosen = choose_namings(to_rays(mixed, cameras), torch.ones(6, 4, 17), cameras, anatomy)
    assert torch.equal(chosen, swapped)
    seen = torch.ones(6, 4, dtype=torch.bool)
    printed = triangulate_views(mixed, torch.ones(6, 4, 17), seen, cameras, SKELETON.root, None)
    settled = triangulate_views(mixed, torch.ones(6, 4, 17), seen, cameras, SKELETON.root, anatomy)
    assert (settled.world - bodies).norm(dim=-1).mean() < 0.05
    assert (printed.world - bodies).norm(dim=-1).mean() > 2 * (settled.world - bodies).norm(dim=-1).mean()


def test_points_behind_a_camera_are_nan():
    cameras, _, _ = rig(1)
    world = torch.tensor([[[0.0, 0.0, 0.0], [50.0, 20.0, 0.0]]])
    seen = look(world, cameras, 0)
    assert seen[0, :, 0].isfinite().all() and seen[0, :, 1].isnan().any()


def test_autocast_rounds_nothing(bodies):
    cameras, real, boxes = rig(len(bodies))
    xy = in_crops(bodies, real, boxes)
    seen = torch.ones(6, 4, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        space = triangulate_views(xy, torch.ones(6, 4, 17), seen, cameras, SKELETON.root, Anatomy(SKELETON))
    torch.testing.assert_close(space.world, bodies, atol=1e-4, rtol=0)
