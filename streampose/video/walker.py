"""The picture of `--source test`: a drawn person walks to and fro and waves, before a still, textured wall.

Everything is a function of the time alone, so that two calls give the same picture on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

SIZE = (640, 480)
FPS = 30.0
STRIDE_SECONDS = 1.1  # one left and one right step
CROSSING_SECONDS = 7.0  # from one side of the picture to the other
SKIN, SHIRT, SLEEVE, TROUSERS, SHOE, HAIR = (
    (214, 168, 138), (178, 52, 48), (158, 44, 42), (46, 60, 96), (38, 34, 32), (58, 40, 30),
)  # fmt: skip
SHIFT = 4  # cv2 draws with 1/16 pixel


def draw_walker(seconds: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The picture at a time: (H, W, 3) uint8 RGB.

    Args:
        seconds: time since the start.
        size: (width, height).
    """
    image = _wall(size).copy()
    j = walker_joints(seconds, size)
    h = size[1] * 0.62
    facing = _facing(seconds)
    near, far = ("left", "right") if facing < 0 else ("right", "left")
    foot = np.array([j["pelvis"][0], size[1] * 0.955])
    cv2.ellipse(image, _point(foot), _length(0.16 * h, 0.018 * h), 0, 0, 360, (62, 56, 50), -1, cv2.LINE_AA, SHIFT)
    for side, shade in ((far, 0.72), (near, 1.0)):
        if side == near:
            _draw_trunk(image, j, h, facing)
        hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        _limb(image, hip, knee, 0.052 * h, 0.042 * h, _dim(TROUSERS, shade))
        _limb(image, knee, ankle, 0.042 * h, 0.028 * h, _dim(TROUSERS, shade))
        _limb(
            image,
            ankle + _offset(0, 0.015 * h),
            ankle + _offset(facing * 0.07 * h, 0.025 * h),
            0.026 * h,
            0.02 * h,
            SHOE,
        )
        shoulder, elbow, wrist = (j[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        _limb(image, shoulder, elbow, 0.036 * h, 0.028 * h, _dim(SLEEVE, shade))
        _limb(image, elbow, wrist, 0.027 * h, 0.021 * h, _dim(SKIN, shade))
    return image


def walker_joints(seconds: float, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Where the drawn person's joints are at a time: {name: (2,) xy pixels}."""
    width, height = size
    h = height * 0.62  # the person's height in pixels
    facing = _facing(seconds)
    crossing = (seconds / CROSSING_SECONDS) % 2.0
    x = width * (0.14 + 0.72 * (crossing if crossing < 1 else 2 - crossing))
    phase = 2 * np.pi * seconds / STRIDE_SECONDS
    pelvis = np.array([x, height * 0.93 - 0.5 * h + 0.012 * h * np.cos(2 * phase)])
    joints = {"pelvis": pelvis}
    lean = np.array([facing * 0.02 * h, 0.0])
    joints["neck"] = pelvis + _offset(0, -0.31 * h) + lean
    joints["head"] = joints["neck"] + _offset(facing * 0.012 * h, -0.085 * h)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        swing = np.sin(phase) * sign
        hip = pelvis + _offset(sign * facing * 0.02 * h, 0.01 * h)
        knee = hip + _turned(0.24 * h, facing * 0.42 * swing)
        bend = 0.12 + 0.55 * max(0.0, np.cos(phase) * sign)
        joints |= {f"{side}_hip": hip, f"{side}_knee": knee}
        joints[f"{side}_ankle"] = knee + _turned(0.235 * h, facing * (0.42 * swing - bend))
        shoulder = joints["neck"] + _offset(sign * facing * 0.025 * h, 0.035 * h)
        if side == "left":  # this arm waves
            upper, lower = facing * 2.05, facing * (2.75 + 0.5 * np.sin(2 * np.pi * 1.3 * seconds))
        else:
            upper, lower = -facing * 0.5 * swing, -facing * 0.5 * swing + facing * 0.35
        elbow = shoulder + _turned(0.165 * h, upper)
        joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow}
        joints[f"{side}_wrist"] = elbow + _turned(0.15 * h, lower)
    return joints


def _facing(seconds: float) -> float:
    return 1.0 if (seconds / CROSSING_SECONDS) % 2.0 < 1.0 else -1.0


def _offset(x: float, y: float) -> np.ndarray:
    return np.array([x, y])


def _turned(length: float, angle: float) -> np.ndarray:
    """A segment that hangs down at angle 0 and points right at a quarter turn."""
    return np.array([length * np.sin(angle), length * np.cos(angle)])


def _draw_trunk(image: np.ndarray, j: dict[str, np.ndarray], h: float, facing: float) -> None:
    _limb(image, j["neck"] + _offset(0, 0.075 * h), j["pelvis"] + _offset(0, -0.03 * h), 0.078 * h, 0.066 * h, SHIRT)
    _limb(
        image, j["pelvis"] + _offset(0, -0.02 * h), j["pelvis"] + _offset(0, 0.02 * h), 0.066 * h, 0.062 * h, TROUSERS
    )
    _limb(image, j["neck"] + _offset(0, 0.02 * h), j["neck"] + _offset(0, -0.03 * h), 0.026 * h, 0.026 * h, SKIN)
    axes = _length(0.05 * h, 0.066 * h)
    cv2.ellipse(image, _point(j["head"]), axes, 0, 0, 360, SKIN, -1, cv2.LINE_AA, SHIFT)
    top = j["head"] + _offset(-facing * 0.012 * h, -0.02 * h)
    cv2.ellipse(image, _point(top), _length(0.05 * h, 0.052 * h), 0, 160, 380, HAIR, -1, cv2.LINE_AA, SHIFT)


def _limb(
    image: np.ndarray, start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float, colour: tuple
) -> None:
    """A tapered capsule."""
    along = end - start
    across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    outline = np.array(
        [
            start + across * start_radius,
            end + across * end_radius,
            end - across * end_radius,
            start - across * start_radius,
        ]
    )
    cv2.fillConvexPoly(image, np.round(outline * 2**SHIFT).astype(np.int32), colour, cv2.LINE_AA, SHIFT)
    for centre, radius in ((start, start_radius), (end, end_radius)):
        cv2.circle(image, _point(centre), round(radius * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)


@lru_cache(maxsize=4)
def _wall(size: tuple[int, int]) -> np.ndarray:
    """A plastered wall and a wooden floor: (H, W, 3) uint8."""
    width, height = size
    rng = np.random.default_rng(7)
    coarse = cv2.resize(rng.normal(0, 1, (height // 24 + 2, width // 24 + 2)), size, interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), 1.2)
    texture = (7 * coarse + 12 * fine)[..., None]
    light = np.linspace(1.06, 0.9, width)[None, :, None]
    image = (np.array([168.0, 176.0, 170.0]) + texture) * light
    floor = int(height * 0.86)
    boards = 10 * np.sign(np.sin(np.arange(width) * 2 * np.pi / (width / 9)))[None, :, None]
    image[floor:] = (np.array([128.0, 104.0, 80.0]) + texture[floor:] + boards) * light
    image[floor - 5 : floor] = 225
    cv2.rectangle(
        image, (int(width * 0.08), int(height * 0.1)), (int(width * 0.26), int(height * 0.36)), (92, 112, 150), -1
    )
    cv2.rectangle(
        image, (int(width * 0.7), int(height * 0.08)), (int(width * 0.92), int(height * 0.3)), (190, 164, 96), -1
    )
    return np.clip(image, 0, 255).astype(np.uint8)


def _point(xy: np.ndarray) -> tuple[int, int]:
    return round(float(xy[0]) * 2**SHIFT), round(float(xy[1]) * 2**SHIFT)


def _length(x: float, y: float) -> tuple[int, int]:
    return round(x * 2**SHIFT), round(y * 2**SHIFT)


def _dim(colour: tuple[int, int, int], shade: float) -> tuple[int, int, int]:
    red, green, blue = (round(c * shade) for c in colour)
    return red, green, blue
