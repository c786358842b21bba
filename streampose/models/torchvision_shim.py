"""The one place where torchvision is imported.

With a CPU-only torch, `import torchvision` from an index that ships the CUDA build dies on `operator torchvision::nms
does not exist`, because its compiled operators cannot be loaded. Declaring the two operators that it registers fake
kernels for makes models and transforms work; calling them is an error as before.
"""

from __future__ import annotations

from types import ModuleType

import torch

_kept: list[torch.library.Library] = []  # a library's definitions vanish with it


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its missing operators first where it fails on them."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import sys

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision
    return torchvision
