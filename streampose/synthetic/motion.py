"""Procedural motions: a timetable of activities becomes targets, the targets become bone rotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from streampose.synthetic.activities import ARMS, GOING, HAND_CHANNELS, STAND, STAYING
from streampose.synthetic.rig import BONE, BONES, Motion, Rig, bone_heads

CROSSFADE_SECONDS = 0.45
# Nobody stands still: slow swaying that is added to every activity, in the units of the targets.
FIDGET = {
    "pelvis_pitch": 0.015, "spine_pitch": 0.025, "spine_roll": 0.02, "spine_yaw": 0.04, "neck_pitch": 0.04,
    "neck_yaw": 0.1, "neck_roll": 0.03,
    **{f"{side}_hand_{axis}": 0.025 for side in ("left", "right") for axis in ("x", "out", "z")},
}  # fmt: skip


@dataclass(frozen=True)
class Region:
    """Where on the ground a subject may walk: an ellipse.

    Attributes:
        centre: (2,) metres.
        axes: (2, 2) unit rows: along the camera's right, along its view.
        half: (2,) half extents along these axes in metres.
    """

    centre: np.ndarray
    axes: np.ndarray
    half: np.ndarray

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """A random point, (2,)."""
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
        return self.centre + (radius * np.array([np.cos(angle), np.sin(angle)]) * self.half) @ self.axes

    def excess(self, point: np.ndarray) -> float:
        """1 on the border of the ellipse, 0 at its centre."""
        return float(np.linalg.norm((self.axes @ (point - self.centre)) / self.half))


def procedural_motion(rig: Rig, region: Region, frames: int, fps: float, rng: np.random.Generator) -> Motion:
    """A person who goes from one random activity to the next inside a region, facing all ways."""
    t = np.arange(frames) / fps
    targets = _timetable(t, (GOING, STAYING), dict.fromkeys(STAND), (1.1, 2.6), rng)
    arms = _timetable(t, (ARMS,), {name: targets[name] for name in HAND_CHANNELS}, (1.2, 3.0), rng)
    for name, values in arms.items():
        targets[name] = targets[name] + targets["arms_free"] * (values - targets[name])
    for name, amount in FIDGET.items():
        rate, phase = rng.uniform(0.15, 0.9, 2), rng.uniform(0, 2 * np.pi, 2)
        targets[name] = targets[name] + amount * np.sin(2 * np.pi * rate * t[:, None] + phase).sum(1)
    path, yaw = _walk_path(targets["speed"], targets["turn"], region, fps, rng)
    return stay_above_ground(rig, solve(rig, targets, path, yaw))


def _timetable(t, menus, base, seconds, rng) -> dict[str, np.ndarray]:
    """Random activities one after the other with smooth cross-fades.

    Args:
        menus: dicts activity -> how often, which take turns; None instead of an activity keeps the base.
        base: channel -> (T,) values, or None for those of `STAND`.
        seconds: shortest and longest activity.
    """
    base = {name: np.full(len(t), STAND[name]) if value is None else value for name, value in base.items()}
    result = {name: np.zeros(len(t)) for name in base}
    total = np.zeros(len(t))
    start = -rng.uniform(0, seconds[0])
    number = int(rng.integers(len(menus)))
    while start <= t[-1] + CROSSFADE_SECONDS:
        end = start + rng.uniform(*seconds)
        menu = menus[number % len(menus)]
        odds = np.array(list(menu.values()), float)
        activity = list(menu)[rng.choice(len(menu), p=odds / odds.sum())]
        fade = np.clip((t - start) / CROSSFADE_SECONDS + 0.5, 0, 1) * np.clip((end - t) / CROSSFADE_SECONDS + 0.5, 0, 1)
        weight = fade * fade * (3 - 2 * fade)
        values = base if activity is None else base | activity(np.maximum(t - start, 0.0), rng)
        total += weight
        for name in result:
            result[name] += weight * values[name]
        start, number = end, number + 1
    return {name: value / total for name, value in result.items()}


def _walk_path(speed, turn, region: Region, fps: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Steer from waypoint to waypoint, each far from the one before; slow down where the way leads out of the region.

    Returns:
        (T, 2) positions and (T,) headings.
    """

    def far_from(position: np.ndarray) -> np.ndarray:
        """Rather across the image than along the view, to leave no part of the scene hidden for long."""
        points = [region.sample(rng) for _ in range(4)]
        away = [np.abs(region.axes @ (point - position)) @ (1.0, 0.4) for point in points]
        return points[int(np.argmax(away))]

    position, heading, rate = region.sample(rng), rng.uniform(-np.pi, np.pi), 0.0
    goal = far_from(position)
    path, yaw = np.empty((len(speed), 2)), np.empty(len(speed))
    for frame in range(len(speed)):
        path[frame], yaw[frame] = position, heading
        if np.linalg.norm(goal - position) < 0.3:
            goal = far_from(position)
        wanted = np.arctan2(goal[1] - position[1], goal[0] - position[0])
        error = (wanted - heading + np.pi) % (2 * np.pi) - np.pi
        moving = min(1.0, speed[frame] / 0.5)
        wanted_rate = moving * np.clip(4 * error, -3.0, 3.0) + (1 - moving) * turn[frame]
        rate += (wanted_rate - rate) * min(1.0, 6 / fps)
        heading += rate / fps
        velocity = speed[frame] * np.array([np.cos(heading), np.sin(heading)])
        leaving = region.excess(position + 0.2 * velocity) > max(1.0, region.excess(position))
        position = position + velocity * (0.2 if leaving else max(0.3, np.cos(error))) / fps
    return path, yaw


