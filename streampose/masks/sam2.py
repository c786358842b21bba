"""Segment Anything 2's video predictor behind the interface of `masks.sam.Sam`, where the package `sam2` is installed.

It follows the subject by its own memory, so one prompt starts a batch of crops, and the last mask of a batch starts the
next one. Which of its configurations belongs to a checkpoint is told by the checkpoint's shapes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from streampose.errors import ConfigError
from streampose.masks.sam import Answer, Prompt, choose_bf16, choose_device, mask_iou

if TYPE_CHECKING:
    import torch

BATCH = 16  # crops that are followed in one go
LOGITS = 256  # side of the answers that are handed on
CONFIGURATIONS = {  # (width of the first stage, number of blocks) -> name
    (96, 12): "hiera_t",
    (96, 16): "hiera_s",
    (112, 24): "hiera_b+",
    (144, 48): "hiera_l",
}
INSTALL = "pip install sam2 (https://github.com/facebookresearch/sam2)"


class Sam2:
    """Segment Anything 2 with the weights of a checkpoint; see `Sam` for the arguments.

    Attributes:
        kind: name of the configuration, such as `sam2.1_hiera_t`.
        batch: crops followed in one go.
    """

    def __init__(
        self,
        state: dict[str, torch.Tensor],
        path: Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        image_size: int | None = None,
    ):
        self.device = choose_device(device)
        self.bf16 = choose_bf16(precision, self.device)
        self.kind = configuration(state, path)
        self.batch = BATCH
        self._predictor = _build(self.kind, self.device, image_size)
        try:
            self._predictor.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{path}: does not fit Segment Anything 2's {self.kind} ({reason})") from None
        self._predictor.eval().requires_grad_(False)

    def refine(self, crop: np.ndarray, box: np.ndarray | None, coarse: np.ndarray) -> np.ndarray:
        """The subject's mask in one crop; see `Sam.refine`."""
        from streampose.masks.sam import make_prompt

        if not coarse.any():
            return coarse
        prompt = make_prompt(coarse)
        if box is not None:
            prompt = Prompt(np.asarray(box, np.float32), prompt.points, prompt.inside)
        square = np.array([[0, 0, *crop.shape[1::-1]]], np.float32)
        return self.segment(crop[None], coarse[None], [prompt], square)[0].mask

    def segment(
        self, crops: np.ndarray, coarse: np.ndarray, prompts: list[Prompt], squares: np.ndarray
    ) -> list[Answer]:
        """Masks of successive crops of one subject; see `Sam.segment`. Only the first prompt is asked.

        Args:
            crops: (B, S, S, 3) uint8 RGB; coarse: (B, S, S) uint8; squares: not needed here.
        """
        import torch

        with (
            tempfile.TemporaryDirectory() as folder,
            torch.inference_mode(),
            torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.bf16),
        ):
            for n, crop in enumerate(crops):  # the predictor reads a folder of pictures and nothing else
                name = str(Path(folder) / f"{n:05d}.jpg")
                cv2.imwrite(name, cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 100])
            state = self._predictor.init_state(folder)
            self._start(state, prompts[0], crops.shape[1:3])
            logits = {
                int(n): mask[0, 0].float().cpu().numpy() for n, _, mask in self._predictor.propagate_in_video(state)
            }
        return [_answer(logits[n], coarse[n]) for n in range(len(crops))]

    def _start(self, state: Any, prompt: Prompt, size: tuple[int, ...]) -> None:
        """Tell the predictor who is to be followed: by the mask of a moment ago, else by box and points."""
        if prompt.logits is not None:
            mask = cv2.resize(prompt.logits, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) > 0
            if mask.any():
                self._predictor.add_new_mask(state, frame_idx=0, obj_id=1, mask=mask)
                return
        self._predictor.add_new_points_or_box(
            state,
            frame_idx=0,
            obj_id=1,
            points=prompt.points if len(prompt.points) else None,
            labels=prompt.inside.astype(np.int32) if len(prompt.points) else None,
            box=prompt.box,
        )


def configuration(state: dict[str, torch.Tensor], path: Path) -> str:
    """Name of the configuration that a checkpoint's shapes belong to.

    Raises:
        ConfigError: none of the published ones.
    """
    weight = state.get("image_encoder.trunk.patch_embed.proj.weight")
    blocks = {key.split(".")[3] for key in state if key.startswith("image_encoder.trunk.blocks.")}
    name = CONFIGURATIONS.get((0 if weight is None else int(weight.shape[0]), len(blocks)))
    if name is None:
        raise ConfigError(f"{path}: a Segment Anything 2 of a size that is not known here; use a published checkpoint")
    return f"sam2.1_{name}" if "no_obj_embed_spatial" in state else f"sam2_{name}"


def _build(kind: str, device: str, image_size: int | None) -> Any:
    try:
        from streampose.models.torchvision_shim import import_torchvision

        import_torchvision()
        import sam2.sam2_video_predictor
        import sam2.utils.misc
        from sam2.build_sam import build_sam2_video_predictor
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed, which this checkpoint needs; {INSTALL}") from None
    for module in (sam2.sam2_video_predictor, sam2.utils.misc):  # its progress bars would tear ours
        module.tqdm = lambda items, **_: items
    folder = kind.split("_")[0]
    overrides = [] if image_size is None else [f"++model.image_size={image_size}"]
    predictor = build_sam2_video_predictor(
        f"configs/{folder}/{kind}.yaml", None, device=device, hydra_overrides_extra=overrides
    )
    predictor.fill_hole_area = 0  # filling needs its compiled part, which is not there without CUDA
    return predictor


def _answer(logits: np.ndarray, coarse: np.ndarray) -> Answer:
    """It tells no score, so the sureness of its pixels stands for it: the mean of |2 p - 1|."""
    mask = logits > 0
    score = float(np.abs(np.tanh(logits / 2)).mean())
    low = cv2.resize(logits, (LOGITS, LOGITS), interpolation=cv2.INTER_LINEAR)
    return Answer(mask.astype(np.uint8) * 255, score, mask_iou(mask, coarse > 0), np.asarray(low))
