"""What people do: each activity gives the targets of the pelvis, trunk, feet and hands over time.

Targets are free of a person's size: `pelvis_z` is in units of the standing hip height, feet in units of the leg's
length (forward, outward from the hip, up from the ground), hands in units of the arm's length (forward, outward, up
from the shoulder, in the chest's frame), angles in radians. `speed` is in metres/s, `turn` in radians/s. An activity of
the legs also says what the arms do; an activity of the arms overrides it as far as `arms_free` (0 to 1) lets it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Targets = dict[str, np.ndarray | float]

STAND: dict[str, float] = {
    "speed": 0.0, "turn": 0.0, "pelvis_z": 0.985, "pelvis_pitch": 0.0,
    "spine_pitch": 0.04, "spine_roll": 0.0, "spine_yaw": 0.0, "neck_pitch": 0.05, "neck_yaw": 0.0, "neck_roll": 0.0,
    **{f"{side}_foot_{axis}": value for side in ("left", "right")
       for axis, value in (("x", 0.0), ("out", 0.03), ("z", 0.0), ("pitch", 0.0), ("toe", 0.15))},
    **{f"{side}_hand_{axis}": value for side in ("left", "right")
       for axis, value in (("x", 0.08), ("out", 0.12), ("z", -0.93))},
    "left_elbow_out": 0.5, "right_elbow_out": 0.5, "arms_free": 1.0,
}  # fmt: skip
HAND_CHANNELS = tuple(name for name in STAND if "_hand_" in name or "_elbow_" in name)
SIDES = ("left", "right")


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _hands(left: tuple[float, float, float], right: tuple[float, float, float] | None = None) -> Targets:
    targets: Targets = {}
    for side, hand in zip(SIDES, (left, right or left), strict=True):
        for axis, value in zip(("x", "out", "z"), hand, strict=True):
            targets[f"{side}_hand_{axis}"] = value
    return targets


def _jitter(rng: np.random.Generator, values: tuple[float, ...], amount: float) -> tuple[float, float, float]:
    x, out, z = (value + rng.normal(0, amount) for value in values)
    return x, out, z


def _cycle(phase: np.ndarray, stance: float) -> tuple[np.ndarray, np.ndarray]:
    """A foot's way through one step: forward position in [-1, 1] and how far it is lifted in [0, 1]."""
    phase = phase % 1.0
    swing = _smooth((phase - stance) / (1 - stance))
    forward = np.where(phase < stance, 1 - 2 * phase / stance, -1 + 2 * swing)
    lift = np.where(phase < stance, 0.0, np.sin(np.pi * np.clip((phase - stance) / (1 - stance), 0, 1)))
    return forward, lift


# Legs and trunk -------------------------------------------------------------------------------------------------------


