"""Multi-camera sessions in a store: which sources are views of one recording, their cameras and time offsets.

    sessions/<id>/      attributes: name, views [{name, source, video, offset_seconds, camera}]

A session is published by one rename, after its sources; a view whose source has left the store is left out on reading.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampose.console import logger
from streampose.errors import StoreError
from streampose.geometry.camera import camera_from_dict, camera_to_dict
from streampose.store.copy import open_copy
from streampose.store.schema import open_store, read_attributes, write_group, writing
from streampose.store.writer import temporary_folder
from streampose.structures import Session, View


@dataclass(frozen=True)
class StoredSession:
    """A session and the ids of its views' sources, in the order of the views."""

    id: str
    session: Session
    source_ids: tuple[str, ...]


def session_id(name: str) -> str:
    """The name of a session's group: its own name where that can be a folder's, else one made from it."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    return slug if slug and slug == name else f"{slug or 'session'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def find_sources(store: Path, session: Session) -> list[str]:
    """The id in the store of each view's video, for `write_session`; found by the path from which it was ingested.

    Raises:
        StoreError: a video that is not in the store.
    """
    by_path: dict[Path, str] = {}
    for folder in sorted((Path(store) / "sources").iterdir()):
        if folder.is_dir() and (path := read_attributes(folder).get("path")):
            by_path[Path(path).resolve()] = folder.name
    missing = [str(view.video) for view in session.views if view.video.resolve() not in by_path]
    if missing:
        raise StoreError(
            f"{store}: session {session.name}: not ingested: {', '.join(missing)}; ingest the session again"
        )
    return [by_path[view.video.resolve()] for view in session.views]


def write_session(store: Path, session: Session, source_ids: Sequence[str]) -> str:
    """Write a session, or replace the one of the same name; call it once its sources are published.

    Args:
        source_ids: the source in the store of each view, in the order of `session.views`.

    Returns:
        The session's id.

    Raises:
        StoreError: no store, a source that is not in it, or it cannot be written.
        ValueError: another number of sources than of views.
    """
    store = Path(store)
    open_store(store)
    if len(source_ids) != len(session.views):
        raise ValueError(f"session {session.name}: {len(session.views)} views, but {len(source_ids)} sources")
    for source in source_ids:
        if not (store / "sources" / source / "zarr.json").is_file():
            raise StoreError(f"{store}: session {session.name}: no source {source}; ingest its video first")
    views: list[dict[str, Any]] = [
        {
            "name": view.name,
            "source": source,
            "video": str(view.video),
            "offset_seconds": float(view.offset_seconds),
            "camera": None if view.camera is None else camera_to_dict(view.camera),
        }
        for view, source in zip(session.views, source_ids, strict=True)
    ]
    identity = session_id(session.name)
    with writing(store):
        sessions = store / "sessions"
        if not (sessions / "zarr.json").is_file():
            sessions.mkdir(exist_ok=True)
            write_group(sessions, {})
        temporary = temporary_folder(store)
        write_group(temporary, {"name": session.name, "views": views})
        destination = sessions / identity
        if destination.exists():
            os.rename(destination, temporary_folder(store) / "session")
        os.rename(temporary, destination)
    return identity


def read_sessions(store: Path | str) -> list[StoredSession]:
    """Every session of a store, sorted by id; those of which fewer than one view is left are not given.

    Raises:
        StoreError: no store, or a damaged session.
    """
    copy = open_copy(store)
    store = Path(store) if copy is None else copy.path
    open_store(store)
    folder = store / "sessions"
    names = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    sessions = [_read_session(store, name) for name in names]
    return [session for session in sessions if session.source_ids]


def _read_session(store: Path, identity: str) -> StoredSession:
    folder = store / "sessions" / identity
    attributes = read_attributes(folder)
    try:
        views, sources, lost = [], [], []
        for values in attributes["views"]:
            if not (store / "sources" / values["source"] / "zarr.json").is_file():
                lost.append(values["name"])
                continue
            camera = values["camera"] and camera_from_dict(values["camera"], f"{folder}: {values['name']}")
            views.append(View(values["name"], Path(values["video"]), camera or None, float(values["offset_seconds"])))
            sources.append(values["source"])
        session = Session(attributes["name"], tuple(views))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder}: damaged ({error!r}); delete it and ingest the session again") from None
    if lost:
        logger.warning(f"session {session.name}: the sources of {', '.join(lost)} are no longer in {store}")
    return StoredSession(identity, session, tuple(sources))
