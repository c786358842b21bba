"""`streampose ingest`: videos -> shots -> subjects -> crops, masks and frame pairs in a store.

Each video is looked at twice: a few pictures from all over it show the empty scenes (`masks.scenes`), then it is
decoded once, some frames a second are masked, and its subjects are followed. Long videos are divided into spans. A
source is published when all its spans are done; what a crash leaves of an unfinished span is cleared away by the next
run, which skips the spans and sources that are done. Memory does not grow with a video's length.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streampose.config import load_skeleton
from streampose.console import logger, progress
from streampose.errors import ConfigError, StoreError, VideoError
from streampose.ingestion.options import Options
from streampose.ingestion.spans import Span, SpanRecord, forget_records, plan_spans, read_record
from streampose.ingestion.work import begin_worker, ingest_span, reason_of
from streampose.sessions import load_sessions
from streampose.store.copy import WorkingCopy
from streampose.store.push import begin_writing, pull_source, push_session, push_source, renew_pairs
from streampose.store.reader import StoreReader
from streampose.store.remote import url_of
from streampose.store.schema import DEFAULT_CODEC
from streampose.store.sessions import find_sources, write_session
from streampose.store.writer import publish_source, remove_clip, remove_orphans, remove_source
from streampose.structures import Session
from streampose.tracking.boxes import MARGIN
from streampose.tracking.worth import Evidence, is_subject
from streampose.video.decode import open_video
from streampose.video.sources import content_hash, find_videos

LEAST_FRAMES = 12  # of a video, unless every frame is taken, or it is a view of a session:
LEAST_ASKED, LEAST_OF_VIEW = 6, 2
SMALL_BYTES = 1_000_000  # a file that is never worth dividing
MOVES = "the camera moves, so there is no background for --masks {}; ingest it with --masks auto or --masks none"
LOST = "the camera moves in a way that cannot be told from the pictures; film steadier, or ingest it with --masks none"


def ingest(
    paths: list[Path],
    *,
    store: Path | str,
    skeleton: str = "human17",
    masks: str = "auto",
    crop_size: int = 128,
    workers: int = 1,
    max_subjects: int = 4,
    rate: float = 10.0,
    overwrite: bool = False,
    seed: int = 0,
    sessions: Sequence[Path] = (),
    synchronise: str | None = None,
    sam_checkpoint: Path | None = None,
    sam_every: int = 1,
    sam_precision: str = "auto",
    detector: str = "motion",
    detector_class: int | None = None,
    codec: str = DEFAULT_CODEC,
) -> dict[str, Any]:
    """Bring videos into a store.

    Args:
        paths: videos, or folders of them.
        store: folder, or URL of another place (`store.copy`); made where it is missing; sources that it holds already
            are skipped.
        skeleton: name or YAML file of the skeleton that the store is for.
        masks: `auto` chooses for each shot; `mog2`, `knn` and `median` want a camera that stands still, `moving` does
            not; `sam` lets Segment Anything draw them; `none` keeps crops without masks.
        crop_size: side of the crops in pixels.
        workers: processes that share videos, and the spans of long videos.
        max_subjects: subjects followed at a time.
        rate: frames a second, about, that are looked at for subjects and kept as crops; of the others those are passed
            over that no frame builds on (`Video.frames_every`). 0 takes every frame.
        overwrite: ingest the sources again that the store holds already.
        seed: of the frame pairs.
        sessions: folders or `sessions.yaml` files of synchronised cameras, see `streampose.sessions`; their videos are
            ingested too.
        synchronise: how the clocks of a session's views are aligned: `none`, `auto`, `audio`, `motion`, `timestamps`;
            None takes what the session's file says.
        sam_checkpoint: weights of Segment Anything (1 or 2); with `auto` it draws the masks of shots that move.
        sam_every: frames of a clip from one question to Segment Anything to the next; 5 is advised without a GPU.
        sam_precision: `auto`, `bf16` or `f32`.
        detector: `motion`, `hog`, `torchvision:NAME=FILE` or `onnx:FILE`, see `tracking.detectors`.
        detector_class: number of the class that the detector is to find; None for people.
        codec: how a new store keeps its crops, one of `store.schema.CODECS`: `jpeg` takes a fifth of the bytes, `zstd`
            keeps every bit.

    Returns:
        `store`, `sources` (`source`, `verdict`, `reason`, `frames`, `clips`), `sessions` (ids), `pairs`,
        `contact_sheet`, `seconds`.

    Raises:
        ConfigError, StoreError, VideoError: a wrong call, a store that cannot be written, no video at all.
    """
    started = time.monotonic()
    checkpoint = "" if sam_checkpoint is None else str(sam_checkpoint)
    options = Options(
        Path(store),
        masks,
        crop_size,
        max_subjects,
        rate,
        checkpoint,
        sam_every,
        sam_precision,
        detector,
        detector_class,
    )
    options.check()
    if workers < 1:
        raise ConfigError(f"workers {workers}: at least 1")
    recordings = [found for path in sessions for found in load_sessions(path, synchronise=synchronise)]
    paths = [*paths, *(view.video for recording in recordings for view in recording.views)]
    made_for = load_skeleton(skeleton)
    with begin_writing(store, made_for, crop_size=crop_size, margin=MARGIN, codec=codec) as (folder, copy):
        options = replace(options, store=folder)
        remove_orphans(folder)
        jobs, sources = _plan(paths, folder, overwrite, copy)
        jobs = _of_sessions(jobs, recordings, rate)
        for job, result in _run(jobs, options, workers):
            sources[job.number] = result
            if result["verdict"] != "ok":
                logger.warning("%s: %s: %s", result["source"], result["verdict"], result["reason"])
            if copy is not None:
                push_source(copy, job.source_id, replace=overwrite)
        if recordings:
            from streampose.ingestion.across_views import add_still_subject  # here: it takes long to import
        for recording in recordings:
            add_still_subject(folder, recording, options, list(sources.values()), copy)
        pairs = renew_pairs(folder, copy, seed)
        written = _write_sessions(folder, recordings)
        if copy is not None:
            for session in written:
                push_session(copy, session)
        remove_orphans(folder)
    sheet = _write_contact_sheet(StoreReader(store))
    return {
        "store": url_of(store) or str(store),
        "sources": [sources[number] for number in sorted(sources)],
        "sessions": written,
        "pairs": pairs,
        "contact_sheet": sheet,
        "seconds": round(time.monotonic() - started, 2),
    }


def _of_sessions(jobs: list[_Job], recordings: list[Session], rate: float) -> list[_Job]:
    """The jobs, with what is known of those that are views of sessions."""
    views = {view.video.resolve(): view for recording in recordings for view in recording.views}
    told = []
    for job in jobs:
        view = views.get(job.path.resolve())
        if view is not None:
            posed = view.camera is not None and view.camera.posed
            job = replace(job, least_frames=LEAST_OF_VIEW, calibrated=posed)
        elif rate == 0:
            job = replace(job, least_frames=LEAST_ASKED)
        told.append(job)
    return told


def _write_sessions(store: Path, recordings: list[Session]) -> list[str]:
    """Keep the sessions whose views are all in the store; the ids of these."""
    written = []
    for recording in recordings:
        try:
            source_ids = find_sources(store, recording)
        except StoreError as error:  # a view that could not be read has said why; the others are kept
            logger.warning("%s", error)
            continue
        written.append(write_session(store, recording, source_ids))
    return written


@dataclass(frozen=True)
class _Job:
    """A video that is to be done; one that a calibrated camera filmed may show a subject who stands still."""

    number: int
    path: Path
    name: str
    source_id: str
    content_hash: str
    least_frames: int = LEAST_FRAMES
    calibrated: bool = False


def _plan(
    paths: list[Path], store: Path, overwrite: bool, copy: WorkingCopy | None = None
) -> tuple[list[_Job], dict[int, dict[str, Any]]]:
    """What is to be done, and the results of what is done already or cannot be read."""
    named = [
        (path, path.relative_to(base) if base.is_dir() else Path(path.name))
        for base in map(Path, paths)
        for path in find_videos([base])
    ]
    if not named:
        raise VideoError(f"{', '.join(map(str, paths))}: no videos there; name video files or folders of them")
    there = {source["id"]: source for source in StoreReader(store).sources()}
    jobs: list[_Job] = []
    results: dict[int, dict[str, Any]] = {}
    planned: set[str] = set()
    for number, (path, name) in enumerate(dict.fromkeys(named)):
        try:
            digest = content_hash(path)
        except VideoError as error:
            results[number] = _result(path, "quarantined", reason_of(path, error), 0, [])
            logger.warning("%s", error)
            continue
        source_id = _source_id(name, digest)
        if source_id in planned:
            continue
        planned.add(source_id)
        if source_id in there and not overwrite:
            old = there[source_id]
            results[number] = _result(path, old["verdict"], old["reason"], old["frames"], old["clips"])
            logger.info("%s: in the store already", path)
            continue
        for old in there.values():
            if old["id"] == source_id or (old["name"] == name.as_posix() and old["path"] == str(path)):
                if old["id"] != source_id:
                    logger.info("%s: has changed since it was ingested; replaced", path)
                    if copy is not None:
                        pull_source(copy, old["id"])
                remove_source(store, old["id"])
        jobs.append(_Job(number, path, name.as_posix(), source_id, digest))
    return jobs, results


@dataclass(frozen=True)
class _Task:
    job: _Job
    span: Span


def _run(jobs: list[_Job], options: Options, workers: int) -> Iterator[tuple[_Job, dict[str, Any]]]:
    """Every source's result, as soon as all of its spans are done."""
    plans = {job.number: _spans(job) for job in jobs}
    left = {job.number: len(plans[job.number]) for job in jobs}
    for task in _work([_Task(job, span) for job in jobs for span in plans[job.number]], options, workers):
        left[task.job.number] -= 1
        if not left[task.job.number]:
            yield task.job, _publish(task.job, plans[task.job.number], options)


