"""The networks of `hypotheses`: a lifter (generator and camera network), a critic of poses and an encoder of codes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of the leaky rectifiers
PRESETS = {"tiny": (192, 16), "small": (384, 24), "base": (1024, 32)}  # width of the layers, length of the codes


class Lifted(NamedTuple):
    """What the lifter says of B sets of 2D joints.

    Attributes:
        poses: (B, K, 3) in the template's frame, the root at the origin.
        camera: (B, 2, 3) template's frame -> the normalised picture.
    """

    poses: Tensor
    camera: Tensor


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
    """The generator G(x, z) and the camera network: 2D joints and a code -> a 3D pose and a camera.

    Args:
        num_joints, root: of the skeleton.
        width: of the layers; code_size: Z.

    Attributes:
        metres: length of the template's unit, of the prior that was trained with.
    """

    metres: Tensor

    def __init__(self, num_joints: int, root: int, width: int, code_size: int):
        super().__init__()
        self.root, self.code_size = root, code_size
        self.register_buffer("metres", torch.ones(()))
        self.generator = perceptron(3 * num_joints + code_size, width, 3 * num_joints)
        self.camera = perceptron(3 * num_joints, width, 6)

    def forward(self, joints: Tensor, visibility: Tensor, codes: Tensor) -> Lifted:
        """Lift normalised joints.

        Args:
            joints: (B, K, 2) as `normalise` makes them.
            visibility: (B, K) 1 seen, 0 missing: such joints may be anywhere.
            codes: (B, Z); zeros for the most likely pose.
        """
        seen = torch.where(visibility[..., None] > 0, joints, torch.zeros_like(joints)).flatten(1)
        seen = torch.cat([seen, visibility], 1)
        poses = self.generator(torch.cat([seen, codes], 1)).unflatten(1, (-1, 3))
        return Lifted(poses - poses[:, self.root : self.root + 1], self.camera(seen).unflatten(1, (2, 3)))


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


def build_lifter(preset: str, num_joints: int, root: int) -> Lifter:
    """A lifter of a named size.

    Raises:
        ValueError: no such size.
    """
    if preset not in PRESETS:
        raise ValueError(f"lifter {preset!r}: unknown; choose {', '.join(PRESETS)}")
    return Lifter(num_joints, root, *PRESETS[preset])


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


def rotation_of(camera: Tensor) -> Tensor:
    """The rotations closest to weak-perspective cameras: (B, 2, 3) -> (B, 3, 3), the third row their cross product.

    By the symmetric root of M M^T, in closed form, so that it exports to ONNX.
    """
    product = camera @ camera.transpose(1, 2)
    a, b, d = product[:, 0, 0] + 1e-9, product[:, 0, 1], product[:, 1, 1] + 1e-9
    root = torch.sqrt((a * d - b * b).clamp_min(1e-12))
    trace = torch.sqrt(a + d + 2 * root)
    p, q, s = (a + root) / trace, b / trace, (d + root) / trace  # the root's entries [[p, q], [q, s]]
    determinant = (p * s - q * q).clamp_min(1e-12)[:, None]
    first = (s[:, None] * camera[:, 0] - q[:, None] * camera[:, 1]) / determinant
    second = (p[:, None] * camera[:, 1] - q[:, None] * camera[:, 0]) / determinant
    x, y = (first[:, [1, 2, 0]], first[:, [2, 0, 1]]), (second[:, [2, 0, 1]], second[:, [1, 2, 0]])
    return torch.stack([first, second, x[0] * y[0] - x[1] * y[1]], 1)


class JointsToPoses(nn.Module):
    """What a bundle that lifts promises, around a `Lifter`: joints as they come, poses in metres along camera axes."""

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
        lifted = self.lifter(known, visibility, codes)
        poses = lifted.poses @ rotation_of(lifted.camera).transpose(1, 2)  # (B, K, 3) camera axes
        seen = visibility[..., None]
        total = seen.sum(1).clamp_min(1.0)
        middle = (poses[..., :2] * seen).sum(1) / total  # (B, 2)
        centred = (poses[..., :2] - middle[:, None]) * seen
        norm = (centred**2).sum((1, 2)).clamp_min(1e-9)
        scale = ((centred * known).sum((1, 2)) / norm).clamp_min(1e-6) * deviation  # least squares
        place = mean - scale[:, None] * middle
        metres = self.lifter.metres
        return poses * metres, torch.cat([scale[:, None] / metres, place], 1)
