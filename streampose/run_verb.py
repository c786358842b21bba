"""Calls a verb for the command line: logging on, errors in one line, the result printed, the right exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import typer

from streampose.say import say_run, say_sources


def run_verb(
    verb: Callable[[], dict[str, Any]],
    say: Callable[[dict[str, Any]], None],
    as_json: bool,
    log_level: str,
    next_line: str | None = None,
) -> None:
    """Call a verb, print its result and leave with the right exit code."""
    from streampose.console import start_logging
    from streampose.errors import StreamposeError

    if log_level.lower() not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"--log-level {log_level}: expected debug, info, warning or error")
    start_logging(log_level)
    try:
        result = verb()
    except StreamposeError as error:
        print(f"streampose: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": str(error)}))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print(
            "streampose: interrupted; what was finished is kept; the same line goes on (selftrain: with --resume)",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"streampose: {where}{error.strerror or error}", file=sys.stderr)
        raise typer.Exit(2) from None
    failed = say is say_sources and any(entry["verdict"] == "quarantined" for entry in result["sources"])
    failed |= say is say_run and "reason" in result
    failed |= bool(result.get("failed"))  # how many sources failed, of verbs that say so
    if as_json:
        print(json.dumps(result, default=str))
    else:
        say(result)
        if next_line and not failed:
            print(f"next: {next_line}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
