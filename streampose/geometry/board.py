"""Calibration boards: where their corners are, and finding them in a picture (checkerboard and ChArUco).

Board coordinates: the first inner corner is the origin, x along the longer run of corners as they are counted, y down,
z into the board; a camera that sees the board's face has it right way round.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streampose.errors import ConfigError

KINDS = ("checkerboard", "charuco")
LEAST_CORNERS = 6  # of a ChArUco board that is partly seen
BENT = 0.3  # of a square: corners further from a flat grid than this were counted wrongly
FLAT = 0.02  # of a square: a grid that fits this well needs no second opinion
SQUARES_SIDE, CROSSINGS_SIDE = 1600, 1000  # longer pictures are searched at this size, then refined at their own


@dataclass(frozen=True)
class Board:
    """A flat board; corners are those between four squares.

    Attributes:
        kind: `checkerboard` or `charuco`.
        columns, rows: inner corners.
        square: side of a square in metres.
        marker: side of a ChArUco marker in metres.
        dictionary: of the ChArUco markers, a name of cv2.aruco.
        legacy: ChArUco boards printed with OpenCV before 4.6, whose markers start in another corner.
    """

    kind: str
    columns: int
    rows: int
    square: float
    marker: float = 0.0
    dictionary: str = "DICT_5X5_100"
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"--board {self.kind}: choose {' or '.join(KINDS)}")
        if min(self.columns, self.rows) < 2 or max(self.columns, self.rows) < 3:
            raise ConfigError(f"--corners {self.columns}x{self.rows}: count the inner corners; 3x2 is the least")
        if not self.square > 0:
            raise ConfigError(f"--square-mm {self.square * 1000:g}: must be above 0")
        if self.kind == "charuco":
            if not 0 < self.marker < self.square:
                raise ConfigError(f"--marker-mm {self.marker * 1000:g}: must be above 0 and below the square's side")
            if not (self.dictionary.startswith("DICT_") and hasattr(cv2.aruco, self.dictionary)):
                raise ConfigError(f"--dictionary {self.dictionary}: not one of OpenCV's, for example DICT_5X5_100")

    @property
    def points(self) -> np.ndarray:
        """(N, 3) corners in metres, row by row."""
        x, y = np.meshgrid(np.arange(self.columns), np.arange(self.rows))
        return np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3) * self.square

    @property
    def one_way_up(self) -> bool:
        """Whether it looks different when turned by half: needed where several cameras must agree about its corners."""
        return self.kind == "charuco" or (self.columns + self.rows) % 2 == 1

    def aruco(self) -> cv2.aruco.CharucoBoard:
        """OpenCV's ChArUco board, for finding and for printing."""
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        squares = (self.columns + 1, self.rows + 1)
        board = cv2.aruco.CharucoBoard(squares, self.square, self.marker, dictionary)
        board.setLegacyPattern(self.legacy)
        return board


@dataclass(frozen=True)
class Detection:
    """Corners of a board in one picture.

    Attributes:
        ids: (M,) which of the board's points.
        xy: (M, 2) pixels, centres at integers.
    """

    ids: np.ndarray
    xy: np.ndarray


def find_board(image: np.ndarray, board: Board, *, thorough: bool = True) -> Detection | None:
    """Find a board in a picture (H, W, 3) RGB or (H, W) grey, uint8; None where it is not seen whole enough.

    A checkerboard must be seen whole; a ChArUco board needs `LEAST_CORNERS` corners that do not lie on one line.

    Args:
        thorough: search a second way where the first finds no checkerboard; for photos, of which each counts.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return _find_charuco(grey, board) if board.kind == "charuco" else _find_checkerboard(grey, board, thorough)


def bend(detection: Detection, board: Board) -> float:
    """How far corners lie from the flat grid that fits them best, in squares (rms); a lens bends by a little."""
    if len(detection.ids) < 4:
        return np.inf
    flat = board.points[detection.ids, :2]
    H, _ = cv2.findHomography(flat, detection.xy)
    if H is None:
        return np.inf
    fitted = cv2.perspectiveTransform(flat[None], H)[0]
    miss = np.sqrt(np.mean(np.sum((fitted - detection.xy) ** 2, -1)))
    return float(miss / max(_square_px(detection, board), 1e-6))


def _square_px(detection: Detection, board: Board) -> float:
    """Typical side of a square in pixels."""
    corners = np.full((board.rows * board.columns, 2), np.nan)
    corners[detection.ids] = detection.xy
    grid = corners.reshape(board.rows, board.columns, 2)
    sides = np.concatenate([np.linalg.norm(np.diff(grid, axis=axis), axis=-1).ravel() for axis in (0, 1)])
    return float(np.median(sides[np.isfinite(sides)])) if np.isfinite(sides).any() else 0.0


def _find_checkerboard(grey: np.ndarray, board: Board, thorough: bool) -> Detection | None:
    """OpenCV's search for squares; where it fails or looks wrong, its search for crossings, which sees other boards."""
    best, least = None, BENT
    for search in (_search_squares, _search_crossings) if thorough else (_search_squares,):
        xy = search(grey, board)
        if xy is not None:
            candidate = _right_way_up(_refine(grey, xy, board), grey, board)
            if (bent := bend(candidate, board)) < least:
                best, least = candidate, bent
        if least < FLAT:
            break
    return best


