"""Which files and folders are videos."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from streampose.video.container import VIDEO_SUFFIXES
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
