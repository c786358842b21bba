"""When what is trained: the stages of `methods/landmarks.py`, stretched to the time that there is."""

from __future__ import annotations

import numpy as np

from streampose.methods.landmarks_config import LandmarksConfig

COSTS = {"skeletons": 0.2, "figures": 0.3, "landmarks": 1.0, "reading": 0.25}  # of a step; measured
LONGEST = 2.0  # times its configured length: what a stage but `landmarks` takes at most


class Schedule:
    """The stages one after the other; those of no steps are left out.

    Attributes:
        total_steps: all stages together.
        lengths, begins: steps and first step of each stage.
    """

    def __init__(self, config: LandmarksConfig):
        self.config = config
        steps = config.steps.model_dump()
        if config.prior == "none":
            steps |= {"skeletons": 0, "figures": 0, "reading": 0}
        self.configured = {name: count for name, count in steps.items() if count > 0}
        self._lay_out(self.configured)

    def _lay_out(self, lengths: dict[str, int]) -> None:
        self.lengths = lengths
        ends = np.cumsum(list(lengths.values()))
        self.begins = dict(zip(lengths, [0, *ends[:-1].tolist()], strict=True))
        self.total_steps = int(ends[-1])

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the stages to a time; the rate is that of the first stage."""
        first = next(iter(self.configured))
        time = 0.93 * max_minutes * 60 * steps_per_second * COSTS[first]  # in steps of `landmarks`
        whole = sum(steps * COSTS[name] for name, steps in self.configured.items())
        lengths = {}
        for name, steps in self.configured.items():
            factor = time / whole if name == "landmarks" else min(time / whole, LONGEST)
            lengths[name] = max(1, round(steps * factor))
        spare = time - sum(steps * COSTS[name] for name, steps in lengths.items())
        lengths["landmarks"] += max(0, round(spare))
        self._lay_out(lengths)

    def minutes_left(self, start: int, step: int, minutes: float) -> float:
        """What the configured schedule still needs if the steps from `start` to `step` took so many minutes."""

        def spent(end: int) -> float:
            return sum(COSTS[n] * min(max(end - self.begins[n], 0), length) for n, length in self.lengths.items())

        whole = sum(COSTS[name] * steps for name, steps in self.configured.items())
        return max(whole - spent(step), 0.0) * minutes / (spent(step) - spent(start))

    def stage(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        return [name for name, begin in self.begins.items() if begin <= step][-1]

    def within(self, step: int) -> float:
        """The share of its stage that is done when a step begins, in [0, 1)."""
        name = self.stage(step)
        return (step - self.begins[name]) / self.lengths[name]

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """Learning rates: in each stage a short rise and a cosine fall; in `landmarks` also the betas."""
        config, name = self.config, self.stage(step)
        rate = config.reader_learning_rate if name == "skeletons" else config.learning_rate
        at, length = step - self.begins[name], self.lengths[name]
        rise = min(1.0, (at + 1) / max(1, min(100, length // 5)))
        fall = 0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * at / max(1, length)))
        beta1 = config.beta1 if name == "landmarks" else 0.9
        return {"lr": float(rate * rise * fall), "betas": (beta1, 0.999)}  # type: ignore[dict-item]
