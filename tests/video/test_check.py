"""The check of one source, as `streampose inspect --sources` shows it."""

from __future__ import annotations

import json

import pytest

from streampose.video.check import check_source

from .drawing import overwrite, packets_of, write


def test_a_sound_file(clip):
    found = check_source(clip)
    assert json.loads(json.dumps(found)) == found
    assert found["source"] == str(clip)
    assert (found["verdict"], found["reason"], found["frames"], found["lost_frames"]) == ("ok", "", 60, 0)
    assert (found["start_seconds"], found["end_seconds"]) == (0.0, pytest.approx(59 / 25))
    assert found["probe"]["width"] == 160 and found["lost_spans"] == []


def test_a_damaged_file(tmp_path):
    path = write(tmp_path / "v.mp4", options={"bf": "0"})
    overwrite(path, [packets_of(path)[10][:2]])
    found = check_source(path)
    assert (found["verdict"], found["frames"], found["lost_frames"]) == ("repaired", 30, 10)
    assert found["lost_spans"] == [[pytest.approx(0.4), pytest.approx(0.8)]]
    assert found["reason"] == "1 damaged frame was left out, and 9 that build on it"


def test_no_video_at_all(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("notes")
    found = check_source(path)
    assert found["verdict"] == "quarantined" and found["reason"].startswith("not a video")
    assert found["frames"] == 0 and found["probe"] == {}
    assert check_source(tmp_path / "nothing.mp4")["reason"] == "no such file"
