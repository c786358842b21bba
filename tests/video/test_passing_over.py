"""Frames that nobody asks for: passed over undecoded where nothing builds on them, and nothing else changes."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streampose.video.decode import Frame, PassedOver, open_video

from .conftest import read_number, write_video


def read(path, every, start=0.0):
    """(index, seconds, pixels) of the frames that are asked for, how many were passed over, all indices, verdict."""
    with open_video(path) as video:
        found = list(video.frames_every(every, start))
        asked = [(f.index, f.pts_seconds, f.image) for f in found if isinstance(f, Frame) and f.index % every == 0]
        passed = sum(isinstance(f, PassedOver) for f in found)
        return asked, passed, [(f.index, round(f.pts_seconds, 4)) for f in found], video.verdict


def same(some, others):
    assert [(index, seconds) for index, seconds, _ in some] == [(index, seconds) for index, seconds, _ in others]
    for (_, _, one), (_, _, other) in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def full(path, every, start=0.0):
    with open_video(path) as video:
        frames = list(video.frames(start))
        asked = [(f.index, f.pts_seconds, f.image) for f in frames if f.index % every == 0]
        return asked, [(f.index, round(f.pts_seconds, 4)) for f in frames], video.verdict


@pytest.mark.parametrize("every", [2, 3, 7])
@pytest.mark.parametrize("start", [0.0, 1.3])
@pytest.mark.parametrize("options", [{"bf": "3"}, {"bf": "3", "x264-params": "b-pyramid=none:open-gop=1"}, {"bf": "0"}])
def test_what_is_asked_for_is_what_all_decoding_gives(tmp_path, options, every, start):
    path = write_video(tmp_path / "clip.mp4", 100, options=options, gop=20)
    asked, passed, rows, verdict = read(path, every, start)
    wanted, all_rows, _ = full(path, every, start)
    same(asked, wanted)
    assert rows == all_rows and verdict.verdict == "ok"
    assert [read_number(image) for _, _, image in asked] == [index for index, _, _ in asked]
    assert (passed > 5) == (options["bf"] == "3")


def test_times_that_vary_do_not_confuse_the_numbers(tmp_path):
    times = np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.13], 80))
    path = write_video(tmp_path / "phone.mp4", 80, times=list(times), options={"bf": "3"})
    asked, passed, rows, verdict = read(path, 3)
    wanted, all_rows, _ = full(path, 3)
    same(asked, wanted)
    assert rows == all_rows and passed > 10 and verdict.verdict == "ok"


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.h264"])
def test_all_is_decoded_where_the_numbers_are_not_known_beforehand(tmp_path, name):
    path = write_video(tmp_path / name, 40, options={"bf": "2"})
    asked, passed, _, _ = read(path, 3)
    assert passed == 0 and len(asked) == 14


def test_interlaced_video_is_decoded_whole(tmp_path):
    path = write_video(tmp_path / "tv.mp4", 40, options={"bf": "2", "x264-params": "interlaced=1"})
    asked, passed, _, _ = read(path, 3)
    assert passed == 0 and len(asked) == 14


@pytest.mark.parametrize("struck", [10, 25, 31, 47])
def test_damage_that_shows_is_left_out_as_ever(tmp_path, struck):
    """Whatever packet is hit: frames that are given are undamaged, and none is lost that full decoding gives."""
    path = write_video(tmp_path / "hit.mp4", 80, options={"bf": "3"}, gop=20)
    whole, _, _ = full(path, 3)
    with av.open(str(path)) as container:
        at, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][struck]
    data = bytearray(path.read_bytes())
    data[at + 6 : at + size] = b"\xa5" * (size - 6)
    path.write_bytes(data)
    asked, _, _, verdict = read(path, 3)
    decoded, _, sound = full(path, 3)
    indices = [index for index, _, _ in asked]
    same(asked, [row for row in whole if row[0] in indices])
    assert {index for index, _, _ in decoded} <= set(indices)
    assert sound.verdict == "repaired"
    assert verdict == sound or (verdict.verdict == "ok" and len(asked) == len(whole))  # it hit one that was passed over


def test_the_index_is_made_by_full_decoding_only(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 60, options={"bf": "3"})
    with open_video(path) as video:
        assert sum(isinstance(f, PassedOver) for f in video.frames_every(5)) > 5
        assert video.index.sound.all() and len(video.index) == 60
        assert [f.index for f in video.frames()] == list(range(60))
