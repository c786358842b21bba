"""The corpus of nasty files: every verdict right, every frame exact, nothing hangs or fills the memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streampose.video.check import check_source
from streampose.video.decode import find_videos, open_video

from ..video.corpus import build
from ..video.drawing import Case, read_number

LEAST_CASES = 40
MOST_MEGABYTES = 100  # that a process may grow by while it checks the whole corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> list[Case]:
    return build(tmp_path_factory.mktemp("corpus"))


def test_every_verdict_is_right(corpus):
    assert len(corpus) >= LEAST_CASES and len({case.path.name for case in corpus}) == len(corpus)
    wrong = []
    for case in corpus:
        found = check_source(case.path)
        right = found["verdict"] == case.verdict and case.why in found["reason"]
        right &= found["frames"] == len(case.numbers or ()) and bool(found["reason"]) >= (case.verdict != "ok")
        if case.lost_seconds is not None:
            right &= np.allclose(found["lost_spans"], [case.lost_seconds], atol=0.021)
        if not right:
            wrong.append(f"{case.path.name}: {found['verdict']}, {found['reason']!r}, {found['frames']} frames")
    assert not wrong, "\n".join(wrong)


def test_every_frame_is_exact(corpus):
    """In sequence: the right picture under the right number at the right time."""
    wrong = []
    for case in corpus:
        if case.numbers is None:
            continue
        with open_video(case.path) as video:
            frames = [(f.index, read_number(f.image, case.origin), f.pts_seconds) for f in video.frames()]
            if (video.probe.width, video.probe.height) != case.size:
                wrong.append(f"{case.path.name}: {video.probe.width} x {video.probe.height}")
        if {index: number for index, number, _ in frames} != case.numbers:
            wrong.append(f"{case.path.name}: {[frame[:2] for frame in frames]}")
        times = np.array([seconds for *_, seconds in frames])
        if (np.diff(times) < 0).any():
            wrong.append(f"{case.path.name}: times fall back")
        expected = case.seconds or {}
        late = [(i, s, expected[i]) for i, _, s in frames if i in expected and abs(s - expected[i]) > 2e-3]
        if late:
            wrong.append(f"{case.path.name}: (index, time, expected) {late[:3]}")
    assert not wrong, "\n".join(wrong)


def test_random_access_gives_the_same_pixels(corpus):
    """Every frame once more by its number, in a random order, and some by their time."""
    rng = np.random.default_rng(0)
    wrong = []
    for case in corpus:
        if case.numbers is None:
            continue
        with open_video(case.path) as video:
            frames = {f.index: f for f in video.frames()}
        with open_video(case.path) as video:
            assert set(np.flatnonzero(video.index.sound)) == set(frames), case.path.name
            order = [int(i) for i in rng.permutation(list(frames))]
            single = [video.frame_at(index=i) for i in order[:8]]
            for frame in [*single, *video.read(order)]:
                same = frames[frame.index]
                if frame.pts_seconds != same.pts_seconds or not np.array_equal(frame.image, same.image):
                    wrong.append(f"{case.path.name}: frame {frame.index} reads {read_number(frame.image, case.origin)}")
            times = [frames[i].pts_seconds for i in order[:4]]
            shown = [video.frame_at(seconds).pts_seconds for seconds in times]
            if shown != times:
                wrong.append(f"{case.path.name}: at {times} s there are {shown}")
    assert not wrong, "\n".join(wrong)


def test_starting_anywhere_gives_the_same_frames(corpus):
    wrong = []
    for case in corpus:
        if case.numbers is None or len(case.numbers) < 10:
            continue
        with open_video(case.path) as video:
            whole = [(f.index, f.pts_seconds) for f in video.frames()]
            for start in (whole[len(whole) // 3][1] - 1e-6, whole[-3][1] - 1e-6):
                part = [(f.index, f.pts_seconds) for f in video.frames(start)]
                if part != [frame for frame in whole if frame[1] >= start]:
                    wrong.append(f"{case.path.name}: from {start:.2f} s {part[:2]}")
    assert not wrong, "\n".join(wrong)


def test_ffmpeg_decodes_the_same(corpus):
    """Undamaged files against the ffmpeg command: as many frames, and the same luma, bit for bit."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg command")
    names = {
        "h264-b-frames.mp4", "h264-open-gop.mkv", "h264-ten-bit.mp4", "hevc.mp4", "hevc-open-gop.mkv", "vp9.webm",
        "av1.mp4", "mpeg4-b-frames.avi", "edit-list.mp4", "h264.ts", "mpeg2.mpg", "uneven.mp4", "grey.mkv", "odd.mkv",
        "pause.mp4", "audio-first.mp4", "late.mkv",
    }  # fmt: skip
    compared = 0
    for case in corpus:
        if case.path.name not in names:
            continue
        raw = ffmpeg_luma(case.path)
        ours = b"".join(luma(frame) for frame in open_video(case.path).frames())
        assert ours == raw, case.path.name
        compared += 1
    assert compared == len(names)


def ffmpeg_luma(path: Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v", "-fps_mode", "passthrough"]
    command += ["-vf", "extractplanes=y", "-f", "rawvideo", "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def luma(frame) -> bytes:
    plane = frame._picture.planes[0]
    sample = 2 if "10" in frame._picture.format.name else 1
    lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return lines[:, : plane.width * sample].tobytes()


def test_folders_are_searched_for_all_of_it(corpus):
    """The corpus lies in one folder with two folders of frames: each is found, and a still photo or a text is not."""
    folder = corpus[0].path.parent
    found = {path.relative_to(folder).as_posix() for path in find_videos([folder])}
    named = {case.path.name for case in corpus}
    assert found == named - {"photo.jpg", "list.txt", "truly-mkv.txt"}


def test_memory_stays_bounded_and_nothing_is_said_on_the_terminal(corpus):
    """A process of its own checks everything, the bombs too, and hardly grows."""
    pytest.importorskip("psutil")
    program = (
        "import json, resource, sys\n"
        "from streampose.video.check import check_source\n"
        "first, *rest = json.load(sys.stdin)\n"
        "check_source(first, threads=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in rest: check_source(path, threads=1)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    paths = json.dumps([str(case.path) for case in corpus])
    done = subprocess.run([sys.executable, "-c", program], input=paths, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert float(done.stdout) < MOST_MEGABYTES
