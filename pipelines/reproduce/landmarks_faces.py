"""A point set as a target of `landmarks`: 68 points of a face, drawn by Eq. 2 instead of bones.

    python pipelines/reproduce/landmarks_faces.py --folder reproduce/faces              # some minutes of one core

Faces are drawn, not photographed: a skin-coloured oval before clutter, with brows, eyes, nose and mouth where the 68
points say, of random shapes, expressions, colours, light and turns. Two frames of one clip show one identity. The
unpaired poses are the points of other identities, and the faces that are measured are of yet others. The error is the
mean distance in percent of that between the outer corners of the eyes, as for 300-W in the paper. Interrupt and start
it again: the run goes on from its checkpoint. Writes `faces.json` and `faces.png`.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from streampose.console import logger, start_logging
from streampose.files import write_text
from streampose.methods.landmarks import LandmarksTask, load_landmarks_config
from streampose.methods.landmarks_data import Crops, make_crops
from streampose.methods.landmarks_prior import Poses
from streampose.structures import Bone, Skeleton
from streampose.training.checkpoint import load_networks
from streampose.training.engine import train

SIZE = 64
FRAMES = 10  # of a clip
PARTS = {"jaw": 17, "right_brow": 5, "left_brow": 5, "bridge": 4, "nostrils": 5, "right_eye": 6, "left_eye": 6,
         "outer_lips": 12, "inner_lips": 8}  # fmt: skip
CLOSED = ("right_eye", "left_eye", "outer_lips", "inner_lips")
SETTINGS = ["renderer=points", "sigma=0.05", "weights.equivariance=0.3"]


class Faces(NamedTuple):
    """Crops (N, SIZE, SIZE, 3) uint8, points (N, 68, 2) in [-1, 1], number of the clip (N,)."""

    crops: np.ndarray
    points: np.ndarray
    clip: np.ndarray


def parts() -> dict[str, list[int]]:
    """The points of each part, in the order of 300-W."""
    ends = np.cumsum(list(PARTS.values()))
    return {name: list(range(end - count, end)) for (name, count), end in zip(PARTS.items(), ends, strict=True)}


def face_skeleton() -> Skeleton:
    """68 points as a skeleton whose bones follow the outlines; the tree grows from the tip of the nose."""
    of, joints = parts(), [f"{name}_{n}" for name, count in PARTS.items() for n in range(count)]
    tip = of["bridge"][3]
    chains = [of["bridge"][::-1], of["nostrils"], of["outer_lips"], of["inner_lips"], of["jaw"][8::-1], of["jaw"][8:],
              of["right_brow"][::-1], of["left_brow"], of["right_eye"], of["left_eye"]]  # fmt: skip
    bones: list[Bone] = []
    for chain in chains:
        start = chain[0]
        if start not in {bone.child for bone in bones} | {tip}:
            bones.append(Bone(tip, start, 0.3, 0.6, 0.006, (0.0, 1.0, 0.0), 20.0))
        bones += [Bone(a, b, 0.1, 0.2, 0.012, (1.0, 0.0, 0.0), 20.0) for a, b in pairwise(chain)]
    shape = base_shape()
    mirrored = shape * (-1, 1, 1)
    other = np.linalg.norm(shape[:, None] - mirrored[None], axis=-1).argmin(1)
    pairs = tuple((int(k), int(other[k])) for k in range(len(shape)) if shape[k, 0] > 0.01)
    eyes = (of["right_eye"][0], of["left_eye"][3])
    return Skeleton("face68", tuple(joints), tip, tuple(bones), pairs, eyes, turn_degrees=(12.0, 30.0, 12.0))


# ------------------------------------------------------------------------------------------------------------- shapes


def base_shape() -> np.ndarray:
    """An average face: (68, 3), x right in the picture, y down, z away; half as wide as 1."""
    return shape_of(np.zeros(12), np.zeros(5))


def shape_of(identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """The points of an identity (12,) with an expression (5,), both in standard deviations: (68, 3)."""
    wide, chin, long, spread, eye, brow, nose, nostril, mouth, lip, depth, low = 0.08 * identity
    opened, smile, raised, shut, frown = expression
    t = np.linspace(0, np.pi, 17)
    jaw = np.stack([-(1 + wide) * np.cos(t), -0.15 + (1.15 + 1.5 * long) * np.sin(t) ** (0.85 + chin)], -1)
    jaw[4:13, 1] += 0.10 * max(opened, 0) * np.sin(np.linspace(0, np.pi, 9))
    u = np.linspace(0, 1, 5)
    right_brow = np.stack(
        [-0.80 - spread + 0.58 * u, -0.55 - brow - 0.12 * np.sin(np.pi * (0.15 + 0.6 * u)) - 0.06 * raised], -1
    )
    right_brow[:, 1] += 0.05 * frown * u
    bridge = np.stack([np.zeros(4), np.linspace(-0.32, 0.22 + nose, 4)], -1)
    nostrils = np.stack(
        [np.linspace(-0.2 - nostril, 0.2 + nostril, 5), 0.34 + nose + 0.05 * np.sin(np.linspace(0, np.pi, 5))], -1
    )
    height = (0.075 + eye / 3) * np.clip(1 - 0.45 * shut, 0.15, 1.5)
    angle = np.radians([180, 120, 60, 0, -60, -120])
    right_eye = np.stack([-0.42 - spread + (0.17 + eye / 2) * np.cos(angle), -0.3 - height * np.sin(angle) * 1.15], -1)
    half, upper, lower = 0.36 + mouth + 0.04 * smile, 0.09 + lip, 0.11 + lip
    gap = 0.07 * max(opened, 0)
    middle = 0.66 + low + nose / 2
    a = np.linspace(np.pi, 0, 7)
    top = np.stack([half * np.cos(a), middle - (upper + gap / 3) * np.sin(a) ** 0.8], -1)
    top[3, 1] += 0.03
    b = np.linspace(0, -np.pi, 7)[1:-1]
    bottom = np.stack([half * np.cos(b), middle + gap - lower * np.sin(b)], -1)
    outer = np.concatenate([top, bottom])
    c = np.linspace(np.pi, 0, 5)
    inner_top = np.stack([0.82 * half * np.cos(c), middle - gap / 3 * np.sin(c)], -1)
    d = np.linspace(0, -np.pi, 5)[1:-1]
    inner = np.concatenate(
        [inner_top, np.stack([0.82 * half * np.cos(d), middle + 0.01 - (gap + 0.01) * np.sin(d)], -1)]
    )
    for lips in (outer, inner):
        lips[:, 1] -= 0.05 * smile * (lips[:, 0] / half) ** 2
    left_brow, left_eye = right_brow[::-1] * (-1, 1), right_eye[[3, 2, 1, 0, 5, 4]] * (-1, 1)
    flat = np.concatenate([jaw, right_brow, left_brow, bridge, nostrils, right_eye, left_eye, outer, inner])
    z = -0.75 + (0.75 + depth) * flat[:, 0] ** 2 + 0.15 * flat[:, 1] ** 2
    z[:17] = 0.15 - 0.5 * np.sin(t)
    z[27:31] -= np.linspace(0.05, 0.3, 4)
    z[31:36] -= 0.12
    return np.concatenate([flat, z[:, None]], -1)


def forehead(shape: np.ndarray) -> np.ndarray:
    """The outline of the head above the temples, from left to right in the picture: (9, 3)."""
    t = np.linspace(0, np.pi, 11)[1:-1]
    width = (shape[16, 0] - shape[0, 0]) / 2
    return np.stack([-width * np.cos(t), -0.15 - 1.05 * np.sin(t), 0.15 - 0.3 * np.sin(t)], -1)


def turned(points: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Points (N, 3) turned by yaw, pitch, roll and seen in perspective: (N, 2)."""
    seen = points @ Rotation.from_euler("yxz", degrees, degrees=True).as_matrix().T
    return seen[:, :2] * (7 / (7 + seen[:, 2:]))


