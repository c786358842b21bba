"""What masks and detectors `ingest` can be asked for, each for real."""

import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.ingest import ingest
from streampose.masks.clip_masks import ClipMasks
from streampose.store.reader import StoreReader
from streampose.synth import synth


def load(path):
    """Another test's helpers."""
    spec = importlib.util.spec_from_file_location(f"helpers_of_{Path(path).stem}", Path(__file__).parents[1] / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


helpers = load("test_ingest.py")
pan = partial(helpers.film, frames=75, places=lambda t: 40 + 2.4 * t, shift=1)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("moving") / "pan.mp4"
    pan(path)
    return path


def look(video, store, **options):
    (source,) = ingest([video], store=store, crop_size=64, **options)["sources"]
    reader = StoreReader(store)
    (attributes,) = reader.sources()
    return source, attributes, [reader.read(clip) for clip in source["clips"]], reader


def test_a_moving_camera_gives_masks_and_any_number_of_workers_the_same(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    truth = pan(folder / "pan.mp4")
    pan(folder / "other.mp4", seed=1)
    one = ingest([folder], store=tmp_path / "one", crop_size=64)
    ingest([folder], store=tmp_path / "two", crop_size=64, workers=2)
    assert helpers.snapshot(tmp_path / "one") == helpers.snapshot(tmp_path / "two")
    reader = StoreReader(tmp_path / "one")
    attributes = next(source for source in reader.sources() if source["name"] == "pan.mp4")
    assert all(source["verdict"] == "ok" and source["clips"] for source in one["sources"])
    assert attributes["masks"] == "moving" and "camera" in attributes["masks_reason"]
    for name in attributes["clips"]:
        clip, quality = reader.read(name), reader.quality(name)
        assert reader._clips[name].attributes["masks"] == "moving"
        assert helpers.mask_iou(clip, truth, 64).mean() > 0.7
        assert ((quality >= 0) & (quality <= 1)).all() and len(np.unique(quality)) > 5


def test_a_synthetic_video_of_a_moving_camera_gives_clips(tmp_path):
    synth(out=tmp_path / "synth", videos=1, seconds=5, moving_camera=True, seed=3)
    source, attributes, clips, _ = look(next((tmp_path / "synth").glob("*.mp4")), tmp_path / "store")
    assert source["verdict"] == "ok" and clips and attributes["masks"] == "moving"


def test_segment_anything_draws_the_masks(video, tmp_path, monkeypatch):
    sam = load("masks/test_sam.py")
    import torch

    torch.save(sam.small_sam().state_dict(), tmp_path / "small.pth")
    _, _, (coarse, *_), _ = look(video, tmp_path / "coarse", masks="moving")
    # random weights agree with nothing, so what they say is believed here
    believing = partial(ClipMasks, least_agreement=0.0, least_score=-1e9)
    monkeypatch.setattr("streampose.ingestion.masking.ClipMasks", believing)
    for masks in ("auto", "sam"):
        options = {"masks": masks, "sam_checkpoint": tmp_path / "small.pth", "sam_every": 3, "sam_precision": "f32"}
        _, attributes, (clip, *_), reader = look(video, tmp_path / masks, **options)
        assert attributes["masks"] == reader.clips()[0].attributes["masks"] == "moving+sam"
        assert len(clip.frames) / 3 <= attributes["sam_asked"] <= len(clip.frames) and attributes["sam_rejected"] == 0
        np.testing.assert_array_equal(clip.frame_index, coarse.frame_index)
        assert (clip.masks != coarse.masks).any()
    monkeypatch.undo()
    _, attributes, (clip, *_), _ = look(video, tmp_path / "doubted", **options)
    assert attributes["sam_asked"] > 0
    if attributes["sam_rejected"] == attributes["sam_asked"]:
        np.testing.assert_array_equal(clip.masks, coarse.masks)


def write_detector(path, boxes):
    """An ONNX model that finds the same boxes (N, 6: edges, score, class) in every 96 x 64 picture."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"boxes": np.array([boxes], np.float32), "zero": np.zeros(1, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["boxes", "nothing"], ["output"]),
        ],
        "boxes",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 96])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, len(boxes), 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))


def test_a_detector_says_who_is_a_subject(tmp_path):
    video = tmp_path / "sway.mp4"
    helpers.film(video, frames=75, places=lambda t: 128 + 45 * np.sin(t / 6))
    around = np.array([66, 24, 190, 148]) * 0.375 + (0, 2, 0, 2)  # 256 x 160 lies in 96 x 64
    write_detector(tmp_path / "d.onnx", [[*around, 0.9, 0], [1, 4, 6, 9, 0.9, 7]])
    options = {"detector": f"onnx:{tmp_path / 'd.onnx'}"}
    source, attributes, clips, _ = look(video, tmp_path / "people", **options)
    assert source["verdict"] == "ok" and len(clips) == 1 and attributes["detector"] == options["detector"]
    _, _, clips, _ = look(video, tmp_path / "others", detector_class=7, **options)
    assert not clips  # where class 7 is said to be nothing moves
    source, attributes, _, _ = look(video, tmp_path / "hog", detector="hog")
    assert source["verdict"] == "ok" and source["frames"] == 75 and attributes["detector"] == "hog"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": "sam"}, "--sam-checkpoint"),
        ({"masks": "sam", "sam_checkpoint": Path("nowhere.pth")}, "nowhere.pth: no such file"),
        ({"masks": "mog2", "sam_checkpoint": Path(__file__)}, "choose auto or sam"),
        ({"masks": "sam", "sam_checkpoint": Path(__file__)}, "cannot be read|more than weights"),
        ({"sam_every": 0}, "--sam-every"),
        ({"sam_precision": "f8"}, "--sam-precision"),
        ({"detector": "eyes"}, "--detector eyes"),
        ({"detector": "onnx:nowhere.onnx"}, "nowhere.onnx"),
    ],
)
def test_wrong_calls_say_what_to_mend(video, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        ingest([video], store=tmp_path / "store", crop_size=32, **options)


def test_torch_is_left_alone_where_nobody_asks_for_it(video, tmp_path):
    code = (
        "import sys; from pathlib import Path; from streampose.ingest import ingest\n"
        "ingest([Path(sys.argv[1])], store=Path(sys.argv[2]), crop_size=32); assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(video), str(tmp_path / "store")], check=True, stderr=subprocess.PIPE
    )
