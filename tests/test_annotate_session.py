"""Sessions in space: exact people filmed by known cameras, their keypoints in tables as `annotate` writes them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from streampose import annotate_session as module
from streampose import refine_cameras
from streampose.annotate_session import annotate_in_space, annotate_sessions, upward
from streampose.config import load_skeleton
from streampose.errors import ConfigError
from streampose.formats.c3d import c3d_available
from streampose.formats.calibration import read_calibration, write_calibration
from streampose.formats.parquet import open_parquet
from streampose.formats.points import read_points
from streampose.formats.trc import read_trc
from streampose.geometry.distortion import project
from streampose.geometry.refine import camera_centre
from streampose.refine_cameras import refine_session
from streampose.sessions import load_session
from streampose.structures import Camera, Keypoints
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter

SKELETON = load_skeleton("human17")
FRAMES, FPS, SIZE = 40, 25.0, (96, 72)
OFFSETS = (0.0, 0.5, -0.2)  # seconds, of the cameras' clocks


def make_cameras():
    cameras = {}
    for number, turn in enumerate((0.3, 2.2, 4.4)):
        place = np.array([4 * np.cos(turn), 4 * np.sin(turn), 1.5])
        forward = (np.array([0, 0, 0.9]) - place) / np.linalg.norm(np.array([0, 0, 0.9]) - place)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[110.0, 0, 47.5], [0, 110, 35.5], [0, 0, 1]])
        cameras[f"cam{number}"] = Camera(K, R, -R @ place, SIZE)
    return cameras


def walker(at):
    """(T, 17, 3) metres, z up: a person who walks on the spot and turns."""
    phase = np.arange(FRAMES) / 8
    pose = np.zeros((FRAMES, 17, 3))
    for n, bone in enumerate(SKELETON.bones):
        swing = np.sign(bone.toward[2]) * (0.4 + 0.3 * np.sin(phase + 2 * n)) if bone.toward[2] else 0.05 + 0 * phase
        bend = Rotation.from_rotvec(np.outer(swing, [1, 0, 0]))
        way = np.array(bone.direction) / np.linalg.norm(bone.direction)
        pose[:, bone.child] = pose[:, bone.parent] + 1.7 * bone.length * bend.apply(way)
    turns = Rotation.from_rotvec(np.outer(phase / 3, [0, 0, 1])).as_matrix()
    upright = pose[..., [0, 2, 1]] * [1, 1, -1]
    return np.einsum("tij,tkj->tki", turns, upright) + np.array([at[0], at[1], 0.9])


PEOPLE = [walker((0, 0)), walker((0.8, 0.5))]


def write_tables(folder, cameras, sigma=0.3, people=PEOPLE):
    """A table for each camera; the second person is seen for 10 frames only."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for (name, camera), offset in zip(cameras.items(), OFFSETS, strict=True):
        tables.append(folder / f"{name}.keypoints.parquet")
        with open_parquet(tables[-1], SKELETON, source=f"{name}.mp4") as table:
            for t in range(FRAMES):
                here = [n for n in range(len(people)) if n == 0 or t < 10]
                xy = np.stack([project(people[n][t], camera) for n in here]) + rng.normal(0, sigma, (len(here), 17, 2))
                seconds = t / FPS - offset + 0.5  # each clock begins when it likes
                table.write(t, seconds, Keypoints(xy, np.ones((len(here), 17))), here)
    return tables


@pytest.fixture
def recording(tmp_path):
    root = tmp_path / "jump"
    for name in make_cameras():
        with VideoWriter(root / f"{name}.mp4", FPS, SIZE) as video:
            for t in range(FRAMES):
                video.write(np.full((SIZE[1], SIZE[0], 3), 3 * t, np.uint8))
    write_calibration(root / "calibration.toml", make_cameras())
    views = "".join(f"      - {{video: cam{n}.mp4, offset_seconds: {offset}}}\n" for n, offset in enumerate(OFFSETS))
    (root / "sessions.yaml").write_text(
        f"sessions:\n  - name: jump\n    calibration: calibration.toml\n    views:\n{views}"
    )
    return root


