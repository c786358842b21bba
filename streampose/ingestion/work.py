"""What the processes of an ingest do; apart from the verb, so that they start without what only the verb needs."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2

from streampose.console import logger
from streampose.errors import ConfigError, StoreError, VideoError
from streampose.ingestion.clips import ClipMaker
from streampose.ingestion.memory import give_back_memory, keep_memory_flat
from streampose.ingestion.options import Options
from streampose.ingestion.spans import Span, SpanRecord, read_record, write_record
from streampose.video.decode import Verdict, open_video

MOST_DECODER_THREADS = 4  # masks and crops need the other processors


def begin_worker() -> None:
    """Let a worker die when its parent does, however that dies, so that none writes beside the next ingest."""
    keep_memory_flat()

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def ingest_span(
    path: Path,
    source_id: str,
    span: Span,
    options: Options,
    workers: int = 1,
    advance: Callable[[float], None] | None = None,
) -> None:
    """One span of a video, to its record; a failure of one never stops the others.

    Args:
        workers: processes that share the processors.
        advance: takes how many frames are done since the last call.
    """
    if read_record(options.store, source_id, span, options.comparable()) is not None:
        return
    processors = max(1, (os.cpu_count() or 2) // workers)
    maker = ClipMaker(path, source_id, span, options, processors)
    failure, verdict = "", Verdict("quarantined", "")
    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures are small: waking others takes longer than the work
    try:
        with open_video(path, threads=max(1, min(MOST_DECODER_THREADS, processors - 1))) as video:
            maker.run(video, advance)
            verdict = video.verdict
    except VideoError as error:
        failure = reason_of(path, error)
    except (StoreError, ConfigError):
        raise
    except Exception as error:
        logger.debug("%s", path, exc_info=True)
        failure = f"failed unexpectedly ({type(error).__name__}: {error}); please report this"
    finally:
        cv2.setNumThreads(cv_threads)
        maker.discard_unfinished()
        give_back_memory()
    record = SpanRecord(
        failure=failure,
        verdict=verdict.verdict,
        reason=verdict.reason,
        lost_spans=[list(lost) for lost in verdict.lost_spans],
        frames=maker.frames,
        looks=maker.looks,
        masked_frames=maker.masking.looks.total(),
        shots=maker.shots,
        sam_asked=maker.masking.asked,
        sam_rejected=maker.masking.rejected,
        masks=dict(maker.masking.looks),
        mask_reasons=list(maker.masking.reasons),
        made=[asdict(made) for made in maker.made],
    )
    write_record(options.store, source_id, span, record, options.comparable())


def reason_of(path: Path, error: Exception) -> str:
    """What went wrong, without the path that stands beside it."""
    return str(error).removeprefix(f"{path}: ")