def stand(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Standing with the weight shifting from leg to leg, looking about."""
    sway = rng.uniform(0.3, 0.8) * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * t + rng.uniform(0, 6))
    width = rng.uniform(0.0, 0.15)
    return {
        "spine_roll": 0.06 * sway, "spine_yaw": rng.normal(0, 0.25) + 0.1 * sway,
        "neck_yaw": rng.normal(0, 0.5) + 0.3 * sway,
        "left_foot_out": width, "right_foot_out": width, "pelvis_z": 0.97 - 0.3 * width,
        "left_foot_x": rng.normal(0, 0.06), "right_foot_x": rng.normal(0, 0.06),
    }  # fmt: skip


def walk(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Walking with arms that swing against the legs."""
    rate, reach = rng.uniform(0.75, 1.1), rng.uniform(0.24, 0.36)
    swing, bend = rng.uniform(0.15, 0.5), rng.uniform(0.0, 0.35)
    phase = rate * t + rng.uniform()
    targets: Targets = {
        "speed": 2 * reach * 0.87 * rate / 0.6, "spine_pitch": rng.uniform(0.0, 0.15),
        "pelvis_z": 0.955 - 0.015 * np.cos(4 * np.pi * phase), "spine_yaw": 0.18 * np.sin(2 * np.pi * phase),
    }  # fmt: skip
    for side, offset in zip(SIDES, (0.0, 0.5), strict=True):
        forward, lift = _cycle(phase + offset, 0.6)
        arm = -np.cos(2 * np.pi * (phase + offset - 0.05))
        targets |= {
            f"{side}_foot_x": reach * forward, f"{side}_foot_z": 0.12 * lift, f"{side}_foot_out": -0.02,
            f"{side}_foot_pitch": 0.35 * np.clip(-forward - 0.4, 0, 1) * 1.2 - 0.3 * np.clip(forward - 0.6, 0, 1),
            f"{side}_hand_x": 0.12 + swing * arm, f"{side}_hand_out": 0.1,
            f"{side}_hand_z": -0.95 + bend + 0.3 * swing * np.abs(arm),
        }  # fmt: skip
    return targets


def run(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Running with bent elbows."""
    rate, reach = rng.uniform(1.2, 1.5), rng.uniform(0.3, 0.42)
    phase = rate * t + rng.uniform()
    targets: Targets = {
        "speed": rng.uniform(1.6, 2.4), "spine_pitch": rng.uniform(0.1, 0.3),
        "spine_yaw": 0.25 * np.sin(2 * np.pi * phase),
        "pelvis_z": 0.93 + 0.05 * np.sin(4 * np.pi * phase),
    }  # fmt: skip
    for side, offset in zip(SIDES, (0.0, 0.5), strict=True):
        forward, lift = _cycle(phase + offset, 0.42)
        arm = -np.cos(2 * np.pi * (phase + offset - 0.05))
        targets |= {
            f"{side}_foot_x": reach * forward, f"{side}_foot_z": 0.06 + 0.34 * lift, f"{side}_foot_out": -0.03,
            f"{side}_foot_pitch": 0.9 * lift, f"{side}_hand_x": 0.32 + 0.3 * arm, f"{side}_hand_out": 0.02,
            f"{side}_hand_z": -0.45 + 0.2 * arm, f"{side}_elbow_out": 0.3,
        }  # fmt: skip
    return targets


def turn(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Turning on the spot with small steps."""
    phase = 1.1 * t + rng.uniform()
    targets: Targets = {"turn": rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 2.2), "pelvis_z": 0.965}
    for side, offset in zip(SIDES, (0.0, 0.5), strict=True):
        _, lift = _cycle(phase + offset, 0.6)
        targets |= {f"{side}_foot_z": 0.08 * lift, f"{side}_hand_out": 0.2 + 0.05 * lift, f"{side}_foot_out": 0.05}
    return targets


def crouch(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Squatting, hands reaching to the ground or onto the knees."""
    depth, pitch = rng.uniform(0.35, 0.7), rng.uniform(0.3, 0.9)
    width = rng.uniform(0.02, 0.25)
    return {
        "pelvis_z": depth, "spine_pitch": pitch, "neck_pitch": -0.5 * pitch, "pelvis_pitch": rng.uniform(0.1, 0.4),
        "left_foot_out": width, "right_foot_out": width, "left_foot_x": rng.uniform(0.0, 0.2),
        "right_foot_x": rng.uniform(-0.15, 0.15),
        "left_foot_toe": 0.4, "right_foot_toe": 0.4,
        **_hands(_jitter(rng, (0.55, 0.0, -0.5), 0.15), _jitter(rng, (0.55, 0.0, -0.5), 0.15)),
    }  # fmt: skip


def sit(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Sitting as on a chair, hands on the thighs."""
    reach = rng.uniform(0.4, 0.6)
    swing = 0.1 * np.sin(2 * np.pi * 0.4 * t)
    return {
        "pelvis_z": rng.uniform(0.52, 0.62), "pelvis_pitch": rng.uniform(-0.25, 0.1),
        "spine_pitch": rng.uniform(-0.05, 0.35),
        "left_foot_x": reach + swing * rng.uniform(), "right_foot_x": reach + rng.normal(0, 0.1),
        "left_foot_out": rng.uniform(0, 0.12), "right_foot_out": rng.uniform(0, 0.12), "neck_yaw": rng.normal(0, 0.4),
        **_hands(_jitter(rng, (0.55, 0.0, -0.5), 0.06)),
    }  # fmt: skip


def sit_on_ground(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Sitting on the ground with legs stretched or drawn up."""
    left, right = rng.uniform(0.5, 0.95, 2)
    return {
        "pelvis_z": 0.16, "pelvis_pitch": -0.2, "spine_pitch": rng.uniform(0.0, 0.5), "left_foot_x": left,
        "right_foot_x": right,
        "left_foot_out": rng.uniform(0, 0.2), "right_foot_out": rng.uniform(0, 0.2), "neck_yaw": rng.normal(0, 0.4),
        **_hands(_jitter(rng, (0.5, 0.1, -0.45), 0.12), _jitter(rng, (-0.3, 0.3, -0.75), 0.12)),
    }  # fmt: skip


def bend(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Bending down and coming up again."""
    deep = rng.uniform(0.8, 1.5) * (0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(0.25, 0.5) * t))
    return {
        "spine_pitch": 0.55 * deep, "pelvis_pitch": 0.5 * deep, "pelvis_z": 0.97 - 0.07 * deep,
        "spine_yaw": rng.normal(0, 0.2),
        **_hands((0.25, 0.0, -0.9)), "left_hand_x": 0.1 + 0.5 * deep, "right_hand_x": 0.1 + 0.5 * deep,
        "left_foot_out": 0.08, "right_foot_out": 0.08,
    }  # fmt: skip


def kick(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Kicking forward or sideways with one leg, again and again."""
    side = SIDES[rng.integers(2)]
    pulse = np.maximum(np.sin(2 * np.pi * rng.uniform(0.45, 0.8) * t + rng.uniform(0, 6)), -0.3)
    sideways = rng.uniform(0, 0.8)
    high = rng.uniform(0.3, 0.85)
    up = np.maximum(pulse, 0)
    return {
        f"{side}_foot_x": 0.75 * pulse * (1 - sideways), f"{side}_foot_out": 0.7 * up * sideways,
        f"{side}_foot_z": high * up, f"{side}_foot_pitch": -0.5 * up, "pelvis_z": 0.965, "spine_pitch": -0.25 * up,
        **_hands((0.3, 0.45, -0.3), (0.35, 0.5, -0.35)),
    }  # fmt: skip


def jump(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Jumping on the spot; the arms are thrown up."""
    phase = (rng.uniform(0.6, 0.9) * t + rng.uniform()) % 1.0
    flight = np.clip((phase - 0.55) / 0.4, 0, 1)
    air = 4 * flight * (1 - flight)
    squat = np.exp(-(((phase - 0.4) / 0.12) ** 2)) + 0.6 * np.exp(-(((phase - 0.02) / 0.06) ** 2))
    height, tuck = rng.uniform(0.15, 0.4), rng.uniform(0, 0.5)
    straddle = rng.uniform(0, 0.4)
    return {
        "pelvis_z": 0.96 - 0.3 * squat + height * air, "spine_pitch": 0.4 * squat,
        "left_foot_z": (height + 0.3 * tuck) * air, "right_foot_z": (height + 0.3 * tuck) * air,
        "left_foot_out": 0.05 + straddle * air, "right_foot_out": 0.05 + straddle * air,
        "left_foot_pitch": 0.5 * air, "right_foot_pitch": 0.5 * air,
        "left_hand_x": 0.3 - 0.6 * squat, "right_hand_x": 0.3 - 0.6 * squat, "left_hand_out": 0.25,
        "right_hand_out": 0.25,
        "left_hand_z": -0.7 + 1.4 * air, "right_hand_z": -0.7 + 1.4 * air,
    }  # fmt: skip


def lunge(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """One leg far in front of the other, going down and up."""
    front, back = ("left", "right") if rng.integers(2) else ("right", "left")
    deep = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(0.3, 0.6) * t)
    reach = rng.uniform(0.3, 0.5)
    return {
        f"{front}_foot_x": reach, f"{back}_foot_x": -reach, f"{back}_foot_pitch": 0.6, f"{back}_foot_z": 0.06,
        "pelvis_z": 0.9 - 0.28 * deep, "spine_pitch": rng.uniform(-0.1, 0.3),
    }  # fmt: skip


def side_bend(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Leaning to the sides, legs apart."""
    lean = rng.uniform(0.3, 0.6) * np.sin(2 * np.pi * rng.uniform(0.2, 0.45) * t + rng.uniform(0, 6))
    width = rng.uniform(0.1, 0.35)
    return {
        "spine_roll": lean, "spine_yaw": rng.normal(0, 0.2), "left_foot_out": width, "right_foot_out": width,
        "pelvis_z": 0.96 - 0.3 * width, **_hands((0.05, 0.35, -0.8)),
        "left_hand_z": -0.6 - 0.9 * np.minimum(lean, 0) * 2,
    }  # fmt: skip


def all_fours(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """On hands and feet, as in a bear's walk or a push-up's start."""
    step = 0.15 * np.sin(2 * np.pi * rng.uniform(0.5, 0.9) * t)
    return {
        "pelvis_z": rng.uniform(0.55, 0.75), "pelvis_pitch": rng.uniform(1.2, 1.5), "spine_pitch": 0.2,
        "neck_pitch": -0.6,
        "left_foot_x": -0.4 + step, "right_foot_x": -0.4 - step, "left_foot_pitch": 0.6, "right_foot_pitch": 0.6,
        "left_foot_z": 0.08, "right_foot_z": 0.08,
        "arms_free": 0.0, "left_hand_x": 0.9, "right_hand_x": 0.9, "left_hand_z": 0.1 - step,
        "right_hand_z": 0.1 + step,
    }  # fmt: skip


# Arms -----------------------------------------------------------------------------------------------------------------


def akimbo(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Hands on the hips."""
    return {**_hands(_jitter(rng, (0.1, 0.02, -0.62), 0.03)), "left_elbow_out": 1.6, "right_elbow_out": 1.6}


def crossed(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Arms crossed in front of the chest."""
    return _hands(_jitter(rng, (0.45, -0.5, -0.3), 0.05), _jitter(rng, (0.38, -0.5, -0.42), 0.05))


def raised(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Both arms up, waving a little."""
    wave = rng.uniform(0, 0.25) * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * t)
    targets = _hands(_jitter(rng, (0.15, 0.35, 0.8), 0.15), _jitter(rng, (0.15, 0.35, 0.8), 0.15))
    return targets | {"left_hand_out": 0.3 + wave, "right_hand_out": 0.3 - wave}


def spread(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Arms stretched to the sides, flapping."""
    flap = rng.uniform(0, 0.6) * np.sin(2 * np.pi * rng.uniform(0.3, 0.9) * t)
    return {**_hands((rng.normal(0, 0.2), 0.93, 0.0)), "left_hand_z": flap, "right_hand_z": flap}


def wave(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """One hand waves beside the head, the other hangs."""
    side = SIDES[rng.integers(2)]
    beat = 0.18 * np.sin(2 * np.pi * rng.uniform(1.0, 2.0) * t)
    return {
        f"{side}_hand_x": 0.3,
        f"{side}_hand_out": 0.35 + beat,
        f"{side}_hand_z": 0.55 + rng.normal(0, 0.1),
        f"{side}_elbow_out": 0.9,
    }


def phone(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """One hand at the ear or the face."""
    side = SIDES[rng.integers(2)]
    return {
        f"{side}_hand_x": 0.3,
        f"{side}_hand_out": -0.12,
        f"{side}_hand_z": rng.uniform(0.15, 0.4),
        f"{side}_elbow_out": 0.9,
    }


def hands_on_head(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Both hands on or behind the head."""
    return {**_hands((rng.uniform(-0.1, 0.15), -0.1, 0.62)), "left_elbow_out": 1.8, "right_elbow_out": 1.8}


def clap(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Clapping in front of the body."""
    gap = 0.12 + 0.1 * np.sin(2 * np.pi * rng.uniform(1.0, 2.0) * t)
    height = rng.uniform(-0.4, 0.3)
    return {**_hands((0.6, 0.0, height)), "left_hand_out": gap - 0.4, "right_hand_out": gap - 0.4}


def carry(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Holding something in front of the body."""
    return _hands(_jitter(rng, (0.6, -0.15, -0.45), 0.06))


def behind_back(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Hands behind the back."""
    return {**_hands((-0.22, -0.22, -0.68)), "left_elbow_out": 1.0, "right_elbow_out": 1.0}


def punch(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Boxing."""
    beat = np.sin(2 * np.pi * rng.uniform(0.8, 1.4) * t)
    targets = _hands((0.4, -0.15, -0.05))
    for side, sign in zip(SIDES, (1, -1), strict=True):
        strike = np.maximum(sign * beat, 0) ** 2
        targets |= {f"{side}_hand_x": 0.35 + 0.58 * strike, f"{side}_hand_z": -0.1 + 0.1 * strike}
    return targets


def gesture(t: np.ndarray, rng: np.random.Generator) -> Targets:
    """Each hand goes from one random place in reach to the next: reaching, pointing, talking with the hands."""
    targets: Targets = {}
    for side in SIDES:
        gap = rng.uniform(0.5, 1.1)
        places = []
        for _ in range(int(t[-1] / gap) + 3 if len(t) else 3):
            while True:
                place = rng.uniform((-0.35, -0.55, -1.0), (1.0, 1.0, 1.0))
                if 0.45 < np.linalg.norm(place) < 0.99 and not (place[0] < 0.2 and place[1] < 0):
                    break
            places.append(place)
        index = np.clip((t / gap).astype(int), 0, len(places) - 2)
        blend = _smooth((t / gap - index) * 1.4)[:, None]
        path = np.array(places)[index] * (1 - blend) + np.array(places)[index + 1] * blend
        for axis, values in zip(("x", "out", "z"), path.T, strict=True):
            targets[f"{side}_hand_{axis}"] = values
        targets[f"{side}_elbow_out"] = rng.uniform(0.2, 1.2)
    return targets


Activity = Callable[[np.ndarray, np.random.Generator], Targets]
# How often each is chosen. Going somewhere and staying take turns, so that nobody hides a place of the scene for long
# and the background can be learnt.
GOING: dict[Activity, float] = {walk: 3, run: 1}
STAYING: dict[Activity, float] = {
    stand: 2.5, turn: 2, crouch: 1.5, sit: 1.5, sit_on_ground: 0.7, bend: 1, kick: 1, jump: 1, lunge: 1, side_bend: 0.8,
    all_fours: 0.5,
}  # fmt: skip
ARMS: dict[Activity | None, float] = {
    None: 6, akimbo: 1, crossed: 1.2, raised: 1, spread: 0.8, wave: 1, phone: 0.7, hands_on_head: 0.6, clap: 0.7,
    carry: 0.7, behind_back: 0.5, punch: 0.7, gesture: 5,
}  # fmt: skip
