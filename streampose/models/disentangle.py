"""Two interacting variational autoencoders, and the detector that is left of them when they are trained.

VAE_x encodes an image into a code z_t of the task and a code z_s of everything else, and decodes both into the image.
VAE_y encodes a target (3D joints, or a sketch) into a code w_t of the same space as z_t and decodes it. An image is
translated by its z_t and the decoder of VAE_y.

Source: Liu et al., Semi-Supervised Learning of Disentangled Representations for Cross-Modal Translation, Sec. 3, 4.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampose.models.blocks import Encoder, Up, conv_block, group_norm
from streampose.models.detector import light_encoder
from streampose.models.torchvision_shim import import_torchvision

LATENT = 64  # dimensions of z_t, z_s and w_t
UNIT_METRES = 0.25  # VAE_y speaks in these, so that its inputs and outputs are about one
GREY = 0.5  # what a picture is filled with where the subject is not
TYPICAL_SCALE = 0.9  # crop units per metre of a standing person
CODES = 4  # directions in which the posterior of z_t is tried, both ways, for the confidence
SPREAD_METRES = 0.08  # deviation of a joint at which its confidence has fallen to 1 / e
LEAST_FOREGROUND = 0.02  # share of a crop; the confidence falls in proportion below it


class Sizes(NamedTuple):
    """One preset: the image encoder, side of the map that is read, channels of the decoder from deep to fine, width of
    the fully connected layers, and whether they are normalised by batches as printed."""

    encoder: str | tuple[int, ...]
    pool: int
    decoder: tuple[int, ...]
    hidden: int
    batch_norm: bool = False


PRESETS = {
    "mini": Sizes((16, 32, 64, 128), 2, (64, 48, 24), 256),
    "mini-paper": Sizes((16, 32, 64, 128), 2, (64, 48, 24), 256, batch_norm=True),
    "tiny": Sizes((16, 24, 48, 96, 128), 2, (96, 48, 32, 16), 256),
    "small": Sizes((24, 48, 96, 160, 256), 4, (128, 64, 48, 24), 512),
    "base": Sizes("resnet50", 1, (256, 128, 64, 32), 1024),
    "paper": Sizes("resnet50", 1, (256, 128, 64, 32), 1024, batch_norm=True),
}


class Gaussian(NamedTuple):
    """A diagonal normal distribution: mean and log-variance (B, D)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """One reparametrised draw for each row: (B, D)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mean)


class PoseOutput(NamedTuple):
    """What the detector says about B crops.

    Attributes:
        keypoints: (B, K, 3) x right, y down, z forward in [-1, 1] crop units; z about the root.
        confidence: (B, K) in [0, 1]: how well the poses of likely codes agree; near 0 where there is no foreground.
        pose: (B, K, 3) metres about the root, in the camera's frame.
        camera: (B, 3) scale in crop units per metre, and the offset in crop units.
    """

    keypoints: Tensor
    confidence: Tensor
    pose: Tensor
    camera: Tensor


class GaussianHead(nn.Module):
    """Features (B, F) to a distribution over D dimensions; log-variances are kept within a sensible range."""

    def __init__(self, features: int, dimensions: int = LATENT):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(features, dimensions), nn.Linear(features, dimensions)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -2.0)

    def forward(self, features: Tensor) -> Gaussian:
        return Gaussian(self.mean(features).float(), self.log_variance(features).float().clamp(-10, 4))


class ImageFeatures(nn.Module):
    """Images (B, C, S, S) in [0, 1] -> features (B, F) of the deepest map, pooled to `pool` x `pool` cells."""

    def __init__(self, sizes: Sizes, channels: int = 3):
        super().__init__()
        self.encoder = _encoder(sizes, channels)
        self.pool = sizes.pool
        self.size = self.encoder.widths[-1] * sizes.pool**2

    def forward(self, images: Tensor) -> Tensor:
        deepest = self.encoder(images * 2 - 1)[-1]
        if deepest.shape[-1] != self.pool:
            deepest = F.adaptive_avg_pool2d(deepest, self.pool)
        return deepest.flatten(1)


class ImageDecoder(nn.Module):
    """Codes (B, D) -> an image (B, channels, S, S) in (0, 1), doubled once a width, then to the asked size."""

    def __init__(self, sizes: Sizes, dimensions: int, size: int, channels: int = 3):
        super().__init__()
        self.size, self.start, self.deep = size, max(size // 16, 1), sizes.decoder[0]
        self.first = nn.Linear(dimensions, self.deep * self.start**2)
        widths = (*sizes.decoder, sizes.decoder[-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 1, 1, bias=False), _norm_2d(b, sizes.batch_norm), nn.ReLU(inplace=True))
            for a, b in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, 1, 1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.first(codes).reshape(-1, self.deep, self.start, self.start)
        for block in self.blocks:
            x = F.interpolate(block(x), scale_factor=2.0, mode="nearest")
        x = self.last(x).float()
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return torch.sigmoid(x)


class ImageEncoder(nn.Module):
    """A one-code encoder of images: (B, C, S, S) in [0, 1] -> a distribution of w_t. VAE_y of sketches has it."""

    def __init__(self, sizes: Sizes, channels: int = 1):
        super().__init__()
        self.features = ImageFeatures(sizes, channels)
        self.head = GaussianHead(self.features.size)

    def forward(self, images: Tensor) -> Gaussian:
        return self.head(self.features(images))


class PoseEncoder(nn.Module):
    """3D joints (B, K, 3) in metres, NaN where unknown -> a distribution of w_t."""

    def __init__(self, sizes: Sizes, num_joints: int):
        super().__init__()
        self.layers = _layers(4 * num_joints, sizes)
        self.head = GaussianHead(sizes.hidden)

    def forward(self, pose: Tensor) -> Gaussian:
        known = torch.isfinite(pose).all(-1)
        filled = torch.where(known[..., None], pose, torch.zeros_like(pose)) / UNIT_METRES
        return self.head(self.layers(torch.cat([filled.flatten(1), known.to(filled.dtype)], 1)))


class PoseDecoder(nn.Module):
    """Codes (B, D) -> 3D joints (B, K, 3) in metres."""

    def __init__(self, sizes: Sizes, num_joints: int):
        super().__init__()
        self.layers, self.num_joints = _layers(LATENT, sizes), num_joints
        self.joints = nn.Linear(sizes.hidden, 3 * num_joints)

    def forward(self, codes: Tensor) -> Tensor:
        return self.joints(self.layers(codes)).float().reshape(-1, self.num_joints, 3) * UNIT_METRES


class ForegroundNetwork(nn.Module):
    """Where the subject is: crops (B, 3, S, S) in [0, 1] -> logits (B, S, S). Stands in for the masks at serving."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.first = conv_block(3, width, stride=2)
        self.quarter = conv_block(width, 2 * width, stride=2)
        self.eighth = nn.Sequential(conv_block(2 * width, 4 * width, stride=2), conv_block(4 * width, 4 * width))
        self.sixteenth = nn.Sequential(conv_block(4 * width, 4 * width, stride=2), conv_block(4 * width, 4 * width))
        self.up8 = Up(4 * width, 4 * width, 4 * width)
        self.up4 = Up(4 * width, 2 * width, 2 * width)
        self.up2 = Up(2 * width, width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        half = self.first(images * 2 - 1)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        x = self.up2(self.up4(self.up8(self.sixteenth(eighth), eighth), quarter), half)
        return F.interpolate(self.out(x).float(), scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]


class Translator(nn.Module):
    """The way from a crop to a target: foreground, z_t (and z_s for training), the decoder of VAE_y.

    Attributes:
        foreground: finds the subject where no mask is given.
        features, task, rest: the encoder of VAE_x, with one head for each code.
        decoder: of VAE_y.
    """

    def __init__(self, sizes: Sizes, decoder: nn.Module, input_size: int):
        super().__init__()
        self.input_size = input_size
        self.foreground = ForegroundNetwork()
        self.features = ImageFeatures(sizes)
        self.task, self.rest = GaussianHead(self.features.size), GaussianHead(self.features.size)
        self.decoder = decoder

    def encode(self, subject: Tensor) -> tuple[Gaussian, Gaussian, Tensor]:
        """Foreground-only images (B, 3, S, S) -> z_t, z_s, features (B, F)."""
        features = self.features(subject)
        return self.task(features), self.rest(features), features

    def subject(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images without their background (B, 3, S, S), and the mask that was found (B, S, S) in (0, 1)."""
        mask = torch.sigmoid(self.foreground(images))
        return without_background(images, mask), mask

    def forward(self, images: Tensor) -> Tensor:
        """Translate images (B, 3, S, S) in [0, 1] by the mean of z_t."""
        return self.decoder(self.encode(self.subject(images)[0])[0].mean)


class PoseTranslator(Translator):
    """The translator of poses with its weak-perspective camera: a detector that is exported and served."""

    tries: Tensor

    def __init__(self, sizes: Sizes, num_joints: int, input_size: int):
        super().__init__(sizes, PoseDecoder(sizes, num_joints), input_size)
        self.camera = nn.Linear(self.features.size, 3)
        nn.init.zeros_(self.camera.weight)
        nn.init.zeros_(self.camera.bias)
        half = torch.randn(CODES, LATENT, generator=torch.Generator().manual_seed(0))
        self.register_buffer("tries", torch.cat([half, -half]), persistent=False)  # (2 * CODES, D)

    def cameras(self, features: Tensor) -> Tensor:
        """Features (B, F) -> scale in crop units per metre, offset in crop units: (B, 3)."""
        raw = self.camera(features).float()
        return torch.cat([TYPICAL_SCALE * torch.exp(raw[:, :1].clamp(-3, 3)), raw[:, 1:]], 1)

    def forward(self, images: Tensor) -> PoseOutput:  # type: ignore[override]
        """Detect the joints of (B, 3, S, S) images in [0, 1]."""
        subject, mask = self.subject(images)
        return self.detect(subject, mask)

    def detect(self, subject: Tensor, mask: Tensor) -> PoseOutput:
        """As `forward`, of images whose background was taken away by a mask (B, S, S)."""
        code, _, features = self.encode(subject)
        camera, pose = self.cameras(features), self.decoder(code.mean)
        tried = code.mean[:, None] + torch.exp(0.5 * code.log_variance)[:, None] * self.tries  # (B, 2 * CODES, D)
        others = self.decoder(tried.reshape(-1, LATENT)).reshape(-1, 2 * CODES, *pose.shape[1:])  # (B, 2 * CODES, K, 3)
        spread = ((others - pose[:, None]) ** 2).sum(-1).mean(1).clamp_min(1e-12).sqrt()  # (B, K)
        present = (mask.mean((1, 2)) / LEAST_FOREGROUND).clamp(0, 1)
        confidence = torch.exp(-spread / SPREAD_METRES) * present[:, None]
        return PoseOutput(project_weakly(pose, camera), confidence, pose, camera)


def project_weakly(pose: Tensor, camera: Tensor) -> Tensor:
    """A pose (B, K, 3) in metres through weak-perspective cameras (B, 3): (B, K, 3) in crop units."""
    scaled = pose * camera[:, None, :1]
    return torch.cat([scaled[..., :2] + camera[:, None, 1:], scaled[..., 2:]], -1)


def without_background(images: Tensor, mask: Tensor) -> Tensor:
    """Images (B, 3, S, S) with grey where the mask (B, S, S) in [0, 1] is 0."""
    return (images - GREY) * mask[:, None] + GREY


def build_pose_translator(preset: str, num_joints: int, input_size: int) -> PoseTranslator:
    """Make an untrained detector.

    Args:
        preset: of PRESETS: `mini`, `tiny`, `small` (light encoders), `base` (ResNet-50); `mini-paper`, `paper` (the
            smallest and the largest with BatchNorm).
        num_joints: K.
        input_size: side of the crops in pixels; a multiple of 32.
    """
    return PoseTranslator(_sizes(preset, input_size), num_joints, input_size)


def build_sketch_translator(preset: str, input_size: int) -> Translator:
    """Make an untrained translator from images to monochrome images of the same size."""
    sizes = _sizes(preset, input_size)
    return Translator(sizes, ImageDecoder(sizes, LATENT, input_size, 1), input_size)


def _sizes(preset: str, input_size: int) -> Sizes:
    if preset not in PRESETS:
        raise ValueError(f"disentangle preset {preset!r}: there are {', '.join(PRESETS)}")
    if input_size % 32:
        raise ValueError(f"input_size {input_size} is not a multiple of 32")
    return PRESETS[preset]


def _encoder(sizes: Sizes, channels: int) -> Encoder:
    if sizes.encoder != "resnet50":
        assert not isinstance(sizes.encoder, str)
        encoder = light_encoder(channels, sizes.encoder)
        if sizes.batch_norm:
            _normalise_by_batches(encoder)
        return encoder
    norm = nn.BatchNorm2d if sizes.batch_norm else group_norm
    network = import_torchvision().models.resnet50(weights=None, norm_layer=norm)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    levels = [network.layer1, network.layer2, network.layer3, network.layer4]
    return Encoder(stem, levels, (64, 256, 512, 1024, 2048))


def _normalise_by_batches(network: nn.Module) -> None:
    """Put BatchNorm in the place of every GroupNorm."""
    for name, child in network.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(network, name, nn.BatchNorm2d(child.num_channels))
        else:
            _normalise_by_batches(child)


def _layers(inputs: int, sizes: Sizes) -> nn.Sequential:
    """Three repetitions of a fully connected layer, a normalisation and LeakyReLU."""
    layers: list[nn.Module] = []
    for width in (inputs, sizes.hidden, sizes.hidden):
        norm = nn.BatchNorm1d(sizes.hidden) if sizes.batch_norm else nn.LayerNorm(sizes.hidden)
        layers += [nn.Linear(width, sizes.hidden), norm, nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def _norm_2d(channels: int, batch: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch else group_norm(channels)
