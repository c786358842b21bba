"""Send what an ingest makes in a working copy to the store's own place; what the place looks like is told in `copy`."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from streampose.console import logger
from streampose.errors import StoreError
from streampose.store.copy import GROUP, WorkingCopy, alone, folders_in, group_text, parse_attributes, write_json
from streampose.store.pairs import sample_pairs
from streampose.store.reader import StoreReader
from streampose.store.remote import Remote, url_of
from streampose.store.schema import create_store, locked, read_attributes
from streampose.store.writer import write_pairs
from streampose.structures import Skeleton

ORPHAN_SECONDS = 24 * 3600.0  # unlisted clips of another machine may be on their way for so long


@contextmanager
def begin_writing(
    store: Path | str, skeleton: Skeleton, *, crop_size: int, margin: float | None, codec: str = "zstd"
) -> Iterator[tuple[Path, WorkingCopy | None]]:
    """Make or open a store for writing and keep other writers of this machine out of it.

    Yields:
        The folder to write to, and the copy that it is, from which the functions below send what was written; None
        where the folder is the store itself.

    Raises:
        StoreError: as `schema.create_store`, or another ingest is writing to it.
    """
    url = url_of(store)
    if url is None:
        create_store(Path(store), skeleton, crop_size=crop_size, margin=margin, codec=codec)
        with locked(Path(store)):
            yield Path(store), None
        return
    copy = WorkingCopy(url)
    try:
        with ExitStack() as writing_there:
            with alone(copy.folder):
                writing_there.enter_context(locked(copy.guard()))
                _begin(copy, skeleton, crop_size, margin, codec)
            remove_orphan_uploads(copy)
            for source in folders_in(copy.path / "sources"):
                if "places" not in read_attributes(source):  # an interrupted run had made it
                    push_source(copy, source.name)
            yield copy.path, copy
    except StoreError as error:
        raise StoreError(str(error).replace(str(copy.guard()), url).replace(str(copy.path), url)) from None


def _begin(copy: WorkingCopy, skeleton: Skeleton, crop_size: int, margin: float | None, codec: str) -> None:
    """Make the store where there is none, and bring the copy up to date."""
    if GROUP not in copy.remote.read([GROUP]):
        shutil.rmtree(copy.path, ignore_errors=True)
        create_store(copy.path, skeleton, crop_size=crop_size, margin=margin, codec=codec)
        copy.remote.create(GROUP, (copy.path / GROUP).read_bytes())  # where another was first, theirs is copied
    copy.bring_up_to_date()
    create_store(copy.path, skeleton, crop_size=crop_size, margin=margin, codec=codec)
    copy.load_places()


def push_source(copy: WorkingCopy, source_id: str, replace: bool = False) -> None:
    """Send a source that was published here: its clips, then itself, as one object.

    Args:
        replace: whether it takes the place of one that is there; else the one there is kept and copied.
    """
    path, folder = f"sources/{source_id}/{GROUP}", copy.path / "sources" / source_id
    attributes = read_attributes(folder)
    name = _new_name(copy)
    places = {clip: f"{clip}-{name}" for clip in attributes["clips"]}
    for clip, place in places.items():
        copy.remote.upload(copy.path / "clips" / clip, f"clips/{place}")
    attributes["places"] = places
    before = _places(copy.remote, path)
    if replace and before is not None:
        copy.remote.write(path, group_text(attributes))
        _remove_places(copy.remote, before)
    elif not copy.remote.create(path, group_text(attributes)):
        logger.info("%s: source %s was made by another machine meanwhile; theirs is kept", copy.url, source_id)
        _remove_places(copy.remote, places)
        copy.forget(source_id)
        copy.catch_up()
        return
    write_json(folder, attributes)
    copy.load_places()
    copy.count_again()


def pull_source(copy: WorkingCopy, source_id: str) -> None:
    """Take a source and its clips away from the store's place."""
    path = f"sources/{source_id}/{GROUP}"
    places = _places(copy.remote, path)
    if places is not None:
        copy.remote.remove(path)
        _remove_places(copy.remote, places)


def push_pairs(copy: WorkingCopy) -> None:
    """Send the frame pairs in the place of those there."""
    path = f"pairs/{GROUP}"
    before = copy.remote.read([path]).get(path)
    name = _new_name(copy)
    for folder in folders_in(copy.path / "pairs"):
        copy.remote.upload(folder, f"pairs/{name}/{folder.name}")
    attributes = {**read_attributes(copy.path / "pairs"), "place": name}
    copy.remote.write(path, group_text(attributes))
    write_json(copy.path / "pairs", attributes)
    if before is not None and (old := parse_attributes(before, f"{copy.url}/{path}").get("place")):
        copy.remote.remove(f"pairs/{old}")


def renew_pairs(folder: Path, copy: WorkingCopy | None, seed: int) -> int:
    """Choose frame pairs of all clips of a store, those of other machines too; their number.

    Args:
        folder, copy: as `begin_writing` gives them.
    """
    while True:
        pairs = sample_pairs(StoreReader(folder if copy is None else copy), seed)
        write_pairs(folder, pairs, {"seed": seed})
        if copy is None:
            return len(pairs["i"])
        push_pairs(copy)
        if knows_all(copy):
            return len(pairs["i"])
        copy.catch_up()


def push_session(copy: WorkingCopy, session_id: str) -> None:
    """Send a session, which is one object."""
    path = f"sessions/{session_id}/{GROUP}"
    copy.remote.write(path, (copy.path / path).read_bytes())


def knows_all(copy: WorkingCopy) -> bool:
    """Whether every source that is there is here too: no other machine has made one meanwhile."""
    return set(copy.remote.folders("sources")) <= {folder.name for folder in folders_in(copy.path / "sources")}


def remove_orphan_uploads(copy: WorkingCopy) -> int:
    """Take away uploads that nothing lists: those of this machine, which are of a crash, and old ones of others.

    Returns:
        How many there were.
    """
    remote = copy.remote
    uploads = [f"clips/{name}" for name in remote.folders("clips")]  # listed before the sources that may list them
    uploads += [f"pairs/{name}" for name in remote.folders("pairs") if "-" in name]
    listed = {f"clips/{place}" for values in copy.sources_there().values() for place in values["places"].values()}
    if (text := remote.read([f"pairs/{GROUP}"]).get(f"pairs/{GROUP}")) is not None:
        listed.add(f"pairs/{parse_attributes(text, copy.url).get('place', '')}")
    orphans = [upload for upload in uploads if upload not in listed and _is_dead(copy, upload)]
    for upload in orphans:
        remote.remove(upload)
    return len(orphans)


def _is_dead(copy: WorkingCopy, upload: str) -> bool:
    """Whether nobody is sending it any more."""
    if upload.replace("/", "-").rsplit("-", 2)[1] == copy.machine:
        return True
    newest = list(copy.remote.sizes(upload))[-1:]
    ages = [copy.remote.age_seconds(f"{upload}/{file}") for file in newest]
    return any(age is not None and age > ORPHAN_SECONDS for age in ages)


def _places(remote: Remote, path: str) -> dict[str, str] | None:
    """Where the clips of a source lie there; None where there is no such source."""
    text = remote.read([path]).get(path)
    if text is None:
        return None
    values = parse_attributes(text, f"{remote.url}/{path}")
    return values.get("places") or {clip: clip for clip in values.get("clips", [])}


def _remove_places(remote: Remote, places: dict[str, str]) -> None:
    for place in places.values():
        remote.remove(f"clips/{place}")


def _new_name(copy: WorkingCopy) -> str:
    return f"{copy.machine}-{uuid.uuid4().hex[:6]}"
