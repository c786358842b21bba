"""People who walk between cameras, as tests of several views need them: exact places and what each camera sees."""

import numpy as np
from scipy.spatial.transform import Rotation

from streampose.config import load_skeleton
from streampose.geometry.distortion import project
from streampose.structures import Camera
from streampose.tracking.views import Seen

SKELETON = load_skeleton("human17")
FLIP = np.array(SKELETON.flip_index)


def make_rig(views, size=(640, 480)):
    """Cameras around the origin, z up."""
    cameras = []
    for turn in 0.4 + 2 * np.pi * np.arange(views) / views:
        place = np.array([4 * np.cos(turn), 4 * np.sin(turn), 1.6])
        forward = np.array([0, 0, 0.9]) - place
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[1.1 * size[0], 0, size[0] / 2], [0, 1.1 * size[0], size[1] / 2], [0, 0, 1]])
        cameras.append(Camera(K, R, -R @ place, size))
    return cameras


def walker(moments, at=(0.0, 0.0), speed=0.0):
    """(T, 17, 3) metres: a person of 1.7 m who swings all limbs, turns and walks."""
    phase = np.linspace(0, moments / 10, moments)
    poses = np.zeros((moments, 17, 3))
    for number, bone in enumerate(SKELETON.bones):
        way = np.array(bone.direction) / np.linalg.norm(bone.direction)
        swing = 0.1 if bone.constant else 0.4 * np.sin(phase + 2.1 * number)
        if bone.toward[2]:  # thighs swing forward, shins backward
            swing = np.sign(bone.toward[2]) * (0.4 + 0.3 * np.sin(phase + 2.1 * number))
        bend = Rotation.from_rotvec(np.stack([swing + 0 * phase, 0 * phase, 0.1 * np.sin(phase)], -1))
        poses[:, bone.child] = poses[:, bone.parent] + 1.7 * bone.length * bend.apply(way)
    upright = poses[..., [0, 2, 1]] * [1, 1, -1]  # x right, y away, z up: a turn, not a mirror
    turned = Rotation.from_rotvec(np.outer(phase / 2, [0, 0, 1])).as_matrix()
    return (
        np.einsum("tij,tkj->tki", turned, upright)
        + np.stack([at[0] + speed * phase, at[1] + 0 * phase, 0.9 + 0 * phase], -1)[:, None]
    )


def film(cameras, people, rng, sigma=1.5, fps=25.0, shown=None):
    """What each view sees: an iterator of `Seen` a camera. `shown` (V, T, N) leaves people out."""

    def view(v, camera):
        for t in range(len(people[0])):
            here = [n for n in range(len(people)) if shown is None or shown[v, t, n]]
            if here:
                xy = np.stack([project(people[n][t], camera) for n in here])
                yield Seen(
                    t / fps, tuple(10 * v + n for n in here), xy + rng.normal(0, sigma, xy.shape), np.ones(xy.shape[:2])
                )

    return [view(v, camera) for v, camera in enumerate(cameras)]