def _work(tasks: list[_Task], options: Options, workers: int) -> Iterator[_Task]:
    """The tasks, each when it is done."""
    if workers == 1 or len(tasks) < 2:
        frames = sum(_frames_estimate(job.path) or 0 for job in {task.job: None for task in tasks})
        with progress("ingest", frames or None) as bar:
            for task in tasks:
                bar.advance(0, task.job.path.name)
                ingest_span(task.job.path, task.job.source_id, task.span, options, 1, bar.advance)
                yield task
        return
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=begin_worker) as pool,
        progress("ingest", len(tasks), "parts") as bar,
    ):
        waiting = {
            pool.submit(ingest_span, task.job.path, task.job.source_id, task.span, options, workers): task
            for task in tasks
        }
        try:
            for done in as_completed(waiting):
                bar.advance(1, waiting[done].job.path.name)
                done.result()
                yield waiting[done]
        finally:
            for future in waiting:
                future.cancel()


def _spans(job: _Job) -> list[Span]:
    if job.path.is_file() and job.path.stat().st_size < SMALL_BYTES:
        return [Span()]
    try:
        with open_video(job.path) as video:
            return plan_spans(video)
    except VideoError:
        return [Span()]  # reading it says why


def _publish(job: _Job, spans: list[Span], options: Options) -> dict[str, Any]:
    """Put the spans of a source together, judge it and make it exist."""
    found = [read_record(options.store, job.source_id, span, options.comparable()) for span in spans]
    records = [record for record in found if record is not None]
    frames, looks, masked = (sum(getattr(r, name) for r in records) for name in ("frames", "looks", "masked_frames"))
    made = [(entry["clip"], Evidence(**entry["evidence"])) for record in records for entry in record.made]
    verdict, reason = _judge(records, options.masks, bool(made), job)
    largest = max((evidence.area for _, evidence in made), default=0.0)
    clips = []
    for clip, evidence in made:
        if verdict != "quarantined" and is_subject(evidence, largest):
            clips.append(clip)
        else:
            remove_clip(options.store, clip)
    attributes = {
        "path": str(job.path),
        "name": job.name,
        "size_bytes": job.path.stat().st_size if job.path.is_file() else 0,
        "content_hash": job.content_hash,
        "probe": _probe(job.path),
        "verdict": verdict,
        "reason": reason,
        "lost_spans": _joined([lost for record in records for lost in record.lost_spans]),
        "frames": frames,
        "looks": looks,
        "masked_frames": masked,
        "shots": sum(record.shots for record in records),
        **_masks(records),
        "detector": options.detector,
        "clips": clips,
    }
    publish_source(options.store, job.source_id, attributes)
    forget_records(options.store, job.source_id)
    logger.info("%s: %d frames, %d clips", job.path, frames, len(clips))
    return _result(job.path, verdict, reason, frames, clips)


