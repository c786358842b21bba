"""From 2D joints to many 3D poses, with what they leave open: a bundle of kind `lifter` made ready to run. No torch.

Where it does not know, it says so: with too few joints a pose is NaN and its confidence zero.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from streampose.errors import BundleError, ConfigError
from streampose.geometry.hypotheses import covariance, farthest_points, mean_shift, probability_within
from streampose.runtime.bundle import Bundle, LifterPart, load_bundle
from streampose.runtime.predictor import available_cores, installed
from streampose.structures import Keypoints, Skeleton

SAMPLES = 32  # hypotheses that say how sure a joint is, at least
BANDWIDTH = 0.08  # metres a joint, of the mean shift
SEED = 0  # of the codes: the same for every subject and call
CONFIDENT = 0.3  # detections below it count as missing
Run = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Lifted:
    """3D poses of B subjects, in metres, x right, y down, z forward as the camera sees, the root joint at the origin.

    The size of a subject cannot be seen: metres are those of the prior's typical subject.

    Attributes:
        pose: (B, K, 3) the most likely pose; NaN where too little is seen.
        hypotheses: (B, H, K, 3) poses that explain the same joints; the first one is that of the zero code.
        covariance: (B, K, 3, 3) how far the true joint may lie from `pose`: calibrated, so that the ellipsoid of
            squared radius `geometry.hypotheses.REGION` holds it 9 times in 10.
        confidence: (B, K) the probability that the joint lies within 150 mm of the pose; 0 where it is NaN.
        placement: (B, 3) pixels per metre, and the pixel at which the root is seen.
    """

    pose: np.ndarray
    hypotheses: np.ndarray
    covariance: np.ndarray
    confidence: np.ndarray
    placement: np.ndarray


class Lifting:
    """A lifter that is ready to run; numpy in, numpy out. Several threads may share one: they wait for each other.

    Args:
        run: joints (R, K, 2), visibility (R, K), codes (R, Z), all float32 -> poses (R, K, 3), placement (R, 3).
    """

    def __init__(self, run: Run, skeleton: Skeleton, part: LifterPart, bundle: Bundle | None = None):
        self._run, self.skeleton, self.part, self.bundle = run, skeleton, part, bundle
        self._lock = threading.Lock()
        self._seen, self._missing = np.array(part.seen), np.array(part.missing)

    @property
    def least_seen(self) -> int:
        """Fewer joints than this are not lifted: a third of all, and never under three."""
        return max(3, -(-self.skeleton.num_joints // 3))

    def codes(self, count: int) -> np.ndarray:
        """The first `count` codes: zeros, then random ones that are always the same. (count, Z)."""
        codes = np.random.default_rng(SEED).standard_normal((count, self.part.code_size)).astype(np.float32)
        codes[:1] = 0
        return codes

    def sample(self, joints: np.ndarray, visibility: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each set of joints with every code, unchecked: (B, K, 2), (B, K), (H, Z) -> (B, H, K, 3), (B, H, 3)."""
        B, H = len(joints), len(codes)
        rows = (np.repeat(joints, H, 0), np.repeat(visibility, H, 0), np.tile(codes, (B, 1)))
        with self._lock:
            poses, placement = self._run(*(np.ascontiguousarray(part, np.float32) for part in rows))
        return poses.reshape(B, H, self.skeleton.num_joints, 3), placement.reshape(B, H, 3)

    def lift(
        self,
        joints: np.ndarray,
        visibility: np.ndarray | None = None,
        *,
        count: int = 10,
        mode: Literal["zero", "mean-shift"] = "zero",
        diverse: bool = False,
    ) -> Lifted:
        """Lift B sets of 2D joints.

        Args:
            joints: (B, K, 2) pixels or any other unit, x right, y down; NaN where missing.
            visibility: (B, K) 0 where a joint is missing; None takes all that are not NaN.
            count: hypotheses for each.
            mode: the pose is that of the zero code, or the mode that a mean shift over the hypotheses finds.
            diverse: of ten times as many, the `count` most different ones by farthest point sampling.

        Raises:
            ValueError: another number of joints, or no hypothesis asked for.
        """
        K = self.skeleton.num_joints
        joints = np.asarray(joints, np.float32)
        if joints.ndim != 3 or joints.shape[1:] != (K, 2):
            raise ValueError(
                f"joints are {joints.shape}, this lifter takes (B, {K}, 2): {', '.join(self.skeleton.joints)}"
            )
        if visibility is not None and np.shape(visibility) != joints.shape[:2]:
            raise ValueError(f"visibility is {np.shape(visibility)}, expected {joints.shape[:2]}")
        if count < 1:
            raise ValueError(f"{count} hypotheses: at least one")
        if mode not in ("zero", "mean-shift"):
            raise ValueError(f"mode {mode!r}: unknown; choose zero or mean-shift")
        seen = np.isfinite(joints).all(-1)
        if visibility is not None:
            seen &= np.asarray(visibility) > 0
        joints = np.where(seen[..., None], joints, np.float32(0))
        usable = self._usable(joints, seen)
        wide = 10 * count if diverse else count
        with np.errstate(over="ignore", invalid="ignore"):  # of what is not usable
            poses, placement = self.sample(joints, seen.astype(np.float32), self.codes(max(wide, SAMPLES)))
        usable &= np.isfinite(poses).all((1, 2, 3)) & np.isfinite(placement).all((1, 2))
        poses[~usable] = 0.0
        pose = poses[:, 0] if mode == "zero" else mean_shift(poses, BANDWIDTH)
        spread = covariance(poses, pose, self.part.least_metres)
        spread = spread * np.where(seen, self._seen, self._missing)[..., None, None]
        confidence = probability_within(spread)
        if diverse:
            poses = np.take_along_axis(poses, farthest_points(poses, count)[..., None, None], 1)
        lifted = Lifted(pose.copy(), poses[:, :count].copy(), spread, confidence, placement[:, 0].copy())
        for values in (lifted.pose, lifted.hypotheses, lifted.covariance, lifted.placement):
            values[~usable] = np.nan
        confidence[~usable] = 0.0
        return lifted

    def lift_keypoints(self, keypoints: Keypoints, skeleton: Skeleton, **options: Any) -> Lifted:
        """Lift what a detector found; joints are matched by name, those below `CONFIDENT` count as missing.

        Raises:
            BundleError: the detector does not find a joint that this lifter takes.
        """
        index = self.match(skeleton.joints)
        return self.lift(keypoints.xy[:, index], keypoints.confidence[:, index] >= CONFIDENT, **options)

    def match(self, joints: Sequence[str]) -> list[int]:
        """Where the lifter's joints are in another list of names.

        Raises:
            BundleError: one is not in it.
        """
        missing = [name for name in self.skeleton.joints if name not in joints]
        if missing:
            where = self.bundle.path if self.bundle else "the lifter"
            raise BundleError(
                f"{where}: lifts skeleton {self.skeleton.name}, the 2D model does not find its {', '.join(missing)}; "
                "train a lifter for the model's skeleton with `streampose selftrain --method hypotheses`"
            )
        return [list(joints).index(name) for name in self.skeleton.joints]

    def _usable(self, joints: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(B,) enough joints are seen, and they are not all in one place."""
        low = np.where(seen[..., None], joints, np.inf).min(1)
        high = np.where(seen[..., None], joints, -np.inf).max(1)
        return (seen.sum(1) >= self.least_seen) & ((high - low).max(-1) > 0)


def load_lifter(path: str | Path, runtime: str = "auto", threads: int | None = None) -> Lifting:
    """Open a bundle of kind `lifter`, start a runtime and run it once.

    Args:
        runtime: onnx, openvino, torch, or auto for the first of them that is installed.
        threads: cores to use; None for one, which such small networks are fastest with.

    Raises:
        BundleError: missing, damaged, or a model of pictures. ConfigError: no such runtime here.
    """
    bundle = load_bundle(path, "lifter")
    assert bundle.lifter is not None
    chosen = next((name for name in STARTS if installed(name)), "onnx") if runtime == "auto" else runtime
    if chosen not in STARTS:
        raise ConfigError(f"--runtime {runtime}: lifters run with {', '.join(STARTS)}")
    if not installed(chosen):
        raise ConfigError(f"--runtime {chosen}: is not installed; use --runtime auto")
    run = STARTS[chosen](bundle, min(threads or 1, available_cores()))
    lifting = Lifting(run, bundle.skeleton, bundle.lifter, bundle)
    K = bundle.skeleton.num_joints
    lifting.lift(np.random.default_rng(0).random((1, K, 2)))
    return lifting


def _start_onnx(bundle: Bundle, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises bare Exceptions of its own kinds
        message = " ".join(str(error).split())[:200]
        raise BundleError(f"{bundle.model_path}: ONNX Runtime cannot load it ({message})") from error

    def run(joints: np.ndarray, visibility: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = {"joints": joints, "visibility": visibility, "codes": codes}
        poses, placement = session.run(["poses", "placement"], inputs)
        return poses, placement

    return run


def _start_openvino(bundle: Bundle, threads: int) -> Run:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }  # fmt: skip
    try:
        request = openvino.Core().compile_model(str(bundle.model_path), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        message = " ".join(str(error).split())[:200]
        raise BundleError(f"{bundle.model_path}: OpenVINO cannot load it ({message})") from error

    def run(joints: np.ndarray, visibility: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        results = request.infer({"joints": joints, "visibility": visibility, "codes": codes})
        return results["poses"].copy(), results["placement"].copy()

    return run


def _start_torch(bundle: Bundle, threads: int) -> Run:
    from streampose.runtime.torch import lifter_run

    return lifter_run(bundle, threads)


STARTS: dict[str, Callable[[Bundle, int], Run]] = {
    "onnx": _start_onnx, "openvino": _start_openvino, "torch": _start_torch,
}  # fmt: skip
