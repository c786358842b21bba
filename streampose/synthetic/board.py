"""Pictures of calibration boards: flat for printing, and as a known camera sees them for tests of calibration."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from streampose.geometry.board import Board
from streampose.geometry.distortion import undistort
from streampose.structures import Camera

SAMPLES = 2  # a side of each pixel


def board_picture(board: Board, square_px: int = 100, margin: float = 0.5) -> np.ndarray:
    """The board as it is printed: (H, W) uint8 with a white margin of so many squares."""
    side = int(square_px)
    edge = round(margin * side)
    size = ((board.columns + 1) * side, (board.rows + 1) * side)
    if board.kind == "charuco":
        picture = board.aruco().generateImage(size, None, 0, 1)
    else:
        row, column = np.indices((board.rows + 1, board.columns + 1))
        picture = np.where((row + column) % 2 == 0, 0, 255).astype(np.uint8).repeat(side, 0).repeat(side, 1)
    return cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(255,))


def render_board(
    board: Board,
    camera: Camera,
    R: np.ndarray,
    t: np.ndarray,
    *,
    noise: float = 2.0,
    seed: int = 0,
    square_px: int = 64,
) -> np.ndarray:
    """A grey picture (H, W) uint8 of a board as the camera sees it, lens included, corners exact to about 0.02 pixel.

    Args:
        R, t: cam_from_board; the board's frame is that of `geometry.board`.
        noise: standard deviation of the grey values.
    """
    width, height = camera.size
    margin = 1.0
    texture = cv2.GaussianBlur(board_picture(board, square_px, margin), (0, 0), 0.6)
    rays = _rays(camera.K.tobytes(), np.asarray(camera.distortion, float).tobytes(), camera.fisheye, camera.size)
    rays = np.concatenate([rays, np.ones_like(rays[..., :1])], -1) @ R  # in the board's axes
    eye = -R.T @ t
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = -eye[2] / rays[..., 2]
        on_board = eye[:2] + rays[..., :2] * depth[..., None]
    on_board[~(depth > 0)] = np.nan
    # Corner (0, 0) lies one square and the margin inside the texture; texel centres are integers.
    texel = (on_board / board.square + 1 + margin) * square_px - 0.5
    maps = np.nan_to_num(texel, nan=-1e4).clip(-1e4, 1e5).astype(np.float32)
    seen = cv2.remap(
        texture, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(110,)
    )
    picture = seen.reshape(height, SAMPLES, width, SAMPLES).mean((1, 3))
    picture = picture * 0.8 + 20 + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _rays(K: bytes, distortion: bytes, fisheye: bool, size: tuple[int, int]) -> np.ndarray:
    """(2 H, 2 W, 2) normalised ideal directions of all samples of a camera's pixels."""
    fine = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    x = (np.arange(size[0])[:, None] + fine).ravel()
    y = (np.arange(size[1])[:, None] + fine).ravel()
    inverse = np.linalg.inv(np.frombuffer(K).reshape(3, 3))
    pixels = np.stack(np.meshgrid(x, y), -1)
    return undistort(pixels @ inverse[:2, :2].T + inverse[:2, 2], np.frombuffer(distortion), fisheye)
