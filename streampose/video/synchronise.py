"""Time offsets between the cameras of one recording: from their sound, from what moves, or from their clocks.

Each pair of videos is measured on its own; the offsets are the weighted least-squares answer to all pairs, and what is
left over is the check: measurements that contradict each other cannot all be right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import av
import cv2
import numpy as np

from streampose.console import logger
from streampose.errors import ConfigError, VideoError
from streampose.video.decode import open_video

METHODS = ("auto", "audio", "motion", "timestamps")
OPTIONS = {"protocol_whitelist": "file"}  # a file may not make us open other addresses
AUDIO_RATE = 16000
LONGEST_SECONDS = {"audio": 1800.0, "motion": 600.0}  # of each video: enough to be sure, and memory stays flat
MOTION_SIZE = (96, 96)
MOTION_RATE = 200.0  # of the grid on which motion energies are compared
NOISE = 3.0  # of 255: what the sensor changes from frame to frame
LEAST_SECONDS = 5.0  # of motion: in less, too much looks alike by chance
LEAST_OVERLAP = 0.3  # of the shorter video
SURE = 0.5  # a confidence below it is warned about


@dataclass(frozen=True)
class Offset:
    """What to add to a video's timestamps to get the time of the first video.

    Attributes:
        seconds: 0 for the first video.
        confidence: in [0, 1]; how far the best match stands above the next one. Below 0.5 it should not be trusted.
        contradiction_seconds: how far the measurements with the other videos lie from this answer at most.
        uncertainty_seconds: what the method can resolve.
        method: `audio`, `motion` or `timestamps`.
    """

    seconds: float
    confidence: float
    contradiction_seconds: float
    uncertainty_seconds: float
    method: str


@dataclass(frozen=True)
class Signal:
    """What of a video is compared: (C, N) values on an even grid of time, `rate` a second, from `start_seconds` on."""

    values: np.ndarray
    rate: float
    start_seconds: float
    resolution_seconds: float


def find_offsets(
    videos: Sequence[Path], method: str = "auto", *, max_offset_seconds: float | None = None
) -> list[Offset]:
    """Offsets of the videos against the first.

    Args:
        method: `audio`, `motion`, `timestamps`, or `auto`: audio where all have sound and it is sure, else motion.
        max_offset_seconds: how far apart the recordings started at most; None for any that leave enough overlap.

    Returns:
        one for each video.

    Raises:
        ConfigError: an unknown method, or a video that lacks what the method needs (sound, a clock, two frames).
        VideoError: a video that cannot be read.
    """
    if method not in METHODS:
        raise ConfigError(f"synchronise: {method!r} is not known; choose from {', '.join(METHODS)}")
    if method == "auto":
        try:
            by_audio = find_offsets(videos, "audio", max_offset_seconds=max_offset_seconds)
            if min(offset.confidence for offset in by_audio) >= SURE:
                return by_audio
            logger.info("synchronise: the sound is not sure enough; taking what moves")
        except ConfigError as error:
            logger.info(f"synchronise: {error}; taking what moves")
        return find_offsets(videos, "motion", max_offset_seconds=max_offset_seconds)
    if method == "timestamps":
        return _from_clocks(videos)
    read = read_audio if method == "audio" else read_motion
    match = match_audio if method == "audio" else match_motion
    signals = [read(video) for video in videos]
    pairs = {(i, j): match(signals[i], signals[j], max_offset_seconds) for i, j in combinations(range(len(videos)), 2)}
    resolution = max(signal.resolution_seconds for signal in signals)
    return solve_offsets(len(videos), pairs, method, resolution)


def read_audio(video: Path) -> Signal:
    """The sound of a video as one channel at 16 kHz, on the time of its pictures.

    Raises:
        ConfigError: no sound.
        VideoError: the file cannot be read.
    """
    chunks: list[np.ndarray] = []
    start, filled = None, 0
    try:
        with av.open(str(video), options=OPTIONS, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise ConfigError(f"{video}: no sound to synchronise by; choose motion")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
            for frame in container.decode(container.streams.audio[0]):
                if start is None:
                    start = float(frame.time or 0.0)
                at = filled if frame.time is None else round((float(frame.time) - start) * AUDIO_RATE)
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray().ravel()
                    if at > filled + AUDIO_RATE // 50:  # a hole in the sound stays a hole, or all after it shifts
                        chunks.append(np.zeros(at - filled, np.float32))
                        filled = at
                    chunks.append(samples)
                    filled += len(samples)
                if filled > LONGEST_SECONDS["audio"] * AUDIO_RATE:
                    break
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{video}: its sound cannot be read ({getattr(error, 'strerror', None) or error})") from None
    values = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    if len(values) < AUDIO_RATE // 10 or not np.any(values):
        raise ConfigError(f"{video}: its sound is silent; choose motion")
    return Signal(values, AUDIO_RATE, start or 0.0, 0.001)


def read_motion(video: Path) -> Signal:
    """What moves in a video, on an even grid of time: how much changes, goes up, goes down, and up less down.

    Up and down look alike to all upright cameras around a subject, left and right do not. Brightness jumps of the whole
    picture and camera shake are taken out first.

    Raises:
        ConfigError: fewer than three frames.
        VideoError: the file cannot be read.
    """
    times: list[float] = []
    motions: list[np.ndarray] = []
    before = None
    with open_video(video, size=MOTION_SIZE, threads=1) as opened:
        frame_seconds = 1 / opened.probe.fps
        for frame in opened.frames():
            picture = cv2.GaussianBlur(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
            if before is not None:
                motions.append(_motion(before, picture))
                times.append(frame.pts_seconds)
            before = picture
            if times and frame.pts_seconds - times[0] > LONGEST_SECONDS["motion"]:
                break
    if len(times) < 2:
        raise ConfigError(f"{video}: too short to synchronise by motion ({len(times) + 1} frames)")
    # A change belongs to the time between two frames; cameras of other rates then agree.
    middle = np.array(times) - frame_seconds / 2
    grid = np.arange(middle[0], middle[-1], 1 / MOTION_RATE)
    values = np.stack([np.interp(grid, middle, channel) for channel in np.array(motions).T])
    return Signal(values, MOTION_RATE, float(grid[0]), frame_seconds)


def _motion(before: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """(4,) share of light that changed, motion up, motion down, and down less up; square roots tame the big ones."""
    change = picture.astype(np.float32) - before
    change = np.maximum(np.abs(change - np.median(change)) - NOISE, 0)
    flow = cv2.calcOpticalFlowFarneback(
        before, picture, np.zeros((*picture.shape, 2), np.float32), 0.5, 2, 9, 2, 5, 1.1, 0
    )
    down = (flow[..., 1] - np.median(flow[..., 1])) * cv2.blur((change > 0).astype(np.float32), (5, 5))
    roots = np.sqrt([change.mean(), np.maximum(-down, 0).mean(), np.maximum(down, 0).mean()])
    return np.append(roots, down.mean())


def match_audio(first: Signal, second: Signal, max_offset_seconds: float | None = None) -> tuple[float, float]:
    """Offset of the second video against the first by sound, and its confidence.

    Generalised cross-correlation with phase transform, so that echoes and unlike microphones matter little.

    Source: Knapp & Carter, "The generalized correlation method for estimation of time delay", 1976.
    """
    a, b = first.values, second.values
    length = 1 << int(np.ceil(np.log2(len(a) + len(b))))
    cross = np.fft.rfft(a, length) * np.conj(np.fft.rfft(b, length))
    strength = np.abs(cross)
    cross /= strength + 1e-3 * strength.mean() + 1e-30
    frequency = np.fft.rfftfreq(length, 1 / first.rate)
    cross[(frequency < 80) | (frequency > 6000)] = 0  # rumble, and what codecs make up
    score = np.fft.irfft(cross, length)
    lags = np.arange(length)
    lags = np.where(lags < len(a), lags, lags - length)
    allowed = (lags > -len(b)) & (lags < len(a))
    score /= max(float(score[allowed].max()), 1e-30)  # only the next best tells how good the best is
    return _best_lag(score, lags, allowed, first, second, max_offset_seconds, apart_seconds=0.02, doubt=1.0, scale=0.5)


def match_motion(first: Signal, second: Signal, max_offset_seconds: float | None = None) -> tuple[float, float]:
    """Offset of the second video against the first by what moves, and its confidence.

    The correlation coefficients of all channels, less their slow parts, over the overlap at each lag, averaged.
    """
    from scipy.signal import correlation_lags

    lags = correlation_lags(first.values.shape[1], second.values.shape[1])
    score = np.zeros(len(lags))
    for a, b in zip(_quick(first), _quick(second), strict=True):
        coefficient, count = _coefficients(a, b)
        score += coefficient / len(first.values)
    shorter = min(first.values.shape[1], second.values.shape[1])
    score *= np.sqrt(np.minimum(count / shorter, 1.0))  # a chance match over a short overlap counts less
    allowed = count >= LEAST_OVERLAP * shorter
    seconds, confidence = _best_lag(
        score, lags, allowed, first, second, max_offset_seconds, apart_seconds=0.5, doubt=0.3, scale=0.6
    )
    return seconds, confidence * min(1.0, shorter / first.rate / LEAST_SECONDS)


def _coefficients(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation coefficient of two signals at each lag over their overlap, and the overlap's length."""
    from scipy.signal import correlate  # here: it takes as long to import as all that ingest needs

    ones_a, ones_b = np.ones_like(a), np.ones_like(b)

    def sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return correlate(x, y, method="fft")

    count = np.maximum(sums(ones_a, ones_b), 1.0)
    sum_a, sum_b = sums(a, ones_b), sums(ones_a, b)
    covariance = sums(a, b) - sum_a * sum_b / count
    spread_a = np.maximum(sums(a * a, ones_b) - sum_a**2 / count, 0)
    spread_b = np.maximum(sums(ones_a, b * b) - sum_b**2 / count, 0)
    floor = 1e-3 * np.sqrt(np.sum(a * a) * np.sum(b * b)) + 1e-12
    return covariance / np.maximum(np.sqrt(spread_a * spread_b), floor), count


