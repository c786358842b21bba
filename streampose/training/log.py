"""What a run leaves behind for people: log.jsonl, tensorboard/, pictures/, report/losses.png and git.txt."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np


class RunLog:
    """The log files of one run folder; opening it for a resume forgets what came after the checkpoint.

    Args:
        step: steps done so far; entries of later steps are dropped.
    """

    def __init__(self, run_dir: Path, step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        run_dir.mkdir(parents=True, exist_ok=True)
        self._run_dir = run_dir
        self._path = run_dir / "log.jsonl"
        kept = [entry for entry in read_log(self._path) if entry["step"] <= step]
        self._path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def entry(self, values: dict[str, Any]) -> None:
        """Log one line; numbers and dicts of numbers also go to TensorBoard. `values["step"]` is required."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        for name, value in values.items():
            for key, number in value.items() if isinstance(value, dict) else [("", value)]:
                if isinstance(number, int | float) and name != "step":
                    self._board.add_scalar(f"{name}/{key}" if key else name, number, values["step"])

    def picture(self, image: np.ndarray, step: int) -> None:
        """Keep an RGB picture as pictures/step_<step>.png and in TensorBoard."""
        folder = self._run_dir / "pictures"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"step_{step:08d}.png"), np.ascontiguousarray(image[..., ::-1]))
        self._board.add_image("picture", image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close; draw report/losses.png."""
        self._file.close()
        self._board.close()
        losses_picture(self._path, self._run_dir / "report" / "losses.png")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log.jsonl, oldest first; a last line that was cut off by a crash is left out."""
    entries = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
    return entries


def losses_picture(log: Path, out: Path) -> None:
    """Draw the weighted loss and every term against the step; dashed lines where a new stage begins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = [entry for entry in read_log(log) if "terms" in entry]
    if not entries:
        return
    names = sorted({name for entry in entries for name in entry["terms"]})
    columns = 3
    rows = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows))
    figure.subplots_adjust(0.05, 0.4 / (2.6 * rows), 0.98, 1 - 0.35 / (2.6 * rows), 0.2, 0.35)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    starts = [(b["step"], b["stage"]) for a, b in itertools.pairwise(entries) if a["stage"] != b["stage"]]
    for axis, name in zip(axes, ["loss (weighted)", *names], strict=False):
        chosen = [entry for entry in entries if name in entry["terms"]] if name in names else entries
        values = [entry["terms"][name] if name in names else entry["loss"] for entry in chosen]
        marker = "." if len(values) < 10 else None
        axis.plot([entry["step"] for entry in chosen], values, linewidth=1, marker=marker)
        for step, stage in starts:
            axis.axvline(step, color="0.6", linestyle="--", linewidth=0.8)
            axis.text(
                step, 0.98, stage, transform=axis.get_xaxis_transform(), va="top", ha="right", rotation=90, fontsize=6,
                color="0.4",
            )  # fmt: skip
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        if values and min(values) > 0 and max(values) > 20 * min(values):
            axis.set_yscale("log")
    for axis in axes[len(names) + 1 :]:
        axis.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def write_git(run_dir: Path) -> None:
    """Write git.txt (commit and uncommitted changes of this package) where it runs from a git checkout."""
    package = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return  # installed, not checked out
    commit, changes = git("rev-parse", "HEAD"), git("diff", "HEAD")
    if commit is not None:
        (run_dir / "git.txt").write_text(f"commit {commit.strip()}\n\n{changes or ''}", encoding="utf-8")
