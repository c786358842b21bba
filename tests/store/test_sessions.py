import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store, read_attributes, write_group
from streampose.store.sessions import find_sources, read_sessions, session_id, write_session
from streampose.store.writer import publish_source, remove_orphans, remove_source
from streampose.structures import Camera, Session, View

K = np.array([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]])


def camera(angle, **more):
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return Camera(K, R, np.array([0.1, 0.2, 3.0]), (640, 480), np.array([-0.1, 0.01, 0, 0]), **more)


def make_session(tmp_path, name="jump", offset=0.25):
    views = (
        View("left", tmp_path / "left.mp4", camera(0.3)),
        View("right", tmp_path / "right.mp4", camera(-0.3, fisheye=True), offset),
        View("phone", tmp_path / "phone.mp4", None, -1.5),
    )
    return Session(name, views)


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.zarr"
    create_store(path, load_skeleton("human17"), crop_size=16)
    for source in ("a", "b", "c"):
        publish_source(path, source, {"path": f"{source}.mp4", "clips": []})
    return path


def test_round_trip_and_replacing(store, tmp_path):
    assert read_sessions(store) == []
    assert write_session(store, make_session(tmp_path), ["a", "b", "c"]) == "jump"
    write_session(store, make_session(tmp_path, "walk"), ["c", "b", "a"])
    write_session(store, make_session(tmp_path, offset=0.5), ["a", "b", "c"])  # measured anew
    jump, walk = read_sessions(store)
    assert (jump.id, walk.id) == ("jump", "walk") and walk.source_ids == ("c", "b", "a")
    assert [view.name for view in jump.session.views] == ["left", "right", "phone"]
    assert [view.offset_seconds for view in jump.session.views] == [0.0, 0.5, -1.5]
    assert jump.session.views[0].video == tmp_path / "left.mp4"
    right = jump.session.views[1].camera
    assert right.fisheye and right.size == (640, 480) and jump.session.views[2].camera is None
    for field in ("K", "R", "t", "distortion"):
        np.testing.assert_array_equal(getattr(right, field), getattr(camera(-0.3), field))
    StoreReader(store)  # sessions do not disturb it
    remove_orphans(store)
    assert len(read_sessions(store)) == 2 and not (store / ".tmp").exists()


def test_zarr_python_sees_the_group(store, tmp_path):
    zarr = pytest.importorskip("zarr")
    write_session(store, make_session(tmp_path), ["a", "b", "c"])
    group = zarr.open_group(store, mode="r")
    assert list(group["sessions"].group_keys()) == ["jump"]
    assert group["sessions/jump"].attrs["views"][1]["source"] == "b"


def test_names_become_safe_and_different_ids(store, tmp_path):
    ids = [write_session(store, make_session(tmp_path, n), ["a", "b", "c"]) for n in ("../up", "up", "Sprung höher")]
    assert ids[1] == "up" and len(set(ids)) == 3 and all(id_.replace("-", "").isalnum() for id_ in ids)
    assert {stored.session.name for stored in read_sessions(store)} == {"../up", "up", "Sprung höher"}
    assert session_id("").startswith("session-")


def test_a_view_whose_source_has_left_is_left_out(store, tmp_path):
    write_session(store, make_session(tmp_path), ["a", "b", "c"])
    remove_source(store, "b")
    (stored,) = read_sessions(store)
    assert stored.source_ids == ("a", "c") and [view.name for view in stored.session.views] == ["left", "phone"]
    for source in ("a", "c"):
        remove_source(store, source)
    assert read_sessions(store) == []


def test_wrong_calls_leave_nothing(store, tmp_path):
    with pytest.raises(StoreError, match="no source x; ingest its video first"):
        write_session(store, make_session(tmp_path), ["a", "b", "x"])
    with pytest.raises(ValueError, match="3 views, but 2 sources"):
        write_session(store, make_session(tmp_path), ["a", "b"])
    with pytest.raises(StoreError, match="no store there"):
        write_session(tmp_path / "none", make_session(tmp_path), ["a", "b", "c"])
    assert read_sessions(store) == []


def test_a_damaged_session_is_named(store, tmp_path):
    write_session(store, make_session(tmp_path), ["a", "b", "c"])
    folder = store / "sessions" / "jump"
    attributes = read_attributes(folder)
    attributes["views"][0]["camera"]["K"] = [[1, 2]]
    write_group(folder, attributes)
    with pytest.raises(StoreError, match="sessions/jump: damaged"):
        read_sessions(store)
    del attributes["views"]
    write_group(folder, attributes)
    with pytest.raises(StoreError, match="sessions/jump: damaged"):
        read_sessions(store)


def test_views_are_found_by_the_path_of_their_video(store, tmp_path):
    session = make_session(tmp_path)
    with pytest.raises(StoreError, match=r"not ingested: .*left\.mp4"):
        find_sources(store, session)
    for source, name in (("l", "left"), ("r", "right"), ("p", "phone")):
        publish_source(store, source, {"path": str(tmp_path / "." / f"{name}.mp4"), "clips": []})
    assert find_sources(store, session) == ["l", "r", "p"]
