"""Silhouettes of random poses, drawn from nothing but a skeleton file: the warm-up of `methods/mask.py`.

A skeleton file says how long and thick the bones are, where they rest, how far they swing and how the whole subject
turns. That is enough to draw endless masks whose joints are known. A network that has learnt to read them tells the
joints of masks of real videos well enough to start from, for any subject that a skeleton file describes. No pose, no
body and no picture of anything enters.

Front and back: a silhouette is the same for a pose and for its mirror image in depth, in which left and right change
names. Where a subject turns every way, both are equally likely, so of the two the one is taught whose left side lies
to the right of the picture (as if it faced the camera), else the network would learn the mean of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streampose.structures import Skeleton

LEVELS = (0.15, 0.45, 1.0)  # how far a bone swings, as a share of its swing_degrees; drawn for each bone
LEVEL_ODDS = (0.35, 0.35, 0.30)
MIRRORED_ODDS = 0.35  # of a pose in which left and right limbs do the same
LEANING_ODDS = 0.12
AZIMUTH_DEGREES = 35.0  # how far a bone that bends `toward` one side strays from it


@dataclass(frozen=True)
class Figures:
    """B random figures in standing heights: joints (B, K, 3), half thickness of the bones at both ends (B, N, 2)."""

    joints: np.ndarray
    radius: np.ndarray


def random_figures(skeleton: Skeleton, count: int, rng: np.random.Generator) -> Figures:
    """Draw poses, proportions and views of a subject: x right, y down, z forward, the root at the origin."""
    K, bones = skeleton.num_joints, skeleton.bones
    flip = skeleton.flip_index
    bone_of_child = {bone.child: n for n, bone in enumerate(bones)}
    partner = [bone_of_child.get(flip[bone.child], n) for n, bone in enumerate(bones)]

    lengths = np.array([bone.length for bone in bones]) * rng.normal(1, 0.07, (count, len(bones))).clip(0.8, 1.2)
    swings = np.stack([_swing_vectors(bone, count, rng) for bone in bones], 1)  # (B, N, 3) rotation vectors
    mirrored = rng.random(count) < MIRRORED_ODDS
    for n, other in enumerate(partner):
        if other < n:  # left and right limbs are equally long, and sometimes do the same
            lengths[:, n] = lengths[:, other]
            swings[mirrored, n] = swings[mirrored, other] * (1, -1, -1)

    joints = np.zeros((count, K, 3))
    frames: dict[int, np.ndarray] = {skeleton.root: _view_rotations(skeleton, count, rng)}
    for n, bone in enumerate(bones):
        frames[bone.child] = frames[bone.parent] @ _rotations(swings[:, n])
        joints[:, bone.child] = joints[:, bone.parent] + lengths[:, n, None] * (
            frames[bone.child] @ np.asarray(bone.direction)
        )

    build = rng.lognormal(0, 0.2, (count, 1, 1))
    radius = np.array([bone.radius for bone in bones])[None, :, None] * build
    radius = radius * rng.lognormal(0, 0.15, (count, len(bones), 2))
    for n, other in enumerate(partner):
        if other < n:
            radius[:, n] = radius[:, other]
    return Figures(joints, radius.clip(0.008, None))


def facing_sign(skeleton: Skeleton, joints: np.ndarray) -> np.ndarray:
    """+1 where the left side lies to the right of the picture, -1 elsewhere: (B, K, 2 or more) -> (B,)."""
    return np.where(width_across(skeleton, joints) < 0, -1.0, 1.0)


def width_across(skeleton: Skeleton, joints: np.ndarray) -> np.ndarray:
    """How far the trunk's left side lies to the right of its right side: (B, K, 2 or more) -> (B,); 1 for no sides."""
    if not skeleton.flip_pairs:
        return np.ones(len(joints))
    left, right = np.array(skeleton.flip_pairs).T
    limbs = {bone.child for bone in skeleton.bones if bone.swing_degrees > 45}
    trunk = np.array([index for index in range(len(left)) if left[index] not in limbs] or range(len(left)))
    return (joints[:, left[trunk], 0] - joints[:, right[trunk], 0]).mean(-1)


def turns_every_way(skeleton: Skeleton) -> bool:
    """True where the subject is seen from the front as often as from behind, which no silhouette can tell apart."""
    return max(skeleton.turn_degrees[:2]) > 90


