import cv2
import numpy as np
import pytest

from streampose.errors import ConfigError
from streampose.synth import synth
from streampose.synthetic.truth import read_truth, truth_path
from streampose.tracking.boxes import box_iou, find_blobs
from streampose.tracking.detectors import DETECTORS, TORCHVISION, foreground_of, letterbox, open_detector, suppress
from streampose.video.decode import open_video


def write_onnx(path, *, layout, size=(96, 64), dtype="float"):
    """A detector that reports fixed boxes, whose scores rise with the picture's brightness."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w, h = size
    kind = {"float": TensorProto.FLOAT, "uint8": TensorProto.UINT8}[dtype]
    shape = [1, h, w, 3] if dtype == "uint8" else [1, 3, h, w]
    rows = {
        "yolo8": [[20, 30, 10, 20, 0.9, 0.1, 0.0], [21, 30, 10, 20, 0.8, 0.0, 0.1], [60, 30, 20, 40, 0.0, 0.95, 0.0]]
        + [[60, 30, 20, 40, 0.7, 0.2, 0.1]] * 7,
        "end2end": [[15, 20, 25, 40, 0.9, 0], [50, 10, 70, 50, 0.7, 0], [1, 1, 9, 9, 0.99, 5]],
        "yolo5": [[20, 30, 10, 20, 0.9, 1.0, 0.1], [60, 30, 20, 40, 0.7, 1.0, 0.0], [60, 30, 20, 40, 1.0, 0.0, 0.9]]
        * 5,
    }[layout]
    table = np.array(rows, np.float32)
    table = table.T if layout == "yolo8" else table
    constants = {"table": table[None], "zero": np.zeros(1, np.float32)}
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["table", "nothing"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes, "boxes", [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, *table.shape])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("layout", ["yolo8", "end2end", "yolo5"])
@pytest.mark.parametrize("dtype", ["float", "uint8"])
def test_onnx_layouts(tmp_path, layout, dtype):
    detect = open_detector(f"onnx:{write_onnx(tmp_path / 'd.onnx', layout=layout, dtype=dtype)}")
    assert detect is not None
    image = np.zeros(
        (128, 288, 3), np.uint8
    )  # three times as wide as the network's 96 x 64, letterboxed above and below
    boxes, scores = detect(image)
    np.testing.assert_allclose(scores, [0.9, 0.7], atol=1e-6)
    expected = np.array([[15, 20, 25, 40], [50, 10, 70, 50]], np.float32)
    expected = np.clip((expected - [0, 10.6667, 0, 10.6667]) * 3, 0, [288, 128, 288, 128])
    np.testing.assert_allclose(boxes, expected, atol=2.1)
    assert boxes.dtype == np.float32


def test_other_classes_and_scores(tmp_path):
    path = write_onnx(tmp_path / "d.onnx", layout="end2end")
    image = np.zeros((64, 96, 3), np.uint8)
    animals = open_detector(f"onnx:{path}", classes=[5])(image)
    np.testing.assert_allclose(animals[0], [[1, 1, 9, 9]], atol=0.1)
    assert len(open_detector(f"onnx:{path}", least_score=0.8)(image)[0]) == 1
    nobody = open_detector(f"onnx:{path}", classes=[3])(image)
    assert nobody[0].shape == (0, 4) and nobody[1].shape == (0,)


def test_letterbox_keeps_the_form():
    image = np.full((50, 100, 3), 200, np.uint8)
    out, scale, corner = letterbox(image, (64, 64))
    assert out.shape == (64, 64, 3) and scale == 0.64
    np.testing.assert_array_equal(corner, [0, 16])
    assert (out[16:48] == 200).all() and (out[:16] == 114).all()


def test_hog_finds_upright_people(tmp_path):
    detect = open_detector("hog", least_score=0.6)
    assert detect is not None
    synth(out=tmp_path, videos=2, seconds=0.4, fps=10, size=(400, 300), seed=3)
    found = wrong = 0
    for path in sorted(tmp_path.glob("*.mp4")):
        truth = read_truth(truth_path(path))
        with open_video(path) as video:
            for frame in video.frames():
                boxes, scores = detect(frame.image)
                assert boxes.shape == (len(scores), 4) and (np.diff(scores) <= 0).all()
                overlap = box_iou(truth.boxes[frame.index].astype(np.float32), boxes)
                found += bool((overlap > 0.5).any())
                wrong += int((overlap.max(0) < 0.3).sum()) if len(boxes) else 0
    assert found >= 4 and wrong <= 2  # of 8 pictures of one person each
    assert not len(detect(np.full((240, 320, 3), 90, np.uint8))[0])


def test_doubles_go():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10], [4, 0, 14, 10]], np.float32)
    np.testing.assert_array_equal(suppress(boxes, np.array([0.5, 0.9, 0.4, 0.3])), [1, 2, 3])
    assert not len(suppress(np.zeros((0, 4), np.float32), np.zeros(0)))


def test_torchvision_from_a_file_and_from_the_cache(tmp_path, monkeypatch):
    import torch

    from streampose.models.torchvision_shim import import_torchvision

    torch.set_num_threads(1)
    torch.manual_seed(0)
    library = import_torchvision().models.detection
    name = "ssdlite320_mobilenet_v3_large"
    model = library.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    detect = open_detector(f"torchvision:{name}={tmp_path / 'weights.pth'}", classes=range(1, 91), least_score=0.0)
    boxes, scores = detect(image)
    assert len(boxes) == len(scores) > 0 and boxes.min() >= 0 and boxes[:, 2].max() <= 160
    again = detect(image)
    np.testing.assert_array_equal(boxes, again[0])
    # from the cache, under the name that torchvision gives the file
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    file = library.SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.url.rsplit("/", 1)[1]
    (tmp_path / "weights.pth").rename(tmp_path / "hub" / "checkpoints" / file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = open_detector(f"torchvision:{name}", classes=range(1, 91), least_score=0.0)(image)
    np.testing.assert_array_equal(boxes, cached[0])


def test_a_two_stage_model_without_compiled_operators(tmp_path):
    import torch

    from streampose.models.torchvision_shim import import_torchvision

    torch.manual_seed(0)
    library = import_torchvision().models.detection
    model = library.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=2)
    torch.save(model.state_dict(), tmp_path / "two.pth")
    detect = open_detector(f"torchvision:fasterrcnn_mobilenet_v3_large_320_fpn={tmp_path / 'two.pth'}", least_score=0.0)
    boxes, scores = detect(np.random.default_rng(0).integers(0, 255, (100, 140, 3), dtype=np.uint8))
    assert boxes.shape == (len(scores), 4)


def test_every_named_model_exists_in_torchvision():
    from streampose.models.torchvision_shim import import_torchvision

    library = import_torchvision().models.detection
    for name, weights in TORCHVISION.items():
        assert callable(getattr(library, name)) and getattr(library, weights).DEFAULT.url.startswith("https://")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("yolo", "choose motion, hog, torchvision:NAME=FILE or onnx:FILE"),
        ("hog:x", "choose motion, hog"),
        ("onnx:", "choose motion, hog"),
        ("onnx:none.onnx", "none.onnx: no such file; export your detector"),
        ("torchvision:yolo=x.pth", "choose one of fasterrcnn_resnet50_fpn"),
        ("torchvision:ssd300_vgg16=none.pth", r"none.pth: no such file; fetch https://.*ssd300.*\.pth"),
    ],
)
def test_wrong_names_say_what_to_do(spec, message):
    with pytest.raises(ConfigError, match=message):
        open_detector(spec)


def test_wrong_files_say_what_is_wrong(tmp_path):
    import torch

    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ConfigError, match="not an ONNX model"):
        open_detector(f"onnx:{tmp_path / 'text.onnx'}")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="not the weights of torchvision's ssd300_vgg16"):
        open_detector(f"torchvision:ssd300_vgg16={tmp_path / 'other.pth'}")
    assert open_detector("motion") is None and set(DETECTORS) == {"hog", "torchvision", "onnx"}


def test_detected_people_become_blobs_of_their_own():
    foreground = np.zeros((60, 100), np.uint8)
    cv2.rectangle(foreground, (10, 10), (59, 49), 255, -1)  # two people who touch, as motion sees them
    foreground[5:9, 80:95] = 255  # leaves
    boxes = np.array(
        [[18, 18, 70, 102], [66, 18, 122, 102], [150, 30, 180, 110]], np.float32
    )  # in a picture twice as large
    parted = foreground_of(boxes, foreground, (200, 120))
    assert set(np.unique(parted)) == {0, 255}
    _, blobs = find_blobs(parted)
    assert len(blobs) == 3
    found = np.stack([blob.box for blob in sorted(blobs, key=lambda blob: blob.box[0])])
    assert (np.diag(box_iou(found, boxes / 2)) > 0.7).all()
    assert not parted[5:9, 91:].any() and not foreground_of(boxes[:0], foreground, (200, 120)).any()
