"""When what is trained: the stages of `methods/mask.py`, stretched to the time that there is."""

from __future__ import annotations

import numpy as np

from streampose.methods.mask_config import MaskConfig

LONGEST_READING = 2.0  # times its configured length: what teaching rho takes at most, however much time there is


class Schedule:
    """The stages one after the other.

    Args:
        reads_already: whether rho needs no stage of its own.

    Attributes:
        total_steps: all stages together.
        lengths, begins: steps and first step of each stage.
        scale: times the configured length of the detector's stages.
        labelling: the stages that begin by making pseudo-labels.
    """

    def __init__(self, config: MaskConfig, reads_already: bool):
        self.config, self.reads_already = config, reads_already
        self._lay_out(1.0, 1.0)

    def _lay_out(self, factor: float, reader_factor: float) -> None:
        """Lay out the stages with their configured lengths times a factor; rho's stage has its own."""
        config = self.config
        self.scale = factor
        factors = dict.fromkeys(config.stages, factor) | {"silhouette": reader_factor}
        self.lengths = {name: max(1, round(steps * factors[name])) for name, steps in self.configured().items()}
        ends = np.cumsum(list(self.lengths.values()))
        self.begins = dict(zip(self.lengths, [0, *ends[:-1].tolist()], strict=True))
        self.total_steps = int(ends[-1])
        self.labelling = [
            name
            for number, name in enumerate(name for name in self.lengths if name != "silhouette")
            if config.silhouette.enabled and (number == 0 or (config.stages[name].relabel and config.self_training))
        ]

    def configured(self) -> dict[str, int]:
        """Steps of each stage as configured; stages of length zero are left out."""
        rho = self.config.silhouette
        lengths = {"silhouette": rho.steps if rho.enabled and not self.reads_already else 0}
        lengths |= {name: stage.steps for name, stage in self.config.stages.items()}
        return {name: steps for name, steps in lengths.items() if steps > 0}

    def plan(self, steps_per_second: float, max_minutes: float) -> None:
        """Stretch or shrink the stages to a time; the rate is that of the first stage.

        Rho's stage gets at most half of the time, and is not stretched far: the rest is the detector's.
        """
        lengths, cost = self.configured(), self.costs()
        time = 0.93 * max_minutes * 60 * steps_per_second * cost[next(iter(lengths))]
        reader = lengths.pop("silhouette", 0) * cost["silhouette"]
        rest = sum(steps * cost[name] for name, steps in lengths.items())
        factor = min(time / (reader + rest), LONGEST_READING)
        if reader:
            factor = min(factor, 0.5 * time / reader)
        self._lay_out((time - factor * reader) / max(rest, 1e-9), factor)

    def minutes_left(self, start: int, step: int, minutes: float) -> float:
        """What the configured schedule still needs if the steps from `start` to `step` took so many minutes."""
        cost = self.costs()

        def spent(end: int) -> float:
            return sum(cost[n] * min(max(end - self.begins[n], 0), length) for n, length in self.lengths.items())

        whole = sum(steps * cost[name] for name, steps in self.configured().items())
        return max(whole - spent(step), 0.0) * minutes / (spent(step) - spent(start))

    def costs(self) -> dict[str, float]:
        """How long a step of each stage takes, in those of `_step_cost`."""
        config, rho = self.config, self.config.silhouette
        drawing = 0.8 * config.batch_size / 32 * config.mask_size / 32
        step = _step_cost(config.detector, config.input_size, config.batch_size) + drawing
        return dict.fromkeys(config.stages, step) | {"silhouette": _step_cost(rho.detector, rho.size, rho.batch_size)}

    def stage(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        return [name for name, begin in self.begins.items() if begin <= step][-1]

    def within(self, step: int) -> float:
        """How far the step's stage has come, in configured steps."""
        return (step - self.begins[self.stage(step)]) / self.scale

    def labels_due(self, stage: str) -> int:
        """How often pseudo-labels must have been made when a stage has begun."""
        return sum(self.begins[name] <= self.begins[stage] for name in self.labelling)

    def optimiser_settings(self, step: int) -> dict[str, float]:
        """Learning rates: a short rise and a cosine fall, for rho's stage and for the others as one."""
        config, first = self.config, self.lengths.get("silhouette", 0)
        if step < first:
            rate, at, length = config.silhouette.learning_rate, step, first
        else:
            rate, at, length = config.learning_rate, step - first, self.total_steps - first
        rise = min(1.0, (at + 1) / max(1, min(50, length // 5)))
        fall = 0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * at / max(1, length)))
        return {"lr": float(rate * rise * fall), "weight_decay": config.weight_decay}


def _step_cost(detector: str, size: int, batch_size: int) -> float:
    """How long a step takes, in those of `tiny` at 64 pixels and a batch of 32; measured on two cores."""
    return {"tiny": 1.0, "small": 1.2, "base": 6.0}[detector] * (0.45 + 0.55 * (size / 64) ** 2) * batch_size / 32
