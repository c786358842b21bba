"""The page that shows how a calibration came about: corners, errors, coverage, straightened pictures and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.geometry.board import Board, Detection
from streampose.geometry.calibrate import Lens, Rig
from streampose.report import Picture, Section, Table, write_report
from streampose.structures import Camera

PREVIEW_PX = 320  # longer side
SHEET = (4, 6)  # columns and rows of previews that are shown
CELLS = 8  # a side: coverage counts the cells of the picture that hold a corner or lie between some
GREEN, RED, GREY, BLUE = (60, 190, 90), (220, 60, 50), (140, 140, 140), (70, 120, 230)


@dataclass(frozen=True)
class CameraPage:
    """All that is shown of one camera; the dicts are by picture."""

    name: str
    camera: Camera
    lens: Lens
    entry: dict[str, Any]
    detections: Mapping[str, Detection]
    previews: Mapping[str, np.ndarray]
    errors: Mapping[str, float]
    used: set[str]
    example: np.ndarray | None


def preview(image: np.ndarray, detection: Detection | None) -> np.ndarray:
    """The picture made small, with the corners in the order in which they were counted."""
    scale = PREVIEW_PX / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if detection is not None:
        xy = np.rint(((detection.xy + 0.5) * scale - 0.5) * 16).astype(int)
        cv2.polylines(small, [xy.reshape(-1, 1, 2)], False, GREEN, 1, cv2.LINE_AA, 4)
        for x, y in xy:
            cv2.circle(small, (int(x), int(y)), 32, BLUE, -1, cv2.LINE_AA, 4)
        cv2.circle(small, (int(xy[0][0]), int(xy[0][1])), 64, RED, 2, cv2.LINE_AA, 4)
    return small


def coverage(detections: Sequence[Detection], size: tuple[int, int]) -> float:
    """Share of the picture in which the lens was measured: cells of a grid that a board covered."""
    covered = np.zeros((CELLS, CELLS), np.uint8)
    for detection in detections:
        hull = cv2.convexHull((detection.xy / np.array(size) * CELLS * 64).astype(np.float32)).reshape(-1, 2)
        fine = np.zeros((CELLS * 64, CELLS * 64), np.uint8)
        cv2.fillConvexPoly(fine, np.rint(hull).astype(np.int32), 1)
        covered |= (fine.reshape(CELLS, 64, CELLS, 64).mean((1, 3)) > 0.25).astype(np.uint8)
    return float(covered.mean())


def write_calibration_report(
    path: Path, pages: Sequence[CameraPage], rig: Rig | None, board: Board, warnings: list[str], offsets: list[str]
) -> Path:
    """Write the page; returns its path."""
    text = f"{board.kind}, {board.columns} x {board.rows} inner corners, squares of {board.square * 1000:g} mm"
    header = [
        "camera",
        "photos",
        "used",
        "error px",
        "focal px",
        "centre px",
        "distortion",
        "focal known to",
        "coverage",
    ]
    rows: list[list[str | int | float]] = [
        [
            page.name, page.entry["photos"], page.entry["used"], page.entry["error_px"],
            f"{page.camera.K[0, 0]:.1f}, {page.camera.K[1, 1]:.1f}",
            f"{page.camera.K[0, 2]:.1f}, {page.camera.K[1, 2]:.1f}",
            ", ".join(f"{value:.4f}" for value in page.camera.distortion) or "none",
            "-" if page.entry["focal_uncertainty"] is None else f"{page.entry['focal_uncertainty']:.2%}",
            f"{page.entry['coverage']:.0%}",
        ]
        for page in pages
    ]  # fmt: skip
    verdict = warnings or ["Nothing speaks against this calibration."]
    sections = [Section("Cameras", [text], [Table(header, rows)]), Section("What to look at", verdict)]
    if rig is not None:
        sections.append(_rig_section(rig, offsets))
    sections += [_camera_section(page) for page in pages]
    return write_report(path, "Calibration", sections)


def _rig_section(rig: Rig, offsets: list[str]) -> Section:
    places = [[n, *(-c.R.T @ c.t).tolist()] for n, c in rig.cameras.items()]
    errors: list[list[str | int | float]] = [
        [moment, camera, error]
        for (moment, camera), error in sorted(rig.view_error_px.items(), key=lambda item: -item[1])
    ]
    paragraphs = [
        f"{len(rig.boards)} moments in which cameras saw the board together; corners re-project to "
        f"{rig.error_px:.3f} px (rms), {rig.before_px:.3f} px before bundle adjustment.",
        *offsets,
    ]
    tables = [Table(["camera", "x m", "y m", "z m"], places), Table(["moment", "camera", "error px"], errors[:20])]
    return Section("Places", paragraphs, tables, [Picture(_map(rig), "Seen from above and from the side.")])


def _map(rig: Rig) -> np.ndarray:
    """Cameras with the way they look, and the boards, on two planes of the world."""
    centres = {name: -camera.R.T @ camera.t for name, camera in rig.cameras.items()}
    ways = {name: camera.R[2] for name, camera in rig.cameras.items()}
    boards = np.array([t for _, t in rig.boards.values()])
    everything = np.concatenate([np.array(list(centres.values())), boards])
    upright = max(range(3), key=lambda axis: -np.ptp(everything[:, axis]))  # the axis along which least happens
    flat = [axis for axis in range(3) if axis != upright]
    reach = max(float(np.ptp(everything, axis=0).max()), 0.1) * 1.35
    middle = (everything.max(0) + everything.min(0)) / 2
    panels = []
    for a, b in ((flat[0], flat[1]), (flat[0], upright)):
        panel = np.full((420, 420, 3), 250, np.uint8)

        def place(point: np.ndarray, a: int = a, b: int = b) -> tuple[int, int]:
            xy = (point[[a, b]] - middle[[a, b]]) / reach * 420 + 210
            return int(xy[0]), int(xy[1])

        for board in boards:
            cv2.circle(panel, place(board), 3, GREY, -1, cv2.LINE_AA)
        for name, centre in centres.items():
            cv2.arrowedLine(panel, place(centre), place(centre + 0.15 * reach * ways[name]), BLUE, 2, cv2.LINE_AA)
            cv2.circle(panel, place(centre), 6, RED, -1, cv2.LINE_AA)
            x, y = place(centre)
            cv2.putText(panel, name, (x + 9, y - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
        cv2.putText(panel, f"{'xyz'[a]} right, {'xyz'[b]} down", (8, 412), cv2.FONT_HERSHEY_SIMPLEX, 0.4, GREY, 1)
        panels.append(cv2.copyMakeBorder(panel, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=GREY))
    return np.hstack(panels)


def _camera_section(page: CameraPage) -> Section:
    rows: list[list[str | int | float]] = []
    for key in page.previews:
        if key in page.errors:
            rows.append(
                [key, len(page.detections[key].ids), page.errors[key], "yes" if key in page.used else "no: off"]
            )
        elif key not in page.detections:
            rows.append([key, 0, "-", "no: no board found"])
    pictures = [Picture(_sheet(page), "Corners as they were counted, from the red ring on; a red frame: not used.")]
    pictures.append(Picture(_scatter(page), "Where in the picture corners were seen."))
    if page.example is not None:
        pictures.append(Picture(_straightened(page.example, page.camera), "As taken, and straightened."))
    return Section(page.name, [], [Table(["picture", "corners", "error px", "used"], rows)], pictures)


def _sheet(page: CameraPage) -> np.ndarray:
    keys = sorted(page.previews, key=lambda key: key not in page.detections)[: SHEET[0] * SHEET[1]]
    height, width = next(iter(page.previews.values())).shape[:2]
    tiles: list[np.ndarray] = []
    for key in keys:
        tile = page.previews[key].copy()
        note = f"{page.errors[key]:.2f} px" if key in page.errors else "" if key in page.detections else "no board"
        if key not in page.used and not (key in page.detections and key not in page.errors):
            cv2.rectangle(tile, (0, 0), (width - 1, height - 1), RED, 6)
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place = (10, height - 12)
            cv2.putText(tile, f"{key} {note}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thickness, cv2.LINE_AA)
        tiles.append(tile)
    columns = min(SHEET[0], len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])


def _scatter(page: CameraPage) -> np.ndarray:
    width, height = page.camera.size
    scale = 480 / max(width, height)
    picture = np.full((max(1, round(height * scale)), max(1, round(width * scale)), 3), 250, np.uint8)
    for key in page.used:
        for x, y in page.detections[key].xy * scale:
            cv2.circle(picture, (round(float(x)), round(float(y))), 2, GREEN, -1, cv2.LINE_AA)
    return cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=GREY)


def _straightened(image: np.ndarray, camera: Camera) -> np.ndarray:
    if camera.fisheye:
        straight = cv2.fisheye.undistortImage(image, camera.K, camera.distortion, Knew=camera.K)
    else:
        straight = cv2.undistort(image, camera.K, camera.distortion if len(camera.distortion) else np.zeros(4))
    both = np.hstack([image, straight])
    scale = min(1.0, 1100 / both.shape[1])
    return cv2.resize(both, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
