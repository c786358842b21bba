"""Where people are filmed: cameras, light, ground, walls, things in the way. World: metres, z up, ground z = 0."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streampose.synthetic.motion import Region
from streampose.synthetic.paint import cloth_tile, ground_texture, random_colour, wall_texture
from streampose.synthetic.rig import BONE, BONES, PARENTS

SHADOW_WIDTHS = {"spine": 0.24, "chest": 0.26, "neck": 0.22, "head": 0.16}  # metres; other bones 0.1


@dataclass(frozen=True)
class CameraPath:
    """A camera over T frames, `x_cam = R @ x_world + t`: K (T, 3, 3), R (T, 3, 3), t (T, 3), size (width, height)."""

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    size: tuple[int, int]

    @property
    def moves(self) -> bool:
        return bool(np.ptp(self.R, 0).max() > 0 or np.ptp(self.t, 0).max() > 0)


@dataclass(frozen=True)
class Things:
    """Static triangles with texture: what stands between the camera and the people (same fields as `body.Body`)."""

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    face_tiles: np.ndarray
    atlas: np.ndarray


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The pose (R, t) of a camera at `position` that looks at `target`; roll in radians about its axis."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    R = np.stack([c * right + s * down, -s * right + c * down, forward])
    return R, -R @ position


def make_cameras(
    count: int, frames: int, fps: float, size: tuple[int, int], subjects: int, moving: bool, rng: np.random.Generator
) -> tuple[list[CameraPath], float, float]:
    """Cameras around the origin that show a person at 45 to 61 % of the image's height.

    Returns:
        the cameras; how far from the origin the first one shows the ground's middle to each side, metres; its distance.
    """
    width, height = size
    share = rng.uniform(0.45, 0.61) * (1.0 if subjects == 1 else 0.8)
    base = rng.uniform(0, 2 * np.pi)
    cameras, side_room, first_distance = [], 0.0, 0.0
    for number in range(count):
        distance = float(np.exp(rng.uniform(np.log(2.8), np.log(10.0))))
        focal = share * height * distance / 1.75
        azimuth = base + 2 * np.pi * number / count + (rng.normal(0, 0.15) if number else 0.0)
        elevation = rng.uniform(0.5, 2.7) * min(1.0, 0.4 + distance / 6)
        position = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), elevation])
        target = np.array([0.0, 0.0, rng.uniform(0.75, 1.0)])
        roll = rng.normal(0, 0.025)
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
        positions, targets, rolls = (np.repeat(np.asarray(v, float)[None], frames, 0) for v in (position, target, roll))
        if moving:
            t = np.arange(frames) / fps
            positions = positions + _drift(t, 3, rng, 0.12 * distance * np.array([1, 1, 0.3]))
            targets = (
                targets + _drift(t, 3, rng, np.array([0.15, 0.15, 0.06])) + _drift(t, 3, rng, np.full(3, 0.006), 2.0)
            )
            rolls = rolls + _drift(t, 1, rng, np.array([0.02]))[:, 0]
        poses = [look_at(*pose) for pose in zip(positions, targets, rolls, strict=True)]
        cameras.append(
            CameraPath(
                np.repeat(K[None], frames, 0), np.stack([R for R, _ in poses]), np.stack([t for _, t in poses]), size
            )
        )
        if number == 0:
            side_room, first_distance = distance * width / 2 / focal, distance
    return cameras, side_room, first_distance


def _drift(t: np.ndarray, dims: int, rng: np.random.Generator, amount: np.ndarray, rate: float = 0.25) -> np.ndarray:
    """Smooth wandering: two sines for each dimension, (T, dims)."""
    total = np.zeros((len(t), dims))
    for _ in range(2):
        total += np.sin(2 * np.pi * rate * rng.uniform(0.4, 1.0, dims) * t[:, None] + rng.uniform(0, 6.3, dims))
    return 0.5 * amount * total


def make_regions(
    subjects: int, camera: CameraPath, side_room: float, distance: float, rng: np.random.Generator
) -> list[Region]:
    """One part of the ground for each subject: side by side, or behind each other so that they hide each other."""
    forward = camera.R[0, 2, :2] / np.linalg.norm(camera.R[0, 2, :2])
    axes = np.stack([np.array([forward[1], -forward[0]]), forward])
    room = np.array([max(0.25, side_room - 0.5), float(np.clip(0.22 * distance, 0.4, 1.6))])
    if subjects == 1:
        return [Region(np.zeros(2), axes, room)]
    regions = []
    side_by_side = rng.uniform() < 0.6
    for place in rng.permutation(subjects):
        step = place - (subjects - 1) / 2
        if side_by_side:
            lane = 2 * room[0] / subjects
            centre, half = np.array([step * lane, rng.uniform(-0.5, 0.5)]), np.array([max(0.15, 0.55 * lane), 0.5])
        else:
            centre, half = np.array([rng.uniform(-0.3, 0.3) * room[0], 0.9 * step]), np.array([0.9 * room[0], 0.28])
        regions.append(Region(centre @ axes, axes, half))
    return regions


class Surroundings:
    """Light, ground and walls of one scene; draws the background and the shadows."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]):
        self.size = size
        azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.4)
        self.sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        warm = rng.uniform(-0.08, 0.08)
        tint = np.array([1 + warm, 1.0, 1 - warm])
        self.sun_colour = rng.uniform(0.35, 0.85) * tint
        self.sky_colour = rng.uniform(0.45, 0.65) * (2 - tint)
        self.shadow = rng.uniform(0.08, 0.32)
        self.ground, self.wall = ground_texture(rng), wall_texture(rng)
        self.far_ground = self.ground.mean((0, 1), dtype=np.float32)
        self.ground_scale, self.wall_scale = float(rng.uniform(60, 160)), float(rng.uniform(90, 160))  # texels a metre
        self.wall_distance = rng.uniform(5.0, 14.0) + 4.0
        self.exposure = rng.uniform(0.85, 1.15)
        bright = self.exposure * (0.8 * self.sun_colour * self.sun[2] + self.sky_colour)
        self.bright = (bright / 255).astype(np.float32)

    def light(self, normals: np.ndarray) -> np.ndarray:
        """Light sent back by a white matt surface: (V, 3) normals -> (V, 3) colours."""
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        unit = normals / np.maximum(length, 1e-9)
        sun = np.clip((unit * self.sun.astype(np.float32)).sum(-1, keepdims=True), 0, 1)
        sky = (0.65 + 0.35 * unit[:, 2:3]) * self.sky_colour.astype(np.float32)
        return (self.exposure * (sun * self.sun_colour + sky)).astype(np.float32)

    def background(self, K: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The empty scene: (H, W, 3) float32, 1.0 is white. A ground plane inside a round wall."""
        width, height = self.size
        x = ((np.arange(width) - K[0, 2]) / K[0, 0]).astype(np.float32)
        y = ((np.arange(height) - K[1, 2]) / K[1, 1]).astype(np.float32)[:, None]
        turn = R.T.astype(np.float32)
        dx, dy, dz = (row[0] * x + (row[1] * y + row[2]) for row in turn)  # (H, W) each: the pixels' rays in the world
        ox, oy, oz = (-R.T @ t).astype(np.float32)
        to_ground = -oz / np.minimum(dz, -1e-6)
        a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - np.float32(self.wall_distance**2)
        to_wall = (np.sqrt(b * b - a * c) - b) / a
        s = np.minimum(to_ground, to_wall)
        x, y, z = ox + s * dx, oy + s * dy, oz + s * dz
        around = cv2.phase(x, y) * np.float32(self.wall_distance * self.wall_scale)
        image = cv2.remap(self.wall, around, z * -self.wall_scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        x, y = x * self.ground_scale, y * self.ground_scale
        ground = cv2.remap(self.ground, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        fade = np.minimum(to_ground / 25, 0.9)[..., None]  # far away the texture is too fine to be seen
        ground = ground + fade * (self.far_ground - ground)
        return np.where((to_ground < to_wall)[..., None], ground, image) * self.bright

    def cast_shadows(
        self, image: np.ndarray, heads: list[np.ndarray], K: np.ndarray, R: np.ndarray, t: np.ndarray
    ) -> None:
        """Darken the ground where bodies stand in the sun, softly and in place.

        Args:
            image: (H, W, 3) float32 background.
            heads: for each subject (B, 3) world positions of its bones.
        """
        width, height = self.size
        small: np.ndarray = np.zeros(((height + 1) // 2, (width + 1) // 2), np.uint8)
        for points in heads:
            ground = points - self.sun * (points[:, 2:] / self.sun[2])
            camera = ground @ R.T + t
            if (camera[:, 2] < 0.3).any():
                continue
            pixels = (camera @ K.T)[:, :2] / camera[:, 2:] / 2
            for bone, parent in enumerate(PARENTS):
                if parent >= 0:
                    wide = SHADOW_WIDTHS.get(BONES[bone], 0.1) * K[0, 0] / camera[bone, 2] / 2
                    ends = [tuple(int(v) for v in np.clip(pixels[i], -4000, 4000)) for i in (parent, bone)]
                    cv2.line(small, ends[0], ends[1], 255, max(1, round(wide)))
            head = tuple(int(v) for v in np.clip(pixels[BONE["head"]], -4000, 4000))
            cv2.circle(small, head, max(1, round(0.1 * K[0, 0] / camera[BONE["head"], 2] / 2)), 255, -1)
        small = cv2.GaussianBlur(small, (0, 0), max(1.0, height / 110))
        image *= 1 - (self.shadow / 255) * cv2.resize(small, (width, height)).astype(np.float32)[..., None]


def make_occluders(camera: CameraPath, side_room: float, distance: float, rng: np.random.Generator) -> Things:
    """Posts, boxes and boards between the first camera and the people."""
    forward = camera.R[0, 2, :2] / np.linalg.norm(camera.R[0, 2, :2])
    right = np.array([forward[1], -forward[0]])
    axes = np.stack([np.append(right, 0), np.append(forward, 0), np.array([0, 0, 1])])
    vertices, normals, faces, uv, tiles, atlas = [], [], [], [], [], []
    for number in range(int(rng.integers(1, 4))):
        toward = rng.uniform(0.28, 0.45) * distance
        spot = -forward * toward + right * rng.uniform(-0.75, 0.75) * side_room * (1 - toward / distance)
        kind = rng.choice(["post", "box", "board"])
        usual = {"post": (0.05, 0.05, 1.2), "box": (0.25, 0.2, 0.3), "board": (0.45, 0.03, 0.45)}[str(kind)]
        half = np.array(usual) * rng.uniform(0.7, 1.2, 3)
        corners, corner_normals, box_faces, box_uv = _box(half)
        faces.append(box_faces + 24 * number)
        vertices.append(corners @ axes + np.append(spot, half[2]))
        normals.append(corner_normals @ axes)
        uv.append(box_uv)
        tiles.append(np.full(12, number))
        atlas.append(cloth_tile(random_colour(rng, "trousers"), rng))
    return Things(
        np.concatenate(vertices),
        np.concatenate(normals),
        np.concatenate(faces),
        np.concatenate(uv),
        np.concatenate(tiles),
        np.stack(atlas),
    )


def _box(half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A box around the origin, each side with its own corners: (24, 3), normals (24, 3), faces (12, 3), uv (24, 2)."""
    vertices: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    faces: list[tuple[int, ...]] = []
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    for axis in range(3):
        for sign in (-1, 1):
            corner = np.zeros((4, 3))
            corner[:, axis] = sign
            corner[:, (axis + 1) % 3], corner[:, (axis + 2) % 3] = square[:, 0], square[:, 1]
            order = [(0, 1, 2), (0, 2, 3)] if sign > 0 else [(0, 2, 1), (0, 3, 2)]
            faces += [tuple(4 * len(vertices) + i for i in face) for face in order]
            vertices.append(corner * half)
            normals.append(np.broadcast_to(np.eye(3)[axis] * sign, (4, 3)))
    return np.concatenate(vertices), np.concatenate(normals), np.array(faces), np.tile((square + 1) / 2, (6, 1))
