"""The working copy of a store at another place: what is read from there is kept here, what is made here is put there.

There, a store looks as in `schema`, but for this: every upload of a clip lies in a folder of its own name, its place,
and the source's `places` say which clip lies where. A clip's place is never written to a second time, and the source is
put last, as one object; so a reader, or the next run after a crash, sees a source whole or not at all, and two machines
may ingest into one store at once: the first to finish a source has made it.

Here, the copy is an ordinary store (`<cache>/stores/<name>/store.zarr`) with the attributes of all sources and clips;
frames and masks come when they are first read, and those that were not used for longest go when the copy grows above
`STREAMPOSE_CACHE_GB`. A source without `places` was made here and is not there yet. The copy may be deleted any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streampose.console import logger
from streampose.errors import StoreError
from streampose.store.remote import Remote, url_of
from streampose.store.schema import SEGMENT_LARGE, locked, read_attributes, writing

CACHE_GB = 50.0
TOUCH_SECONDS = 60.0
ATTEMPTS = 5  # to read what another process drops
GROUP = "zarr.json"
GONE = (0, 0)


def cache_folder() -> Path:
    """Where working copies lie: `STREAMPOSE_CACHE`, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("STREAMPOSE_CACHE") or Path(home) / "streampose")


def cache_bytes() -> float:
    """How large one working copy may grow.

    Raises:
        StoreError: `STREAMPOSE_CACHE_GB` is not a number.
    """
    text = os.environ.get("STREAMPOSE_CACHE_GB", str(CACHE_GB))
    try:
        return float(text) * 1e9
    except ValueError:
        raise StoreError(f"STREAMPOSE_CACHE_GB={text}: not a number of gigabytes") from None


