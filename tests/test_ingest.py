import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from streampose.errors import ConfigError, StoreError, VideoError
from streampose.geometry.crop import crop_resize
from streampose.ingest import ingest
from streampose.ingestion.clips import ClipMaker
from streampose.store.reader import StoreReader
from streampose.store.sessions import read_sessions
from streampose.video.encode import VideoWriter

W, H, FPS = 256, 160, 25
STRIDE = 2  # FPS / 10, the rate that is kept, rounded


def wall(seed=0):
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(60, 200, (10, 16, 3), dtype=np.uint8), (W, H), interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(rng.integers(0, 60, (H, W, 3), dtype=np.uint8), (3, 3), 0)
    return cv2.addWeighted(coarse, 0.8, fine, 0.7, 0)


def draw(image, mask, x, phase, colours=((170, 30, 160), (20, 20, 90))):
    """A figure that strides: torso, head and two legs."""
    for canvas, shirt, trousers in ((image, *colours), (mask, 255, 255)):
        for side in (-1, 1):
            foot = (round(x + side * 14 * np.sin(phase)), 138)
            cv2.line(canvas, (round(x), 92), foot, trousers, 9)
        cv2.ellipse(canvas, (round(x), 70), (11, 26), 0, 0, 360, shirt, -1)
        cv2.circle(canvas, (round(x), 38), 8, shirt, -1)


def film(path, frames=60, seed=0, places=None, shift=0):
    """A figure walks through; returns the true masks (T, H, W)."""
    rng = np.random.default_rng(seed)
    background = cv2.copyMakeBorder(wall(seed), 0, 0, 0, 400, cv2.BORDER_REFLECT)
    masks = []
    with VideoWriter(path, FPS, size=(W, H)) as writer:
        for t in range(frames):
            image = background[:, shift * t : shift * t + W].copy()
            mask = np.zeros((H, W), np.uint8)
            x = 30 + 190 * t / frames if places is None else places(t)
            draw(image, mask, x, t / 4)
            writer.write(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8))
            masks.append(mask)
    return np.stack(masks)


def mask_iou(clip, truth, size):
    scores = []
    for mask, box, frame in zip(clip.masks, clip.boxes, clip.frame_index, strict=True):
        true = crop_resize(truth[frame], box, size) > 127
        scores.append(((mask > 127) & true).sum() / ((mask > 127) | true).sum())
    return np.array(scores)


