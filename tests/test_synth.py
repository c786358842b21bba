import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.geometry.project import project_points
from streampose.synth import PRESETS, synth
from streampose.synthetic.truth import read_truth


def frames_of(path: str) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_writes_videos_with_their_truth(tmp_path):
    result = synth(
        out=tmp_path / "new" / "folder", videos=2, seconds=0.4, size=(96, 64), fps=30, skeleton="coco17", seed=3
    )
    json.dumps(result)
    assert set(result) == {"out", "videos", "seconds"}
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "video_000.mp4", "video_000.truth.npz", "video_001.mp4", "video_001.truth.npz",
    ]  # fmt: skip
    for entry in result["videos"]:
        truth = read_truth(Path(entry["truth"]))
        assert frames_of(entry["video"]).shape == (12, 64, 96, 3) and entry["frames"] == truth.num_frames == 12
        assert truth.joints[0] == "nose" and truth.size.tolist() == [96, 64] and entry["subjects"] == 1


def test_the_seed_decides_everything(tmp_path):
    a, b, c = (
        synth(out=tmp_path / name, videos=1, seconds=0.3, size=(96, 96), seed=seed, subjects=2, occluders=True)
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    first, again = (read_truth(Path(result["videos"][0]["truth"])) for result in (a, b))
    assert np.array_equal(first.joints_2d, again.joints_2d) and np.array_equal(first.masks, again.masks)
    pictures = [frames_of(result["videos"][0]["video"]) for result in (a, b, c)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() == 0
    assert np.abs(pictures[0].astype(int) - pictures[2]).max() > 50
    files = [Path(result["videos"][0]["video"]).read_bytes() for result in (a, b)]
    assert files[0] == files[1]


def test_more_videos_leave_the_first_ones_as_they_were(tmp_path):
    few = synth(out=tmp_path / "few", videos=1, seconds=0.2, size=(64, 64))
    many = synth(out=tmp_path / "many", videos=2, seconds=0.2, size=(64, 64))
    one, other = (read_truth(Path(result["videos"][0]["truth"])) for result in (few, many))
    assert np.array_equal(one.joints_3d, other.joints_3d)


def test_several_cameras_see_the_same_scene(tmp_path):
    result = synth(out=tmp_path, videos=1, seconds=0.2, size=(96, 96), cameras=3)
    truths = [read_truth(Path(entry["truth"])) for entry in result["videos"]]
    (session,) = json.loads((tmp_path / "session.json").read_text())["sessions"]
    assert [view["video"] for view in session["views"]] == [Path(entry["video"]).name for entry in result["videos"]]
    for truth, view in zip(truths, session["views"], strict=True):
        assert np.array_equal(truth.joints_3d, truths[0].joints_3d)
        projected = project_points(truths[0].joints_3d[0, 0], *(np.array(view[name]) for name in "KRt"))
        assert np.abs(projected - truth.joints_2d[0, 0]).max() < 1e-3
    assert not np.allclose(truths[0].R[0], truths[1].R[0])


def test_recorded_motions_and_the_mesh(tmp_path):
    data = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "mocap").is_dir():
        pytest.skip("needs the shared motion files and mesh: set STREAMPOSE_DATA to the data folder")
    motion, body = data / "mocap/cmu_dance_martial/martial_04.bvh", data / "bodies/makehuman"
    result = synth(out=tmp_path, videos=1, seconds=0.4, size=(128, 128), motion=motion, body=body)
    truth = read_truth(Path(result["videos"][0]["truth"]))
    assert (truth.masks > 0).mean() > 0.02 and (truth.visibility == 2).mean() > 0.4
    names = list(truth.joints)
    head, left, right = (truth.joints_3d[:, 0, names.index(name), 2] for name in ("head", "left_ankle", "right_ankle"))
    assert (head > np.minimum(left, right) + 0.9).all()  # a kick: one foot is high


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"videos": 0}, "videos=0"),
        ({"subjects": 9}, "subjects=9"),
        ({"cameras": 0}, "cameras=0"),
        ({"seconds": -1.0}, "seconds=-1.0"),
        ({"size": (16, 256)}, "32 pixels"),
        ({"seed": -1}, "seed=-1"),
        ({"preset": "nice"}, "preset 'nice' is not known; choose from hard"),
        ({"motion": "nowhere"}, "nowhere: no such file"),
        ({"body": "nobody"}, "nobody: no such file"),
        ({"skeleton": "mouse"}, "no joint neck|no joint body_centre"),
        ({"skeleton": "whale"}, "skeleton whale"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        synth(out=tmp_path / "out", **settings)
    assert not list(tmp_path.rglob("*.mp4"))


def test_presets_set_known_arguments(tmp_path):
    result = synth(out=tmp_path, preset="hard", videos=1, seconds=0.2, size=(64, 64))
    assert result["videos"][0]["subjects"] == 2 and set(PRESETS) >= {"hard", "multiview", "synthpose-train"}