def stay_above_ground(rig: Rig, motion: Motion) -> Motion:
    """Lift the body in those frames in which a joint would sink into the ground."""
    lift = np.maximum(-_clearance(rig, motion), 0)
    return Motion(motion.rotations, motion.root + lift[:, None] * (0, 0, 1))


def stand_on_ground(rig: Rig, motion: Motion, fps: float) -> Motion:
    """Shift a recorded body up or down, slowly, until it touches the ground; jumps of under a second stay jumps."""
    window = max(1, round(1.2 * fps))
    floor = uniform_filter1d(minimum_filter1d(_clearance(rig, motion), window, mode="nearest"), window, mode="nearest")
    return stay_above_ground(rig, Motion(motion.rotations, motion.root - floor[:, None] * (0, 0, 1)))


def _clearance(rig: Rig, motion: Motion) -> np.ndarray:
    """Height of the lowest part of the body over the ground: (T,)."""
    thickness = np.full(len(BONES), 0.05)
    thickness[[BONE[bone] for bone in ("pelvis", "spine", "chest", "head")]] = 0.09
    thickness[[BONE["left_foot"], BONE["right_foot"]]] = rig.ankle_height
    return (bone_heads(rig, motion)[..., 2] - thickness).min(1)


def solve(rig: Rig, targets: dict[str, np.ndarray], path: np.ndarray, yaw: np.ndarray) -> Motion:
    """Bone rotations that reach the targets, by analytic two-bone inverse kinematics.

    Args:
        targets: the channels of `activities.STAND`, each (T,).
        path: (T, 2) ground position of the pelvis; yaw: (T,) heading, 0 along the world's x.
    """
    T = len(yaw)
    rotations = np.empty((T, len(BONES), 3, 3))
    leg, arm = sum(rig.leg), sum(rig.arm)
    heading = _turn(2, yaw)
    pelvis = heading @ _turn(1, targets["pelvis_pitch"]) @ _turn(0, 0.4 * targets["spine_roll"] * 0.5)
    half_spine = (
        _turn(1, targets["spine_pitch"] / 2) @ _turn(0, targets["spine_roll"] / 2) @ _turn(2, targets["spine_yaw"] / 2)
    )
    spine = pelvis @ half_spine
    chest = spine @ half_spine
    neck = (
        chest @ _turn(1, targets["neck_pitch"] / 2) @ _turn(2, targets["neck_yaw"] / 2) @ _turn(0, targets["neck_roll"])
    )
    head = neck @ _turn(1, targets["neck_pitch"] / 2) @ _turn(2, targets["neck_yaw"] / 2)
    for name, value in {"pelvis": pelvis, "spine": spine, "chest": chest, "neck": neck, "head": head}.items():
        rotations[:, BONE[name]] = value

    root = np.concatenate([path, (targets["pelvis_z"] * leg + rig.ankle_height)[:, None]], -1)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip_rest = rig.heads[BONE[f"{side}_thigh"]]
        hip = root + pelvis @ hip_rest
        flat_hip = root + heading @ hip_rest
        foot_turn = heading @ _turn(2, sign * targets[f"{side}_foot_toe"])
        offset = np.stack([targets[f"{side}_foot_x"], sign * targets[f"{side}_foot_out"], np.zeros(T)], -1) * leg
        ankle = flat_hip + np.einsum("tij,tj->ti", heading, offset)
        ankle[:, 2] = rig.ankle_height + targets[f"{side}_foot_z"] * leg
        knee_pole = foot_turn @ np.array([1.0, 0.0, 0.0])
        thigh, shin = two_bone(hip, ankle, *rig.leg, knee_pole, bend=1.0)
        rotations[:, BONE[f"{side}_thigh"]], rotations[:, BONE[f"{side}_shin"]] = thigh, shin
        rotations[:, BONE[f"{side}_foot"]] = foot_turn @ _turn(1, targets[f"{side}_foot_pitch"])

        hand = np.stack([targets[f"{side}_hand_{axis}"] for axis in ("x", "out", "z")], -1) * (1.0, sign, 1.0)
        shrug = np.clip(targets[f"{side}_hand_z"], 0, 1) * 0.3
        collar = chest @ _turn(0, sign * shrug)
        rotations[:, BONE[f"{side}_collar"]] = collar
        elbow_pole = np.stack([np.full(T, -0.7), sign * targets[f"{side}_elbow_out"], np.full(T, -0.5)], -1)
        upper, fore = two_bone(
            np.zeros((T, 3)), np.einsum("tij,tj->ti", chest, hand * arm), *rig.arm,
            np.einsum("tij,tj->ti", chest, elbow_pole), bend=-1.0,
        )  # fmt: skip
        rotations[:, BONE[f"{side}_upper_arm"]], rotations[:, BONE[f"{side}_forearm"]] = upper, fore
        rotations[:, BONE[f"{side}_hand"]] = fore
    return Motion(rotations, root)