def solve_offsets(
    count: int, pairs: dict[tuple[int, int], tuple[float, float]], method: str, resolution_seconds: float
) -> list[Offset]:
    """Offsets of all videos from those of their pairs, weighted by confidence, with what contradicts them.

    Args:
        pairs: (i, j) -> (offset of j against i in seconds, confidence).
    """
    if count == 1:
        return [Offset(0.0, 1.0, 0.0, 0.0, method)]
    rows, targets, weights = [], [], []
    for (i, j), (seconds, confidence) in pairs.items():
        row = np.zeros(count)
        row[j], row[i] = 1.0, -1.0
        rows.append(row)
        targets.append(seconds)
        weights.append(max(confidence, 1e-3))
    system, target, weight = np.array(rows), np.array(targets), np.array(weights)
    solution = np.zeros(count)
    for _ in range(10):  # reweighted: one wrong pair must not pull the others
        left = system[:, 1:] * weight[:, None]
        solution[1:] = np.linalg.lstsq(left, target * weight, rcond=None)[0]
        miss = np.abs(system @ solution - target)
        weight = np.array(weights) / (1 + (miss / max(resolution_seconds, 1e-3)) ** 2)
    miss = np.abs(system @ solution - target)
    agree = miss <= max(2 * resolution_seconds, 1e-3)
    believed = np.zeros(count)  # as the weakest measurement on the best way to the first video that all agrees
    believed[0] = 1.0
    for _ in range(count):
        for (i, j), fits, weight_ij in zip(pairs, agree, weights, strict=True):
            if fits:
                believed[j] = max(believed[j], min(believed[i], weight_ij))
                believed[i] = max(believed[i], min(believed[j], weight_ij))
    offsets = []
    for video in range(count):
        mine = np.flatnonzero(system[:, video])
        agreeing = sum(weights[k] for k in mine if agree[k]) / sum(weights[k] for k in mine)
        worst = float(miss[mine].max())
        offsets.append(
            Offset(float(solution[video]), float(believed[video]) * agreeing, worst, resolution_seconds, method)
        )
    return offsets


