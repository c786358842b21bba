"""The nouns that every other module speaks: frozen, with shapes checked when they are made.

Imports numpy and the standard library only, so that serving stays light.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streampose.errors import ConfigError


@dataclass(frozen=True)
class Bone:
    """One bone of a skeleton; lengths are in units of the subject's size (a standing person's height).

    Attributes:
        parent, child: joint indices; the bones form a tree that starts at the skeleton's root.
        length: typical 3D length.
        max_length: ceiling of the 3D length, hence of its projection, which can only be shorter.
        radius: typical half thickness of the flesh around it.
        direction: (x right, y down, z forward) unit vector of the bone in the rest pose, subject facing the camera.
        swing_degrees: how far it turns away from its rest direction, about the parent.
        toward: the side to which it bends (a knee bends backward); zeros where it swings every way.
        reach: how far the flesh goes on beyond the child, in radii: 0 at the top of a head, more than 1 at a wrist.
        arm: True where the cascade leaves the bone out of its first stage (Mask as Supervision, Sec. 3.4).
        constant: True for trunk bones whose length barely changes (Eq. 12).
    """

    parent: int
    child: int
    length: float
    max_length: float
    radius: float
    direction: tuple[float, float, float]
    swing_degrees: float
    arm: bool = False
    constant: bool = False
    toward: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reach: float = 1.0


@dataclass(frozen=True)
class Skeleton:
    """Joints, bones and left/right pairs of one kind of subject; read from YAML by `config.load_skeleton`.

    Attributes:
        joints: K names.
        root: the joint that 3D poses are relative to.
        bones: a tree over the joints, parents before children.
        flip_pairs: (left, right) joint indices.
        torso: the two joints whose distance normalises PCK@0.2.
        head: the two joints whose distance stands for the head segment in PCKh (not every skeleton has one).
        midpoints: (middle, left, right) triples: the middle lies between the two (Eq. 14).
        warmup: (centroid joint, offset joint): the pseudo targets of the first steps (App. A.3).
        connections: extra mask connections of the cascade stages `tight`, `medium`, `loose` (Fig. 7).
        turn_degrees: how far a subject turns about (x, y, z) before it is photographed; 180 is every way.
    """

    name: str
    joints: tuple[str, ...]
    root: int
    bones: tuple[Bone, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    torso: tuple[int, int]
    head: tuple[int, int] | None = None
    midpoints: tuple[tuple[int, int, int], ...] = ()
    warmup: tuple[int, int] | None = None
    connections: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    turn_degrees: tuple[float, float, float] = (15.0, 180.0, 15.0)

    def __post_init__(self) -> None:
        K = len(self.joints)
        reached = {self.root}
        for bone in self.bones:
            if not (0 <= bone.parent < K and 0 <= bone.child < K):
                raise ConfigError(f"skeleton {self.name}: a bone names joint {max(bone.parent, bone.child)} of {K}")
            if bone.parent not in reached or bone.child in reached:
                raise ConfigError(
                    f"skeleton {self.name}: bone {self.joints[bone.parent]}-{self.joints[bone.child]} does not grow "
                    f"the tree from {self.joints[self.root]}; list parents before children, each joint once"
                )
            reached.add(bone.child)
        if len(reached) != K:
            missing = [name for i, name in enumerate(self.joints) if i not in reached]
            raise ConfigError(f"skeleton {self.name}: no bone reaches {', '.join(missing)}")

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def flip_index(self) -> list[int]:
        """Permutation of the joints that swaps left and right: `keypoints[..., flip_index, :]`."""
        index = list(range(self.num_joints))
        for left, right in self.flip_pairs:
            index[left], index[right] = right, left
        return index

    @property
    def parents(self) -> list[int]:
        """Parent joint of each joint; the root is its own parent."""
        parents = list(range(self.num_joints))
        for bone in self.bones:
            parents[bone.child] = bone.parent
        return parents


@dataclass(frozen=True)
class Camera:
    """A calibrated camera: `x_cam = R @ x_world + t`, pixels by K after distortion.

    Attributes:
        K: (3, 3) intrinsics in pixels, pixel centres are integers.
        R: (3, 3) cam_from_world rotation.
        t: (3,) cam_from_world translation in metres.
        distortion: (D,) OpenCV coefficients; empty for none.
        size: (width, height) in pixels.
        fisheye: the distortion holds the k1 k2 k3 k4 of OpenCV's fisheye model.
        posed: False where only the intrinsics are known; R and t then mean nothing.
    """

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    size: tuple[int, int]
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    fisheye: bool = False
    posed: bool = True

    def __post_init__(self) -> None:
        check_shape("Camera.K", self.K, (3, 3))
        check_shape("Camera.R", self.R, (3, 3))
        check_shape("Camera.t", self.t, (3,))

    @property
    def P(self) -> np.ndarray:
        """(3, 4) projection matrix K [R|t], world to undistorted pixels."""
        return self.K @ np.hstack([self.R, self.t[:, None]])


@dataclass(frozen=True)
class View:
    """One camera of a session.

    Attributes:
        name: unique in its session.
        video: the file that it recorded.
        camera: its calibration, None where there is none.
        offset_seconds: what must be added to the video's timestamps to get the session's time.
    """

    name: str
    video: Path
    camera: Camera | None = None
    offset_seconds: float = 0.0


@dataclass(frozen=True)
class Session:
    """A synchronised recording by several cameras that stand still.

    Attributes:
        name: unique among the sessions of a store.
        views: one for each camera.
    """

    name: str
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"session {self.name}: two views are called {', '.join(twice)}; give each its own name")

    @property
    def calibrated(self) -> bool:
        """Whether it can be triangulated: two or more views, each with a camera whose place is known."""
        return len(self.views) > 1 and all(view.camera is not None and view.camera.posed for view in self.views)


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of N subjects in one image.

    Attributes:
        xy: (N, K, 2) source pixels.
        confidence: (N, K) in [0, 1].
        z: (N, K) depth relative to the root joint, in source pixels (weak perspective), or None for a 2D model.
    """

    xy: np.ndarray
    confidence: np.ndarray
    z: np.ndarray | None = None

    def __post_init__(self) -> None:
        N, K, _ = self.xy.shape
        check_shape("Keypoints.xy", self.xy, (N, K, 2))
        check_shape("Keypoints.confidence", self.confidence, (N, K))
        if self.z is not None:
            check_shape("Keypoints.z", self.z, (N, K))

    def pick(self, index: np.ndarray | list[int]) -> Keypoints:
        """Some of them, by their places or by a mask over the first dimension."""
        return Keypoints(self.xy[index], self.confidence[index], None if self.z is None else self.z[index])


@dataclass(frozen=True)
class Clip:
    """What the store keeps of one track, or a selection of its frames.

    Attributes:
        id: the clip's name in the store.
        source: path of the video as the user named it.
        frames: (T, S, S, 3) uint8 RGB crops.
        masks: (T, S, S) uint8, 255 where the subject is.
        boxes: (T, 4) float32 xyxy edges in source pixels; what the crop shows.
        pts_seconds: (T,) float64 time of each frame in the source.
        frame_index: (T,) int64 number of each frame in the source, in display order.
    """

    id: str
    source: str
    frames: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    pts_seconds: np.ndarray
    frame_index: np.ndarray

    def __post_init__(self) -> None:
        T, H, W, _ = self.frames.shape
        check_shape("Clip.frames", self.frames, (T, H, W, 3))
        check_shape("Clip.masks", self.masks, (T, H, W))
        check_shape("Clip.boxes", self.boxes, (T, 4))
        check_shape("Clip.pts_seconds", self.pts_seconds, (T,))
        check_shape("Clip.frame_index", self.frame_index, (T,))


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise a ValueError that names the array where its shape is another."""
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
