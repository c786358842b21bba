import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streampose.errors import ConfigError
from streampose.formats.annotations import Annotations, make_annotations
from streampose.labelling.match import annotate_frames, annotate_pictures, match_annotations, picture_name
from streampose.store.labels import Labels
from streampose.store.reader import StoreReader

SIZE, FRAMES = 32, 12
JOINTS = ("nose", "left_knee", "right_wrist", "tail")
CLIPS = ("walk-1-000", "walk-1-001", "run-2-000")


def random_labels(seed, rows=8, inside=True):
    """Random labels of the store: at most one of an annotator for a frame of a clip."""
    rng = np.random.default_rng(seed)
    places = [(clip, frame, who) for clip in CLIPS for frame in range(FRAMES) for who in ("ann", "bob")]
    chosen = [places[i] for i in rng.choice(len(places), rows, replace=False)]
    seen = rng.integers(0, 3, (rows, len(JOINTS))).astype(np.uint8)
    seen[np.arange(rows), rng.integers(0, len(JOINTS), rows)] = 2
    low, high = (0, SIZE - 1) if inside else (-2, SIZE + 2)
    points = rng.uniform(low, high, (rows, len(JOINTS), 2)).astype(np.float32)
    points[seen == 0] = np.nan
    clip, frame, who = (np.array([one[side] for one in chosen]) for side in range(3))
    return Labels(clip, frame, points, seen, who, JOINTS)


def assert_same(found, expected, tolerance=0.01):
    """Tolerance in pixels of the crop."""
    order, wanted = (np.lexsort((one.source, one.frame, one.clip)) for one in (found, expected))
    assert found.joints == expected.joints and len(found) == len(expected)
    for name in ("clip", "frame", "source", "visibility"):
        np.testing.assert_array_equal(getattr(found, name)[order], getattr(expected, name)[wanted])
    np.testing.assert_allclose(found.keypoints[order], expected.keypoints[wanted], atol=tolerance, rtol=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 30))
def test_there_and_back(store, seed, rows):
    reader, labels = StoreReader(store), random_labels(seed, rows)
    for annotations in (annotate_frames(reader, labels), annotate_pictures(reader, labels, 512)):
        found, report = match_annotations(reader, annotations)
        assert_same(found, labels, 1e-3)
        assert report["matched"] == report["rows"] == rows and not report["unmatched"]
        assert report["joints"]["tail"] is None and report["joints"]["nose"] == "nose"


def change(annotations, **values):
    return Annotations(**{**annotations.__dict__, **values})


def test_videos_by_path_name_or_stem_and_frames_by_number_or_time(store):
    reader, labels = StoreReader(store), random_labels(1, 6)
    frames = annotate_frames(reader, labels)
    stems = [video.split("/")[-1].removesuffix(".mp4") for video in frames.video]
    for video in (frames.video, np.array(stems), np.array([f"D:\\films\\{stem}.avi" for stem in stems])):
        assert_same(match_annotations(reader, change(frames, video=video))[0], labels, 1e-3)
    unnumbered = change(frames, frame_index=np.full(6, -1), pts_seconds=frames.pts_seconds + 0.015)
    assert_same(match_annotations(reader, unnumbered)[0], labels, 1e-3)
    named = [f"pics/{stem}_frame_{number:05d}.jpg" for stem, number in zip(stems, frames.frame_index, strict=True)]
    plain = change(unnumbered, video=np.full(6, ""), image=np.array(named), pts_seconds=np.full(6, np.nan))
    assert_same(match_annotations(reader, plain)[0], labels, 1e-3)


def test_pictures_that_tools_renamed_or_resized(store):
    reader, labels = StoreReader(store), random_labels(2, 6)
    pictures = annotate_pictures(reader, labels, 256)
    marked = np.array([f"/data/upload/3/ab12cd34-{name}" for name in pictures.image])
    assert_same(match_annotations(reader, change(pictures, image=marked))[0], labels, 1e-3)
    unsized = change(pictures, size=np.zeros((6, 2), int))
    assert_same(match_annotations(reader, unsized)[0], labels, 1e-3)
    twice = change(pictures, xy=(pictures.xy + 0.5) * 2 - 0.5, size=pictures.size * 2)
    assert_same(match_annotations(reader, twice)[0], labels, 1e-3)


def test_what_cannot_be_matched_is_reported(store):
    reader, labels = StoreReader(store), random_labels(3, 6)
    frames = annotate_frames(reader, labels)
    video, number, xy = frames.video.copy().astype(object), frames.frame_index.copy(), frames.xy.copy()
    video[0], number[1], xy[2] = "else.mp4", 5, xy[2] + 500
    number[3], seconds = -1, frames.pts_seconds.copy()
    seconds[3] = np.nan
    changed = change(frames, video=video.astype(str), frame_index=number, xy=xy, pts_seconds=seconds)
    found, report = match_annotations(reader, changed)
    assert_same(found, labels.pick([4, 5]), 1e-3)
    assert report["unmatched"] == {
        "no such video in the store": 1, "the store keeps no subject at that frame": 1,
        "neither number nor time of the frame": 1, "no crop shows the subject": 1,
    }  # fmt: skip
    assert report["rows"] == 6 and report["matched"] == 2 and len(report["examples"]) == 4
    assert any("else.mp4" in example for example in report["examples"])


def test_two_subjects_of_a_frame_are_told_apart_by_their_crops(store):
    reader = StoreReader(store)
    boxes = [reader.boxes(clip)[4] for clip in CLIPS[:2]]
    xy = np.array([[(box[:2] + box[2:]) / 2] for box in (*boxes[::-1], boxes[0] + 3)])
    annotations = make_annotations(("nose",), xy, video=["walk"] * 3, frame_index=[8] * 3, who=["ann"] * 3)
    found, report = match_annotations(reader, annotations)
    assert found.clip.tolist() == ["walk-1-001", "walk-1-000"] and set(found.frame) == {4}
    assert report["unmatched"] == {"no crop shows the subject": 1}  # the third is where the first is


def test_joints_by_name(store):
    reader = StoreReader(store)
    box = reader.boxes("run-2-000")[0]
    xy = np.tile((box[:2] + box[2:]) / 2, (1, 3, 1))
    one = make_annotations(("Left Knee", "snout", "tail"), xy, video=["run"], frame_index=[0])
    labels, report = match_annotations(reader, one, renamed={"snout": "nose"}, who="me")
    assert labels.joints == ("left_knee", "nose", "tail") and labels.source.tolist() == ["me"]
    assert report["joints"] == {"Left Knee": "left_knee", "snout": "nose", "tail": None}
    with pytest.raises(ConfigError, match="are both left_knee"):
        match_annotations(reader, one, renamed={"snout": "left_knee"})
    with pytest.raises(ConfigError, match="no such joint"):
        match_annotations(reader, one, renamed={"beak": "nose"})
    assert picture_name("a", 3, 64) == "a__000003__64.png"