def two_bone(
    start: np.ndarray, end: np.ndarray, first: float, second: float, pole: np.ndarray, bend: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations of two hanging bones (rest direction -z) whose chain from `start` reaches `end` as far as it can.

    Args:
        start, end: (T, 3); first, second: lengths of the bones.
        pole: (T, 3) side on which the middle joint lies.
        bend: +1 where the middle joint bends towards the body's front (knee), -1 towards its back (elbow).

    Returns:
        (T, 3, 3) rotations of the first and of the second bone, with the hinge along y.
    """
    line = end - start
    distance = np.linalg.norm(line, axis=-1, keepdims=True)
    line = line / np.maximum(distance, 1e-9)
    distance = np.clip(distance, 1.02 * abs(first - second) + 0.12 * (first + second), 0.9995 * (first + second))
    pole = pole - (pole * line).sum(-1, keepdims=True) * line
    pole = pole / np.maximum(np.linalg.norm(pole, axis=-1, keepdims=True), 1e-6)
    along = (distance**2 + first**2 - second**2) / (2 * distance)
    aside = np.sqrt(np.maximum(first**2 - along**2, 0))
    middle = along * line + aside * pole
    hinge = np.cross(-line, bend * pole)
    return _bone_frame(middle / first, hinge), _bone_frame((distance * line - middle) / second, hinge)


def _bone_frame(direction: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    z = -direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    y = hinge / np.maximum(np.linalg.norm(hinge, axis=-1, keepdims=True), 1e-9)
    return np.stack([np.cross(y, z), y, z], -1)


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations about the x, y or z axis: (T,) radians -> (T, 3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.zeros((*np.shape(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    rotation[..., axis, axis] = 1
    rotation[..., a, a] = rotation[..., b, b] = c
    rotation[..., a, b], rotation[..., b, a] = -s, s
    return rotation