def snapshot(store):
    """All that a store holds, in comparable form."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in sorted(store.rglob("*"))
        if file.is_file() and file != store / "zarr.json"
    }


def test_masks_boxes_and_times_are_right_and_a_second_run_does_nothing(tmp_path):
    (tmp_path / "videos").mkdir()
    truth = film(tmp_path / "videos" / "walk.mp4")
    result = ingest([tmp_path / "videos"], store=tmp_path / "store.zarr", crop_size=64, rate=0)
    (source,) = result["sources"]
    assert (source["verdict"], source["frames"], len(source["clips"])) == ("ok", 60, 1)
    reader = StoreReader(tmp_path / "store.zarr")
    clip = reader.read(source["clips"][0])
    assert len(clip.frames) > 50
    scores = mask_iou(clip, truth, 64)
    assert scores.mean() > 0.8 and np.percentile(scores, 10) > 0.7
    np.testing.assert_allclose(clip.pts_seconds, clip.frame_index / FPS, atol=1e-3)
    for box, frame in zip(clip.boxes, clip.frame_index, strict=True):  # the whole body lies inside
        ys, xs = np.nonzero(truth[frame])
        assert box[0] <= xs.min() and box[1] <= ys.min() and box[2] >= xs.max() and box[3] >= ys.max()
    assert Path(result["contact_sheet"]).is_file() and result["pairs"] > 20

    before = snapshot(tmp_path / "store.zarr")
    again = ingest([tmp_path / "videos"], store=tmp_path / "store.zarr", crop_size=64, rate=0)
    assert again["sources"] == result["sources"] and snapshot(tmp_path / "store.zarr") == before


def test_a_session_is_kept_with_its_cameras_and_offsets(tmp_path):
    (tmp_path / "jump").mkdir()
    for seed in (0, 1):
        film(tmp_path / "jump" / f"cam{seed}.mp4", seed=seed)
    (tmp_path / "jump" / "sessions.yaml").write_text(
        "sessions:\n  - name: jump\n    views:\n      - video: cam0.mp4\n"
        "      - video: cam1.mp4\n        offset_seconds: 0.5\n"
    )
    result = ingest([], store=tmp_path / "store.zarr", crop_size=32, sessions=[tmp_path / "jump"])
    assert result["sessions"] == ["jump"] and len(result["sources"]) == 2
    (stored,) = read_sessions(tmp_path / "store.zarr")
    assert [view.offset_seconds for view in stored.session.views] == [0.0, 0.5]
    assert set(stored.source_ids) == {source["id"] for source in StoreReader(tmp_path / "store.zarr").sources()}


def test_about_ten_frames_a_second_become_crops(tmp_path):
    truth = film(tmp_path / "walk.mp4")
    (source,) = ingest([tmp_path / "walk.mp4"], store=tmp_path / "store.zarr", crop_size=64)["sources"]
    reader = StoreReader(tmp_path / "store.zarr")
    clip = reader.read(source["clips"][0])
    assert source["frames"] == 60 and len(clip.frames) > 50 / STRIDE
    assert (np.diff(clip.frame_index) == STRIDE).all() and (clip.frame_index % STRIDE == 0).all()
    assert reader.clips()[0].fps == pytest.approx(FPS / STRIDE)
    assert mask_iou(clip, truth, 64).mean() > 0.8


def test_pairs_differ_in_pose_and_are_reproducible(tmp_path):
    film(tmp_path / "walk.mp4")
    stores = [tmp_path / name for name in ("a.zarr", "b.zarr", "c.zarr")]
    for store, seed in zip(stores, (0, 0, 1), strict=True):
        ingest([tmp_path / "walk.mp4"], store=store, crop_size=32, seed=seed)
    first, second, other = (StoreReader(store).pairs() for store in stores)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    assert not np.array_equal(first["i"], other["i"])
    assert (first["seconds"] >= 0.2).all() and (first["i"] != first["j"]).all()
    assert np.median(first["motion"]) > 0.1


def test_bad_files_get_their_verdicts_and_the_rest_goes_on(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    film(folder / "good.mp4")
    film(folder / "short.mp4", frames=1)
    (folder / "text.mp4").write_text("this is no video")
    (folder / "empty.mp4").touch()
    film(folder / "cut.mp4", seed=3)
    data = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    result = ingest([folder, tmp_path / "missing.mp4"], store=tmp_path / "store.zarr", crop_size=32)
    verdicts = {Path(source["source"]).name: source for source in result["sources"]}
    assert verdicts["good.mp4"]["verdict"] == "ok" and len(verdicts["good.mp4"]["clips"]) == 1
    bad = {"text.mp4": "not a video", "empty.mp4": "empty", "short.mp4": "1 frame", "missing.mp4": "no such file"}
    for name, reason in bad.items():
        assert verdicts[name]["verdict"] == "quarantined" and reason in verdicts[name]["reason"], verdicts[name]
        assert verdicts[name]["clips"] == [] and "\n" not in verdicts[name]["reason"]
    assert verdicts["cut.mp4"]["verdict"] in ("quarantined", "repaired")
    again = ingest([folder], store=tmp_path / "store.zarr", crop_size=32)
    assert {Path(s["source"]).name: s["verdict"] for s in again["sources"]}["text.mp4"] == "quarantined"


def test_a_moving_camera_is_noticed_and_other_masks_help(tmp_path):
    film(tmp_path / "pan.mp4", shift=4)
    (source,) = ingest([tmp_path / "pan.mp4"], store=tmp_path / "a.zarr", crop_size=32, masks="mog2")["sources"]
    assert source["verdict"] == "quarantined" and "camera moves" in source["reason"]
    assert "--masks auto" in source["reason"] and "--masks none" in source["reason"]
    (source,) = ingest([tmp_path / "pan.mp4"], store=tmp_path / "c.zarr", crop_size=32)["sources"]
    assert source["verdict"] == "ok" and source["clips"]
    (source,) = ingest([tmp_path / "pan.mp4"], store=tmp_path / "b.zarr", crop_size=32, masks="none")["sources"]
    clip = StoreReader(tmp_path / "b.zarr").read(source["clips"][0])
    assert source["verdict"] == "ok" and len(clip.frames) == 60 // STRIDE and not clip.masks.any()


def test_a_cut_ends_the_clip(tmp_path):
    film(tmp_path / "a.mp4", seed=1)
    film(tmp_path / "b.mp4", seed=2)
    joined = tmp_path / "joined.mp4"
    from streampose.video.decode import open_video

    with VideoWriter(joined, FPS, size=(W, H)) as writer:
        for name in ("a.mp4", "b.mp4"):
            with open_video(tmp_path / name) as video:
                for frame in video.frames():
                    writer.write(frame.image)
    (source,) = ingest([joined], store=tmp_path / "store.zarr", crop_size=32)["sources"]
    reader = StoreReader(tmp_path / "store.zarr")
    spans = [reader.read(clip).frame_index[[0, -1]] for clip in source["clips"]]
    assert len(spans) == 2
    assert all((span < 60).all() or (span >= 60).all() for span in spans)


def test_a_changed_file_under_the_same_name_is_noticed(tmp_path):
    film(tmp_path / "walk.mp4", seed=1)
    first = ingest([tmp_path / "walk.mp4"], store=tmp_path / "store.zarr", crop_size=32)["sources"][0]
    film(tmp_path / "walk.mp4", seed=2)
    second = ingest([tmp_path / "walk.mp4"], store=tmp_path / "store.zarr", crop_size=32)["sources"][0]
    assert first["clips"] != second["clips"]
    assert [clip.id for clip in StoreReader(tmp_path / "store.zarr").clips()] == second["clips"]


def test_workers_give_what_one_process_gives(tmp_path):
    (tmp_path / "videos").mkdir()
    for seed in (1, 2):
        film(tmp_path / "videos" / f"walk{seed}.mp4", frames=40, seed=seed)
    one = ingest([tmp_path / "videos"], store=tmp_path / "one.zarr", crop_size=32)
    two = ingest([tmp_path / "videos"], store=tmp_path / "two.zarr", crop_size=32, workers=2)
    assert one["sources"] == two["sources"]
    assert snapshot(tmp_path / "one.zarr") == snapshot(tmp_path / "two.zarr")


def test_kill_in_the_middle_then_again_equals_an_uninterrupted_run(tmp_path):
    (tmp_path / "videos").mkdir()
    for seed in (1, 2):
        film(tmp_path / "videos" / f"walk{seed}.mp4", seed=seed)
    ingest([tmp_path / "videos"], store=tmp_path / "whole.zarr", crop_size=32)
    code = (
        "import sys; from pathlib import Path; from streampose.ingest import ingest\n"
        "ingest([Path(sys.argv[1])], store=Path(sys.argv[2]), crop_size=32)"
    )
    torn = tmp_path / "torn.zarr"
    for moment in ("clips", "sources"):  # killed while the first clip is written, and after the first source
        run = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "videos"), str(torn)],
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < until:
            if (torn / moment).is_dir() and any(child.is_dir() for child in (torn / moment).iterdir()):
                break
            time.sleep(0.002)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
        run.wait()
        if (torn / "zarr.json").exists():
            StoreReader(torn)  # valid at every moment
    ingest([tmp_path / "videos"], store=torn, crop_size=32)
    assert snapshot(torn) == snapshot(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_killed_a_hundred_times_the_store_is_the_same_byte_for_byte(tmp_path):
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "long.mp4", frames=150)
    film(tmp_path / "videos" / "short.mp4", seed=1)
    code = (
        "import sys; from pathlib import Path; import streampose.ingest as i; import streampose.ingestion.spans as s\n"
        "s.SPAN_SECONDS, i.SMALL_BYTES = 1.0, 0\n"
        "i.ingest([Path(sys.argv[1])], store=Path(sys.argv[2]), crop_size=32)"
    )

    def start(store):
        command = [sys.executable, "-c", code, str(tmp_path / "videos"), str(store)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    assert start(tmp_path / "whole.zarr").wait() == 0
    usual = time.monotonic() - began
    whole, moments, kills, finished = snapshot(tmp_path / "whole.zarr"), np.random.default_rng(0), 0, 0
    torn = tmp_path / "torn.zarr"
    while kills < 100:
        run = start(torn)
        try:
            assert run.wait(timeout=moments.uniform(0.25, 1.0) * usual) == 0
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            kills += 1
            if (torn / "zarr.json").exists():
                StoreReader(torn)  # valid at every moment
            continue
        assert snapshot(torn) == whole
        finished += 1
        shutil.rmtree(torn)
    assert start(torn).wait() == 0
    assert snapshot(torn) == whole and finished > 3


def test_spans_share_a_long_video_without_losing_or_doubling_a_frame(tmp_path, monkeypatch):
    monkeypatch.setattr("streampose.ingestion.spans.SPAN_SECONDS", 1.0)
    monkeypatch.setattr("streampose.ingest.SMALL_BYTES", 0)
    truth = film(tmp_path / "walk.mp4", frames=150)  # six seconds
    for name, workers in (("one", 1), ("two", 2)):
        result = ingest([tmp_path / "walk.mp4"], store=tmp_path / name, crop_size=32, rate=0, workers=workers)
    (source,) = result["sources"]
    assert (source["verdict"], source["frames"], len(source["clips"])) == ("ok", 150, 6)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    reader = StoreReader(tmp_path / "one")
    clips = [reader.read(clip) for clip in source["clips"]]
    numbers = np.concatenate([clip.frame_index for clip in clips])
    assert len(set(numbers)) == len(numbers) > 130
    for clip in clips:
        np.testing.assert_allclose(clip.pts_seconds, clip.frame_index / FPS, atol=1e-3)
        assert mask_iou(clip, truth, 32).mean() > 0.5  # a second is little to learn the scene from


def test_finished_spans_are_not_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr("streampose.ingestion.spans.SPAN_SECONDS", 1.0)
    monkeypatch.setattr("streampose.ingest.SMALL_BYTES", 0)
    film(tmp_path / "walk.mp4", frames=150)
    ingest([tmp_path / "walk.mp4"], store=tmp_path / "whole", crop_size=32)
    run, done = ClipMaker.run, []

    def stopped(maker, video, advance):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(maker)
        run(maker, video, advance)

    monkeypatch.setattr(ClipMaker, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        ingest([tmp_path / "walk.mp4"], store=tmp_path / "torn", crop_size=32)
    assert StoreReader(tmp_path / "torn").clips() == []
    done.clear()
    ingest([tmp_path / "walk.mp4"], store=tmp_path / "torn", crop_size=32)
    assert len(done) == 3
    assert snapshot(tmp_path / "torn") == snapshot(tmp_path / "whole")


def test_workers_end_with_their_parent(tmp_path):
    (tmp_path / "videos").mkdir()
    for seed in (1, 2):
        film(tmp_path / "videos" / f"walk{seed}.mp4", seed=seed)
    code = (
        "import sys; from pathlib import Path; from streampose.ingest import ingest\n"
        "ingest([Path(sys.argv[1])], store=Path(sys.argv[2]), crop_size=32, workers=2)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "videos"), str(tmp_path / "store.zarr")])
    parent, workers, until = psutil.Process(run.pid), [], time.monotonic() + 60
    while len(workers) < 3 and run.poll() is None and time.monotonic() < until:  # two, and their resource tracker
        workers = parent.children(recursive=True)
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert len(workers) == 3
    assert not psutil.wait_procs(workers, timeout=30)[1]


def test_wrong_calls_are_one_clear_line(tmp_path):
    film(tmp_path / "walk.mp4", frames=12)
    with pytest.raises(ConfigError, match="--masks sam"):
        ingest([tmp_path / "walk.mp4"], store=tmp_path / "s.zarr", masks="sam")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(VideoError, match="no videos there"):
        ingest([tmp_path / "nothing"], store=tmp_path / "s.zarr")
    newer = tmp_path / "newer.zarr"
    newer.mkdir()
    (newer / "zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"streampose_schema": 99}})
    )
    with pytest.raises(StoreError, match="newer"):
        ingest([tmp_path / "walk.mp4"], store=newer)


def test_a_full_disk_is_said_and_leaves_a_valid_store(tmp_path, monkeypatch):
    film(tmp_path / "walk.mp4")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streampose.store.writer.write_array", full)
    with pytest.raises(StoreError, match="disk is full"):
        ingest([tmp_path / "walk.mp4"], store=tmp_path / "store.zarr", crop_size=32)
    monkeypatch.undo()
    assert StoreReader(tmp_path / "store.zarr").clips() == []
    assert len(ingest([tmp_path / "walk.mp4"], store=tmp_path / "store.zarr", crop_size=32)["sources"][0]["clips"]) == 1


def data_folder():
    folder = Path(os.environ.get("STREAMPOSE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return folder if folder.is_dir() else None


@pytest.mark.slow
@pytest.mark.skipif(data_folder() is None, reason="real videos are not here; set STREAMPOSE_DATA to their folder")
def test_two_people_in_the_park_are_two_clips(tmp_path):
    (source,) = ingest([data_folder() / "people/park_two_people.mp4"], store=tmp_path / "store.zarr")["sources"]
    reader = StoreReader(tmp_path / "store.zarr")
    assert source["verdict"] == "ok" and len(source["clips"]) == 2
    assert all(clip.num_frames > 45 for clip in reader.clips())


def recorded(folder, second):
    """A session of two views with a calibration; the second view's file holds something else."""
    folder.mkdir()
    film(folder / "cam0.mp4")
    (folder / "cam1.mp4").write_bytes(second)
    camera = "size = [256.0, 160.0]\nmatrix = [[200, 0, 128], [0, 200, 80], [0, 0, 1]]\ndistortions = [0, 0, 0, 0]\n"
    cameras = "".join(
        f'[cam{n}]\nname = "cam{n}"\n{camera}rotation = [0, {n}, 0]\ntranslation = [0, 0, 3]\n' for n in (0, 1)
    )
    (folder / "calibration.toml").write_text(cameras)
    return folder