def _judge(records: list[SpanRecord], masks: str, any_clip: bool, job: _Job) -> tuple[str, str]:
    """Verdict and reason of a source: the decoder's for its spans, and what masking found."""
    frames, looks, masked = (sum(getattr(r, name) for r in records) for name in ("frames", "looks", "masked_frames"))
    read = [record for record in records if not record.failure]
    failures = list(dict.fromkeys(record.failure for record in records if record.failure))
    if not read:
        return "quarantined", "; ".join(failures)
    order = ("ok", "repaired", "quarantined")
    verdict = max((record.verdict for record in read), key=order.index)
    if failures:
        verdict = max(verdict, "repaired", key=order.index)
    reasons = list(dict.fromkeys([record.reason for record in read if record.reason] + failures))
    if frames < job.least_frames:
        reasons.append(f"only {frames} frames; at least {job.least_frames} are needed")
        return "quarantined", "; ".join(reasons)
    if masks != "none" and not job.calibrated:
        left_out = 1 - masked / max(looks, 1)
        if left_out > 0.8 and not any_clip:
            why = MOVES.format(masks) if masks in ("mog2", "knn", "median") else LOST
            return "quarantined", "; ".join([*reasons, why])
        if left_out > 0.05:
            reasons.append(f"{left_out:.0%} of it was left out: the camera moves there or the shots are too short")
    if not any_clip and verdict != "quarantined":
        reasons.append("nothing that moves was found in it")
    return verdict, "; ".join(reasons)


