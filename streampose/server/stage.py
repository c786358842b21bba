"""The session that is on, and what it may be exchanged for: sources and models by the names of two listings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streampose
from streampose.console import logger
from streampose.errors import StreamposeError, VideoError
from streampose.server.session import Session

Build = Callable[[Any, Path], Session]
RECORDED = {".mp4": "video/mp4", ".jsonl": "application/x-ndjson"}  # what a recorder writes, and what it is


class UnknownName(StreamposeError):
    """A name that is not in its listing."""


class Busy(StreamposeError):
    """Another exchange is going on."""


class Stage:
    """Holds the one session that is served.

    Args:
        session: already started.
        build: (source, model folder) -> a session that was not started; None where nothing may be exchanged.
        sources: name -> what `build` takes.
        models: gives name -> bundle folder; asked anew each time, because training adds models.
        source, model: the names of what `session` was built from.
        private: frames are neither stored nor sent.
        recordings: the folder of what is recorded; None where nothing may be.
    """

    def __init__(
        self,
        session: Session,
        *,
        build: Build | None = None,
        sources: Mapping[str, Any] | None = None,
        models: Callable[[], Mapping[str, Path]] = dict,
        source: str | None = None,
        model: str | None = None,
        private: bool = False,
        recordings: Path | None = None,
    ):
        self._session, self._build, self._models = session, build, models
        self._sources = dict(sources or {})
        self.source, self.model, self.private, self.recordings = source, model, private, recordings
        self._exchange = threading.Lock()
        self._exchanging = threading.Event()
        self.listeners: list[Callable[[], None]] = []

    @property
    def session(self) -> Session:
        return self._session

    @property
    def done(self) -> bool:
        """Whether the session ended and no other takes its place."""
        return self._session.done.is_set() and not self._exchanging.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, for so long at most; whether it has come."""
        session = self._session
        if session.done.wait(seconds) and self._exchanging.is_set():
            time.sleep(0.01)
        return self.done

    def sources(self) -> list[str]:
        """The sources that may be chosen."""
        return list(self._sources) if self._build else []

    def models(self) -> list[str]:
        """The models that may be chosen."""
        return list(self._models()) if self._build else []

    def model_path(self, name: str | None) -> Path | None:
        """The folder of a listed model."""
        return None if name is None else self._models().get(name)

    def recorded(self) -> dict[str, Path]:
        """Name -> file of what was recorded, newest first."""
        if self.recordings is None or not self.recordings.is_dir():
            return {}
        files = [path for path in self.recordings.iterdir() if path.suffix in RECORDED and path.is_file()]
        return {path.name: path for path in sorted(files, reverse=True)}

    def switch(self, source: str | None, model: str | None) -> None:
        """Exchange the session; what is None stays. Blocks until the other one runs, or the old one goes on.

        Raises:
            UnknownName: a name that is not listed.
            Busy: another exchange is going on.
            StreamposeError: the source or the model cannot be opened; the old session goes on.
        """
        if self._build is None:
            raise UnknownName("this server shows one source with one model only")
        source = self.source if source is None else source
        model = self.model if model is None else model
        if source not in self._sources:
            raise UnknownName(f"no source is listed as {source!r}; GET /v1/sources lists them")
        if model is None or (folder := self._models().get(model)) is None:
            raise UnknownName(f"no model is listed as {model!r}; GET /v1/models lists them")
        if not self._exchange.acquire(blocking=False):
            raise Busy("another exchange is going on; try again in a moment")
        try:
            self._exchanging.set()
            self._exchange_for(self._build(self._sources[source], folder), source, model, folder)
        finally:
            self._exchanging.clear()
            self._exchange.release()
            for listener in list(self.listeners):
                listener()

    def _exchange_for(self, new: Session, source: str, model: str, folder: Path) -> None:
        old = self._session
        try:
            new.start()
        except VideoError:
            if source != self.source:
                raise
            old.stop()  # most cameras open only once
            new = self._build(self._sources[source], folder)  # type: ignore[misc]
            new.start()
        logger.info("%s with %s from now on", source, model)
        self._session, self.source, self.model = new, source, model
        old.stop()

    def stop(self) -> None:
        """End the session."""
        with self._exchange:  # an exchange comes to its end first
            self._session.stop()


def list_models(named: Path, folder: Path = Path("models")) -> dict[str, Path]:
    """Name -> folder of the models that may be chosen: the one that was named, those in ./models, the shipped one."""
    found = {entry.name: entry for entry in sorted(folder.glob("*")) if (entry / "bundle.json").is_file()}
    shipped = Path(streampose.__file__).parent / "default_bundle"
    if shipped.is_dir():
        found.setdefault("shipped", shipped)
    if not any(entry.samefile(named) for entry in found.values()):
        name = named.name if named.name and named.name not in found else str(named)
        found = {name: named, **found}
    return found


def name_of(path: Path, models: Mapping[str, Path]) -> str | None:
    """Under which name a model's folder is listed."""
    return next((name for name, folder in models.items() if folder.samefile(path)), None)
