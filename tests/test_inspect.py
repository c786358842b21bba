"""The page and the contact sheet of a small store: two clips of one video, a second video that gave none."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StoreError, VideoError
from streampose.inspect import contact_sheet, inspect, inspect_sources
from streampose.inspection.gather import tell
from streampose.inspection.page import OUTLINE, outline_mask
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.writer import ClipWriter, publish_source, write_pairs
from streampose.video.encode import VideoWriter

SIZE, FRAMES = 32, (40, 15)
BACKGROUND, SUBJECT = (30, 60, 90), (200, 180, 20)
REASON = "no picture in it <b>at all</b>"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """In clip n, frame t shows a square in column t of the crop (at most 20), n rows from the top."""
    store = tmp_path_factory.mktemp("inspect") / "store.zarr"
    create_store(store, load_skeleton("human17"), crop_size=SIZE)
    clips = []
    for number, frames in enumerate(FRAMES):
        writer = ClipWriter(store, f"park-{number}", source="park.mp4", fps=25)
        for frame in range(frames):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[18 + number : 28 + number, min(frame, 20) : min(frame, 20) + 10] = 255
            image = np.where(mask[..., None] > 0, SUBJECT, BACKGROUND).astype(np.uint8)
            writer.append(image, mask, np.array([0, 0, SIZE, SIZE], np.float32), frame / 25, frame)
        writer.finish(motion=0.25 + number, at_border=0.0)
        clips.append(writer.id)
    park = {"path": "videos/park.mp4", "verdict": "repaired", "reason": "3 frames lost", "frames": 60, "clips": clips}
    park |= {"lost_spans": [[1.0, 1.12]], "probe": {"width": 64, "height": 48, "duration_seconds": 2.4}}
    publish_source(store, "park", park)
    broken = {"path": "videos/broken.mp4", "verdict": "quarantined", "reason": REASON, "frames": 0, "clips": []}
    publish_source(store, "broken", broken)
    pairs = {"clip": np.array(["park-0"]), "i": np.array([0]), "j": np.array([5]), "seconds": np.array([0.2])}
    write_pairs(store, {**pairs, "motion": np.array([0.5])})
    return store


class Tables(HTMLParser):
    """The cells of each row of each table of a page, and the pictures."""

    def __init__(self, page: str):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.images: list[str] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag == "img":
            self.images.append(dict(attributes)["src"])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self._in_cell = tag in ("td", "th") or (self._in_cell and tag not in ("tr", "table"))

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("tr", "table")

    def handle_data(self, data):
        if self._in_cell:
            self.tables[-1][-1][-1] += data.strip()


def test_the_numbers(store, tmp_path):
    found = inspect(store, out=tmp_path / "look")
    assert (found["skeleton"], found["crop_size"], found["pairs"]) == ("human17", SIZE, 1)
    assert {s["source"]: (s["verdict"], s["reason"], len(s["clips"])) for s in found["sources"]} == {
        "videos/park.mp4": ("repaired", "3 frames lost", 2),
        "videos/broken.mp4": ("quarantined", REASON, 0),
    }
    assert [(c["id"], c["frames"], c["seconds"], c["motion"]) for c in found["clips"]] == [
        ("park-0", 40, 1.6, 0.25),
        ("park-1", 15, 0.6, 1.25),
    ]
    on_disk = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert found["bytes"] == on_disk
    assert found["files"] == {
        "contact_sheet": str(tmp_path / "look" / "contact_sheet.png"), "page": str(tmp_path / "look" / "index.html")
    }  # fmt: skip


def test_the_page_shows_every_source_clip_and_pair_and_needs_no_network(store, tmp_path):
    found = inspect(store, out=tmp_path)
    page = Path(found["files"]["page"]).read_text(encoding="utf-8")
    shown = Tables(page)
    sources, use = shown.tables
    assert sorted(row[:5] for row in sources[1:]) == [
        ["videos/broken.mp4", "quarantined", REASON, "0", "0"],
        ["videos/park.mp4", "repaired", "3 frames lost", "60", "2"],
    ]
    assert "<b>at all" not in page  # what a file's name or a decoder says is text, not markup
    assert [row[0] for row in use] == ["frames", "masks", "boxes and times", "frame pairs", "descriptions"]
    assert sum(found["disk_use"].values()) == found["bytes"] and 0 < found["frames_share"] < 0.5
    assert found["disk_use"]["frames"] == sum(
        file.stat().st_size for file in store.glob("clips/*/segments/*/frames/c/**/*") if file.is_file()
    )
    strips = [cv2.imdecode(np.frombuffer(base64.b64decode(i.split(",")[1]), np.uint8), 1) for i in shown.images]
    assert [strip.shape for strip in strips] == [(SIZE, 12 * SIZE, 3)] * 2 + [(SIZE, 2 * SIZE, 3)]  # clips, one pair
    assert re.search(r"<b>55</b><span>frames, 2.2 s", page) and "0.20 s apart, motion 0.50" in page
    assert page.count('class="lost"') == 1 and "lost: 1.00 to 1.12 s" in page
    assert "http" not in page


def test_a_clips_story_is_that_of_its_masks(store):
    reader = StoreReader(store)
    story = tell(reader, reader.clips()[0])
    np.testing.assert_allclose(story.area, 100 / SIZE**2)
    walks, stands = story.moments < 0.3, story.moments > 1.0
    assert np.nanmin(story.motion[walks]) > 0.5  # ten columns on in 0.4 s: nothing in common
    np.testing.assert_allclose(story.motion[stands & np.isfinite(story.motion)], 0)
    assert np.isnan(story.motion[-1])  # there is nothing 0.4 s later
    assert len(story.crops) == 12 and story.at[0] == 0 and story.at[-1] == pytest.approx(39 / 25)


def test_the_sheet_has_a_row_a_clip_spread_over_its_time(store, tmp_path):
    sheet = contact_sheet(StoreReader(store), columns=6)
    assert sheet.shape == (2 * SIZE, 6 * SIZE, 3) and sheet.dtype == np.uint8
    for row, frames in enumerate(FRAMES):
        for column, frame in enumerate(np.linspace(0, frames - 1, 6).round().astype(int)):
            tile = sheet[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
            x, y = min(frame, 20), 18 + row
            np.testing.assert_allclose(
                tile[y + 5, x + 5].astype(int), SUBJECT, atol=4
            )  # RGB, and at the time it should be
            for outline in (tile[y, x : x + 10], tile[y + 9, x : x + 10], tile[y : y + 10, x], tile[y : y + 10, x + 9]):
                assert (outline == OUTLINE).all()
            np.testing.assert_allclose(tile[-1, (x + 16) % SIZE].astype(int), BACKGROUND, atol=4)
    path = Path(inspect(store, out=tmp_path)["files"]["contact_sheet"])
    written = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(written, contact_sheet(StoreReader(store)))
    assert written.shape == (2 * SIZE, 12 * SIZE, 3)
    assert (written[:16, :40, 2] > 150).any()  # the clip's name, in white


def test_many_clips_are_cut_off(store):
    assert contact_sheet(StoreReader(store), columns=3, most_clips=1).shape == (SIZE, 3 * SIZE, 3)


def test_an_outline_changes_a_copy_only():
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 255
    drawn = outline_mask(image, mask, (1, 2, 3))
    assert not image.any()
    assert (drawn.any(-1) == ((mask > 0) & (cv2.erode(mask, np.ones((3, 3), np.uint8)) == 0))).all()


def test_a_store_without_clips_has_a_page_without_a_picture(tmp_path):
    store = tmp_path / "empty.zarr"
    create_store(store, load_skeleton("mouse"), crop_size=SIZE)
    found = inspect(store)
    assert found["files"] == {"contact_sheet": None, "page": str(tmp_path / "empty-inspect" / "index.html")}
    page = Path(found["files"]["page"]).read_text()
    assert "<b>0</b><span>clips" in page and "Disk use" in page and not Tables(page).images
    assert contact_sheet(StoreReader(store), columns=4).shape == (SIZE, 4 * SIZE, 3)


def test_no_store_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(StoreError, match="streampose ingest"):
        inspect(tmp_path / "nowhere.zarr", out=tmp_path / "look")
    assert not (tmp_path / "look").exists()


def test_verdicts_of_a_store_and_of_videos(store, tmp_path):
    listed = {entry["source"]: entry for entry in inspect_sources(store)["sources"]}
    assert (listed["videos/park.mp4"]["verdict"], listed["videos/park.mp4"]["reason"]) == ("repaired", "3 frames lost")
    with VideoWriter(tmp_path / "good.mp4", 25, size=(64, 48)) as writer:
        for _ in range(5):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "text.mp4").write_text("no video")
    bad, good = sorted(inspect_sources(tmp_path)["sources"], key=lambda entry: entry["frames"])
    assert (good["verdict"], good["frames"], good["lost_spans"]) == ("ok", 5, [])
    assert bad["verdict"] == "quarantined" and "not a video" in bad["reason"]
    with pytest.raises(VideoError, match="neither a store"):
        (tmp_path / "empty").mkdir()
        inspect_sources(tmp_path / "empty")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_of_the_videos_with_the_boxes_of_their_clips(tmp_path, decoder, caplog):
    if decoder == "decord":
        pytest.importorskip("decord", reason="needs decord: pip install 'streampose[decord]'")
    with VideoWriter(tmp_path / "park.mp4", 25, size=(160, 80)) as writer:
        for number in range(40):
            writer.write(np.full((80, 160, 3), 40 + 4 * number, np.uint8))
    store = tmp_path / "store.zarr"
    create_store(store, load_skeleton("human17"), crop_size=SIZE)
    writer = ClipWriter(store, "park-0", source="park.mp4", fps=25)
    for number in range(5, 36):
        writer.append(
            np.zeros((SIZE, SIZE, 3)), np.zeros((SIZE, SIZE)), np.array([40, 20, 80, 60]), number / 25, number
        )
    writer.finish()
    for name, clips in (("park", ["park-0"]), ("gone", [])):
        path = str(tmp_path / f"{name}.mp4")
        publish_source(store, name, {"path": path, "verdict": "ok", "reason": "", "frames": 40, "clips": clips})
    found = inspect(store, out=tmp_path / "look", videos=True, decoder=decoder)
    assert not [record for record in caplog.records if "read with PyAV" in record.message]
    pictures = Tables(Path(found["files"]["page"]).read_text(encoding="utf-8")).images
    row = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0].split(",")[1]), np.uint8), 1)[..., ::-1]
    assert row.shape == (160, 6 * 320 + 5 * 4, 3)
    for n, number in enumerate((5, 11, 17, 23, 29, 35)):  # the very frames, out of order or not
        assert abs(int(row[10, 324 * n + 10, 0]) - (40 + 4 * number)) < 4
        blue = row[40, 324 * n + 120].astype(int)  # the upper side of the box
        assert blue[2] - blue[0] > 60
    (tmp_path / "park.mp4").unlink()
    assert len(Tables(Path(inspect(store, videos=True)["files"]["page"]).read_text()).images) == 1
    assert "no pictures of the video" in caplog.text
    with pytest.raises(VideoError, match="--decoder opencv: unknown"):
        inspect(store, decoder="opencv")
