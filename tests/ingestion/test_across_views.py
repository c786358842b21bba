"""A man who stands still before four cameras, with a bystander and a lab skeleton behind him."""

import numpy as np
import pytest

from streampose.ingest import ingest
from streampose.ingestion.across_views import add_still_subject
from streampose.ingestion.options import Options
from streampose.sessions import load_session
from streampose.store.reader import StoreReader
from streampose.store.schema import read_attributes
from streampose.tracking.boxes import box_iou

# Where the man is in each view, in source pixels, measured by hand; the bystander is in the first view only.
MAN = {
    "cam01": (105, 347, 882, 1221),
    "cam02": (139, 383, 952, 1165),
    "cam03": (94, 405, 743, 1290),
    "cam04": (28, 427, 865, 1273),
}


@pytest.fixture(scope="module")
def session(shared_data):
    folder = shared_data / "people_four_cameras"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder


@pytest.fixture(scope="module")
def made(session, tmp_path_factory):
    store = tmp_path_factory.mktemp("still") / "store.zarr"
    return store, ingest([], sessions=[session], store=store)


def test_it_is_the_man_in_all_four_views(made):
    store, result = made
    assert [source["verdict"] for source in result["sources"]] == ["ok"] * 4
    reader = StoreReader(store)
    assert len(reader.clips()) == 4 and {clip.num_frames for clip in reader.clips()} == {11}
    for clip in reader.clips():
        read = reader.read(clip.id)
        assert clip.attributes["masks"] == "views"
        for mask, square in zip(read.masks, read.boxes, strict=True):
            y, x = np.nonzero(mask > 127)
            scale = (square[2] - square[0]) / mask.shape[0]
            tight = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) * scale + np.tile(square[:2], 2)
            assert box_iou(tight[None], np.array([MAN[clip.id[:5]]], np.float32))[0, 0] > 0.75, clip.id
            assert 0.3 < (mask > 127).sum() * scale**2 / 850**2 * 2 < 0.8  # a man of 850 pixels, no furniture


def test_what_was_chosen_and_why_is_kept_and_done_once(made, session, monkeypatch):
    store, result = made
    (source, *_) = StoreReader(store).sources()
    assert "the person that 4 of 4 views see at one place (HOG)" in source["masks_reason"]
    assert source["masks"] == "views" and result["sources"][0]["clips"] == source["clips"]
    monkeypatch.setattr("streampose.tracking.still_subject.find_candidates", lambda *_: pytest.fail("it was done"))
    again = ingest([], sessions=[session], store=store)
    assert again["sources"] == result["sources"]


def test_nobody_is_made_up(made, session, monkeypatch, tmp_path):
    store, _ = made
    monkeypatch.setattr("streampose.tracking.still_subject.find_candidates", lambda *_: [])
    result = ingest([], sessions=[session], store=tmp_path / "store.zarr")
    assert all(source["clips"] == [] and source["verdict"] == "ok" for source in result["sources"])
    assert "nothing that moves was found" in result["sources"][0]["reason"]
    (source, *_) = StoreReader(tmp_path / "store.zarr").sources()
    assert source["across_views"] == "nobody is seen at one place by two of its views"
    asked = Options(store, "mog2", 128, 4, 10.0)  # masks that the user chose are kept to
    before = read_attributes(store / "sources" / source["id"])
    add_still_subject(store, load_session(session), asked, [], None)
    assert read_attributes(store / "sources" / source["id"]) == before


def test_segment_anything_draws_where_there_is_a_checkpoint(session, monkeypatch, tmp_path):
    asked = []

    class Draws:
        """Stands for `ClipMasks`, whose own tests draw with a real one: fills the crop's middle."""

        def __init__(self, sam, keep, *, every):
            assert (sam, every) == ("opened", 3)
            self._keep = keep

        def append(self, crop, mask, square, pts_seconds, frame_index):
            asked.append(frame_index)
            drawn = np.zeros_like(mask)
            drawn[40:80, 40:80] = 255
            self._keep(crop, drawn, square, pts_seconds, frame_index)

        def finish(self):
            asked.append("finished")

    monkeypatch.setattr("streampose.ingestion.across_views.ClipMasks", Draws)
    monkeypatch.setattr("streampose.ingestion.across_views.open_sam_once", lambda file, precision: "opened")
    with monkeypatch.context() as context:
        context.setattr("streampose.ingestion.across_views.add_still_subject", lambda *_: None)
        ingest([], sessions=[session], store=tmp_path / "store.zarr")
    options = Options(tmp_path / "store.zarr", "auto", 128, 4, 10.0, sam_checkpoint="sam_vit_b.pth", sam_every=3)
    add_still_subject(options.store, load_session(session), options, [], None)
    reader = StoreReader(tmp_path / "store.zarr")
    assert [clip.attributes["masks"] for clip in reader.clips()] == ["views+sam"] * 4
    assert asked.count("finished") == 4 and asked.count(10) == 4
    assert (reader.read(reader.clips()[0].id).masks.mean((1, 2)) == 255 * 1600 / 128**2).all()
    assert "Segment Anything draws the masks" in reader.sources()[0]["masks_reason"]
