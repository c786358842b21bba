"""Lenses and places of cameras from views of a board: closed-form starts, outliers dropped, bundle adjustment.

Everything is in metres and pixels. A "view" is a board seen by one camera; "moments" are times at which several cameras
see the same board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.spatial.transform import Rotation

from streampose.errors import ConfigError
from streampose.geometry.board import Board, Detection
from streampose.geometry.distortion import distort, undistort
from streampose.structures import Camera

LENSES = {"none": 0, "radial": 2, "radtan": 5, "fisheye": 4}  # name -> free distortion coefficients
LEAST_VIEWS = 3  # of a board, to know a lens
MOST_STEPS = 60  # of bundle adjustment; ten are usual
OUTLIER_PX, OUTLIER_FACTOR = 0.5, 3.0  # a view is dropped whose error exceeds the first, and this many medians


@dataclass(frozen=True)
class Lens:
    """What one camera's views of a board say about it.

    Attributes:
        camera: intrinsics only (`posed` is False).
        error_px: rms re-projection error over the views that were used.
        view_error_px: (V,) rms of each view, the dropped ones too; NaN for one that fits no camera at all.
        used: (V,) bool.
        focal_uncertainty: one standard deviation of the focal length, as a share of it.
    """

    camera: Camera
    error_px: float
    view_error_px: np.ndarray
    used: np.ndarray
    focal_uncertainty: float


@dataclass(frozen=True)
class Rig:
    """Cameras in one world.

    Attributes:
        cameras: by name; the world is the first one's frame until `stand_on_board` moves it.
        boards: moment -> (R, t) world_from_board.
        error_px: rms re-projection error over what was used, after bundle adjustment; `before_px` before it.
        view_error_px: (moment, camera) -> rms.
        dropped: (moment, camera) views that contradict the others.
    """

    cameras: dict[str, Camera]
    boards: dict[str, tuple[np.ndarray, np.ndarray]]
    error_px: float
    before_px: float
    view_error_px: dict[tuple[str, str], float]
    dropped: list[tuple[str, str]]


@dataclass(frozen=True)
class _View:
    """A detection, with the camera and the board pose (both as row numbers) that it ties together."""

    camera: int
    board: int
    detection: Detection


def calibrate_lens(detections: Sequence[Detection], board: Board, size: tuple[int, int], lens: str = "radial") -> Lens:
    """Intrinsics from views of a board, the worst views left out one by one while they stand far above the others.

    Args:
        detections: of one camera.
        size: (width, height) of its pictures.
        lens: `none`; `radial` k1 k2, right for most lenses and few photos; `radtan` k1 k2 p1 p2 k3; `fisheye` k1..k4.

    Raises:
        ConfigError: an unknown lens, or too few views to know it.
    """
    if lens not in LENSES:
        raise ConfigError(f"--lens {lens}: choose {', '.join(LENSES)}")
    used = np.array([len(d.ids) >= 6 for d in detections], bool)
    fit = _fit_fisheye if lens == "fisheye" else _fit_pinhole
    while True:
        if used.sum() < LEAST_VIEWS:
            raise ConfigError(
                f"{used.sum()} views of the board that fit together; {LEAST_VIEWS} are the least, 15 are good"
            )
        camera, uncertainty = fit([d for d, u in zip(detections, used, strict=True) if u], board, size, lens)
        errors = np.array([view_error(d, board, camera) for d in detections])
        worst = int(np.argmax(np.where(used, np.nan_to_num(errors, nan=np.inf), -1)))
        limit = max(OUTLIER_PX, OUTLIER_FACTOR * float(np.nanmedian(errors[used])))
        if errors[worst] <= limit or used.sum() == LEAST_VIEWS:
            break
        used[worst] = False
    corners = np.array([len(d.ids) for d in detections])[used]
    error = float(np.sqrt(np.sum(errors[used] ** 2 * corners) / corners.sum()))
    return Lens(camera, error, errors, used, uncertainty)


def view_error(detection: Detection, board: Board, camera: Camera) -> float:
    """Rms distance in pixels between the corners and where the camera would see them, from the best place for it."""
    pose = board_pose(detection, board, camera)
    return np.nan if pose is None else _rms(_seen_from(detection, board, camera, *pose) - detection.xy)


def board_pose(detection: Detection, board: Board, camera: Camera) -> tuple[np.ndarray, np.ndarray] | None:
    """(R, t) cam_from_board of a board in one picture; None where there is none.

    Of the two poses that a flat board seen from afar may have, the one with the smaller error.
    """
    ideal = undistort(
        (detection.xy - camera.K[:2, 2]) @ np.linalg.inv(camera.K[:2, :2]).T, camera.distortion, camera.fisheye
    )
    good = np.isfinite(ideal).all(-1)
    if good.sum() < 4:
        return None
    points = board.points[detection.ids][good]
    try:
        count, turns, shifts, _ = cv2.solvePnPGeneric(points, ideal[good], np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    except cv2.error:
        return None
    poses = []
    for turn, shift in list(zip(turns, shifts, strict=True))[:count]:
        turn, shift = cv2.solvePnPRefineLM(points, ideal[good], np.eye(3), None, turn.copy(), shift.copy())
        pose = cv2.Rodrigues(turn)[0], shift.ravel()
        error = _rms(_seen_from(detection, board, camera, *pose) - detection.xy)
        if np.isfinite(error) and pose[1][2] > 0:
            poses.append((error, pose))
    return min(poses, key=lambda pose: pose[0])[1] if poses else None


def place_cameras(
    cameras: Mapping[str, Camera],
    moments: Mapping[str, Mapping[str, Detection]],
    board: Board,
    *,
    alone: Mapping[str, Sequence[Detection]] | None = None,
    refine_lenses: bool = True,
) -> Rig:
    """Places of cameras that see the same board at the same moments: pairwise PnP, then bundle adjustment of all.

    Args:
        cameras: intrinsics by name; the first becomes the world's origin.
        moments: moment -> camera name -> detection.
        alone: further views of single cameras that help to know their lenses.
        refine_lenses: adjust the intrinsics too.

    Raises:
        ConfigError: a camera shares no moment with the others, or the board looks alike when turned by half.
    """
    if not board.one_way_up:
        raise ConfigError(
            f"a checkerboard of {board.columns}x{board.rows} corners looks the same turned by half, so cameras cannot "
            "agree about it; take one with an odd and an even number, or ChArUco"
        )
    names = list(cameras)
    poses = {
        (moment, name): pose
        for moment, seen in moments.items()
        for name, detection in seen.items()
        if name in cameras and (pose := board_pose(detection, board, cameras[name])) is not None
    }
    from_first, dropped = _chain(names, poses)
    keys = [key for key in poses if key not in dropped]
    keys = [key for key in keys if sum(other[0] == key[0] for other in keys) > 1]
    order = sorted({moment for moment, _ in keys})
    start = [replace(cameras[name], R=from_first[name][0], t=from_first[name][1], posed=True) for name in names]
    views, boards = [], []
    for number, moment in enumerate(order):
        seeing = [name for m, name in keys if m == moment]
        guesses = [_compose(_invert(from_first[name]), poses[moment, name]) for name in seeing]
        boards.append(_medoid(guesses)[0])
        views += [_View(names.index(name), number, moments[moment][name]) for name in seeing]
    shared = len(views)
    for name, detections in (alone or {}).items():
        for detection in detections if refine_lenses else ():
            pose = board_pose(detection, board, cameras[name])
            if pose is not None:
                boards.append(_compose(_invert(from_first[name]), pose))
                views.append(_View(names.index(name), len(boards) - 1, detection))
    before = _errors(start, boards, views[:shared], board)
    adjusted, boards_now = bundle_adjust(start, boards, views, board, refine_lenses=refine_lenses)
    errors = _errors(adjusted, boards_now, views, board)
    limit = max(2 * OUTLIER_PX, OUTLIER_FACTOR * float(np.median(errors[:shared])))
    wrong = [k for k in range(shared) if errors[k] > limit]
    if wrong and len(wrong) < shared / 2:
        kept = [view for k, view in enumerate(views) if k not in wrong]
        if _connected(len(names), kept):
            dropped = dropped + [(order[views[k].board], names[views[k].camera]) for k in wrong]
            views, shared = kept, shared - len(wrong)
            adjusted, boards_now = bundle_adjust(adjusted, boards_now, views, board, refine_lenses=refine_lenses)
            errors = _errors(adjusted, boards_now, views, board)
    return Rig(
        dict(zip(names, adjusted, strict=True)),
        {moment: boards_now[number] for number, moment in enumerate(order)},
        _rms_of(errors[:shared]),
        _rms_of(before),
        {(order[v.board], names[v.camera]): float(e) for v, e in zip(views[:shared], errors, strict=False)},
        dropped,
    )


def bundle_adjust(
    cameras: Sequence[Camera],
    boards: Sequence[tuple[np.ndarray, np.ndarray]],
    views: Sequence[_View],
    board: Board,
    *,
    refine_lenses: bool = True,
) -> tuple[list[Camera], list[tuple[np.ndarray, np.ndarray]]]:
    """The cameras and board poses that explain all corners best (robust least squares).

    The first camera stays where it is. Focal lengths, centres and the coefficients that are not zero are adjusted with
    `refine_lenses`.

    Source: Triggs et al., "Bundle adjustment - a modern synthesis", 1999. Levenberg-Marquardt on the normal equations,
    which are small here; scipy's iterative solver of the sparse system took minutes on some rigs.
    """
    problem = _Problem(list(cameras), list(boards), list(views), board, refine_lenses)
    values, damping = problem.pack(), 1e-3
    miss = problem.residuals(values)
    cost = _soft_cost(miss)
    for _ in range(MOST_STEPS):
        J = problem.jacobian(values)
        weight = 1 / np.sqrt(1 + miss**2)
        normal = (J.T @ J.multiply(weight[:, None]).tocsr()).toarray()
        slope = J.T @ (weight * miss)
        free = np.diag(normal) > 0
        before = cost
        while damping < 1e12:
            damped = normal + damping * np.diag(np.diag(normal))
            step = np.zeros_like(values)
            step[free] = -np.linalg.solve(damped[np.ix_(free, free)], slope[free])
            trial = problem.residuals(values + step)
            if _soft_cost(trial) < cost:
                values, miss, cost, damping = values + step, trial, _soft_cost(trial), max(damping / 5, 1e-12)
                break
            damping *= 4
        if before - cost <= 1e-9 * before + 1e-12 * len(miss):
            break
    return problem.unpack(values)


def _soft_cost(miss: np.ndarray) -> float:
    """Squares near zero, distances far away (from about a pixel on), so that a wrong view pulls little."""
    return float(np.sum(2 * (np.sqrt(1 + miss**2) - 1)))


def stand_on_board(rig: Rig, moment: str) -> Rig:
    """The same rig in the world of a board that lies on the floor: its plane is z = 0, z is up, x along its corners.

    Raises:
        ConfigError: no such moment.
    """
    if moment not in rig.boards:
        raise ConfigError(f"--floor {moment}: no cameras see the board then (they do at {', '.join(rig.boards)})")
    R, t = rig.boards[moment]
    up = R @ np.diag([1.0, -1.0, -1.0])  # the board's z goes into it, so down
    cameras = {n: replace(c, R=c.R @ up, t=c.R @ t + c.t) for n, c in rig.cameras.items()}
    boards = {name: _compose(_invert((up, t)), pose) for name, pose in rig.boards.items()}
    return replace(rig, cameras=cameras, boards=boards)


class _Problem:
    """Bundle adjustment as numbers: camera poses, lenses, then board poses, each moved by a small rotation and shift.

    A rotation is its start turned by a rotation vector, so that no start is a bad one.
    """

    def __init__(self, cameras, boards, views, board, refine_lenses):
        self._cameras, self._boards, self._refine = cameras, boards, refine_lenses
        self._camera = np.concatenate([np.full(len(v.detection.ids), v.camera) for v in views])
        self._board = np.concatenate([np.full(len(v.detection.ids), v.board) for v in views])
        self._points = np.concatenate([board.points[v.detection.ids] for v in views])
        self._seen = np.concatenate([v.detection.xy for v in views])
        self._camera_R = np.stack([c.R for c in cameras])
        self._board_R = np.stack([R for R, _ in boards])
        self._free = [np.flatnonzero(c.distortion) if refine_lenses else np.zeros(0, int) for c in cameras]
        self._lens_sizes = [(4 + len(free)) if refine_lenses else 0 for free in self._free]
        self._lens_at = 6 * len(cameras) + np.concatenate([[0], np.cumsum(self._lens_sizes)]).astype(int)
        self._boards_at = int(self._lens_at[-1])
        self._size = self._boards_at + 6 * len(boards)
        self._groups = self._columns()

    def pack(self) -> np.ndarray:
        values = np.zeros(self._size)
        for number, camera in enumerate(self._cameras):
            values[6 * number + 3 : 6 * number + 6] = camera.t
            if self._refine:
                K = camera.K
                lens = [K[0, 0], K[1, 1], K[0, 2], K[1, 2], *camera.distortion[self._free[number]]]
                values[self._lens_at[number] : self._lens_at[number + 1]] = lens
        for number, (_, t) in enumerate(self._boards):
            at = self._boards_at + 6 * number
            values[at + 3 : at + 6] = t
        return values

    def unpack(self, values: np.ndarray) -> tuple[list[Camera], list[tuple[np.ndarray, np.ndarray]]]:
        poses = values[: 6 * len(self._cameras)].reshape(-1, 6)
        turned = Rotation.from_rotvec(poses[:, :3]).as_matrix() @ self._camera_R
        cameras = []
        for number, camera in enumerate(self._cameras):
            K, distortion = np.array(camera.K, float), np.array(camera.distortion, float)
            if self._refine:
                lens = values[self._lens_at[number] : self._lens_at[number + 1]]
                K[0, 0], K[1, 1], K[0, 2], K[1, 2] = lens[:4]
                distortion[self._free[number]] = lens[4:]
            cameras.append(replace(camera, K=K, R=turned[number], t=poses[number, 3:].copy(), distortion=distortion))
        boards = values[self._boards_at :].reshape(-1, 6)
        board_R = Rotation.from_rotvec(boards[:, :3]).as_matrix() @ self._board_R
        return cameras, [(R, pose[3:].copy()) for R, pose in zip(board_R, boards, strict=True)]

    def residuals(self, values: np.ndarray) -> np.ndarray:
        cameras, boards = self.unpack(values)
        board_R, board_t = np.stack([R for R, _ in boards]), np.stack([t for _, t in boards])
        world = np.einsum("nij,nj->ni", board_R[self._board], self._points) + board_t[self._board]
        miss = np.empty_like(self._seen)
        for number, camera in enumerate(cameras):
            mine = self._camera == number
            x = world[mine] @ camera.R.T + camera.t
            depth = np.maximum(x[:, 2:], 1e-6)
            lens = distort(x[:, :2] / depth, camera.distortion, camera.fisheye)
            miss[mine] = lens @ camera.K[:2, :2].T + camera.K[:2, 2] - self._seen[mine]
        return miss.ravel()

    def jacobian(self, values: np.ndarray) -> csr_matrix:
        """Central differences, many columns at once: no residual depends on two columns of one group."""
        rows, columns, entries = [], [], []
        for owners in self._groups:  # (N,) the column of this group that each corner depends on, -1 for none
            used = np.unique(owners[owners >= 0])
            step = np.zeros(self._size)
            step[used] = 1e-6 * np.maximum(1.0, np.abs(values[used]))
            slope = (self.residuals(values + step) - self.residuals(values - step)).reshape(-1, 2)
            corner = np.flatnonzero(owners >= 0)
            column = owners[corner]
            rows += [2 * corner, 2 * corner + 1]
            columns += [column, column]
            entries += [slope[corner, axis] / (2 * step[column]) for axis in (0, 1)]
        place = (np.concatenate(rows), np.concatenate(columns))
        return coo_matrix((np.concatenate(entries), place), (self._seen.size, self._size)).tocsr()

    def _columns(self) -> list[np.ndarray]:
        groups = [np.where(self._camera > 0, 6 * self._camera + k, -1) for k in range(6)]  # the first camera stays
        most = max(self._lens_sizes)
        sizes = np.array(self._lens_sizes)[self._camera]
        groups += [np.where(k < sizes, self._lens_at[self._camera] + k, -1) for k in range(most)]
        groups += [self._boards_at + 6 * self._board + k for k in range(6)]
        return groups


def _chain(
    names: list[str], poses: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[tuple[str, str]]]:
    """camera_from_first of every camera along the best-tied pairs, and the views that contradict their pair.

    Raises:
        ConfigError: a camera that no moment ties to the others.
    """
    ties: dict[tuple[str, str], list[tuple[str, tuple[np.ndarray, np.ndarray]]]] = {}
    for moment in sorted({moment for moment, _ in poses}):
        seeing = [name for name in names if (moment, name) in poses]
        for a in seeing:
            for b in seeing:
                if a != b:
                    tie = _compose(poses[moment, b], _invert(poses[moment, a]))  # b_from_a
                    ties.setdefault((a, b), []).append((moment, tie))
    placed = {names[0]: (np.eye(3), np.zeros(3))}
    wrong: list[tuple[str, str]] = []
    while len(placed) < len(names):
        candidates = [pair for pair in ties if pair[0] in placed and pair[1] not in placed]
        if not candidates:
            lost = ", ".join(name for name in names if name not in placed)
            raise ConfigError(
                f"{lost}: never sees the board together with {', '.join(placed)}; show it to both at the same moment"
            )
        a, b = max(candidates, key=lambda pair: len(ties[pair]))
        tie, far = _medoid([pose for _, pose in ties[a, b]])
        wrong += [(moment, b) for (moment, _), f in zip(ties[a, b], far, strict=True) if f]
        placed[b] = _compose(tie, placed[a])
    return placed, wrong


def _medoid(poses: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[tuple[np.ndarray, np.ndarray], list[bool]]:
    """The pose nearest to all others, and which lie far from it (more than 10 degrees and 3 times the median)."""
    R, t = np.stack([pose[0] for pose in poses]), np.stack([pose[1] for pose in poses])
    trace = np.einsum("aij,bij->ab", R, R)
    angle = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    shift = np.linalg.norm(t[:, None] - t[None], axis=-1) / max(float(np.median(np.linalg.norm(t, axis=-1))), 1e-9)
    apart = angle + shift
    best = int(np.argmin(np.median(apart, 1)))
    far = apart[best] > max(np.radians(10), 3 * float(np.median(apart[best])))
    return poses[best], far.tolist()


def _connected(cameras: int, views: Sequence[_View]) -> bool:
    reached, grown = {0}, True
    while grown:
        boards = {view.board for view in views if view.camera in reached}
        now = {view.camera for view in views if view.board in boards} | reached
        grown, reached = len(now) > len(reached), now
    return len(reached) == cameras


def _errors(cameras, boards, views, board) -> np.ndarray:
    """Rms of each view."""
    errors = []
    for view in views:
        camera = cameras[view.camera]
        pose = _compose((camera.R, camera.t), boards[view.board])
        errors.append(_rms(_seen_from(view.detection, board, camera, *pose) - view.detection.xy))
    return np.array(errors)


def _seen_from(detection: Detection, board: Board, camera: Camera, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    x = board.points[detection.ids] @ R.T + t
    lens = distort(x[:, :2] / np.where(x[:, 2:] > 0, x[:, 2:], np.nan), camera.distortion, camera.fisheye)
    return lens @ camera.K[:2, :2].T + camera.K[:2, 2]


def _fit_pinhole(detections, board: Board, size, lens: str) -> tuple[Camera, float]:
    flags = {
        "none": cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2 | cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST,
        "radial": cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST,
        "radtan": 0,
    }[lens]
    points, seen = _opencv_lists(detections, board)
    try:
        result = cv2.calibrateCameraExtended(points, seen, size, None, None, flags=flags)  # type: ignore[call-overload]
    except cv2.error as error:
        raise ConfigError(
            f"the views of the board do not fix the camera ({' '.join(str(error).split())[-120:]})"
        ) from None
    K, distortion, deviations = result[1], result[2].ravel()[: 5 if lens == "radtan" else 4], result[5].ravel()
    distortion = np.zeros(0) if lens == "none" else distortion
    camera = Camera(K, np.eye(3), np.zeros(3), size, distortion, posed=False)
    return camera, float(max(deviations[0] / K[0, 0], deviations[1] / K[1, 1]))


def _fit_fisheye(detections, board: Board, size, lens: str) -> tuple[Camera, float]:
    points, seen = _opencv_lists(detections, board)
    flags = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC | cv2.fisheye.CALIB_FIX_SKEW
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-9)
    try:
        _, K, distortion, _, _ = cv2.fisheye.calibrate(
            [p[None].astype(np.float64) for p in points], [s[None].astype(np.float64) for s in seen], size,
            np.zeros((3, 3)), np.zeros(4), flags=flags, criteria=criteria,
        )  # fmt: skip
    except cv2.error as error:
        raise ConfigError(
            f"the views of the board do not fix a fisheye ({' '.join(str(error).split())[-120:]})"
        ) from None
    return Camera(K, np.eye(3), np.zeros(3), size, distortion.ravel(), fisheye=True, posed=False), np.nan


def _opencv_lists(detections, board: Board) -> tuple[list[np.ndarray], list[np.ndarray]]:
    points = [board.points[d.ids].astype(np.float32) for d in detections]
    return points, [d.xy.astype(np.float32) for d in detections]


def _compose(
    outer: tuple[np.ndarray, np.ndarray], inner: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """a_from_c of a_from_b and b_from_c."""
    return outer[0] @ inner[0], outer[0] @ inner[1] + outer[1]


def _invert(pose: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return pose[0].T, -pose[0].T @ pose[1]


def _rms(miss: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(miss**2, -1))))


def _rms_of(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")