def test_a_person_in_space_in_every_format(recording, tmp_path):
    session = load_session(recording)
    tables = write_tables(tmp_path / "views", make_cameras())
    out = tmp_path / "out"
    entry = annotate_in_space(session, tables, SKELETON, out)
    assert entry["verdict"] == "ok" and entry["people"] == 1 and entry["frames"] == FRAMES
    assert entry["error_px"] < 1 and set(entry["views"]) == set(make_cameras())
    points, _ = read_points(out / "points.parquet")
    assert len(points) == FRAMES and set(points.subject_id) == {0}  # who was there for less than half a second is not
    far = np.linalg.norm(points.xyz - PEOPLE[0], axis=-1)
    assert far.mean() < 0.02 and (points.views >= 2).all()
    assert 0.2 < np.median(far) / np.median(points.uncertainty) < 2
    np.testing.assert_allclose(points.seconds, np.arange(FRAMES) / FPS + 0.5, atol=1e-6)
    joints, rate, _, markers = read_trc(out / "person0.trc")
    assert joints == SKELETON.joints and rate == FPS and len(markers) == FRAMES
    np.testing.assert_allclose(markers[..., 1], points.xyz[..., 2], atol=1e-5)  # y is up there
    assert ("c3d/0" in entry["files"]) == c3d_available()
    assert len(json.loads((out / "points.json").read_text())["moments"]) == FRAMES
    with open_video(out / "overlay.mp4") as film:
        assert film.probe.width >= 2 * SIZE[0] and len(list(film.frames())) == FRAMES
    page = (out / "report.html").read_text()
    assert "cam1" in page and "right_wrist" in page and page.count("data:image") >= 2
    again = annotate_in_space(session, tables, SKELETON, out)
    assert again["skipped"] and again["error_px"] == entry["error_px"]
    assert "skipped" not in annotate_in_space(session, tables, SKELETON, out, overlay=False)


def test_a_view_that_could_not_be_annotated_is_left_out(recording, tmp_path):
    session = load_session(recording)
    tables = write_tables(tmp_path / "views", make_cameras())
    entry = annotate_in_space(session, [None, *tables[1:]], SKELETON, tmp_path / "out", overlay=False)
    assert entry["verdict"] == "repaired" and "cam0" in entry["reason"] and entry["people"] == 1
    entry = annotate_in_space(session, [None, None, tables[2]], SKELETON, tmp_path / "alone", overlay=False)
    assert entry["verdict"] == "quarantined" and "fewer than two views" in entry["reason"]


def test_nobody_in_the_session(recording, tmp_path):
    tables = write_tables(tmp_path / "views", make_cameras(), people=[np.full((FRAMES, 17, 3), np.nan)] * 2)
    entry = annotate_in_space(load_session(recording), tables, SKELETON, tmp_path / "out")
    assert entry["verdict"] == "ok" and entry["people"] == 0 and entry["error_px"] is None
    assert "nobody was found" in entry["reason"]


def test_the_verb_annotates_the_views_first(recording, tmp_path, monkeypatch, walker_bundle):
    def annotate(videos, *, out, **options):
        tables = write_tables(out, make_cameras())
        assert not options["overlay"] and not options["smooth"]
        sources = [
            {"source": str(v), "people": 1, "files": {"parquet": str(t)}} for v, t in zip(videos, tables, strict=True)
        ]
        return {"sources": sources}

    monkeypatch.setattr(module, "annotate", annotate)
    result = annotate_sessions([recording], out=tmp_path / "out", model=walker_bundle, overlay=False)
    assert len(result["sources"]) == 3 and result["sessions"][0]["people"] == 1
    assert (tmp_path / "out" / "jump" / "points.parquet").is_file()
    text = (recording / "sessions.yaml").read_text()
    (recording / "sessions.yaml").write_text(text.replace("    calibration: calibration.toml\n", ""))
    with pytest.raises(ConfigError, match="not all of its views are calibrated"):
        annotate_sessions([recording], out=tmp_path / "out", model=walker_bundle)


def test_who_stands_still_is_looked_for_where_nothing_moves(recording, tmp_path, monkeypatch, walker_bundle):
    """In one view nobody was found, in one somebody was followed from the whole picture, in one motion showed him."""
    how = {"cam0": (1, "motion"), "cam1": (0, "motion"), "cam2": (1, "following")}
    standing, calls = {}, []

    def find_standing(session, waiting, padding):
        assert session.name == "jump" and padding == 0.15
        assert [path.stem for path in waiting] == ["cam1", "cam2"]
        standing.update(dict.fromkeys(waiting, "where it stands"))
        return standing

    def annotate(videos, *, out, standing=None, **options):
        calls.append(standing)
        tables = {table.name.split(".")[0]: table for table in write_tables(out, make_cameras(), people=PEOPLE[:1])}
        entries = []
        for video in videos:
            people, found = (1, "views") if standing else how[video.stem]
            files = {"parquet": str(tables[video.stem])}
            entries.append({"source": str(video), "people": people, "found": found, "files": files})
        return {"sources": entries}

    spaces = []
    monkeypatch.setattr(module, "annotate", annotate)
    monkeypatch.setattr(module, "find_standing", find_standing)
    in_space = module.annotate_in_space
    monkeypatch.setattr(module, "annotate_in_space", lambda *a, **o: spaces.append(o["same"]) or in_space(*a, **o))
    result = annotate_sessions([recording], out=tmp_path / "out", model=walker_bundle, overlay=False)
    assert calls == [None, standing] and spaces == [[1, 2]]
    assert [entry["found"] for entry in result["sources"]] == ["motion", "views", "views"]
    assert result["sessions"][0]["people"] == 1