def _masks(records: list[SpanRecord]) -> dict[str, Any]:
    """What made the masks of a source, the most used first, and why."""
    frames: Counter[str] = Counter()
    for record in records:
        frames.update(record.masks)
    reasons = list(dict.fromkeys(reason for record in records for reason in record.mask_reasons))
    asked, rejected = (sum(getattr(record, name) for record in records) for name in ("sam_asked", "sam_rejected"))
    if asked:
        logger.info("Segment Anything drew %d masks; %d more were of something else", asked - rejected, rejected)
    return {
        "masks": ", ".join(name for name, _ in sorted(frames.items(), key=lambda item: (-item[1], item[0]))) or "none",
        "masks_reason": "; ".join(reasons),
        **({"sam_asked": asked, "sam_rejected": rejected} if asked else {}),
    }


def _joined(stretches: list[list[float]]) -> list[list[float]]:
    """Stretches of time in order, those that overlap as one."""
    joined: list[list[float]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return joined


def _probe(path: Path) -> dict[str, Any]:
    try:
        with open_video(path) as video:
            return dict(vars(video.probe))
    except VideoError:
        return {}


def _result(path: Path, verdict: str, reason: str, frames: int, clips: list[str]) -> dict[str, Any]:
    return {"source": str(path), "verdict": verdict, "reason": reason, "frames": frames, "clips": clips}


def _source_id(name: Path, content_hash: str) -> str:
    """The same file under the same name is the same source, on every machine and in every run."""
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", name.stem).strip("-").lower()[:40] or "video"
    digest = hashlib.sha256(f"{name.as_posix()}|{content_hash}".encode()).hexdigest()
    return f"{stem}-{digest[:10]}"


def _frames_estimate(path: Path) -> int | None:
    try:
        with open_video(path) as video:
            return video.probe.frames_estimate
    except VideoError:
        return None


def _write_contact_sheet(reader: StoreReader) -> str | None:
    """Leave a picture of the crops with their masks beside the store, so that people look."""
    from streampose.inspect import write_contact_sheet

    name = f"{reader.path.stem}-contact-sheet.png"
    return write_contact_sheet(reader, Path(name) if url_of(reader.name) else reader.path.with_name(name))
