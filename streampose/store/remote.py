"""A folder at another place (S3, Google Cloud, Azure, ...), named by a URL and reached through fsspec.

Object stores know no folders and no renaming: what is there is there whole, because one object is put at once. Where
they are and who asks is said as the backend's own users expect; for `s3://` by the environment variables
`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, `AWS_REGION`, or by `~/.aws`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from streampose.console import logger
from streampose.errors import StoreError

AT_ONCE = 32  # objects that are got or put in one go
PACKAGES = {  # scheme -> what has to be installed for it
    **dict.fromkeys(("s3", "s3a"), "'streampose[remote]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hdfs": "pyarrow",
}


def url_of(store: Path | str) -> str | None:
    """The URL that names a store at another place; None for a folder of this machine.

    `Path` folds the two slashes of a URL; both forms are taken. One letter before the colon is a drive.
    """
    text = store if isinstance(store, str) else store.as_posix()
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/(/*)(.+)", text)
    if match is None:
        return None
    scheme, slashes, rest = match.groups()
    root = "/" if scheme == "file" or len(slashes) > 1 else ""
    return f"{scheme.lower()}://{root}{rest}".rstrip("/")


class Remote:
    """The folder that a URL names; paths are relative to it, with `/` between their parts.

    Raises:
        StoreError: the backend is not installed, or (from every method) the place cannot be reached or refuses.
    """

    def __init__(self, url: str):
        from fsspec.core import url_to_fs

        self.url, self._scheme = url, url.split(":")[0]
        with self._asking():
            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        self._root = self._root.rstrip("/")

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """What the files hold, for those of them that are there."""
        found: dict[str, bytes] = {}
        wanted = list(dict.fromkeys(paths))
        with self._asking():
            for start in range(0, len(wanted), AT_ONCE):
                part = {self._full(path): path for path in wanted[start : start + AT_ONCE]}
                answers = self._files.cat(list(part), on_error="return")
                for full, answer in answers.items():
                    if isinstance(answer, bytes):
                        found[part[self._key(full, part)]] = answer
                    elif not isinstance(answer, (FileNotFoundError, KeyError)):
                        raise answer
        return found

    def write(self, path: str, content: bytes) -> None:
        """Put a file, whole, in the place of any that is there."""
        with self._asking():
            self._make_parent(path)
            self._files.pipe_file(self._full(path), content)

    def create(self, path: str, content: bytes) -> bool:
        """Put a file where none is yet; False where there is one. Where two do so at once, one of them gets False."""
        with self._asking():
            self._make_parent(path)
            try:
                self._files.pipe_file(self._full(path), content, mode="create")
            except OSError:  # the backends say it in different ways
                if path in self.read([path]):
                    return False
                raise
        return True

    def upload(self, folder: Path, path: str) -> None:
        """Put all files of a local folder under a path."""
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        with self._asking():
            for start in range(0, len(files), AT_ONCE):
                part = files[start : start + AT_ONCE]
                targets = [f"{path}/{file.relative_to(folder).as_posix()}".lstrip("/") for file in part]
                for target in targets:
                    self._make_parent(target)
                self._files.pipe(
                    {
                        self._full(target): file.read_bytes()
                        for target, file in zip(targets, part, strict=True)
                    }
                )  # fmt: skip

    def folders(self, path: str) -> list[str]:
        """Names of the folders directly under a path, sorted."""
        with self._asking():
            try:
                entries = self._files.ls(self._full(path), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def sizes(self, path: str = "") -> dict[str, int]:
        """Every file under a path (relative to it) and its bytes."""
        full = self._full(path)
        with self._asking():
            entries = self._files.find(full, detail=True)
        start = len(self._files._strip_protocol(full).rstrip("/")) + 1
        return {str(name)[start:]: int(entry["size"] or 0) for name, entry in entries.items()}

    def age_seconds(self, path: str) -> float | None:
        """Seconds since a file was put there, by the place's own account; None where it does not say."""
        with self._asking():
            try:
                changed = self._files.modified(self._full(path))
            except (FileNotFoundError, NotImplementedError):
                return None
        if changed.tzinfo is None:
            changed = changed.replace(tzinfo=UTC)
        return (datetime.now(UTC) - changed).total_seconds()

    def remove(self, path: str) -> None:
        """Take away a file or a folder; nothing happens where there is none."""
        with self._asking():
            try:
                self._files.rm(self._full(path), recursive=True)
            except FileNotFoundError:
                return

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _key(self, full: str, known: dict[str, str]) -> str:
        """The name that was asked for, of one as the backend spells it."""
        return full if full in known else next(name for name in known if name.lstrip("/") == full.lstrip("/"))

    def _make_parent(self, path: str) -> None:
        if self._scheme in ("file", "local", "sftp", "ssh", "hdfs"):  # real folders, which must be there
            self._files.makedirs(self._full(path).rsplit("/", 1)[0], exist_ok=True)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say in one line what the place or its backend finds wrong; each has errors of its own."""
        try:
            yield
        except StoreError:
            raise
        except ImportError as error:
            package = PACKAGES.get(self._scheme)
            mend = f"install it with `pip install {package}`" if package else str(error)
            raise StoreError(f"{self.url}: what reaches {self._scheme}:// is not installed; {mend}") from None
        except Exception as error:
            logger.debug("%s", self.url, exc_info=True)
            raise StoreError(_explain(self.url, self._scheme, error)) from None


def _explain(url: str, scheme: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    where = (
        "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if scheme.startswith("s3") else "its settings"
    )
    if isinstance(error, ValueError) and "rotocol not known" in text:
        return f"{url}: fsspec knows no {scheme}://; name a folder, or a URL such as s3://bucket/store.zarr"
    if isinstance(error, FileNotFoundError):
        return f"{url}: no such place ({text}); make the bucket first, and check the name"
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return f"{url}: no permission ({text}); check {where}"
    return f"{url}: cannot be reached ({text}); check {where} and the network, then run the same command again"
