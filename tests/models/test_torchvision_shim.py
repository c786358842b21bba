"""The torchvision import and the encoder that needs it."""

import torch

from streampose.models.resnet import resnet_encoder
from streampose.models.torchvision_shim import import_torchvision


def test_torchvision_can_be_imported_twice():
    assert import_torchvision() is import_torchvision()


def test_resnet_features_have_their_strides():
    encoder = resnet_encoder()
    features = encoder(torch.rand(1, 3, 64, 64))
    assert [f.shape[-1] for f in features] == [16, 8, 4, 2]
    assert tuple(f.shape[1] for f in features) == encoder.widths[1:]
