"""Sources and models are exchanged by listed names only, and a failed exchange leaves all as it was."""

from __future__ import annotations

import threading

import pytest

from streampose.errors import BundleError, VideoError
from streampose.server.stage import Busy, Stage, UnknownName, list_models, name_of


@pytest.fixture
def staged(make_session, fakes, tmp_path):
    """(stage, what was built, sources that cannot be opened as often as they are named)."""
    built, unwilling = [], []

    def build(spec, folder):
        if spec == "broken":
            raise BundleError("the model is damaged")
        source = fakes.Source()
        opened = VideoError(f"{spec}: busy") if spec in unwilling and not unwilling.remove(spec) else source
        built.append((spec, folder, make_session(opened)))
        return built[-1][2]

    session = build("first", tmp_path / "a")
    session.start()
    models = {"a": tmp_path / "a", "b": tmp_path / "b"}
    sources = {"one": "first", "two": "second", "bad": "broken"}
    stage = Stage(session, build=build, sources=sources, models=lambda: models, source="one", model="a")
    yield stage, built, unwilling
    stage.stop()


def test_what_is_chosen_is_built_and_the_old_session_ends(staged, tmp_path):
    stage, built, _ = staged
    old, calls = stage.session, []
    stage.listeners.append(lambda: calls.append(stage.session))
    stage.switch("two", None)
    assert built[-1][:2] == ("second", tmp_path / "a") and stage.session is built[-1][2] is calls[-1]
    assert old.done.is_set() and not stage.done and not stage.session.done.is_set()
    stage.switch(None, "b")
    assert built[-1][:2] == ("second", tmp_path / "b") and (stage.source, stage.model) == ("two", "b")


@pytest.mark.parametrize(
    ("source", "model"),
    [("three", None), (None, "c"), ("../etc/passwd", None), (None, "/etc"), ("first", None), ("", None), (None, "")],
)
def test_only_listed_names_are_taken(staged, source, model):
    stage, built, _ = staged
    with pytest.raises(UnknownName, match="is listed as"):
        stage.switch(source, model)
    assert len(built) == 1 and not stage.session.done.is_set()


@pytest.mark.parametrize("source", ["two", "bad"])
def test_a_source_or_model_that_fails_leaves_all_as_it_was(staged, source):
    stage, _, unwilling = staged
    unwilling.append("second")
    old = stage.session
    with pytest.raises((VideoError, BundleError)):
        stage.switch(source, None)
    assert stage.session is old and not old.done.is_set() and stage.source == "one" and not stage.done


def test_a_camera_that_opens_only_once_is_let_go_first(staged):
    stage, built, unwilling = staged
    unwilling.append("first")
    old = stage.session
    stage.switch(None, "b")
    assert old.done.is_set() and stage.session is built[-1][2] and stage.model == "b"


def test_two_exchanges_at_once_are_one_too_many(staged):
    stage, *_ = staged
    begun, go_on = threading.Event(), threading.Event()
    build = stage._build
    stage._build = lambda *what: (begun.set(), go_on.wait(5), build(*what))[-1]
    thread = threading.Thread(target=stage.switch, args=("two", None))
    thread.start()
    assert begun.wait(5)
    with pytest.raises(Busy):
        stage.switch(None, "b")
    assert not stage.done
    go_on.set()
    thread.join()
    assert stage.source == "two"


def test_without_a_way_to_build_nothing_is_offered(make_session, source):
    session = make_session(source)
    stage = Stage(session)
    assert stage.sources() == stage.models() == []
    with pytest.raises(UnknownName):
        stage.switch("test", None)


def test_models_are_listed_by_name(tmp_path):
    for name in ("models/current", "models/before", "elsewhere", "models/notes"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("models/current", "models/before", "elsewhere"):
        (tmp_path / name / "bundle.json").write_text("{}")
    models = tmp_path / "models"
    listed = list_models(models / "current", models)
    assert list(listed)[:2] == ["before", "current"] and "notes" not in listed
    assert name_of(models / "current", listed) == "current"
    named = list_models(tmp_path / "elsewhere", models)
    assert named["elsewhere"] == tmp_path / "elsewhere" and name_of(tmp_path / "elsewhere", named) == "elsewhere"


def test_recordings_are_listed_by_name(make_session, source, tmp_path):
    for name in ("a.mp4", "b.jsonl", "secret.txt"):
        (tmp_path / name).write_text("x")
    assert list(Stage(make_session(source), recordings=tmp_path).recorded()) == ["b.jsonl", "a.mp4"]
    assert Stage(make_session(source)).recorded() == {}
    assert Stage(make_session(source), recordings=tmp_path / "missing").recorded() == {}
