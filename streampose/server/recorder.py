"""Record what a live session shows: one video a camera, and the poses beside it, line by line.

A thread of its own writes; its queue is short, and what does not fit is left out and counted, so that recording never
slows the session. When the disk is nearly full the recording is finished, so that what was recorded can be played.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import IO

from streampose.console import logger
from streampose.errors import StreamposeError, VideoError
from streampose.server.messages import RecordingMessage
from streampose.server.results import Result
from streampose.video.encode import VideoWriter

MOST_WAITING = 8  # frames
LEAST_FREE_BYTES = 64 << 20  # of the disk, under which a recording is finished
CHECK_SECONDS = 1.0  # between looks at the disk
FPS = 30.0  # told to the encoder; the frames keep their own times
FINISH_SECONDS = 10.0


class RecordingError(StreamposeError):
    """A recording cannot be begun."""


class Recorder:
    """Writes one recording at a time.

    Args:
        folder: where recordings go; None refuses them, so that no frame is ever stored.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._lock = threading.Lock()
        self._queue: queue.Queue[Result | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._name, self._began, self._ended = "", 0.0, 0.0
        self._frames = self._dropped = 0
        self._error: str | None = None
        self._running = False

    def start(self) -> RecordingMessage:
        """Begin a recording.

        Raises:
            RecordingError: recordings are not allowed, one is running, or the folder cannot be written.
        """
        if self._folder is None:
            raise RecordingError("recording is off: no frames are stored unless serve is given --recordings FOLDER")
        with self._lock:
            if self._running:
                raise RecordingError(f"{self._name} is being recorded already; stop it first")
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._check_space()
                name = _free_name(self._folder)
                poses = (self._folder / f"{name}.jsonl").open("x", encoding="utf-8")
            except OSError as error:
                raise RecordingError(f"{self._folder}: cannot be written ({error.strerror or error})") from None
            self._name, self._error, self._running = name, None, True
            self._frames = self._dropped = 0
            self._began = time.monotonic()
            self._queue = queue.Queue(MOST_WAITING)
            self._thread = threading.Thread(target=self._write, args=(poses, self._queue), name="recorder", daemon=True)
            self._thread.start()
        logger.info("recording %s", self._folder / self._name)
        return self._message()

    def offer(self, result: Result) -> None:
        """A result to be recorded where a recording is running; never blocks."""
        if not self._running:
            return
        try:
            self._queue.put_nowait(result)
        except queue.Full:
            self._dropped += 1

    def stop(self) -> RecordingMessage:
        """Finish the recording, if there is one, and wait for its files."""
        with self._lock:
            thread = self._thread
            if thread is not None:
                self._running = False
                while thread.is_alive():
                    try:
                        self._queue.put(None, timeout=0.05)
                        break
                    except queue.Full:
                        continue
                thread.join(FINISH_SECONDS)
                self._thread = None
        return self._message()

    def message(self) -> RecordingMessage | None:
        """How the last recording is doing; None where there was none."""
        return self._message() if self._name else None

    def _message(self) -> RecordingMessage:
        end = time.monotonic() if self._running else self._ended
        return RecordingMessage(
            running=self._running, name=self._name, seconds=round(max(0.0, end - self._began), 2), frames=self._frames,
            dropped=self._dropped, error=self._error,
        )  # fmt: skip

    def _check_space(self) -> None:
        assert self._folder is not None
        free = shutil.disk_usage(self._folder).free
        if free < LEAST_FREE_BYTES:
            raise RecordingError(
                f"{self._folder}: the disk is nearly full ({free >> 20} MiB left); the recording ends, serving goes on"
            )

    def _write(self, poses: IO[str], waiting: queue.Queue[Result | None]) -> None:
        """Write results until told to stop, or until that fails."""
        writers: dict[tuple[int, tuple[int, int]], VideoWriter] = {}
        began: float | None = None
        checked = time.monotonic()
        try:
            while (result := waiting.get()) is not None:
                if time.monotonic() - checked > CHECK_SECONDS:
                    checked = time.monotonic()
                    self._check_space()
                began = result.captured_at if began is None else began
                height, width = result.image.shape[:2]
                key = (result.camera, (width, height))
                if key not in writers:  # another camera, or it has changed its resolution
                    number = sum(camera == result.camera for camera, _ in writers)
                    part = f"-{number}" if number else ""
                    writers[key] = VideoWriter(
                        poses_path(poses).with_name(f"{self._name}-camera{result.camera}{part}.mp4"), FPS,
                        (width, height), crf=23, preset="ultrafast",
                    )  # fmt: skip
                seconds = max(result.captured_at - began, 0.0)
                with contextlib.suppress(ValueError):  # two pictures of one moment: the first is enough
                    writers[key].write(result.image, seconds)
                poses.write(result.message() + "\n")
                self._frames += 1
        except (VideoError, RecordingError) as error:
            self._error = str(error)
        except OSError as error:
            self._error = f"{poses_path(poses)}: cannot be written ({error.strerror or error})"
        finally:
            self._running, self._ended = False, time.monotonic()
            self._finish(poses, list(writers.values()))

    def _finish(self, poses: IO[str], writers: list[VideoWriter]) -> None:
        for writer in writers:
            try:
                writer.close()
            except VideoError as error:
                self._error = self._error or str(error)
        try:
            poses.close()
        except OSError as error:  # what was buffered does not fit
            self._error = self._error or f"{poses_path(poses)}: cannot be written ({error.strerror or error})"
        if self._error:
            logger.error("the recording ended: %s", self._error)


def poses_path(poses: IO[str]) -> Path:
    """The file that a stream writes to."""
    return Path(poses.name)


def _free_name(folder: Path) -> str:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    taken = {path.name.partition(".")[0] for path in folder.iterdir()}
    names = [stamp, *(f"{stamp}-{n}" for n in range(2, 100))]
    return next(name for name in names if name not in taken)