class WorkingCopy:
    """The working copy of the store that a URL names; made by `open_copy`.

    Attributes:
        url: of the store.
        remote: what is there.
        folder: where the copy and all that belongs to it lie.
        machine: a name of this copy's own, by which uploads that a crash left are known again.
        path: the copy, an ordinary store but for frames and masks that were not read yet.
    """

    def __init__(self, url: str):
        self.url, self.remote = url, Remote(url)
        name = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-48:]
        self.folder = cache_folder() / "stores" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "store.zarr"
        self.machine = self._read_machine()
        self._places: dict[str, str] = {}
        self._listed: dict[str, list[str]] = {}  # clip -> its files there, as paths inside the clip
        self._touched: dict[Path, float] = {}
        self._one_at_a_time = threading.RLock()
        self._bytes = -1.0

    def synchronise(self) -> None:
        """Bring the attributes of all sources and clips up to date, unless an ingest is at work on this copy.

        Raises:
            StoreError: there is no store.
        """
        with alone(self.folder):
            if not (self.path / GROUP).is_file() or not self._is_written():
                self.bring_up_to_date()
        self.load_places()

    def catch_up(self) -> None:
        """As `synchronise`, by the ingest that is at work on this copy."""
        with alone(self.folder):
            self.bring_up_to_date()
        self.load_places()

    def bring_up_to_date(self) -> None:
        """As `synchronise`, by who holds the lock of the copy."""
        known = self.remote.read([GROUP]).get(GROUP)
        if known is None:
            shutil.rmtree(self.path, ignore_errors=True)
            raise StoreError(f"{self.url}: no store there; make it with `streampose ingest VIDEOS --store {self.url}`")
        mine = self.path / GROUP
        if not mine.is_file() or mine.read_bytes() != known:  # another store than the one that was copied
            shutil.rmtree(self.path, ignore_errors=True)
            for group in ("sources", "clips"):
                (self.path / group).mkdir(parents=True)
                write_json(self.path / group, {})
            _publish_file(mine, known)
        there = self.sources_there()
        for folder in folders_in(self.path / "sources"):
            attributes = read_attributes(folder)
            if "places" in attributes and attributes != there.get(folder.name):
                self.forget(folder.name)
        new = {name: values for name, values in there.items() if not (self.path / "sources" / name / GROUP).is_file()}
        wanted = {f"clips/{place}/{GROUP}": clip for values in new.values() for clip, place in values["places"].items()}
        texts = self.remote.read(wanted)
        for name, values in new.items():
            missing = [clip for clip, place in values["places"].items() if f"clips/{place}/{GROUP}" not in texts]
            if missing:
                logger.warning("%s: source %s is damaged: no clip %s", self.url, name, ", ".join(missing))
                continue
            for clip, place in values["places"].items():
                (self.path / "clips" / clip).mkdir(exist_ok=True)
                _publish_file(self.path / "clips" / clip / GROUP, texts[f"clips/{place}/{GROUP}"])
            (self.path / "sources" / name).mkdir(exist_ok=True)
            write_json(self.path / "sources" / name, values)
        self._copy_sessions()
        self._copy_labels()
        self._copy_pairs()

    def sources_there(self) -> dict[str, dict[str, Any]]:
        """Attributes of the sources that are there, each with its `places`; a store that was copied there has none."""
        texts = self.remote.read(f"sources/{name}/{GROUP}" for name in self.remote.folders("sources"))
        found = {}
        for path, text in texts.items():
            values = parse_attributes(text, f"{self.url}/{path}")
            found[path.split("/")[1]] = {"places": {clip: clip for clip in values.get("clips", [])}, **values}
        return found

    def _copy_sessions(self) -> None:
        for path, text in self.remote.read(f"sessions/{n}/{GROUP}" for n in self.remote.folders("sessions")).items():
            folder = self.path / Path(path).parent
            if not folder.parent.is_dir():
                folder.parent.mkdir()
                write_json(folder.parent, {})
            folder.mkdir(exist_ok=True)
            _publish_file(folder / GROUP, text)

    def _copy_labels(self) -> None:
        """What names the sets of labels that are there; their arrays come when they are read."""
        there = self.remote.read(f"labels/{n}/{GROUP}" for n in self.remote.folders("labels"))
        for folder in folders_in(self.path / "labels"):
            if f"labels/{folder.name}/{GROUP}" not in there:
                self._bury(folder)
        for path, text in there.items():
            (self.path / path).parent.mkdir(parents=True, exist_ok=True)
            _publish_file(self.path / path, text)

    def _copy_pairs(self) -> None:
        path = f"pairs/{GROUP}"
        text = self.remote.read([path]).get(path)
        if text is None or ((self.path / path).is_file() and (self.path / path).read_bytes() == text):
            return
        place = parse_attributes(text, f"{self.url}/{path}").get("place", "")
        under = f"pairs/{place}".rstrip("/")
        files = [f"{under}/{name}" for name in self.remote.sizes(under) if place or name != GROUP]
        temporary = self._temporary()
        for name, content in self.remote.read(files).items():
            target = temporary / name[len(under) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (temporary / GROUP).write_bytes(text)
        self._replace(temporary, self.path / "pairs")

    def fetch(self, clip_id: str, arrays: Iterable[tuple[int, str]]) -> None:
        """Have (segment, name) arrays of a clip here; optional ones that are not there are left out.

        Raises:
            StoreError: the place cannot be reached.
        """
        place = self._places.get(clip_id)
        if place is None:  # made here
            return
        with self._one_at_a_time:
            clip = self.path / "clips" / clip_id
            absent = [
                (n, name) for n, name in dict.fromkeys(arrays) if not (clip / "segments" / str(n) / name).is_dir()
            ]
            if not absent:
                return
            if clip_id not in self._listed:
                self._listed[clip_id] = list(self.remote.sizes(f"clips/{place}"))
            for segment, name in absent:
                under = f"segments/{segment}/{name}/"
                files = [path for path in self._listed[clip_id] if path.startswith(under)]
                found = self.remote.read(f"clips/{place}/{path}" for path in files)
                if len(found) == len(files) > 0:
                    self._keep(clip / under.rstrip("/"), {path.split(under)[1]: data for path, data in found.items()})
                    if name in SEGMENT_LARGE:
                        self._bytes = self._size() + sum(map(len, found.values()))
                elif files:
                    raise StoreError(f"{self.url}: clip {clip_id} is no longer there; open the store again")

    def _keep(self, folder: Path, files: dict[str, bytes]) -> None:
        """Publish an array's files by one rename; if another process was faster, its files are as good."""
        temporary = self._temporary()
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        with writing(self.path):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(temporary, folder)
            except OSError:
                if not folder.is_dir():
                    raise
                shutil.rmtree(temporary)

    def read_held(self, arrays: Iterable[tuple[str, int, str]], read: Callable[[], None]) -> None:
        """Have (clip, segment, name) arrays here, call `read`, and again where they were dropped meanwhile.

        Raises:
            StoreError: other processes drop them all the time: the copy may not grow as large as they need.
        """
        wanted = [array for array in arrays if array[0] in self._places]
        for _ in range(ATTEMPTS):
            files, failure = self._hold(wanted), None
            try:
                read()
            except StoreError as error:  # of a file that was dropped, perhaps
                failure = error
            if all(identity != GONE and _identity(folder) == identity for folder, identity in files.items()):
                if failure is not None:
                    raise failure
                return
        raise StoreError(f"{self.url}: its working copy is too small; set STREAMPOSE_CACHE_GB to more gigabytes")

    def _hold(self, arrays: list[tuple[str, int, str]]) -> dict[Path, tuple[int, int]]:
        """Fetch arrays, and note which files they are; room is made where the copy has grown too large."""
        wanted: dict[str, list[tuple[int, str]]] = {}
        for clip, segment, name in arrays:
            wanted.setdefault(clip, []).append((segment, name))
        for clip, parts in wanted.items():
            self.fetch(clip, parts)
        folders = [self.path / "clips" / clip / "segments" / str(n) / name for clip, n, name in arrays]
        now = time.monotonic()
        for folder in folders:
            if now - self._touched.get(folder, float("-inf")) > TOUCH_SECONDS and folder.is_dir():
                self._touched[folder] = now
                os.utime(folder)
        if self._size() > cache_bytes():
            self.make_room(set(folders))
        return {folder: _identity(folder) for folder in folders}

    def make_room(self, needed: set[Path] | None = None) -> None:
        """Drop the frames and masks that were not used for longest, but none that is only here, until the rest fits."""
        with self._one_at_a_time:
            sizes = self._sizes()
            rest, bound = sum(sizes.values()), cache_bytes()
            if rest <= bound:
                self._bytes = rest
                return
            for folder in sorted(set(sizes) - (needed or set()), key=lambda folder: folder.stat().st_mtime):
                if folder.parent.parent.parent.name in self._places:
                    self._bury(folder)
                    rest -= sizes[folder]
                if rest < 0.9 * bound:
                    break
            self._bytes = rest

    def count_again(self) -> None:
        """Something was added to the copy: measure it, and make room where it has grown too large."""
        self._bytes = -1.0
        self.make_room()

    def _size(self) -> float:
        if self._bytes < 0:
            self._bytes = sum(self._sizes().values())
        return self._bytes

    def _sizes(self) -> dict[Path, int]:
        return {
            folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            for name in SEGMENT_LARGE
            for folder in self.path.glob(f"clips/*/segments/*/{name}")
        }

    def load_places(self) -> None:
        """Learn which clips are there; the others were made here."""
        self._places, self._listed = {}, {}
        for folder in folders_in(self.path / "sources"):
            self._places |= read_attributes(folder).get("places", {})

    def forget(self, source_id: str) -> None:
        """Remove a source and its clips from the copy: the source first, so that a crash leaves orphans only."""
        folder = self.path / "sources" / source_id
        clips = read_attributes(folder).get("clips", [])
        self._bury(folder)
        for clip in clips:
            if (self.path / "clips" / clip).is_dir():
                self._bury(self.path / "clips" / clip)

    def _replace(self, temporary: Path, folder: Path) -> None:
        if folder.is_dir():
            self._bury(folder)
        os.rename(temporary, folder)

    def _bury(self, folder: Path) -> None:
        """Remove a folder: at once for whoever reads, by a rename."""
        grave = self._temporary() / "grave"
        try:
            os.rename(folder, grave)
        except FileNotFoundError:
            return
        finally:
            shutil.rmtree(grave.parent, ignore_errors=True)

    def _temporary(self) -> Path:
        folder = self.folder / "coming" / uuid.uuid4().hex
        with writing(self.path):
            folder.mkdir(parents=True)
        return folder

    def guard(self) -> Path:
        """The folder that an ingest locks while it is at work on the copy."""
        folder = self.folder / "ingest"
        folder.mkdir(exist_ok=True)
        return folder

    def _is_written(self) -> bool:
        """Whether an ingest is at work on the copy."""
        try:
            with locked(self.guard()):
                return False
        except StoreError:
            return True

    def _read_machine(self) -> str:
        path = self.folder / "machine"
        if not path.is_file():
            _publish_file(path, uuid.uuid4().hex[:8].encode())
        return path.read_text(encoding="utf-8")


def open_copy(store: Path | str | WorkingCopy) -> WorkingCopy | None:
    """The working copy of a store that is named by a URL, up to date; None for a folder, and a copy as it is.

    Raises:
        StoreError: no store there, or it cannot be reached.
    """
    if isinstance(store, WorkingCopy):
        return store
    url = url_of(store)
    if url is None:
        return None
    copy = WorkingCopy(url)
    copy.synchronise()
    return copy


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process brings the copy up to date."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def folders_in(path: Path) -> list[Path]:
    """The folders in a folder, sorted; none where it is not there."""
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = (folder / GROUP).stat()
    except OSError:
        return GONE
    return status.st_ino, status.st_mtime_ns


def group_text(attributes: dict[str, Any]) -> bytes:
    """What a group's zarr.json holds."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1).encode()


def write_json(folder: Path, attributes: dict[str, Any]) -> None:
    """Write a group's zarr.json whole or not at all."""
    _publish_file(folder / GROUP, group_text(attributes))


def _publish_file(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with writing(path.parent):
        temporary.write_bytes(content)
        os.replace(temporary, path)


def parse_attributes(text: bytes, where: str) -> dict[str, Any]:
    """Attributes that a group's zarr.json holds.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return json.loads(text).get("attributes", {})
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{where}: damaged ({error}); delete it and ingest again") from None