def describe_offsets(names: Sequence[str], offsets: Sequence[Offset]) -> list[str]:
    """One line a video for a person, with a warning in those that should not be trusted."""
    lines = []
    for number, (name, offset) in enumerate(zip(names, offsets, strict=True)):
        if number == 0:
            lines.append(f"{name}: time 0, the others are measured against it ({offset.method})")
            continue
        line = f"{name}: {offset.seconds:+.3f} s by {offset.method}, confidence {offset.confidence:.2f}"
        if offset.confidence < SURE:
            line += "; NOT SURE: look at it, or give offset_seconds yourself"
        elif offset.contradiction_seconds > max(2 * offset.uncertainty_seconds, 0.002):
            line += f"; another pair of videos contradicts it by {offset.contradiction_seconds:.3f} s"
        lines.append(line)
    return lines


def _quick(signal: Signal) -> np.ndarray:
    """What changes within a second: slow parts depend on where each camera stands."""
    from scipy.ndimage import uniform_filter1d

    slow = uniform_filter1d(signal.values, max(3, int(signal.rate)), axis=-1, mode="nearest")
    return uniform_filter1d(signal.values - slow, max(1, int(0.03 * signal.rate)), axis=-1)


def _best_lag(
    score: np.ndarray,
    lags: np.ndarray,
    allowed: np.ndarray,
    first: Signal,
    second: Signal,
    max_offset_seconds: float | None,
    apart_seconds: float,
    doubt: float,
    scale: float,
) -> tuple[float, float]:
    """Seconds and confidence of the highest score; a sample at lag L of the first is sample 0 of the second.

    Confidence is the height of the peak plus how far it stands above all that are `apart_seconds` away, less `doubt`,
    over `scale`. The two were set so that wrong answers, and videos that have nothing in common, stay below `SURE`:
    tests/benchmarks/test_synchronise.py.
    """
    seconds = lags / first.rate + first.start_seconds - second.start_seconds
    if max_offset_seconds is not None:
        allowed = allowed & (np.abs(lags / first.rate) <= max_offset_seconds)
    if not allowed.any():
        return 0.0, 0.0
    candidates = np.where(allowed, score, -np.inf)
    best = int(np.argmax(candidates))
    near = np.abs(seconds - seconds[best]) < apart_seconds
    rivals = candidates[~near & allowed]
    rival = float(max(rivals.max(initial=0.0), 0.0))
    peak = float(score[best])
    confidence = float(np.clip((2 * peak - rival - doubt) / scale, 0, 1))
    left, right = (score[(best + step) % len(score)] for step in (-1, 1))
    curve = left - 2 * peak + right
    shift = float(np.clip(0.5 * (left - right) / curve, -0.5, 0.5)) if curve < 0 else 0.0
    return float(seconds[best]) + shift / first.rate, confidence


