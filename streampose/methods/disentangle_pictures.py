"""What `methods/disentangle.py` shows of its latent spaces: the two halves of the paper's Fig. 6."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from streampose.methods.mask_bones import draw_pose
from streampose.models.disentangle import PoseTranslator, Translator, project_weakly
from streampose.structures import Skeleton

TILE = 96
Rows = list[list[np.ndarray]]


@torch.no_grad()
def swap_grid(translator: Translator, decoder_x: nn.Module, subjects: Tensor) -> np.ndarray:
    """Pictures from the task code of one subject and the rest of another (Fig. 6b), RGB.

    The first row shows the givers of z_t, the first column those of z_s: down a column the pose should stay, along a
    row everything else.

    Args:
        subjects: (N, 3, S, S) foreground-only images.
    """
    N = len(subjects)
    task, rest, _ = translator.encode(subjects)
    codes = torch.cat([task.mean.repeat(N, 1), rest.mean.repeat_interleave(N, 0)], 1)
    made = decoder_x(codes).unflatten(0, (N, N))  # (z_s, z_t)
    rows: Rows = [[np.full((TILE, TILE, 3), 255, np.uint8), *map(tile, subjects)]]
    rows += [[tile(subjects[n]), *map(tile, made[n])] for n in range(N)]
    return join(rows)


@torch.no_grad()
def interpolation_grid(
    translator: Translator, decoder_x: nn.Module, subjects: Tensor, skeleton: Skeleton | None, steps: int = 7
) -> np.ndarray:
    """Two rows for each pair of neighbours: images and targets on the way from one z_t to the other (Fig. 6a), RGB.

    The images keep the first one's z_s; the ends of their row are the given pictures.

    Args:
        subjects: (2 * P, 3, S, S) foreground-only images.
        skeleton: of poses; None where the targets are pictures.
    """
    task, rest, features = translator.encode(subjects)
    rows: Rows = []
    for first in range(0, len(subjects) - 1, 2):
        ways = torch.linspace(0, 1, steps, device=subjects.device)[:, None]
        codes = task.mean[first] * (1 - ways) + task.mean[first + 1] * ways
        images = decoder_x(torch.cat([codes, rest.mean[first].expand(steps, -1)], 1))
        targets = translator.decoder(codes)
        blank = np.full((TILE, TILE, 3), 255, np.uint8)
        rows.append([tile(subjects[first]), *map(tile, images), tile(subjects[first + 1])])
        if skeleton is None:
            rows.append([blank, *map(tile, targets), blank])
        else:
            assert isinstance(translator, PoseTranslator)
            camera = translator.cameras(features[first : first + 1]).expand(steps, -1)
            drawn = project_weakly(targets, camera).cpu().numpy()
            rows.append([blank, *(skeleton_tile(points, skeleton) for points in drawn), blank])
    return join(rows)


def skeleton_tile(points: np.ndarray, skeleton: Skeleton, image: Tensor | None = None) -> np.ndarray:
    """Joints (K, 3) in [-1, 1] on dark grey, or on an image (3, S, S)."""
    drawn = np.full((TILE, TILE, 3), 60, np.uint8) if image is None else tile(image)
    draw_pose(drawn, points, skeleton)
    return drawn


def tile(image: Tensor) -> np.ndarray:
    """(1 or 3, S, S) in [0, 1] -> (TILE, TILE, 3) uint8."""
    array = (image.float().clamp(0, 1).cpu().numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
    if array.shape[2] == 1:
        array = 255 - np.repeat(array, 3, 2)  # strokes are dark
    return np.asarray(cv2.resize(array, (TILE, TILE), interpolation=cv2.INTER_LINEAR))


def join(rows: Rows) -> np.ndarray:
    """Tiles in rows as one picture; shorter rows are filled with white."""
    width = max(len(row) for row in rows)
    blank = np.full((TILE, TILE, 3), 255, np.uint8)
    return np.concatenate([np.concatenate([*row, *[blank] * (width - len(row))], 1) for row in rows], 0)
