"""Films a scene with one camera: a video file and its exact truth."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streampose.geometry.project import camera_from_world, project_points
from streampose.synthetic.body import Body, skin_body
from streampose.synthetic.render import rasterise, shade
from streampose.synthetic.rig import Motion, bone_heads, bone_transforms, landmarks_3d
from streampose.synthetic.scene import CameraPath, Surroundings, Things
from streampose.synthetic.truth import Truth, truth_path, write_truth
from streampose.video.encode import VideoWriter


@dataclass(frozen=True)
class Actor:
    """One person and how it moves."""

    body: Body
    motion: Motion


@dataclass(frozen=True)
class Optics:
    """How a camera spoils its picture: blur sigma in pixels, noise standard deviation in 8-bit steps."""

    blur: float
    noise: float


class Stage:
    """All triangles of a scene in one list, so that one pass of the rasteriser finds who hides whom."""

    def __init__(self, actors: list[Actor], surroundings: Surroundings, things: Things | None):
        self.actors, self.surroundings = actors, surroundings
        self.transforms = [bone_transforms(actor.body.rig, actor.motion) for actor in actors]
        self.heads = [bone_heads(actor.body.rig, actor.motion) for actor in actors]
        meshes: list[Body | Things] = [actor.body for actor in actors] + ([things] if things else [])
        offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
        tile_offsets = np.cumsum([0] + [len(mesh.atlas) for mesh in meshes])
        self.faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)])
        self.uv = np.concatenate([mesh.uv for mesh in meshes]).astype(np.float32)
        self.face_tiles = np.concatenate(
            [m.face_tiles + offset for m, offset in zip(meshes, tile_offsets, strict=False)]
        )
        self.atlas = np.concatenate([mesh.atlas for mesh in meshes]).astype(np.float32)
        ids = [*range(1, len(actors) + 1)] + ([0] if things else [])
        self.face_ids = np.concatenate([np.full(len(m.faces), i, np.uint8) for m, i in zip(meshes, ids, strict=True)])
        self.things = things
        self.thing_light = surroundings.light(things.normals.astype(np.float32)) if things else np.zeros((0, 3))

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """World vertices (V, 3) and the light that they send back (V, 3)."""
        vertices, light = [], []
        for actor, transforms in zip(self.actors, self.transforms, strict=True):
            points, normals = skin_body(actor.body, transforms[frame])
            vertices.append(points)
            light.append(self.surroundings.light(normals))
        if self.things is not None:
            vertices.append(self.things.vertices)
            light.append(self.thing_light)
        return np.concatenate(vertices), np.concatenate(light)


def film(
    video: Path,
    stage: Stage,
    camera: CameraPath,
    optics: Optics,
    joints: tuple[str, ...],
    fps: float,
    rng: np.random.Generator,
) -> Truth:
    """Render every frame, write `video` and its `.truth.npz`, and return the truth.

    Args:
        joints: K landmark names; every body must have them.
    """
    T, N = len(camera.K), len(stage.actors)
    width, height = camera.size
    joints_3d = np.stack(
        [
            landmarks_3d(actor.body.rig, moved, joints)
            for actor, moved in zip(stage.actors, stage.transforms, strict=True)
        ],
        1,
    )  # (T, N, K, 3)
    depths = np.array([[actor.body.rig.landmarks[name].depth for name in joints] for actor in stage.actors])
    joints_2d = project_points(joints_3d, camera.K[:, None], camera.R[:, None], camera.t[:, None])
    visibility = np.zeros(joints_2d.shape[:3], np.uint8)
    masks = np.zeros((T, height, width), np.uint8)
    boxes = np.full((T, N, 4), np.nan)
    grain = rng.standard_normal(2 * width * height * 3, dtype=np.float32) * np.float32(optics.noise)
    pts_seconds = np.arange(T) / fps
    empty = None
    with VideoWriter(video, fps, camera.size, repeatable=True) as writer, ThreadPoolExecutor(1) as encoder:
        written: Future[None] | None = None
        for frame in range(T):
            K, R, t = camera.K[frame], camera.R[frame], camera.t[frame]
            if empty is None or camera.moves:
                empty = stage.surroundings.background(K, R, t)
            image = empty.copy()
            stage.surroundings.cast_shadows(image, [heads[frame] for heads in stage.heads], K, R, t)
            vertices, light = stage.at(frame)
            seen = rasterise(camera_from_world(vertices, R, t), K, stage.faces, camera.size)
            image.reshape(-1, 3)[seen.pixel] = shade(seen, stage.faces, light, stage.uv, stage.face_tiles, stage.atlas)
            masks[frame].reshape(-1)[seen.pixel] = stage.face_ids[seen.face]
            for subject in range(N):
                boxes[frame, subject] = mask_box(masks[frame] == subject + 1)
            z = camera_from_world(joints_3d[frame], R, t)[..., 2]
            visibility[frame] = visible(joints_2d[frame], z, depths, seen.z)
            picture = expose(image, optics, grain, rng)
            if written is not None:
                written.result()
            written = encoder.submit(writer.write, picture, float(pts_seconds[frame]))
        if written is not None:
            written.result()
    truth = Truth(
        joints=np.array(joints), joints_3d=joints_3d, joints_2d=joints_2d, visibility=visibility, boxes=boxes,
        masks=masks, pts_seconds=pts_seconds, K=camera.K, R=camera.R, t=camera.t, size=np.array(camera.size),
    )  # fmt: skip
    write_truth(truth_path(video), truth)
    return truth


def visible(joints_2d: np.ndarray, z: np.ndarray, depths: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Depth test of joints against the rendered surface: 0 outside the image, 1 hidden, 2 seen.

    Args:
        joints_2d: (N, K, 2) pixels; z: (N, K) depth of each joint, metres.
        depths: (N, K) how far below the skin a joint may lie, metres.
        surface: (H, W) depth of what each pixel shows.
    """
    height, width = surface.shape
    x, y = np.rint(np.nan_to_num(joints_2d, nan=-1e6)).astype(np.int64).transpose(2, 0, 1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (z > 0)
    shown = surface[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return np.where(inside, np.where(shown < z - depths, 1, 2), 0).astype(np.uint8)


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Edges (4,) of the box around a mask's pixels; NaN where it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return np.full(4, np.nan)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def expose(image: np.ndarray, optics: Optics, grain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, scale to 8 bits and add sensor noise: (H, W, 3) float32 -> uint8. `grain` is noise to cut from."""
    if optics.blur > 0:
        image = cv2.GaussianBlur(image, (5, 5), optics.blur)
    start = int(rng.integers(0, len(grain) - image.size))
    return np.clip(image * 255 + grain[start : start + image.size].reshape(image.shape), 0, 255).astype(np.uint8)
