"""Skeleton images: against the plain formula, by hand, their gradient, unknown joints, and their memory."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from streampose.config import load_skeleton
from streampose.losses.bone_maps import squared_distances
from streampose.losses.skeleton_images import GAMMA, limb_image, point_image, point_images, sided_image

SKELETON = load_skeleton("human17")
BONES = torch.tensor([(bone.parent, bone.child) for bone in SKELETON.bones])


def plain(xy, size, gamma=GAMMA):
    """Eq. 1 as it stands: a map for every bone, then the smallest."""
    distances = squared_distances(xy[:, BONES[:, 0]], xy[:, BONES[:, 1]], size)
    return torch.exp(-gamma * distances.amin(1))


@pytest.fixture
def joints():
    torch.manual_seed(1)
    return torch.rand(3, 17, 2) * 1.8 - 0.9


def test_limbs_equal_the_plain_formula_and_its_gradient(joints):
    pull = torch.randn(3, 20, 20)
    found, wanted = joints.clone().requires_grad_(), joints.clone().requires_grad_()
    image = limb_image(found, BONES, 20)
    torch.testing.assert_close(image, plain(wanted, 20), atol=1e-4, rtol=0)
    (image * pull).sum().backward()
    (plain(wanted, 20) * pull).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad, atol=2e-3, rtol=1e-3)


def test_a_limb_by_hand():
    xy = torch.tensor([[[-0.75, -0.75], [0.75, -0.75]]])  # along the first of four rows of pixels
    image = limb_image(xy, torch.tensor([[0, 1]]), 4)[0]
    torch.testing.assert_close(image[:, 1], torch.exp(-GAMMA * torch.tensor([0.0, 0.5, 1.0, 1.5]) ** 2))


def test_bones_of_unknown_joints_are_not_drawn_and_get_no_gradient(joints):
    joints[:, 16] = math.nan  # right wrist
    known = BONES[(BONES != 16).all(1)]
    found = joints.clone().requires_grad_()
    image = limb_image(found, BONES, 16)
    torch.testing.assert_close(image, limb_image(joints, known, 16))
    image.sum().backward()
    assert torch.isfinite(found.grad).all() and not found.grad[:, 16].any()


def test_sides_are_drawn_apart(joints):
    both = sided_image(joints, [BONES[:3], BONES[3:]], 16)
    assert both.shape == (3, 2, 16, 16)
    torch.testing.assert_close(both.amax(1), limb_image(joints, BONES, 16))


def test_points_by_hand_and_as_a_sum():
    xy = torch.tensor([[[0.25, -0.25], [math.nan, 0.0]]])
    image = point_image(xy, 4, sigma=0.5)[0]
    assert float(image[1, 2]) == pytest.approx(1.0)
    assert float(image[1, 1]) == pytest.approx(math.exp(-0.5))
    assert float(image[2, 1]) == pytest.approx(math.exp(-1.0))
    torch.testing.assert_close(point_images(xy, 4, 0.5).sum(1)[0], image)


def test_points_have_gradients(joints):
    torch.autograd.gradcheck(lambda xy: point_image(xy, 6, 0.4), joints[:1, :3].double().requires_grad_(), atol=1e-2,
                             eps=1e-2, rtol=1e-2)  # fmt: skip


class Peak(TorchDispatchMode):
    """The bytes that tensors made under it hold at most."""

    def __init__(self):
        super().__init__()
        self.held, self.most, self.known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self.known:
                self.known.add(storage._cdata)
                self.held += storage.nbytes()
                self.most = max(self.most, self.held)
                weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())
        return out

    def drop(self, key, size):
        self.known.discard(key)
        self.held -= size


def peak(draw, count=17):
    """Maps of (B, s, s) that drawing and its gradient need at once."""
    xy = (torch.rand(2, count, 2) * 1.6 - 0.8).requires_grad_()
    with Peak() as peak:
        image = draw(xy)
        image.sum().backward()
    return peak.most / (image.numel() * 4)


def test_renderers_need_few_maps_however_many_bones_there_are():
    def chain(count):
        return torch.stack([torch.arange(count - 1), torch.arange(count - 1) + 1], 1)

    few, many = (peak(lambda xy: limb_image(xy, chain(xy.shape[1]), 64), count) for count in (9, 61))
    assert few > 3 and many < few + 1 and many < 22
    assert peak(lambda xy: plain(xy, 64)) > 150  # a map for every bone
    assert peak(lambda xy: point_image(xy, 64)) < 5  # thin matrices; at 128 pixels less than 2
