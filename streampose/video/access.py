"""Fetch frames of a video by their numbers: seek to a key frame before each, back off where that went too far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import av
import numpy as np

from streampose.video.index import TimestampIndex
from streampose.video.ledger import Entry

NEAR_FRAMES = 48  # decoding so many frames on is cheaper than a seek
BACK_OFFS = (0.0, 1.0, 4.0, 16.0)  # seconds; after them the file is read from its start


class Source(Protocol):
    """What pictures come from: `MediaFile`, `ImageFolder`, `AnimatedWebp`."""

    sequential: bool

    def again(self) -> Source: ...
    def close(self) -> None: ...
    def entries(self) -> Iterator[Entry]: ...
    def seek(self, seconds: float, back_off_seconds: float = 0.0) -> Iterator[Entry]: ...


class Cursor:
    """A place in a source that moves to the frames that are asked for; it holds one picture at a time.

    Args:
        source: is opened anew; the one given is left where it is.
        index: of all its frames.
    """

    def __init__(self, source: Source, index: TimestampIndex):
        self._source, self._index = source.again(), index
        self._by_time, self._seekable = index.seekable, index.seekable and not source.sequential
        self._listed = np.flatnonzero(index.listed)
        self._count = 0  # entries since the start
        self._entries: Iterator[Entry] | None = None
        self._next = 0  # least number that may still come

    def pictures(self, numbers: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """Yield (number, picture) for ascending numbers; the picture is None where it cannot be had after all."""
        for number in numbers:
            yield number, self._find(number)

    def close(self) -> None:
        self._source.close()

    def _find(self, number: int) -> av.VideoFrame | None:
        if self._entries is not None and 0 <= number - self._next < (
            NEAR_FRAMES if self._seekable else len(self._index)
        ):
            picture = self._advance(number)
            if picture is not None:
                return picture
        if self._seekable:
            seconds = float(self._index.pts_seconds[number])
            for back_off in BACK_OFFS:
                if back_off > seconds - self._index.pts_seconds[0]:
                    break
                if not self._index.sound.all():  # a decoder that met damage is not to be trusted any more
                    self._reopen()
                self._entries, self._next = self._source.seek(seconds, back_off), 0
                picture = self._advance(number)
                if picture is not None:
                    return picture
        self._restart()
        return self._advance(number)

    def _reopen(self) -> None:
        self._source.close()
        self._source = self._source.again()

    def _restart(self) -> None:
        self._reopen()
        self._entries, self._next, self._count = self._source.entries(), 0, 0

    def _advance(self, number: int) -> av.VideoFrame | None:
        """Read on to a frame; None where it was passed or is not there."""
        assert self._entries is not None
        for entry in self._entries:
            found = self._number_of(entry)
            self._next = found + 1
            if found == number:
                return entry.picture
            if found > number:
                return None
        self._entries = None
        return None

    def _number_of(self, entry: Entry) -> int:
        """The number of an entry: by its timestamp where those tell frames apart, else by counting."""
        count, self._count = self._count, self._count + 1
        if self._by_time:
            return self._next if entry.pts is None else int(np.searchsorted(self._index.pts, entry.pts))
        return int(self._listed[count]) if count < len(self._listed) else len(self._index)
