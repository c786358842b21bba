"""What a person sees while work goes on: progress bars on stderr and a log file. Machines read `--json` on stdout."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger("streampose")


class Task:
    """One running progress bar."""

    def __init__(self, bar: Any, task: Any):
        self._bar, self._task = bar, task

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Move on by some frames, steps or files; `note` replaces the text at the end of the line."""
        fields = {} if note is None else {"note": note}
        self._bar.update(self._task, advance=amount, **fields)

    def set_total(self, total: float) -> None:
        """The work turned out to be of another size."""
        self._bar.update(self._task, total=total)


@contextmanager
def progress(description: str, total: float | None, unit: str = "frames") -> Iterator[Task]:
    """A progress bar with rate and time left; silent where stderr is not a terminal.

    Args:
        total: how many units there are; None where nobody knows (a live stream).
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    count = "{task.completed:.0f}/{task.total:.0f}" if total else "{task.completed:.0f}"
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(count),
        _rate_column(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        yield Task(bar, bar.add_task(description, total=total, note=""))


def _rate_column(unit: str) -> Any:
    from rich.progress import ProgressColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else f"- {unit}/s")

    return Rate()


def start_logging(level: str = "info", log_file: Path | None = None) -> None:
    """Messages to stderr (short) and, where a file is given, to that file with times."""
    logger.setLevel(level.upper())
    logger.handlers.clear()
    logger.propagate = False
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(stream)
    if log_file is not None:
        add_log_file(log_file)


def add_log_file(path: Path) -> None:
    """Write messages to this file too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