def _from_clocks(videos: Sequence[Path]) -> list[Offset]:
    readings = [read_clock(video) for video in videos]
    precision = max(reading[1] for reading in readings)
    if precision >= 1.0:
        logger.warning("synchronise: the files' clocks give whole seconds only; audio or motion is better")
    start = readings[0][0]
    confidence = 1.0 if precision < 0.1 else 0.5
    day = 86400.0
    apart = [seconds - start for seconds, _ in readings]
    apart = [(value + day / 2) % day - day / 2 for value in apart]  # a timecode starts again at midnight
    return [Offset(value, confidence, 0.0, precision, "timestamps") for value in apart]


def read_clock(video: Path) -> tuple[float, float]:
    """Time of day at which a video's time 0 was recorded, in seconds, and how exactly that is known.

    From the SMPTE timecode where there is one (to a frame), else from the container's creation time.

    Raises:
        ConfigError: neither is there.
        VideoError: the file cannot be read.
    """
    try:
        with av.open(str(video), options=OPTIONS, metadata_errors="replace") as container:
            tags = dict(container.metadata)
            rate = Fraction(25)
            for stream in container.streams:
                tags = {**stream.metadata, **tags}
                if isinstance(stream, av.VideoStream) and stream.average_rate:
                    rate = stream.average_rate
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{video}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    tags = {key.lower(): value for key, value in tags.items()}
    code = re.fullmatch(r"(\d+):(\d+):(\d+)[:;.](\d+)", tags.get("timecode", ""))
    if code is not None:
        hours, minutes, seconds, frames = map(int, code.groups())
        return hours * 3600 + minutes * 60 + seconds + float(frames / rate), float(1 / rate)
    for key in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        text = tags.get(key, "")
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            continue
        return moment.timestamp(), 1e-3 if moment.microsecond else 1.0
    raise ConfigError(f"{video}: holds no clock time (timecode or creation_time); choose audio or motion")