def face_camera(skeleton: Skeleton, joints: np.ndarray) -> np.ndarray:
    """Of a pose and its mirror image in depth, the one that faces the camera; both have the same silhouette."""
    if not turns_every_way(skeleton):
        return joints
    away = facing_sign(skeleton, joints) < 0
    joints = joints.copy()
    joints[away] = joints[away][:, skeleton.flip_index] * (1, 1, -1)
    return joints


def silhouettes(skeleton: Skeleton, count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw masks of random figures, as imperfect as masks of videos are, in square crops around the figure.

    Args:
        count: B.
        size: side of the masks in pixels.

    Returns:
        masks (B, size, size) uint8 0-255 and joints (B, K, 3) in [-1, 1] over the crop (z in the same unit, about the
        root); joints may lie outside the crop.
    """
    figures = random_figures(skeleton, count, rng)
    joints, radius = _place(skeleton, face_camera(skeleton, figures.joints), figures.radius, rng)
    masks = np.empty((count, size, size), np.uint8)
    before: np.ndarray | None = None
    for b in range(count):
        canvas = np.zeros((2 * size, 2 * size), np.uint8)
        lost = int(rng.integers(len(skeleton.bones))) if rng.random() < 0.2 else -1
        for n, limb in enumerate(_limbs(skeleton, joints[b], radius[b])):
            if n != lost:
                _draw_limb(canvas, limb, 255)
        alone = canvas.copy()
        if before is not None and rng.random() < 0.1:  # a part of another subject
            canvas |= np.roll(before, int(rng.choice((-1, 1)) * rng.uniform(0.6, 1.0) * size), 1)
        before = alone
        masks[b] = cv2.resize(_spoil(canvas, joints[b, :, :2], rng), (size, size), interpolation=cv2.INTER_AREA)
    return masks, joints.astype(np.float32)


def dolls(skeleton: Skeleton, backgrounds: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint random figures in random colours on pictures, near limbs over far ones.

    They show what no mask does: limbs in front of the body, and which limb is nearer. Left and right follow the rule of
    the silhouettes; z is true, because a picture shows it.

    Args:
        backgrounds: (B, S, S, 3) uint8.

    Returns:
        images (B, S, S, 3) uint8 and joints (B, K, 3) as in `silhouettes`.
    """
    count, size = backgrounds.shape[:2]
    figures = random_figures(skeleton, count, rng)
    joints, radius = _place(skeleton, figures.joints, figures.radius, rng)
    images = np.empty_like(backgrounds)
    for b in range(count):
        canvas: np.ndarray = cv2.resize(backgrounds[b], (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
        colours = _bone_colours(skeleton, rng)
        light = rng.normal(0, 0.3, 2)
        shade = rng.uniform(0.05, 0.35)
        inside = np.zeros(canvas.shape[:2], np.uint8)
        limbs = _limbs(skeleton, joints[b], radius[b])
        for n in np.argsort([-(limb.z - limb.radius.mean()) for limb in limbs]):  # far to near
            limb = limbs[n]
            colour = colours[limb.bone]
            _draw_limb(inside, limb, 255)
            _draw_limb(canvas, limb, (colour * (1 - shade)).tolist())
            lit = Limb(limb.ends + light * limb.radius.mean(), 0.65 * limb.radius, limb.z, limb.bone)
            _draw_limb(canvas, lit, np.minimum(colour * (1 + shade), 255).tolist())
        grain = int(rng.integers(size // 8, size))
        noise = 1 + rng.normal(0, rng.uniform(0.02, 0.2), (grain, grain)).astype(np.float32)
        texture = cv2.resize(noise, (2 * size, 2 * size))[..., None]
        painted = np.where(inside[..., None] > 0, canvas * texture, canvas).clip(0, 255).astype(np.uint8)
        images[b] = cv2.resize(painted, (size, size), interpolation=cv2.INTER_AREA)
    if turns_every_way(skeleton):
        away = facing_sign(skeleton, joints) < 0
        joints[away] = joints[away][:, skeleton.flip_index]
    return images, joints.astype(np.float32)


@dataclass(frozen=True)
class Limb:
    """What is drawn of a bone: ends (2, 2) in [-1, 1], half thickness at both, depth, and the bone's number."""

    ends: np.ndarray
    radius: np.ndarray
    z: float
    bone: int


def _place(
    skeleton: Skeleton, joints: np.ndarray, radius: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph figures and cut them out as a subject's box does, a little off, sometimes too tight.

    Returns:
        joints (B, K, 3) in [-1, 1] over the crop, z in the same unit about the root; half thickness in that unit.
    """
    count = len(joints)
    distance = rng.uniform(2.0, 8.0, (count, 1))  # camera distance in standing heights: some perspective
    xy = joints[..., :2] * (distance / (distance + joints[..., 2]))[..., None]
    reach = 0.8 * radius.max((1, 2))[:, None]
    low, high = xy.min(1) - reach, xy.max(1) + reach
    tight, wide = rng.uniform(0.7, 1.0, count), rng.uniform(1.02, 1.5, count)
    side = (high - low).max(-1) * np.where(rng.random(count) < 0.1, tight, wide)
    centre = (low + high) / 2 + rng.normal(0, 0.04, (count, 2)) * side[:, None]
    scale = (2.0 / side)[:, None, None]  # standing heights -> [-1, 1]
    z = joints[..., 2:] - joints[:, [skeleton.root], 2:]
    return np.concatenate([(xy - centre[:, None]) * scale, z * scale], -1), radius * scale


def _swing_vectors(bone, count: int, rng: np.random.Generator) -> np.ndarray:
    """(B, 3) rotation vectors that swing a bone away from rest, `toward` its side where it has one, and twist it."""
    rest = np.asarray(bone.direction)
    level = rng.choice(LEVELS, count, p=LEVEL_ODDS)
    angle = np.radians(bone.swing_degrees) * level * rng.random(count) ** 0.7
    first = np.cross(rest, (0.0, 0.0, 1.0) if abs(rest[2]) < 0.9 else (1.0, 0.0, 0.0))
    first /= np.linalg.norm(first)
    second = np.cross(rest, first)
    azimuth = rng.uniform(-np.pi, np.pi, count)
    toward = np.asarray(bone.toward)
    if toward.any():
        axis = np.cross(rest, toward)
        azimuth = np.arctan2(axis @ second, axis @ first) + np.radians(AZIMUTH_DEGREES) * rng.normal(0, 1, count)
    swing = np.cos(azimuth)[:, None] * first + np.sin(azimuth)[:, None] * second
    twist = np.radians(0.2 * bone.swing_degrees) * level * rng.normal(0, 1, count)
    return swing * angle[:, None] + rest * twist[:, None]


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors to matrices (Rodrigues): (B, 3) -> (B, 3, 3)."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    x, y, z = (vectors / np.maximum(angle, 1e-9)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    angle = angle[..., None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _view_rotations(skeleton: Skeleton, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whole-body turns about y, then x, then z, each evenly within the skeleton's turn_degrees: (B, 3, 3).

    A few lean much further: who crawls, falls or lies is seen from unusual sides.
    """
    reach = np.where(rng.random((count, 1)) < LEANING_ODDS, 5.0, 1.0) * skeleton.turn_degrees
    turns = np.radians(rng.uniform(-1, 1, (count, 3)) * np.minimum(reach, np.maximum(90.0, skeleton.turn_degrees)))
    x, y, z = (_rotations(turns[:, [axis]] * np.eye(3)[axis]) for axis in range(3))
    return z @ x @ y


def _limbs(skeleton: Skeleton, joints: np.ndarray, radius: np.ndarray) -> list[Limb]:
    """The bones, and the trunk's extra connections (the cascade's tight form): (K, 3), (N, 2) -> what is drawn."""
    limbs = []
    thickness = {skeleton.root: float(radius[0].mean())}
    into = {skeleton.root: 0}
    for n, bone in enumerate(skeleton.bones):
        ends = joints[[bone.parent, bone.child]]
        along = ends[1] - ends[0]
        ends[1] += (bone.reach - 1) * radius[n, 1] * along / max(float(np.linalg.norm(along)), 1e-6)
        limbs.append(Limb(ends[:, :2], radius[n], float(ends[:, 2].mean()), n))
        thickness[bone.child], into[bone.child] = float(radius[n].mean()), n
    for start, end in skeleton.connections.get("tight", ()):
        r = 0.6 * min(thickness[start], thickness[end])
        ends = joints[[start, end]]
        limbs.append(Limb(ends[:, :2], np.array([r, r]), float(ends[:, 2].mean()), into[start]))
    return limbs


def _draw_limb(canvas: np.ndarray, limb: Limb, colour: int | list[float]) -> None:
    """Draw a tapered capsule, in place."""
    half = canvas.shape[0] / 2
    p, q = (limb.ends + 1) * half - 0.5
    along = q - p
    normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    rp, rq = limb.radius * half
    quad = np.stack([p + normal * rp, q + normal * rq, q - normal * rq, p - normal * rp])
    cv2.fillConvexPoly(canvas, np.round(quad * 8).astype(np.int32), colour, cv2.LINE_8, 3)
    for centre, r in ((p, rp), (q, rq)):
        x, y = np.round(centre * 8).astype(int)
        cv2.circle(canvas, (int(x), int(y)), max(1, int(r * 8)), colour, -1, cv2.LINE_8, 3)


def _bone_colours(skeleton: Skeleton, rng: np.random.Generator) -> np.ndarray:
    """(N, 3) colours: few on one figure, often the parent's, mostly the same left and right."""
    palette = rng.uniform(0, 255, (int(rng.integers(2, 6)), 3))
    chosen: dict[int, int] = {skeleton.root: int(rng.integers(len(palette)))}
    for bone in skeleton.bones:
        partner = skeleton.flip_index[bone.child]
        if partner in chosen and rng.random() < 0.9:
            chosen[bone.child] = chosen[partner]
        elif rng.random() < 0.6:
            chosen[bone.child] = chosen[bone.parent]
        else:
            chosen[bone.child] = int(rng.integers(len(palette)))
    return np.stack([palette[chosen[bone.child]] for bone in skeleton.bones])


def _spoil(mask: np.ndarray, xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What background subtraction does to a silhouette: frayed, coarse, with holes, gaps, blobs and shadows."""
    size = mask.shape[0]
    kind = rng.random(7)
    pixels = (xy + 1) * (size / 2) - 0.5
    if kind[0] < 0.4:  # loose clothes and hair: bulges about joints
        for joint in rng.integers(0, len(pixels), rng.integers(1, 4)):
            x, y = pixels[joint] + rng.normal(0, 0.02 * size, 2)
            cv2.circle(mask, (int(x), int(y)), int(size * rng.uniform(0.015, 0.06)), 255, -1)
    if kind[1] < 0.3:  # a shadow at the lowest point
        x, y = pixels[pixels[:, 1].argmax()]
        wide, high = size * rng.uniform(0.04, 0.25), size * rng.uniform(0.01, 0.05)
        x, tilt = x + rng.uniform(-0.8, 0.8) * wide, float(rng.uniform(-20, 20))
        cv2.ellipse(mask, (int(x), int(y)), (int(wide), int(high)), tilt, 0, 360, 255, -1)
    if kind[2] < 0.6:
        thicker = rng.random() < 0.7
        amount = int(rng.integers(1, 6 if thicker else 3))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * amount + 1, 2 * amount + 1))
        mask = cv2.dilate(mask, kernel) if thicker else cv2.erode(mask, kernel)
    if kind[3] < 0.4:  # holes and gaps where the subject looks like its background
        for _ in range(rng.integers(1, 5)):
            first, second = pixels[rng.integers(0, len(pixels), 2)]
            x, y = first + rng.random() * (second - first) + rng.normal(0, 0.03 * size, 2)
            axes = (int(size * rng.uniform(0.02, 0.1)), int(size * rng.uniform(0.015, 0.06)))
            cv2.ellipse(mask, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 0, -1)
    if kind[4] < 0.12:  # blobs of noise elsewhere
        for _ in range(rng.integers(1, 3)):
            x, y = rng.integers(0, size, 2)
            cv2.circle(mask, (int(x), int(y)), int(size * rng.uniform(0.01, 0.04)), 255, -1)
    if kind[5] < 0.5:  # a frayed edge
        noise = cv2.resize(rng.normal(0, 70, (size // 4, size // 4)).astype(np.float32), (size, size))
        soft = cv2.GaussianBlur(mask, (0, 0), size / 80).astype(np.float32)
        mask = (
            np.where(soft + noise > 127, 255, 0).astype(np.uint8)
            if kind[5] < 0.25
            else ((soft > 127) * 255).astype(np.uint8)
        )
    if kind[6] < 0.4:  # modelled small and enlarged
        small = int(rng.integers(size // 5, size // 2))
        mask = cv2.resize(cv2.resize(mask, (small, small), interpolation=cv2.INTER_AREA), (size, size))
        mask = ((mask > 127) * 255).astype(np.uint8)
    return mask
