"""A skeleton as tensors and as a drawing, for `methods/mask.py`."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from streampose.methods.mask_prior import turns_every_way
from streampose.structures import Skeleton


class BoneTables:
    """A skeleton's bones as index and length tensors, on the device that was asked for last."""

    def __init__(self, skeleton: Skeleton):
        bones = skeleton.bones
        flip = skeleton.flip_index
        by_child = {bone.child: n for n, bone in enumerate(bones)}
        arms = {bone.child for bone in bones if bone.arm}
        sided = [(n, by_child[flip[b.child]]) for n, b in enumerate(bones) if flip[b.child] in by_child]
        pairs = [(n, m) for n, m in sided if n < m]
        neighbours = {m: _trunk_bone(skeleton, m) for m, _, _ in skeleton.midpoints}
        self.all = _index([(b.parent, b.child) for b in bones])
        self.lengths = torch.tensor([b.length for b in bones])
        self.ceilings = torch.tensor([b.max_length for b in bones])
        self.radius = torch.tensor([b.radius for b in bones])
        self.reach = torch.tensor([b.reach for b in bones])
        self.is_arm = torch.tensor([b.arm for b in bones])
        self.constant = _index([(b.parent, b.child) for b in bones if b.constant])
        self.constant_lengths = torch.tensor([b.length for b in bones if b.constant])
        self.midpoints = torch.tensor(skeleton.midpoints, dtype=torch.long).reshape(-1, 3)
        self.arm_pairs = _index([(a, b) for a, b in skeleton.flip_pairs if a in arms])
        self.left = _index([(bones[n].parent, bones[n].child) for n, _ in pairs])
        self.right = _index([(bones[m].parent, bones[m].child) for _, m in pairs])
        crossing = [(m, a, b) for m, a, b in skeleton.midpoints if neighbours[m] is not None]
        self.lines = _index([(a, b) for _, a, b in crossing])
        self.trunk = _index([neighbours[m] for m, _, _ in crossing])  # type: ignore[misc]
        self.extra: dict[str, tuple[Tensor, Tensor]] = {}
        for form, joints in skeleton.connections.items():
            thickness = [0.6 * min(_joint_radius(skeleton, a), _joint_radius(skeleton, b)) for a, b in joints]
            self.extra[form] = _index(list(joints)), torch.tensor(thickness)
        limbs = {b.child for b in bones if b.swing_degrees > 45}
        sides = [pair for pair in skeleton.flip_pairs if pair[0] not in limbs] or list(skeleton.flip_pairs)
        self.trunk_sides = _index(sides if turns_every_way(skeleton) else [])
        low, high = skeleton.warmup or (skeleton.root, skeleton.root)
        self.warmup_length = sum(bones[n].length for n in _path(skeleton, low, high))
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> BoneTables:
        if device != self.device:
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value.to(device))
            self.extra = {form: (pairs.to(device), radius.to(device)) for form, (pairs, radius) in self.extra.items()}
            self.device = device
        return self

    def faces_away(self, x: Tensor) -> Tensor:
        """Whose left side lies to the left of the picture, of subjects that turn every way: (B, K, 2 or 3) -> (B,)."""
        across = x[:, self.trunk_sides[:, 0], 0] - x[:, self.trunk_sides[:, 1], 0]
        return across.sum(1) < 0

    def drawn(self, form: str, arms: bool) -> tuple[Tensor, Tensor]:
        """What a stage draws: (N, 2) pairs of points (see `points`) and (N,) half thickness in standing heights."""
        K = len(self.all) + 1
        ends = K + torch.arange(len(self.all), device=self.device)
        bones, radius = torch.stack([self.all[:, 0], ends], 1), self.radius
        if not arms:
            bones, radius = bones[~self.is_arm], radius[~self.is_arm]
        if form not in self.extra:
            return bones, radius
        pairs, extra_radius = self.extra[form]
        return torch.cat([bones, pairs]), torch.cat([radius, extra_radius])

    def points(self, x: Tensor, height: Tensor, half: float | None = None) -> Tensor:
        """The joints, and for each bone the end of its line so that its flesh ends where it `reach`es to.

        Args:
            x: (B, K, 2).
            height: (B,) the subject's size in the unit of x.
            half: half the thickness at which bones are drawn, in the unit of x; None where it is each bone's own.

        Returns:
            (B, K + N, 2).
        """
        start, end = x[:, self.all[:, 0]], x[:, self.all[:, 1]]
        along = end - start
        own = self.radius * height[:, None]
        shift = (self.reach * own - (own if half is None else half))[..., None]  # (B, N, 1)
        length = (along**2).sum(-1, keepdim=True).add(1e-6).sqrt()
        return torch.cat([x, end + along / length * shift.clamp(min=-length)], 1)


def _index(pairs: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def _joint_radius(skeleton: Skeleton, joint: int) -> float:
    return max(bone.radius for bone in skeleton.bones if joint in (bone.parent, bone.child))


def _trunk_bone(skeleton: Skeleton, joint: int) -> tuple[int, int] | None:
    """A constant bone that ends in a middle joint, as the line that its left and right stand across."""
    for bone in skeleton.bones:
        if bone.constant and joint in (bone.parent, bone.child):
            return bone.parent, bone.child
    return None


def _path(skeleton: Skeleton, low: int, high: int) -> list[int]:
    """Bones from a joint up to its descendant; empty where it is none."""
    by_child = {bone.child: n for n, bone in enumerate(skeleton.bones)}
    path: list[int] = []
    while high != low and high in by_child:
        path.append(by_child[high])
        high = skeleton.bones[by_child[high]].parent
    return path if high == low else []


def draw_pose(image: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton) -> None:
    """Draw joints given in [-1, 1] into an RGB image, in place: left red, right green, middle white."""
    size = image.shape[0]
    pixels = np.round((np.nan_to_num(keypoints[:, :2]).clip(-2, 2) + 1) * (size / 2) - 0.5).astype(int)
    left, right = ({pair[side] for pair in skeleton.flip_pairs} for side in (0, 1))
    for bone in skeleton.bones:
        colour = (255, 60, 60) if bone.child in left else (60, 230, 60) if bone.child in right else (255, 255, 255)
        start, end = (tuple(int(v) for v in pixels[joint]) for joint in (bone.parent, bone.child))
        cv2.line(image, start, end, colour, max(1, size // 96), cv2.LINE_AA)