def _search_squares(grey: np.ndarray, board: Board) -> np.ndarray | None:
    small, scale = _shrink(grey, SQUARES_SIDE)
    flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK
    ok, corners = cv2.findChessboardCorners(small, (board.columns, board.rows), flags=flags)
    return (corners.reshape(-1, 2) + 0.5) / scale - 0.5 if ok else None


def _search_crossings(grey: np.ndarray, board: Board) -> np.ndarray | None:
    small, scale = _shrink(grey, CROSSINGS_SIDE)  # on large pictures without a board it may take minutes
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE
    ok, corners = cv2.findChessboardCornersSB(small, (board.columns, board.rows), flags=flags)
    return (corners.reshape(-1, 2) + 0.5) / scale - 0.5 if ok else None


def _shrink(grey: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    scale = min(1.0, side / max(grey.shape))
    return grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def _refine(grey: np.ndarray, xy: np.ndarray, board: Board) -> np.ndarray:
    """To a fraction of a pixel, in windows that no neighbouring corner reaches into."""
    detection = Detection(np.arange(len(xy)), xy)
    half = int(np.clip(0.3 * _square_px(detection, board), 3, 15))
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 60, 1e-4)
    refined = cv2.cornerSubPix(grey, xy.astype(np.float32).reshape(-1, 1, 2), (half, half), (-1, -1), criteria)
    return refined.reshape(-1, 2).astype(float)


def _right_way_up(xy: np.ndarray, grey: np.ndarray, board: Board) -> Detection:
    """Count the corners so that the board is seen from its face and its first inner square is dark."""
    grid = np.asarray(xy, float).reshape(board.rows, board.columns, 2)
    along, down = (grid[:, -1] - grid[:, 0]).mean(0), (grid[-1] - grid[0]).mean(0)
    if along[0] * down[1] - along[1] * down[0] < 0:
        grid = grid[::-1]
    middles = (grid[:-1, :-1] + grid[:-1, 1:] + grid[1:, :-1] + grid[1:, 1:]) / 4
    column, row = np.clip(np.rint(middles), 0, [grey.shape[1] - 1, grey.shape[0] - 1]).astype(int).transpose(2, 0, 1)
    brightness = cv2.blur(grey, (3, 3))[row, column].astype(float)
    even = np.indices(brightness.shape).sum(0) % 2 == 0
    if even.all() or even.size < 2 or brightness[even].mean() > brightness[~even].mean():
        grid = grid[::-1, ::-1]
    return Detection(np.arange(board.rows * board.columns), grid.reshape(-1, 2))


def _find_charuco(grey: np.ndarray, board: Board) -> Detection | None:
    detector = cv2.aruco.CharucoDetector(board.aruco())
    corners, ids, _, _ = detector.detectBoard(grey)
    if ids is None or len(ids) < LEAST_CORNERS:
        return None
    numbers = np.asarray(ids).ravel()
    columns, rows = numbers % board.columns, numbers // board.columns
    if len(set(columns)) < 2 or len(set(rows)) < 2:
        return None
    detection = Detection(numbers, _refine_some(grey, np.asarray(corners, float).reshape(-1, 2), numbers, board))
    return detection if bend(detection, board) <= BENT else None


def _refine_some(grey: np.ndarray, xy: np.ndarray, ids: np.ndarray, board: Board) -> np.ndarray:
    side = _square_px(Detection(ids, xy), board)
    half = int(np.clip(0.12 * side, 2, 12))  # the markers' own corners lie close by
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 60, 1e-4)
    refined = cv2.cornerSubPix(grey, xy.astype(np.float32).reshape(-1, 1, 2), (half, half), (-1, -1), criteria)
    return refined.reshape(-1, 2).astype(float)
