"""Live 3D poses from 2D joints, and what one camera leaves open: the lifter beside the model that looks at pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streampose.runtime.lifter import Lifting
from streampose.server.results import Hypotheses
from streampose.structures import Keypoints, Skeleton
from streampose.tracking.hypothesis_path import LivePaths

COUNT = 10  # hypotheses of each subject


class Lift:
    """Lifts the subjects of one camera, frame after frame.

    Args:
        skeleton: of the model that finds the joints.

    Raises:
        BundleError: the model does not find a joint that the lifter takes.
    """

    def __init__(self, lifting: Lifting, skeleton: Skeleton):
        self._lifting, self._skeleton = lifting, skeleton
        self._places = lifting.match(skeleton.joints)
        self._paths = LivePaths(lifting.skeleton)

    def apply(self, keypoints: Keypoints, ids: tuple[int, ...], seconds: float) -> tuple[Keypoints, Hypotheses | None]:
        """The same joints with the depth of the pose that the motion makes likely, and the hypotheses.

        Joints that the lifter does not know keep their depth, as subjects do of whom too little is seen.
        """
        if not ids:
            return keypoints, None
        lifted = self._lifting.lift_keypoints(keypoints, self._skeleton, count=COUNT)
        pose = self._paths.step(ids, lifted.hypotheses, seconds)
        scale = lifted.placement[:, :1]  # pixels a metre
        root = lifted.placement[:, None, None, 1:]
        N, K = keypoints.confidence.shape
        z = np.zeros((N, K)) if keypoints.z is None else keypoints.z.copy()
        deep = pose[..., 2] * scale
        z[:, self._places] = np.where(np.isfinite(deep), deep, z[:, self._places])
        poses, spread = np.full((N, COUNT, K, 3), np.nan), np.full((N, K), np.nan)
        pixels = lifted.hypotheses * scale[:, None, None]
        pixels[..., :2] += root
        poses[:, :, self._places] = pixels
        spread[:, self._places] = np.sqrt(np.trace(lifted.covariance, axis1=-2, axis2=-1)) * scale
        return replace(keypoints, z=z), Hypotheses(poses, np.full((N, COUNT), 1 / COUNT), spread)
