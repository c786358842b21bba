"""Labels through the command line: in, listed, out in every format and in again, removed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from streampose.cli import app
from streampose.config import load_skeleton
from streampose.errors import ConfigError, StoreError, StreamposeError
from streampose.labelling.files import FORMATS
from streampose.labels import export_labels, import_labels, list_labels
from streampose.store.labels import Labels, read_labels, write_labels
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source

HUMAN = load_skeleton("human17")
SIZE, FRAMES = 32, 10
JOINTS = ("nose", "left_knee", "right_wrist", "tail")


@pytest.fixture
def store(tmp_path) -> Path:
    """Two videos that are no longer there, one subject in each."""
    path = tmp_path / "store.zarr"
    create_store(path, HUMAN, crop_size=SIZE)
    for source in ("walk", "run"):
        writer = ClipWriter(path, f"{source}-000", source=f"videos/{source}.mp4", fps=25)
        for t in range(FRAMES):
            crop = np.full((SIZE, SIZE, 3), 50 + t, np.uint8)
            corner = np.array([20.3 + 3 * t, 11.1 + t])
            writer.append(crop, crop[..., 0], np.array([*corner, *(corner + 90)]), t / 25, t)
        writer.finish()
        probe = {"width": 320, "height": 240, "fps": 25.0}
        publish_source(
            path, source, {"path": f"videos/{source}.mp4", "verdict": "ok", "probe": probe, "clips": [f"{source}-000"]}
        )
    return path


def some_labels(seed=0, who=("ann", "bob")) -> Labels:
    rng = np.random.default_rng(seed)
    frame = np.concatenate([rng.permutation(FRAMES)[:4] for _ in who])
    clip = rng.choice(["walk-000", "run-000"], len(frame))
    seen = rng.integers(0, 3, (len(frame), 4)).astype(np.uint8)
    seen[:, 1] = 2
    seen[0] = 1
    points = rng.uniform(0, SIZE - 1, (len(frame), 4, 2)).astype(np.float32)
    points[seen == 0] = np.nan
    return Labels(clip, frame, points, seen, np.repeat(np.array(who), 4), JOINTS)


def assert_same(found: Labels, expected: Labels) -> None:
    found, expected = found.for_joints(JOINTS), expected.for_joints(JOINTS)
    a, b = (np.lexsort((one.source, one.frame, one.clip)) for one in (found, expected))
    for name in ("clip", "frame", "source", "visibility"):
        np.testing.assert_array_equal(getattr(found, name)[a], getattr(expected, name)[b])
    side = 90 / SIZE  # tolerances are of the crops', 0.01 of the source's pixels
    np.testing.assert_allclose(found.keypoints[a], expected.keypoints[b], atol=0.01 / side, rtol=0)


@pytest.mark.parametrize("kind", list(FORMATS))
def test_out_and_in_again_loses_nothing(store, tmp_path, kind):
    if kind == "sleap":
        pytest.importorskip("sleap_io", reason="sleap-io is not installed; pip install 'streampose[sleap]'")
    labels = some_labels()
    write_labels(store, "hand", labels)
    out = tmp_path / "out"
    written = export_labels(store=store, kind=kind, out=out, side=64)
    assert written["rows"] == 8 and written["annotators"] == ["ann", "bob"]
    again = import_labels([out], store=store, name="again")
    assert again["matched"] == again["total"] == 8 and not again["unmatched"]
    assert_same(read_labels(store, ["again"]), labels)


def test_adding_to_a_set_replaces_what_the_same_person_did_before(store, tmp_path, caplog):
    first, second = some_labels(1, ("ann",)), some_labels(2, ("ann",))
    for name, labels in (("one", first), ("two", second)):
        write_labels(store, "x", labels)
        export_labels(store=store, names=["x"], out=tmp_path / name)
    files = [tmp_path / name / "labels.json" for name in ("one", "two")]
    result = import_labels(files[:1], store=store, name="hand")
    assert result["total"] == 4
    import_labels(files[:1], store=store, name="hand")
    assert len(read_labels(store, ["hand"])) == 4
    same = set(zip(first.clip, first.frame, strict=True)) & set(zip(second.clip, second.frame, strict=True))
    assert import_labels(files[1:], store=store, name="hand")["total"] == 8 - len(same)
    assert import_labels(files[1:], store=store, name="hand", replace=True)["total"] == 4
    assert "confidence" not in caplog.text
    text = json.loads(files[0].read_text())
    text["annotations"][0]["confidence"] = [0.5] * 4
    files[0].write_text(json.dumps(text))
    assert import_labels(files, store=store, name="both")["total"] == 8 - len(same)
    assert "1 labels carry a model's confidence" in caplog.text
    entry = next(one for one in list_labels(store=store)["labels"] if one["name"] == "hand")
    assert entry["frames"] == 4 and entry["joints"]["left_knee"] == 4 and entry["provenance"]["files"]


def test_by_the_command_line(store, tmp_path):
    write_labels(store, "hand", some_labels())
    run, at = CliRunner(), ["--store", str(store)]
    shown = run.invoke(app, ["labels", "list", *at])
    assert shown.exit_code == 0 and "hand: 8 labels" in shown.output and "ann, bob" in shown.output
    made = run.invoke(
        app, ["labels", "export", "hand", *at, "--format", "dlc", "--out", str(tmp_path / "dlc"), "--json"]
    )
    assert made.exit_code == 0 and json.loads(made.stdout)["format"] == "dlc"
    back = run.invoke(app, ["labels", "import", str(tmp_path / "dlc"), *at, "--name", "b", "--joint", "tail=head"])
    assert back.exit_code == 0 and "8 of 8 labels" in back.output and "tail -> head" in back.output
    assert "head" in read_labels(store, ["b"]).joints
    assert run.invoke(app, ["labels", "remove", "hand", *at]).exit_code == 0
    wrong = run.invoke(app, ["labels", "remove", "hand", *at])
    assert wrong.exit_code == 2 and "no labels hand; there are b" in wrong.output
    assert run.invoke(app, ["labels", "import", str(tmp_path / "none"), *at]).exit_code == 2


def test_what_is_wrong_is_said(store, tmp_path):
    with pytest.raises(StoreError, match="no labels in it"):
        export_labels(store=store, out=tmp_path / "o")
    write_labels(store, "hand", some_labels())
    with pytest.raises(ConfigError, match="unknown; choose coco"):
        export_labels(store=store, kind="excel", out=tmp_path / "o")
    export_labels(store=store, kind="cvat", out=tmp_path / "o", side=64)
    with pytest.raises(ConfigError, match="not empty"):
        export_labels(store=store, kind="cvat", out=tmp_path / "o", side=64)
    with pytest.raises(ConfigError, match="expected THEIRS=OURS"):
        import_labels([tmp_path / "o"], store=store, joints=["tail"])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match="cannot tell whose labels"):
        import_labels([tmp_path / "a.txt"], store=store)
    other = tmp_path / "coco"
    export_labels(store=store, out=other)
    text = (other / "labels.json").read_text().replace("videos/", "films/").replace("walk", "a").replace("run", "b")
    (other / "labels.json").write_text(text)
    with pytest.raises(StoreError, match=r"none of the 8 labels .* no such video in the store \(8\)"):
        import_labels([other], store=store)


def test_tools_that_are_not_installed_are_named(store, tmp_path, monkeypatch):
    write_labels(store, "hand", some_labels())
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    with pytest.raises(StreamposeError, match=r"streampose\[sleap\]"):
        export_labels(store=store, kind="sleap", out=tmp_path / "s")
    monkeypatch.setitem(sys.modules, "tables", None)
    export_labels(store=store, kind="dlc", out=tmp_path / "dlc")  # the csv alone
    assert list((tmp_path / "dlc").rglob("*.csv")) and not list((tmp_path / "dlc").rglob("*.h5"))
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "CollectedData_x.h5").write_bytes(b"")
    with pytest.raises(StreamposeError, match=r"streampose\[dlc\]"):
        import_labels([tmp_path / "CollectedData_x.h5"], store=store)