# ----------------------------------------------------------------------------------------------------------- pictures


def make_faces(identities: int, seed: int) -> Faces:
    """Clips of identities, FRAMES each."""
    crops, points = [], []
    for number in range(identities):
        rng = np.random.default_rng((seed, number))
        identity, look = rng.normal(0, 1, 12), Look(rng)
        for _ in range(FRAMES):
            shape = shape_of(identity, rng.normal(0, 1, 5))
            both = turned(np.concatenate([shape, forehead(shape)]), rng.normal(0, 1, 3) * (14, 6, 6))
            low, high = both[:68].min(0), both[:68].max(0)
            side = (high - low).max() * 1.2 * rng.lognormal(0, 0.06)
            centre = (low + high) / 2 + rng.normal(0, 0.02, 2) * side
            both = (both - centre) * 2 / side
            crops.append(look.paint(both[:68], both[68:], rng))
            points.append(both[:68])
    clip = np.repeat(np.arange(identities), FRAMES)
    return Faces(np.stack(crops), np.stack(points).astype(np.float32), clip)


class Look:
    """Colours, light and background of an identity."""

    def __init__(self, rng: np.random.Generator):
        tone = rng.uniform(60, 240)
        self.skin = np.array([1.0, rng.uniform(0.72, 0.88), rng.uniform(0.5, 0.78)]) * tone
        self.hair = rng.uniform(10, 200) * np.array([1.0, rng.uniform(0.6, 1), rng.uniform(0.3, 0.9)])
        self.lips = self.skin * (rng.uniform(0.75, 1), rng.uniform(0.4, 0.75), rng.uniform(0.5, 0.85))
        self.iris, self.shirt = rng.uniform(20, 160, 3), rng.uniform(10, 240, 3)
        self.brow_width, self.light = rng.uniform(2, 5), rng.normal(0, 0.25, 2)
        self.fringe, self.volume = rng.uniform(0.2, 0.75), rng.uniform(1.05, 1.3)
        self.glasses = rng.random() < 0.15
        coarse = rng.integers(0, 255, (*rng.integers(3, 9, 2), 3)).astype(np.uint8)
        kind = cv2.INTER_CUBIC if rng.random() < 0.6 else cv2.INTER_NEAREST
        self.wall = cv2.resize(coarse, (3 * SIZE, 3 * SIZE), interpolation=kind)

    def paint(self, points: np.ndarray, top: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A crop (SIZE, SIZE, 3) of points (68, 2) and the outline of the forehead (9, 2), both in [-1, 1]."""
        of, S = parts(), 2 * SIZE  # drawn twice as large
        at, over = (points + 1) * (S / 2) - 0.5, (top + 1) * (S / 2) - 0.5
        x, y = rng.integers(0, 3 * SIZE - S, 2)
        image = np.ascontiguousarray(self.wall[y : y + S, x : x + S])
        jaw, width = at[of["jaw"]], float(np.linalg.norm(at[16] - at[0]))
        line = max(1, round(width / 90))
        middle = (at[0] + at[16]) / 2
        spin = float(np.degrees(np.arctan2(*(at[16] - at[0])[::-1])))
        crown = tuple(np.round(middle + 0.1 * (over[4] - middle)).astype(int).tolist())
        size = (round(self.volume * width / 2), round(self.volume * 1.15 * float(np.linalg.norm(over[4] - middle))))
        cv2.ellipse(image, crown, size, spin, 0, 360, self.hair.tolist(), -1, cv2.LINE_AA)
        below = np.array([jaw[5], jaw[11], jaw[11] + (0.05 * width, width), jaw[5] + (-0.05 * width, width)])
        _fill(image, below, self.skin * 0.7)
        _fill(
            image,
            below + ((-0.9, 0.75), (0.9, 0.75), (0.9, 1), (-0.9, 1)) * np.array([width / 2, width / 2]),
            self.shirt,
        )
        head = np.zeros((S, S), np.uint8)
        _fill(head, np.concatenate([jaw, over[::-1]]), np.array([255.0]))
        u, v = ((np.arange(S) - middle[0]) / width)[None], ((np.arange(S) - at[30, 1]) / width)[:, None]
        shade = (1.08 - 0.7 * (u * u + 0.6 * v * v) + self.light[0] * u + self.light[1] * v).clip(0.3, 1.3)
        skin = (self.skin * shade[..., None]).clip(0, 255)
        image = np.where(head[..., None] > 0, skin, image).astype(np.uint8)
        hairline = over[::-1] + self.fringe * 0.45 * (middle - over[4])
        _fill(image, np.concatenate([over, hairline]), self.hair)
        for name in ("right_brow", "left_brow"):
            _line(image, at[of[name]], self.hair * 0.8, max(1, round(self.brow_width * width / 90)))
        for name in ("right_eye", "left_eye"):
            eye, white = at[of[name]], np.zeros((S, S), np.uint8)
            _fill(white, eye, np.array([255.0]))
            inside = np.full((S, S, 3), 235, np.uint8)
            centre = tuple(np.round(eye.mean(0)).astype(int).tolist())
            cv2.circle(inside, centre, max(1, round(0.045 * width)), self.iris.tolist(), -1, cv2.LINE_AA)
            cv2.circle(inside, centre, max(1, round(0.02 * width)), (5, 5, 5), -1, cv2.LINE_AA)
            image = np.where(white[..., None] > 0, inside, image)
            _line(image, eye[:4], self.skin * 0.25, line)
            _line(image, eye[[3, 4, 5, 0]], self.skin * 0.6, line)
            if self.glasses:
                cv2.circle(image, centre, round(0.17 * width), (20, 20, 20), 2 * line, cv2.LINE_AA)
        dark = self.skin * 0.55
        _line(image, at[of["bridge"]] + (np.sign(self.light[0]) * -0.03 * width, 0), dark, line)
        _line(image, at[of["nostrils"]], dark, 2 * line)
        _fill(image, at[of["outer_lips"]], self.lips)
        _fill(image, at[of["inner_lips"]], np.array([50.0, 15, 15]))
        _line(image, at[of["inner_lips"]][[0, 1, 2, 3, 4]], self.lips * 0.5, line)
        _line(image, jaw, self.skin * 0.6, line)
        small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return (small + rng.normal(0, 3, small.shape)).clip(0, 255).astype(np.uint8)


def _fill(image: np.ndarray, outline: np.ndarray, colour: np.ndarray) -> None:
    cv2.fillPoly(image, [np.round(outline * 16).astype(np.int32)], colour.clip(0, 255).tolist(), cv2.LINE_AA, 4)


def _line(image: np.ndarray, points: np.ndarray, colour: np.ndarray, thick: int) -> None:
    whole = [np.round(points * 16).astype(np.int32)]
    cv2.polylines(image, whole, False, colour.clip(0, 255).tolist(), thick, cv2.LINE_AA, 4)


# ------------------------------------------------------------------------------------------------------ train, measure


def make_task(data: Crops, poses: np.ndarray, settings: list[str]) -> LandmarksTask:
    """The method on faces; `poses` (N, 68, 2)."""
    skeleton = face_skeleton()
    config = load_landmarks_config("tiny", None, [*SETTINGS, *settings])
    torch.manual_seed(config.seed)
    return LandmarksTask(data, Poses(poses, skeleton, facing=False), skeleton, config)


def error_percent(found: np.ndarray, points: np.ndarray) -> float:
    """Mean distance of points (N, 68, 2), in percent of that between the outer corners of the eyes."""
    apart = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)
    return float((100 * np.linalg.norm(found - points, axis=-1) / apart[:, None]).mean())


@torch.inference_mode()
def find(task: LandmarksTask, crops: np.ndarray) -> np.ndarray:
    """Points (N, 68, 2) in [-1, 1] of crops."""
    detector = task.detector.eval()
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    found = torch.cat([detector(images[n : n + 64]).keypoints[..., :2] for n in range(0, len(images), 64)])
    detector.train()
    return found.numpy()


def picture(crops: np.ndarray, found: np.ndarray, points: np.ndarray, count: int = 12) -> np.ndarray:
    """Rows of crops, of what was found and of the truth: RGB."""
    index, large = np.linspace(0, len(crops) - 1, count).astype(int), 2 * SIZE
    rows = []
    for marks in (None, found, points):
        tiles = [cv2.resize(crops[n], (large, large), interpolation=cv2.INTER_CUBIC) for n in index]
        for tile, n in zip(tiles, index, strict=True):
            for x, y in [] if marks is None else (marks[n] + 1) * (large / 2) - 0.5:
                cv2.circle(tile, (round(16 * float(x)), round(16 * float(y))), 24, (40, 255, 80), -1, cv2.LINE_AA, 4)
        rows.append(np.concatenate(tiles, 1))
    return np.concatenate(rows, 0)


def reproduce(folder: Path, settings: list[str], *, identities: int = 160, precision: str = "auto") -> dict[str, float]:
    """Train on drawn faces and measure on other identities: errors in percent, also of the mean pose and untrained."""
    faces, test = make_faces(identities, 1), make_faces(max(4, identities // 4), 3)
    prior = make_faces(identities, 2).points
    data = make_crops(faces.crops, faces.clip, np.arange(len(faces.clip)).astype(float))
    task = make_task(data, prior, settings)
    mean = np.nanmean(task.poses.draw(1000, np.random.default_rng(0)).xy, 0)[None]  # type: ignore[union-attr]
    found = {
        "mean_pose": error_percent(mean, test.points),
        "untrained": error_percent(find(task, test.crops), test.points),
    }
    train(task, run_dir=folder / "run", device="cpu", precision=precision, seed=task.config.seed, resume=True, ema=0.99,
          save_every=200, picture_every=0)  # fmt: skip
    task.detector.load_state_dict(load_networks(folder / "run")["detector"])
    points = find(task, test.crops)
    found["landmarks"] = error_percent(points, test.points)
    cv2.imwrite(str(folder / "faces.png"), picture(test.crops, points, test.points)[..., ::-1])
    write_text(folder / "faces.json", json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("reproduce/faces"))
    parser.add_argument("--identities", type=int, default=160)
    parser.add_argument(
        "--set", nargs="*", default=["steps.skeletons=600", "steps.figures=600", "steps.landmarks=1000"]
    )
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    start_logging()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, value in reproduce(arguments.folder, arguments.set, identities=arguments.identities).items():
        logger.info("%s: %.2f %% of the distance between the eyes", name, value)


if __name__ == "__main__":
    main()