def test_a_session_with_a_damaged_view_is_kept_and_says_which(tmp_path):
    folder = recorded(tmp_path / "jump", b"no video at all" * 100)
    result = ingest([], store=tmp_path / "store.zarr", crop_size=32, sessions=[folder])
    first, second = result["sources"]
    assert (first["verdict"], len(first["clips"])) == ("ok", 1)
    assert second["verdict"] == "quarantined" and second["reason"] and second["clips"] == []
    (stored,) = read_sessions(tmp_path / "store.zarr")
    assert [view.name for view in stored.session.views] == ["cam0", "cam1"] and len(stored.source_ids) == 2


def test_a_session_with_a_view_that_may_not_be_read_is_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    import streampose.ingest as module

    folder, real = recorded(tmp_path / "jump", b"secret"), module.content_hash

    def forbidden(path):
        if path.name == "cam1.mp4":
            raise VideoError(f"{path}: no permission to read it; skipped")
        return real(path)

    monkeypatch.setattr(module, "content_hash", forbidden)
    with caplog.at_level("WARNING", logger="streampose"):
        result = ingest([], store=tmp_path / "store.zarr", crop_size=32, sessions=[folder])
    assert [source["verdict"] for source in result["sources"]] == ["ok", "quarantined"]
    assert result["sessions"] == [] and result["pairs"] > 0  # what could be read is kept
    assert "session jump: not ingested: " in caplog.text and "cam1.mp4; ingest the session again" in caplog.text
    monkeypatch.setattr(module, "content_hash", real)
    assert ingest([], store=tmp_path / "store.zarr", crop_size=32, sessions=[folder])["sessions"] == ["jump"]


def test_short_recordings_are_for_sessions_and_for_who_asks_for_every_frame(tmp_path):
    film(tmp_path / "short.mp4", frames=9)
    for rate, verdict in ((10.0, "quarantined"), (0.0, "ok")):
        (source,) = ingest([tmp_path / "short.mp4"], store=tmp_path / f"{rate}", crop_size=32, rate=rate)["sources"]
        assert (source["verdict"], "only 9 frames" in source["reason"]) == (verdict, verdict != "ok")
