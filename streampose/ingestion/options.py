"""How videos are cut into clips, checked before the work begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streampose.errors import ConfigError
from streampose.masks.sam import WHERE
from streampose.tracking.detectors import open_detector

MASKS = ("auto", "mog2", "knn", "median", "moving", "sam", "none")
SAM_PRECISIONS = ("auto", "bf16", "f32")


@dataclass(frozen=True)
class Options:
    """The same options and the same video give the same clips; worker processes get them too.

    Attributes:
        masks: one of `MASKS`.
        rate: frames a second, about, that are looked at; 0 takes all.
        sam_checkpoint: file of Segment Anything's weights; empty for none.
        sam_every: frames of a clip from one question to Segment Anything to the next.
        sam_precision: `auto`, `bf16` or `f32`.
        detector: as `tracking.detectors.open_detector` takes it.
        detector_class: class number that the detector's boxes must have; None takes persons.
    """

    store: Path
    masks: str
    crop_size: int
    max_subjects: int
    rate: float
    sam_checkpoint: str = ""
    sam_every: int = 1
    sam_precision: str = "auto"
    detector: str = "motion"
    detector_class: int | None = None

    def comparable(self) -> dict[str, Any]:
        """Those that change what a video gives."""
        return {name: value for name, value in asdict(self).items() if name != "store"}

    def check(self) -> None:
        """Raise ConfigError for what cannot work; models of torch are opened only when they are needed."""
        if self.masks not in MASKS:
            raise ConfigError(f"--masks {self.masks}: unknown; choose one of {', '.join(MASKS)}")
        if self.crop_size < 16 or self.max_subjects < 1 or self.rate < 0:
            raise ConfigError(
                f"crop_size {self.crop_size}, max_subjects {self.max_subjects}, rate {self.rate}: too small"
            )
        if self.masks == "sam" and not self.sam_checkpoint:
            raise ConfigError(f"--masks sam: no checkpoint of Segment Anything; {WHERE}")
        if self.sam_checkpoint and not Path(self.sam_checkpoint).is_file():
            raise ConfigError(f"{self.sam_checkpoint}: no such file; {WHERE}")
        if self.sam_checkpoint and self.masks not in ("auto", "sam"):
            raise ConfigError(f"--sam-checkpoint: of no use to --masks {self.masks}; choose auto or sam")
        if self.sam_every < 1:
            raise ConfigError(f"--sam-every {self.sam_every}: at least 1")
        if self.sam_precision not in SAM_PRECISIONS:
            raise ConfigError(f"--sam-precision {self.sam_precision}: choose one of {', '.join(SAM_PRECISIONS)}")
        if not self.detector.startswith("torchvision:"):
            open_detector(self.detector)
