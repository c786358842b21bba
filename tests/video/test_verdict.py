"""Bad input: one clear line each, everything that can be decoded is, and what was lost is said."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from streampose.errors import VideoError
from streampose.video.decode import open_video

from .conftest import read_number, write_video


def read_damaged(path: Path):
    with open_video(path) as video:
        frames = [(frame.index, read_number(frame.image), frame.pts_seconds) for frame in video.frames()]
        return frames, video.verdict


def refuse(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        open_video(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def write_audio(path: Path, codec: str = "aac") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        for i in range(20):
            frame.pts = i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_text_named_mp4(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("these are my notes, not a video\n" * 50)
    assert "not a video" in refuse(path)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "ffconcat version 1.0\nfile clip.mp4\n"])
def test_playlist_opens_no_other_file(tmp_path, clip, text):
    path = tmp_path / "list.mp4"
    path.write_text(text)
    refuse(path)
    named_by_its_format = path.rename(tmp_path / "list.txt")
    refuse(named_by_its_format)


def test_empty(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "empty (0 bytes)" in refuse(path)


def test_folder(tmp_path):
    assert "a folder, not a video" in refuse(tmp_path)


def test_not_an_ordinary_file(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not an ordinary file" in refuse(tmp_path / "pipe.mp4")


def test_no_permission(clip, monkeypatch):
    def refuse_to_open(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    if os.access(clip, os.R_OK) and hasattr(os, "geteuid") and os.geteuid() == 0:
        monkeypatch.setattr(Path, "open", refuse_to_open)  # the administrator may read everything
    else:
        clip.chmod(0)
    assert "no permission" in refuse(clip)


def test_audio_only(tmp_path):
    assert (
        refuse(write_audio(tmp_path / "song.mp4")) == f"{tmp_path / 'song.mp4'}: no video stream (audio only); skipped"
    )


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound, cover = container.add_stream("aac", rate=44100), container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        container.mux(sound.encode(frame))
        container.mux(cover.encode(None))
        container.mux(sound.encode(None))
    assert "no video stream (audio only)" in refuse(path)


def test_recording_without_index(tmp_path):
    """An mp4 whose recording was cut off has no moov atom at its end."""
    path = write_video(tmp_path / "cut.mp4", 60)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    assert "moov" in refuse(path)


def test_header_alone(clip):
    data = clip.read_bytes()
    clip.write_bytes(data[: data.index(b"mdat") + 4])
    assert "no frame can be decoded" in refuse(clip)


@pytest.mark.parametrize("size", [(30_000, 20_000), (2_000_000_000, 2)])
def test_enormous_pictures_are_refused(tmp_path, size):
    path = tmp_path / "huge.y4m"
    path.write_bytes(b"YUV4MPEG2 W%d H%d F25:1 C420jpeg\nFRAME\n" % size + bytes(1000))
    refuse(path)


def test_too_many_pixels_in_the_header(clip, monkeypatch):
    monkeypatch.setattr("streampose.video.container.MAX_PIXELS", 160 * 96 - 1)
    assert "claims frames of 160 x 96" in refuse(clip)


def test_pictures_that_become_enormous_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("streampose.video.container.MAX_PIXELS", 200 * 200)
    first = write_video(tmp_path / "a.ts", 50)
    second = write_video(tmp_path / "b.ts", 10, size=(320, 192))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames, verdict = read_damaged(joined)
    assert 46 <= len(frames) <= 50  # the decoder gives up the last ones, which it still held
    assert verdict.verdict == "repaired" and "left out" in verdict.reason


def test_truncated_file_gives_what_is_there(clip):
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 6 // 10])
    with av.open(str(clip)) as container:
        whole = sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux(video=0))
    frames, verdict = read_damaged(clip)
    assert 15 < whole < 60 and len(frames) >= whole - 2  # a B-frame is of no use without the one after it
    assert all(number == index for index, number, _ in frames)
    assert verdict.verdict == "repaired"
    assert "cut off" in verdict.reason
    assert verdict.lost_spans[-1] == pytest.approx((frames[-1][2] + 0.04, 2.4), abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_damaged_packets_are_left_out(tmp_path, suffix):
    codec, options = ("mpeg4", {"b": "400000"}) if suffix == ".avi" else ("libx264", {})
    path = write_video(tmp_path / f"v{suffix}", 120, size=(320, 240), codec=codec, options=options, gop=10)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(len(data) // 4, len(data) * 3 // 4, 12):
        data[at : at + 40] = rng.integers(0, 256, 40, np.uint8).tobytes()
    path.write_bytes(data)
    frames, verdict = read_damaged(path)
    assert 60 < len(frames) <= 120
    indices, _, times = zip(*frames, strict=True)
    assert all(b > a for a, b in itertools.pairwise(indices))
    assert all(b >= a for a, b in itertools.pairwise(times))
    if verdict.verdict != "ok":  # what was struck may have been padding
        assert verdict.verdict == "repaired" and verdict.reason
    assert all(0 <= start <= end for start, end in verdict.lost_spans)


def test_damage_is_counted_and_located(tmp_path):
    """Overwriting one packet: its frame and those that build on it are missing, the others keep their numbers."""
    path = write_video(tmp_path / "v.mp4", 100, options={"bf": "0", "sc_threshold": "0"}, gop=10)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][54]
        data = bytearray(path.read_bytes())
        data[packet.pos + 6 : packet.pos + packet.size] = b"\xa5" * (packet.size - 6)
    path.write_bytes(data)
    frames, verdict = read_damaged(path)
    assert verdict.verdict == "repaired"
    assert verdict.reason == "1 damaged frame was left out, and 5 that build on it"
    assert verdict.lost_spans == [(pytest.approx(2.16), pytest.approx(2.4))]
    kept = [i for i in range(100) if not 54 <= i < 60]
    assert [(index, number) for index, number, _ in frames] == [(i, i) for i in kept]


def test_mostly_damaged_is_quarantined(tmp_path):
    path = write_video(tmp_path / "v.mp4", 100, options={"bf": "0"}, gop=1)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[5:95]:
        data[position + 6 : position + size] = b"\xa5" * (size - 6)
    path.write_bytes(data)
    frames, verdict = read_damaged(path)
    assert len(frames) >= 10
    assert verdict.verdict == "quarantined" and "damaged frames were left out" in verdict.reason


def test_time_that_falls_back_goes_on(tmp_path):
    """Two broadcasts in one file: the second starts its time anew."""
    first = write_video(tmp_path / "a.ts", 50)
    second = write_video(tmp_path / "b.ts", 50, first=50)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames, verdict = read_damaged(joined)
    assert [number for _, number, _ in frames] == list(range(100))
    assert np.diff([seconds for *_, seconds in frames]).min() > 0.02
    assert verdict.verdict == "repaired" and "fell back" in verdict.reason


def test_size_that_changes_is_scaled_to_the_first(tmp_path):
    first = write_video(tmp_path / "a.ts", 20)
    second = write_video(tmp_path / "b.ts", 20, size=(320, 192))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with open_video(joined) as video:
        assert {frame.image.shape for frame in video.frames()} == {(96, 160, 3)}
        assert "320 x 192" in video.verdict.reason


def test_one_frame(tmp_path):
    frames, verdict = read_damaged(write_video(tmp_path / "one.mp4", 1, first=7))
    assert [number for _, number, _ in frames] == [7]
    assert verdict.verdict == "ok" and not verdict.lost_spans


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Resident memory of a process that reads a clip 15 times as long."""
    pytest.importorskip("psutil")
    program = (
        "import sys, psutil; from streampose.video.decode import open_video\n"
        "with open_video(sys.argv[1], threads=1) as video:\n"
        "    for frame in video.frames(): frame.image, frame.small((64, 36), gray=True)\n"
        "print(psutil.Process().memory_info().rss)"
    )
    peaks = []
    for count in (60, 900):
        path = write_video(tmp_path / f"{count}.mp4", count, size=(320, 192), options={"preset": "ultrafast"})
        out = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
        peaks.append(int(out.stdout))
    assert peaks[1] < 1.05 * peaks[0]
