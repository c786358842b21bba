"""Networks in whose features images are compared (perceptual loss), with and without weights from elsewhere.

`random`: an untrained convolutional network, always the same one. Random features know edges and colours at several
scales, which is most of what the comparison of two crops of one person needs; they cost next to nothing and download
nothing. They are the default.

`rotations`: the same network after it has learnt, on the user's own crops, by how many quarter turns a crop is turned
(Gidaris, Singh, Komodakis: Unsupervised representation learning by predicting image rotations, ICLR 2018).

`vgg16`: torchvision's, where its weights lie in the user's torch cache already.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)
VGG_LAYERS = (3, 8, 15)  # after the second, fourth and seventh convolution
VGG_FILE = "vgg16-397923af.pth"
RANDOM_SEED = 20190


class PerceptualFeatures(nn.Module):
    """Features at three levels, the image itself first: (B, 3, s, s) in [0, 1] -> four tensors."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(RANDOM_SEED)
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(a, b, 3, 1, 1) for a, b in zip((3, *WIDTHS), WIDTHS, strict=False)]
        )
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            fan = layer.weight[0].numel()
            with torch.no_grad():
                layer.weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
        self.turned = nn.Linear(WIDTHS[-1], 4)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images * 2 - 1
        features = [x]
        for number, layer in enumerate(self.convolutions):
            x = F.relu(layer(F.avg_pool2d(x, 2) if number else x))
            features.append(x)
        return features

    def rotations(self, images: Tensor) -> Tensor:
        """(B, 3, s, s) -> logits (B, 4) of by how many quarter turns each is turned."""
        return self.turned(self(images)[-1].mean((2, 3)))


class VggFeatures(nn.Module):
    """VGG-16's features at three levels, with the weights of the user's torch cache.

    Raises:
        FileNotFoundError: they are not there; nothing is downloaded.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        from streampose.models.torchvision_shim import import_torchvision

        path = vgg_path()
        if not path.is_file():
            raise FileNotFoundError(path)
        network = import_torchvision().models.vgg16()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.layers = network.features[: VGG_LAYERS[-1] + 1]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("spread", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = (images - self.mean) / self.spread
        features = [x]
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in VGG_LAYERS:
                features.append(x)
        return features


def vgg_path() -> Path:
    """Where torch keeps the weights of torchvision's VGG-16, if the user has them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
