"""The networks of `hypotheses`: the lifter (generator), a camera network, a critic of poses and an encoder of codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from streampose.structures import Skeleton

SLOPE = 0.01  # of the leaky rectifiers
CODES_AT_FIRST = 0.1  # weights of codes before training, as a share of what they would be
PRESETS = {"tiny": (192, 8), "small": (384, 24), "base": (1024, 32)}  # width of the layers, length of the codes


class Residual(nn.Module):
    """Two linear layers around which the input is led: (B, W) -> (B, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width), nn.LeakyReLU(SLOPE)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def perceptron(inputs: int, width: int, outputs: int, blocks: int = 2) -> nn.Sequential:
    """Linear, `blocks` residual blocks, linear."""
    middle = [Residual(width) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(inputs, width), nn.LeakyReLU(SLOPE), *middle, nn.Linear(width, outputs))


class Lifter(nn.Module):
    """The generator G(x, z), in the camera's axes: what is seen stays where it is, depth and what is hidden are added.

    Args:
        num_joints, root: of the skeleton; bones: (N, 2) parent, child.
        width: of the layers; code_size: Z.

    Attributes:
        metres: length of all bones together, of the prior that was trained with.
    """

    metres: Tensor
    bones: Tensor

    def __init__(self, num_joints: int, root: int, bones: Tensor, width: int, code_size: int):
        super().__init__()
        self.num_joints, self.root, self.code_size = num_joints, root, code_size
        self.register_buffer("metres", torch.ones(()))
        self.register_buffer("bones", bones)
        self.generator = perceptron(3 * num_joints + code_size, width, 3 * num_joints)
        first = next(module for module in self.generator.modules() if isinstance(module, nn.Linear))
        with torch.no_grad():  # what codes mean must be learnt, not left from chance
            first.weight[:, -code_size:] *= CODES_AT_FIRST

    def forward(self, joints: Tensor, visibility: Tensor, codes: Tensor) -> Tensor:
        """Lift normalised joints.

        Args:
            joints: (B, K, 2) as `normalise` makes them.
            visibility: (B, K) 1 seen, 0 missing: such joints may be anywhere.
            codes: (B, Z); zeros for the most likely pose.

        Returns:
            (B, K, 3) in the unit of the joints: x right, y down, z forward.
        """
        seen = torch.where(visibility[..., None] > 0, joints, torch.zeros_like(joints))
        K = self.num_joints  # plain numbers: the exported graph's sizes must follow from it alone
        added = self.generator(torch.cat([seen.reshape(-1, 2 * K), visibility, codes], 1)).reshape(-1, K, 3)
        return torch.cat([seen + added[..., :2], added[..., 2:]], -1)

    def size(self, poses: Tensor) -> Tensor:
        """Length of all bones together: (B, K, 3) -> (B,)."""
        vectors = poses[:, self.bones[:, 1]] - poses[:, self.bones[:, 0]]
        return torch.sqrt((vectors**2).sum(-1) + 1e-8).sum(1)


class CameraNetwork(nn.Module):
    """Where the camera stands: a lifted pose (B, K, 3) -> M (B, 2, 3), template's frame -> normalised picture."""

    def __init__(self, num_joints: int, width: int):
        super().__init__()
        self.layers = perceptron(3 * num_joints, width, 6, blocks=1)

    def forward(self, poses: Tensor) -> Tensor:
        return self.layers(poses.flatten(1)).unflatten(1, (2, 3))


class PoseCritic(nn.Module):
    """Features by which real poses are told from made ones: [pose, KCS] -> (B, features).

    Args:
        products: the length of what `losses.hypotheses.bone_products` gives.
    """

    def __init__(self, num_joints: int, products: int, width: int, features: int = 16):
        super().__init__()
        half = width // 2
        self.bones = nn.Sequential(nn.Linear(products, width), nn.LeakyReLU(SLOPE), Residual(width))
        self.joints = nn.Sequential(nn.Linear(3 * num_joints, half), nn.LeakyReLU(SLOPE), Residual(half))
        self.out = nn.Sequential(nn.Linear(width + half, half), nn.LeakyReLU(SLOPE), nn.Linear(half, features))

    def forward(self, poses: Tensor, products: Tensor) -> Tensor:
        return self.out(torch.cat([self.bones(products), self.joints(poses.flatten(1))], 1))


class CodeEncoder(nn.Module):
    """Reads the code from the pose that was made with it (Eq. 7): (B, K, 3) -> (B, Z)."""

    def __init__(self, num_joints: int, width: int, code_size: int):
        super().__init__()
        self.layers = perceptron(3 * num_joints, width, code_size, blocks=1)

    def forward(self, poses: Tensor) -> Tensor:
        return self.layers(poses.flatten(1))


def build_lifter(preset: str, skeleton: Skeleton) -> Lifter:
    """A lifter of a named size.

    Raises:
        ValueError: no such size.
    """
    if preset not in PRESETS:
        raise ValueError(f"lifter {preset!r}: unknown; choose {', '.join(PRESETS)}")
    bones = torch.tensor([(bone.parent, bone.child) for bone in skeleton.bones])
    return Lifter(skeleton.num_joints, skeleton.root, bones, *PRESETS[preset])


def normalise(joints: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """2D joints about the mean of the visible ones, divided by their standard deviation.

    Args:
        joints: (B, K, 2) in any unit; what is not visible may be NaN. visibility: (B, K) 0 or 1.

    Returns:
        joints (B, K, 2), zero where missing; mean (B, 2) and deviation (B,) in the unit of the joints.
    """
    seen = visibility[..., None]
    known = torch.where(seen > 0, joints, torch.zeros_like(joints))
    total = seen.sum(1).clamp_min(1.0)  # (B, 1)
    mean = known.sum(1) / total
    centred = (known - mean[:, None]) * seen
    deviation = torch.sqrt((centred**2).sum((1, 2)) / (2 * total[:, 0])).clamp_min(1e-6)
    return centred / deviation[:, None, None], mean, deviation


class JointsToPoses(nn.Module):
    """What a bundle that lifts promises, around a `Lifter`: joints as they come, poses in metres."""

    lifter: Any

    def __init__(self, lifter: nn.Module):
        super().__init__()
        self.lifter = lifter

    def forward(self, joints: Tensor, visibility: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Lift B sets of joints, each with one code.

        Args:
            joints: (B, K, 2) in any unit, x right, y down; visibility: (B, K) 0 or 1; codes: (B, Z).

        Returns:
            poses (B, K, 3): metres, x right, y down, z forward, the root at the origin;
            placement (B, 3): units of the joints per metre, and where the root is seen.
        """
        known, mean, deviation = normalise(joints, visibility)
        poses = self.lifter(known, visibility, codes)
        root = poses[:, self.lifter.root : self.lifter.root + 1]
        per_metre = (self.lifter.size(poses) / self.lifter.metres)[:, None]
        place = mean + root[:, 0, :2] * deviation[:, None]
        return (poses - root) / per_metre[..., None], torch.cat([per_metre * deviation[:, None], place], 1)
