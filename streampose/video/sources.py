"""Which files and folders are videos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from streampose.errors import VideoError
from streampose.video.container import VIDEO_SUFFIXES, message_of
from streampose.video.folder import is_animated_webp, is_image_folder


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """The videos under files and folders, sorted, each once.

    Folders are searched with all that they contain for `VIDEO_SUFFIXES`, animated webp pictures and folders of numbered
    frames (see `folder.is_image_folder`; such a folder is one video). A file that is named itself is returned whatever
    its suffix, so that it gets its verdict.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            found.update(_search(path))
        else:
            found.add(path)
    return sorted(found)


def content_hash(path: Path) -> str:
    """SHA-256 of what a source holds: of the file, or of the names and contents of a folder's files.

    Raises:
        VideoError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(f for f in path.iterdir() if f.is_file()):
                digest.update(f"{file.name}|{content_hash(file)}|".encode())
            return digest.hexdigest()
        with path.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file; skipped") from None
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; skipped") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({message_of(error)}); skipped") from None
    return digest.hexdigest()


def _search(top: Path) -> Iterable[Path]:
    for name, _, files in os.walk(top):
        folder = Path(name)
        for file in files:
            path = folder / file
            suffix = path.suffix.lower()
            if file.startswith(".") or not path.is_file():
                continue
            if suffix in VIDEO_SUFFIXES or (suffix == ".webp" and is_animated_webp(path)):
                yield path
        if is_image_folder(folder):
            yield folder
