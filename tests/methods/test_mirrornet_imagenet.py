"""ImageNet weights of files with torchvision's and HRNet's own names."""

import pytest
import torch
from safetensors.torch import save_file

from streampose.errors import ConfigError
from streampose.methods.mirrornet_imagenet import _rename_hrnet, load_imagenet
from streampose.models.heatmap_detector import build_heatmap_detector
from streampose.models.torchvision_shim import import_torchvision


def names_of_hrnet() -> list[str]:
    """Tensors of the published classifier HRNet-W32, as far as pose networks have them (without batch counters)."""
    names: list[str] = []

    def conv_norm(conv: str, norm: str) -> None:
        names.append(f"{conv}.weight")
        names.extend(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))

    for n in (1, 2):
        conv_norm(f"conv{n}", f"bn{n}")
    for block in range(4):
        for n in (1, 2, 3):
            conv_norm(f"layer1.{block}.conv{n}", f"layer1.{block}.bn{n}")
    conv_norm("layer1.0.downsample.0", "layer1.0.downsample.1")
    conv_norm("transition1.0.0", "transition1.0.1")
    for transition, branch in ((1, 1), (2, 2), (3, 3)):
        conv_norm(f"transition{transition}.{branch}.0.0", f"transition{transition}.{branch}.0.1")
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for module in range(modules):
            place = f"stage{stage}.{module}"
            for branch in range(stage):
                for block in range(4):
                    for n in (1, 2):
                        at = f"{place}.branches.{branch}.{block}"
                        conv_norm(f"{at}.conv{n}", f"{at}.bn{n}")
            for target in range(stage):
                for source in range(stage):
                    at = f"{place}.fuse_layers.{target}.{source}"
                    if source > target:
                        conv_norm(f"{at}.0", f"{at}.1")
                    for step in range(target - source):
                        conv_norm(f"{at}.{step}.0", f"{at}.{step}.1")
    return names


def test_every_tensor_of_hrnet_has_its_name():
    with torch.device("meta"):
        body = build_heatmap_detector("hrnet", 5, 64).body.state_dict()
    renamed = {_rename_hrnet(name) for name in names_of_hrnet()}
    wanted = {name for name in body if not name.endswith("num_batches_tracked")}
    assert wanted <= renamed
    unused = renamed - wanted  # the classifier's last exchange feeds all branches, the pose network's the finest
    assert all(name.startswith(("stages.2.2.fuse.1", "stages.2.2.fuse.2", "stages.2.2.fuse.3")) for name in unused)


def test_hrnet_weights_are_loaded(tmp_path):
    detector = build_heatmap_detector("hrnet", 3, 64)
    shapes = {name: tensor.shape for name, tensor in detector.body.state_dict().items()}
    tensors = {n: torch.full(shapes[_rename_hrnet(n)], 0.5) for n in names_of_hrnet() if _rename_hrnet(n) in shapes}
    save_file(tensors | {"classifier.weight": torch.zeros(1000, 4)}, tmp_path / "w32.safetensors")
    assert load_imagenet(detector, tmp_path / "w32.safetensors") == len(tensors)
    loaded = detector.body.state_dict()
    assert all((loaded[name] == 0.5).all() for name in loaded if not name.endswith("num_batches_tracked"))


def test_resnet_weights_are_loaded_from_a_file_of_torch(tmp_path):
    torch.manual_seed(0)
    earlier = import_torchvision().models.resnet50(weights=None).state_dict()
    torch.save(earlier, tmp_path / "resnet50.pth")
    detector = build_heatmap_detector("simple", 3, 64)
    load_imagenet(detector, tmp_path / "resnet50.pth")
    encoder = detector.body.encoder
    torch.testing.assert_close(encoder.stem[0].weight, earlier["conv1.weight"])
    torch.testing.assert_close(encoder.levels[3][2].bn3.running_var, earlier["layer4.2.bn3.running_var"])


def test_files_that_do_not_fit_are_named(tmp_path):
    detector = build_heatmap_detector("simple", 3, 64)
    with pytest.raises(ConfigError, match="no such file"):
        load_imagenet(detector, tmp_path / "missing.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="not a file of tensors"):
        load_imagenet(detector, tmp_path / "broken.pth")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match="not the weights of this network"):
        load_imagenet(detector, tmp_path / "part.safetensors")
