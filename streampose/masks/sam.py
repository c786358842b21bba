"""Segment Anything: the outline of a subject from a box, points inside it and the mask of a moment ago.

The weights are the user's file (`--sam-checkpoint`), the code is the package `segment-anything` (extra `sam`), which is
imported only when a checkpoint is opened. The sizes of the network are read from the checkpoint's shapes: vit_b, vit_l,
vit_h and smaller ones of one's own. `masks.sam2` does the same with Segment Anything 2's video predictor;
`open_sam` tells the two apart.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from streampose.errors import ConfigError

if TYPE_CHECKING:
    import torch

NAMES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}  # by the width of the encoder
WHERE = (
    "fetch sam_vit_b_01ec64.pth (375 MB) from https://github.com/facebookresearch/segment-anything#model-checkpoints"
    " and name it with --sam-checkpoint"
)
EXTRA = "pip install 'streampose[sam]' (or segment-anything)"
MEAN, DEVIATION = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], np.float32)  # of its training pictures
DECODER_HEADS = 8
MOST_POINTS = 3  # in a prompt that is made from a coarse mask
CPU_BATCH, GPU_BATCH = 1, 8
SURE = 8.0  # a logit: what a coarse mask says when it stands in for an earlier answer


@dataclass(frozen=True)
class Prompt:
    """What SAM is asked.

    Attributes:
        box: (4,) edges in pixels of the picture; None asks by the points alone.
        points: (P, 2) pixel centres.
        inside: (P,) bool, whether each is on the subject or off it.
        logits: (L, L) float32 answer of a moment ago, moved to where the subject is now; None for none.
    """

    box: np.ndarray | None
    points: np.ndarray
    inside: np.ndarray
    logits: np.ndarray | None = None


@dataclass(frozen=True)
class Answer:
    """What SAM said.

    Attributes:
        mask: (H, W) uint8, 255 where the subject is.
        score: SAM's own estimate of its IoU with the truth.
        agreement: IoU with the coarse mask of the prompt; 1 where there was none.
        logits: (L, L) float32, for the next prompt.
    """

    mask: np.ndarray
    score: float
    agreement: float
    logits: np.ndarray


class Segmenter(Protocol):
    """What `Sam` and `sam2.Sam2` have in common; `masks.clip_masks` needs no more."""

    batch: int

    def segment(
        self, crops: np.ndarray, coarse: np.ndarray, prompts: list[Prompt], squares: np.ndarray
    ) -> list[Answer]:
        """Masks of successive crops of one subject; earlier answers are part of the later prompts."""
        ...


def open_sam(checkpoint: Path, *, device: str = "auto", precision: str = "auto") -> Segmenter:
    """Open a checkpoint of Segment Anything, or of Segment Anything 2.

    Args:
        device: `auto` (a GPU where there is one), or torch's name of it.
        precision: `auto`, `bf16` or `f32`; `auto` is bf16 where the processor has it.

    Raises:
        ConfigError: the file is missing, unsafe or of something else, or the package is not installed.
    """
    state = read_checkpoint(Path(checkpoint))
    if any(key.startswith("image_encoder.trunk.") for key in state):
        from streampose.masks.sam2 import Sam2

        return Sam2(state, Path(checkpoint), device=device, precision=precision)
    return Sam(state, Path(checkpoint), device=device, precision=precision)


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint (.pth, .pt or .safetensors); nothing in it is executed.

    Raises:
        ConfigError: there is no such file, or it holds something else than weights.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; {WHERE}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            import torch

            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(f"{path}: holds more than weights, so it is not opened; {WHERE}") from None
    except Exception as error:  # torch and safetensors raise many kinds for files that are damaged
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__}); {WHERE}") from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not any(str(key).startswith("image_encoder.") for key in state):
        raise ConfigError(f"{path}: not a checkpoint of Segment Anything; {WHERE}")
    return state


class Sam:
    """Segment Anything with the weights of a checkpoint.

    Attributes:
        kind: `vit_b`, `vit_l`, `vit_h`, or the width of another encoder.
        batch: pictures encoded at once.
    """

    def __init__(self, state: dict[str, torch.Tensor], path: Path, *, device: str = "auto", precision: str = "auto"):
        import torch

        self._model = build_network(state, path)
        self.device = choose_device(device)
        self.bf16 = choose_bf16(precision, self.device)
        self.kind = NAMES.get(self._model.image_encoder.patch_embed.proj.out_channels) or (
            f"vit {self._model.image_encoder.patch_embed.proj.out_channels}"
        )
        self.batch = GPU_BATCH if self.device != "cpu" else CPU_BATCH
        self._model.eval().requires_grad_(False).to(self.device)
        if self.bf16:
            self._model.image_encoder.to(torch.bfloat16)

    @property
    def logits_size(self) -> int:
        """Side of the low-resolution answers."""
        return int(self._model.prompt_encoder.mask_input_size[0])

    def refine(self, crop: np.ndarray, box: np.ndarray | None, coarse: np.ndarray) -> np.ndarray:
        """The subject's mask in one crop.

        Args:
            crop: (S, S, 3) uint8 RGB.
            box: (4,) edges in crop pixels; None takes the coarse mask's.
            coarse: (S, S) uint8, non-zero about where the subject is.

        Returns:
            (S, S) uint8, 255 where the subject is; the coarse mask where it is empty.
        """
        if not coarse.any():
            return coarse
        prompt = make_prompt(coarse)
        if box is not None:
            prompt = replace(prompt, box=np.asarray(box, np.float32))
        return self.answer(self.encode(crop[None])[0], crop.shape[:2], prompt, coarse).mask

    def segment(
        self, crops: np.ndarray, coarse: np.ndarray, prompts: list[Prompt], squares: np.ndarray
    ) -> list[Answer]:
        """Masks of successive crops of one subject; each answer moves on into the next prompt that brings none.

        Args:
            crops: (B, S, S, 3) uint8 RGB.
            coarse: (B, S, S) uint8.
            squares: (B, 4) where each crop was cut, in source pixels.
        """
        answers: list[Answer] = []
        for start in range(0, len(crops), self.batch):
            encoded = self.encode(crops[start : start + self.batch])
            for n, embedding in enumerate(encoded, start):
                prompt = prompts[n]
                if prompt.logits is None and answers:
                    prompt = replace(prompt, logits=move_logits(answers[-1].logits, squares[n - 1], squares[n]))
                answers.append(self.answer(embedding, crops.shape[1:3], prompt, coarse[n]))
        return answers

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """Embeddings of pictures (B, H, W, 3) uint8 RGB, the expensive part: (B, C, h, w) float32."""
        import torch

        side = int(self._model.image_encoder.img_size)
        scale = side / max(images.shape[1:3])
        size = (round(images.shape[2] * scale), round(images.shape[1] * scale))
        padded = np.zeros((len(images), side, side, 3), np.float32)
        for n, image in enumerate(images):
            resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA)
            padded[n, : size[1], : size[0]] = (resized - MEAN) / DEVIATION
        pixels = torch.from_numpy(padded).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            return self._model.image_encoder(pixels.bfloat16() if self.bf16 else pixels).float()

    def answer(
        self, embedding: torch.Tensor, size: tuple[int, ...], prompt: Prompt, coarse: np.ndarray | None = None
    ) -> Answer:
        """Ask about an encoded picture.

        Args:
            embedding: (C, h, w) of `encode`.
            size: (height, width) of the picture.
            coarse: (H, W) uint8, with which the best of SAM's masks must agree as well.
        """
        import torch

        height, width = size[0], size[1]
        side = int(self._model.image_encoder.img_size)
        scale = side / max(height, width)
        tensor = partial(torch.as_tensor, dtype=torch.float32, device=self.device)
        points = None
        if len(prompt.points):
            places = tensor((prompt.points + 0.5) * scale - 0.5)[None]
            points = (places, torch.as_tensor(prompt.inside, dtype=torch.int64, device=self.device)[None])
        box = None if prompt.box is None else tensor(np.asarray(prompt.box, np.float32) * scale - 0.5)[None]
        earlier = None if prompt.logits is None else tensor(prompt.logits)[None, None]
        with torch.inference_mode():
            sparse, dense = self._model.prompt_encoder(points=points, boxes=box, masks=earlier)
            logits, scores = self._model.mask_decoder.predict_masks(
                image_embeddings=embedding[None],
                image_pe=self._model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
            )  # all four masks: the one for sure prompts, and three for prompts that may mean a part or the whole
            large = torch.nn.functional.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
            large = large[..., : round(height * scale), : round(width * scale)]
            masks = torch.nn.functional.interpolate(large, (height, width), mode="bilinear", align_corners=False)[0] > 0
        return _best(masks.cpu().numpy(), scores[0].float().cpu().numpy(), logits[0].float().cpu().numpy(), coarse)


def _best(masks: np.ndarray, scores: np.ndarray, logits: np.ndarray, coarse: np.ndarray | None) -> Answer:
    """The mask that SAM itself and the coarse mask think best of."""
    agreements = np.ones(len(masks)) if coarse is None else np.array([mask_iou(mask, coarse > 0) for mask in masks])
    n = int(np.argmax(scores + agreements))
    return Answer(masks[n].astype(np.uint8) * 255, float(scores[n]), float(agreements[n]), logits[n])


def make_prompt(
    coarse: np.ndarray, keypoints: np.ndarray | None = None, confidence: np.ndarray | None = None
) -> Prompt:
    """A prompt from a coarse mask: its box, with points deep inside it or, where there are any, at sure keypoints.

    Args:
        coarse: (H, W) uint8, not empty.
        keypoints: (K, 2) pixels of a model's joints; None where there is no model yet.
        confidence: (K,) in [0, 1].
    """
    x, y, width, height = cv2.boundingRect((coarse > 0).astype(np.uint8))
    box = np.array([x, y, x + width, y + height], np.float32)
    points = np.zeros((0, 2), np.float32)
    if keypoints is not None and confidence is not None:
        sure = np.flatnonzero(np.asarray(confidence) > 0.5)
        sure = sure[np.argsort(-np.asarray(confidence)[sure], kind="stable")][: 2 * MOST_POINTS]
        points = np.asarray(keypoints, np.float32)[sure, :2]
        inside_box = ((points >= box[:2]) & (points < box[2:])).all(1)
        points = points[inside_box]
    if not len(points):
        points = deep_points(coarse, MOST_POINTS)
    return Prompt(box, points, np.ones(len(points), bool))


def deep_points(mask: np.ndarray, count: int) -> np.ndarray:
    """Pixels far from a mask's edge and from each other: (H, W) uint8 -> (up to `count`, 2) float32 xy."""
    padded = np.pad((mask > 0).astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.nonzero(depth >= 0.5 * max(float(depth.max()), 1.0))
    if not len(x):
        return np.zeros((0, 2), np.float32)
    candidates = np.stack([x, y], 1).astype(np.float32)
    chosen = [int(np.argmax(depth[y, x]))]
    away = np.linalg.norm(candidates - candidates[chosen[0]], axis=1)
    while len(chosen) < count and away.max() > 0.1 * max(mask.shape):
        chosen.append(int(np.argmax(away)))
        away = np.minimum(away, np.linalg.norm(candidates - candidates[chosen[-1]], axis=1))
    return candidates[chosen]


def move_logits(logits: np.ndarray, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Move an answer with the square that it was given for: (L, L) float32 -> (L, L) float32.

    Args:
        before, now: (4,) squares in source pixels; what `now` shows beyond `before` is not the subject.
    """
    L = logits.shape[0]
    scale = (now[2] - now[0]) / (before[2] - before[0])  # a pixel now, in pixels before
    shift = (now[:2] - before[:2]) / (before[2:] - before[:2]) * L
    matrix = np.array([[scale, 0, shift[0] + 0.5 * scale - 0.5], [0, scale, shift[1] + 0.5 * scale - 0.5]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(logits, matrix, (L, L), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=-SURE)
    return np.asarray(moved, np.float32)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks; 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0


def choose_device(asked: str) -> str:
    """Torch's name of the device: `auto` takes a GPU where there is one."""
    import torch

    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_bf16(asked: str, device: str) -> bool:
    """Whether the encoder runs in bf16: three times as fast on processors that have it."""
    import torch

    if asked not in ("auto", "bf16", "f32"):
        raise ConfigError(f"precision {asked} of Segment Anything: unknown; choose one of auto, bf16, f32")
    if asked != "auto":
        return asked == "bf16"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def build_network(state: dict[str, torch.Tensor], path: Path) -> Any:
    """The `segment_anything` network that a checkpoint's shapes belong to, with its weights.

    Raises:
        ConfigError: the package is not installed, or the checkpoint is of another network.
    """
    import torch

    try:
        from streampose.models.torchvision_shim import import_torchvision

        import_torchvision()
        from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
        from segment_anything.modeling import Sam as SamNetwork
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed, which --masks sam needs; {EXTRA}") from None
    if "image_encoder.patch_embed.proj.weight" not in state:
        raise ConfigError(f"{path}: a variant of Segment Anything whose encoder is not known here; {WHERE}")
    try:
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        sizes = _encoder_sizes(shapes)
        channels = shapes["image_encoder.neck.0.weight"][0]
        grid = sizes["img_size"] // sizes["patch_size"]
        decoder = "mask_decoder.transformer.layers."
        network = SamNetwork(
            image_encoder=ImageEncoderViT(
                out_chans=channels, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), **sizes
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=channels,
                image_embedding_size=(grid, grid),
                input_image_size=(sizes["img_size"], sizes["img_size"]),
                mask_in_chans=shapes["prompt_encoder.mask_downscaling.3.weight"][0],
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=shapes["mask_decoder.mask_tokens.weight"][0] - 1,
                transformer=TwoWayTransformer(
                    depth=_count(shapes, decoder),
                    embedding_dim=channels,
                    mlp_dim=shapes[f"{decoder}0.mlp.lin1.weight"][0],
                    num_heads=DECODER_HEADS,
                ),
                transformer_dim=channels,
                iou_head_depth=_count(shapes, "mask_decoder.iou_prediction_head.layers."),
                iou_head_hidden_dim=shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0],
            ),
        )
        network.load_state_dict(state, strict=False)
        missing = [key for key in network.state_dict() if key not in state]
    except (KeyError, IndexError, RuntimeError, ValueError, ZeroDivisionError, AssertionError) as error:
        raise ConfigError(
            f"{path}: not a whole Segment Anything model ({' '.join(str(error).split())[:200]})"
        ) from None
    missing = [key for key in missing if not key.startswith("pixel_")]
    if missing:
        raise ConfigError(f"{path}: {len(missing)} weights are missing in it, the first is {missing[0]}; {WHERE}")
    return network


def _encoder_sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of `ImageEncoderViT` from the shapes of its weights."""
    width, _, patch, _ = shapes["image_encoder.patch_embed.proj.weight"]
    grid = shapes["image_encoder.pos_embed"][1]
    depth = _count(shapes, "image_encoder.blocks.")
    reach = [
        shapes[f"image_encoder.blocks.{n}.attn.rel_pos_h"] for n in range(depth)
    ]  # (2 * side - 1, width of a head)
    everywhere = tuple(n for n in range(depth) if reach[n][0] == 2 * grid - 1)
    windows = {(rows + 1) // 2 for rows, _ in reach} - {grid}
    return {
        "img_size": grid * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // reach[0][1],
        "mlp_ratio": shapes["image_encoder.blocks.0.mlp.lin1.weight"][0] / width,
        "use_rel_pos": True,
        "window_size": windows.pop() if windows else 0,
        "global_attn_indexes": everywhere,
    }


def _count(shapes: dict[str, tuple[int, ...]], prefix: str) -> int:
    """How many numbered layers there are under a name."""
    return 1 + max(int(key[len(prefix) :].split(".")[0]) for key in shapes if key.startswith(prefix))