def test_views_that_agreed_on_one_person_are_kept_together(recording, tmp_path):
    """Keypoints of a weak model, far off in every view: nothing else tells that they are the same person's."""
    session, rng = load_session(recording), np.random.default_rng(0)
    tables = []
    for n, (name, camera) in enumerate(make_cameras().items()):
        tables.append(tmp_path / f"{name}.parquet")
        with open_parquet(tables[-1], SKELETON, source=name) as table:
            for t in range(FRAMES):
                xy = project(PEOPLE[0][t], camera)[None] + 12 * np.array([np.cos(2 * n), np.sin(2 * n)])
                xy += rng.normal(0, 3, xy.shape)
                table.write(t, t / FPS - OFFSETS[n], Keypoints(xy, np.ones((1, 17))), [0])
    apart = annotate_in_space(session, tables, SKELETON, tmp_path / "apart", overlay=False)
    one = annotate_in_space(session, tables, SKELETON, tmp_path / "one", overlay=False, same=[0, 1, 2])
    assert one["people"] == 1 and apart["people"] == 0


@pytest.mark.parametrize("world", [np.eye(3), np.diag([1.0, -1, -1]), np.eye(3)[[1, 2, 0]]])
def test_up_is_what_the_cameras_hold_upright(world):
    cameras = [replace(c, R=c.R @ world.T) for c in make_cameras().values()]
    turn = upward(cameras)
    np.testing.assert_allclose(turn @ world @ [0, 0, 1], [0, 1, 0])
    assert np.linalg.det(turn) == pytest.approx(1)


def disturb(cameras):
    """Each camera turned by a degree and moved by 5 cm."""
    moved = {}
    for number, (name, camera) in enumerate(cameras.items()):
        axis = np.roll([1.0, 0, 0], number)
        R = Rotation.from_rotvec(np.radians(1.5) * axis).as_matrix() @ camera.R
        moved[name] = replace(camera, R=R, t=-R @ (camera_centre(camera) + 0.05 * np.roll(axis, 1)))
    return moved


def test_cameras_are_refined_from_people(recording, tmp_path):
    truth = make_cameras()
    write_calibration(recording / "calibration.toml", disturb(truth))
    given = (recording / "calibration.toml").read_bytes()
    write_tables(tmp_path / "views", truth, sigma=0.1)
    result = refine_session(recording, keypoints=tmp_path / "views")
    assert result["improved"] and result["after_px"] < 0.5 * result["before_px"]
    assert result["held_out_px"] < result["before_px"] and result["people"] == 2
    assert result["out"] == str(recording / "calibration.refined.toml")
    assert (recording / "calibration.toml").read_bytes() == given
    refined = read_calibration(recording / "calibration.refined.toml")
    assert list(refined) == list(truth)

    def turns(cameras):  # between the cameras, which no gauge changes
        first = cameras["cam0"]
        return [cameras[name].R @ first.R.T for name in ("cam1", "cam2")]

    def apart(cameras):
        pairs = zip(turns(cameras), turns(truth), strict=True)
        return max(np.degrees(Rotation.from_matrix(a @ b.T).magnitude()) for a, b in pairs)

    assert apart(refined) < 0.3 * apart(disturb(truth))
    assert {"camera", "before_px", "after_px", "turned_degrees", "moved_mm", "focal_change"} <= set(
        result["cameras"][0]
    )
    assert "data:image" in (recording / "calibration.refined_report.html").read_text()


def test_good_cameras_and_wrong_calls(recording, tmp_path):
    write_tables(tmp_path / "views", make_cameras())
    result = refine_session(recording, keypoints=tmp_path / "views", out=tmp_path / "same.json")
    assert max(camera["turned_degrees"] for camera in result["cameras"]) < 0.5
    with pytest.raises(ConfigError, match="no keypoints for view cam0"):
        refine_session(recording, keypoints=tmp_path)
    with pytest.raises(ConfigError, match="choose rig or first"):
        refine_session(recording, keypoints=tmp_path / "views", keep="all")
    with pytest.raises(ConfigError, match=r"\.toml or \.json"):
        refine_session(recording, keypoints=tmp_path / "views", out=tmp_path / "cameras.yaml")


def test_refining_annotates_where_no_keypoints_are_named(recording, tmp_path, monkeypatch):
    def annotate(videos, *, out, **_):
        tables = write_tables(out, make_cameras())
        return {
            "sources": [{"source": str(v), "files": {"parquet": str(t)}} for v, t in zip(videos, tables, strict=True)]
        }

    monkeypatch.setattr(refine_cameras, "annotate", annotate)
    assert refine_session(recording, out=tmp_path / "refined.toml")["people"] == 2
