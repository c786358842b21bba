"""What is noted of the parts of a long video, and when a note is believed."""

import json
from dataclasses import replace

import pytest

from streampose.config import load_skeleton
from streampose.ingestion.spans import Span, SpanRecord, read_record, record_path, write_record
from streampose.store.schema import create_store

RECORD = SpanRecord("", "ok", "", [[1.0, 2.0]], 30, 10, 10, 1, 0, 0, {"mog2": 10}, ["still"], [])
SPAN = Span(2, 240.0, 360.0, 120.0)


@pytest.fixture
def store(tmp_path):
    create_store(tmp_path / "s.zarr", load_skeleton("human17"), crop_size=64)
    write_record(tmp_path / "s.zarr", "walk", SPAN, RECORD, {"masks": "auto"})
    return tmp_path / "s.zarr"


def test_a_note_is_of_the_same_options_and_the_same_stretch(store):
    assert read_record(store, "walk", SPAN, {"masks": "auto"}) == RECORD
    assert read_record(store, "walk", SPAN, {"masks": "none"}) is None
    assert read_record(store, "walk", replace(SPAN, end_seconds=400.0), {"masks": "auto"}) is None
    last = replace(SPAN, number=3, start_seconds=360.0, end_seconds=float("inf"))
    write_record(store, "walk", last, RECORD, {})
    assert read_record(store, "walk", last, {}) == RECORD


@pytest.mark.parametrize("change", ["damaged", "other version", "no object"])
def test_a_note_that_cannot_be_used_is_as_none(store, change):
    note = record_path(store, "walk", SPAN)
    values = json.loads(note.read_text())
    texts = {"damaged": note.read_text()[:-9], "other version": json.dumps(values | {"colour": 1}), "no object": "[3]"}
    note.write_text(texts[change])
    assert read_record(store, "walk", SPAN, {"masks": "auto"}) is None
