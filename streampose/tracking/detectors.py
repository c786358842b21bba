"""Find people in single pictures, for crowds and for cameras under which motion tells nothing.

A detector is a function `detect(image (H, W, 3) uint8 RGB) -> boxes (N, 4) float32 edges in pixels, scores (N,)`, best
first. Their weights are the user's files; nothing is downloaded.

`--detector` takes

- `motion`: no detector; subjects are what the masks find.
- `hog`: OpenCV's detector of upright people, which needs no weights.
- `torchvision:NAME=FILE`: a detection model of torchvision with its state dict, or `torchvision:NAME` with the file in
  torch hub's cache. Class 1 is a person, as in COCO with a background class.
- `onnx:FILE`: a model that takes one picture (1, 3, h, w) float in [0, 1], RGB, letterboxed with grey, or
  (1, h, w, 3) uint8; free sizes become 640. Class 0 is a person, as in COCO without a background class. Its first
  output is one of
    (1, 4 + C, N): centre x, centre y, width, height and C class scores a column (YOLOv8, YOLO11), C < N;
    (1, N, 6): x0, y0, x1, y1, score, class a row (YOLOv10 and others that remove doubles themselves);
    (1, N, 5 + C): centre x, centre y, width, height, objectness and C > 1 class scores a row (YOLOv5);
  all in pixels of the picture that it was given.

Adding a detector: write an `open_*` function that returns a `Detect`, and list it in `DETECTORS`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streampose.errors import ConfigError

Detect = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

LEAST_SCORE = 0.4
MOST_OVERLAP = 0.6  # IoU above which two boxes are the same person
HOG_HEIGHT = 720  # larger pictures are reduced to it; people of 96 pixels and more are found then
HOG_MARGIN = (0.22, 0.1)  # of HOG's boxes, which leave that much free around a person, across and down
ONNX_SIZE = 640
GREY = 114


def open_detector(
    spec: str, *, classes: Sequence[int] | None = None, least_score: float = LEAST_SCORE
) -> Detect | None:
    """The detector that `--detector` names; None for `motion`.

    Args:
        spec: see the module.
        classes: class numbers that count; None takes persons only.
        least_score: boxes below it are dropped.

    Raises:
        ConfigError: an unknown detector, or its weights are missing or do not fit.
    """
    name, _, rest = spec.partition(":")
    if spec == "motion":
        return None
    if name not in DETECTORS or (name == "hog") == bool(rest):
        raise ConfigError(
            f"--detector {spec}: unknown; choose motion, hog, torchvision:NAME=FILE or onnx:FILE"
            f" (NAME is one of {', '.join(TORCHVISION)})"
        )
    return DETECTORS[name](rest, classes, least_score)


def open_hog(rest: str, classes: Sequence[int] | None, least_score: float) -> Detect:
    """OpenCV's people detector (Dalal and Triggs, CVPR 2005)."""
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector()))
    doubtful = least_score < LEAST_SCORE  # then all windows count; OpenCV joins near ones into none at times
    threshold = float(np.log(least_score / (1 - least_score))) if doubtful else 0.0

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = min(1.0, HOG_HEIGHT / image.shape[0])
        small = image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        windows, weights = hog.detectMultiScale(
            picture, hitThreshold=threshold, winStride=(8, 8), scale=1.05, groupThreshold=0 if doubtful else 2
        )
        if not len(windows):
            return _nothing()
        found = np.asarray(windows, np.float32)
        free = found[:, 2:] * np.array(HOG_MARGIN, np.float32)
        boxes = np.concatenate([found[:, :2] + free, found[:, :2] + found[:, 2:] - free], 1) / scale
        scores = 1 / (1 + np.exp(-np.asarray(weights, np.float32).reshape(-1)))
        return _finish(boxes, scores, least_score, image.shape)

    return detect


def open_torchvision(rest: str, classes: Sequence[int] | None, least_score: float) -> Detect:
    """A detection model of torchvision: `NAME=FILE`, or `NAME` from torch hub's cache."""
    import torch

    from streampose.models.torchvision_shim import import_torchvision

    name, _, file = rest.partition("=")
    if name not in TORCHVISION:
        raise ConfigError(f"--detector torchvision:{name}: unknown; choose one of {', '.join(TORCHVISION)}")
    library = import_torchvision().models.detection
    url = library.__dict__[TORCHVISION[name]].DEFAULT.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    path = Path(file) if file else cached
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; fetch {url} and name it as torchvision:{name}=FILE, or put it there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = library.__dict__[name](weights=None, weights_backbone=None, num_classes=_num_classes(name, state))
        model.load_state_dict(state)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{path}: not the weights of torchvision's {name} ({reason})") from None
    device = "cuda" if torch.cuda.is_available() and _compiled() else "cpu"
    if not _compiled():
        import torchvision

        torchvision.ops.boxes.nms = _torch_nms  # the compiled one is missing with a CPU-only torch
    model.eval().requires_grad_(False).to(device)
    wanted = np.array([1] if classes is None else list(classes))

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1).float() / 255
        # without the compiled operators torchvision compiles its own substitutes for a minute; eager ones do
        with torch.inference_mode(), torch.compiler.set_stance("default" if _compiled() else "force_eager"):
            found = {key: value.cpu().numpy() for key, value in model([pixels])[0].items()}
        there = np.isin(found["labels"], wanted)
        return _finish(found["boxes"][there], found["scores"][there], least_score, image.shape)

    return detect


def open_onnx(rest: str, classes: Sequence[int] | None, least_score: float) -> Detect:
    """A detector of the user's in ONNX; see the module for what it must take and give."""
    import onnxruntime

    path = Path(rest)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; export your detector to ONNX and name it as onnx:FILE")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that are no part of its interface
        raise ConfigError(f"{path}: not an ONNX model ({' '.join(str(error).split())[:160]})") from None
    entry = session.get_inputs()[0]
    as_bytes = entry.type == "tensor(uint8)"
    shape = list(entry.shape)
    if len(shape) != 4 or shape[3 if as_bytes else 1] != 3:
        raise ConfigError(f"{path}: takes {shape}; a detector takes (1, 3, h, w) float or (1, h, w, 3) uint8")
    height, width = (n if isinstance(n, int) and n > 0 else ONNX_SIZE for n in (shape[1:3] if as_bytes else shape[2:4]))
    wanted = np.array([0] if classes is None else list(classes))

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        picture, scale, shift = letterbox(image, (width, height))
        tensor: Any = picture[None]
        if not as_bytes:
            kind = np.float16 if entry.type == "tensor(float16)" else np.float32
            tensor = np.ascontiguousarray(tensor.transpose(0, 3, 1, 2) / 255.0, dtype=kind)
        output = np.asarray(session.run(None, {entry.name: tensor})[0], np.float32)
        boxes, scores, labels = read_output(output, path)
        there = np.isin(labels, wanted)
        boxes = (boxes[there] - np.tile(shift, 2)) / scale
        return _finish(boxes, scores[there], least_score, image.shape)

    return detect


def read_output(output: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) as edges, scores (N,) and classes (N,) from a detector's output; the layouts are in the module.

    Raises:
        ConfigError: none of those layouts.
    """
    ends_in_six = output.ndim == 3 and output.shape[2] == 6
    if output.ndim != 3 or output.shape[0] != 1 or (min(output.shape[1:]) < 5 and not ends_in_six):
        raise ConfigError(f"{path}: gives {output.shape}; a detector gives (1, 4 + C, N), (1, N, 6) or (1, N, 5 + C)")
    rows = output[0]
    if ends_in_six:
        return rows[:, :4], rows[:, 4], np.rint(rows[:, 5]).astype(np.int64)
    if rows.shape[0] < rows.shape[1]:
        rows, scores = rows.T, rows.T[:, 4:]
    else:
        scores = rows[:, 5:] * rows[:, 4:5]
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    labels = scores.argmax(1)
    return np.concatenate([centre - half, centre + half], 1), scores.max(1), labels


def letterbox(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float, np.ndarray]:
    """Fit a picture into another size without distorting it.

    Args:
        image: (H, W, 3) uint8.
        size: (width, height).

    Returns:
        The picture on grey (height, width, 3), the scale, and where its corner came to lie (2,).
    """
    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    inner = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    out = np.full((size[1], size[0], 3), GREY, np.uint8)
    out[corner[1] : corner[1] + inner[1], corner[0] : corner[0] + inner[0]] = cv2.resize(
        image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return out, scale, np.array(corner, np.float32)


def foreground_of(boxes: np.ndarray, foreground: np.ndarray, source_size: tuple[int, int]) -> np.ndarray:
    """A foreground in which every detected person is a blob of its own, for `Tracker.update`.

    What lies outside every box goes; where boxes overlap, a pixel belongs to the one whose middle is nearer, and a seam
    parts the two. A box in which hardly anything moves is filled with an ellipse, so that who stands still counts too.

    Args:
        boxes: (N, 4) in source pixels.
        foreground: (h, w) uint8 of a mask source.
        source_size: (width, height).

    Returns:
        (h, w) uint8, 0 or 255.
    """
    h, w = foreground.shape
    scaled = boxes * np.tile(np.array([w, h], np.float32) / source_size, 2)
    owner, nearest = np.zeros((h, w), np.int32), np.full((h, w), np.inf, np.float32)
    y, x = np.mgrid[:h, :w].astype(np.float32) + 0.5
    out = np.zeros((h, w), np.uint8)
    for n, box in enumerate(scaled, 1):
        half = np.maximum((box[2:] - box[:2]) / 2, 1.0)
        middle = (box[:2] + box[2:]) / 2
        across, down = np.abs(x - middle[0]) / half[0], np.abs(y - middle[1]) / half[1]
        away = np.where(np.maximum(across, down) <= 1.08, np.hypot(across, down), np.inf)  # boxes are often tight
        closer = away < nearest
        owner[closer], nearest[closer] = n, away[closer]
    for n, box in enumerate(scaled, 1):
        own = owner == n
        moving = own & (foreground > 0)
        half = np.maximum((box[2:] - box[:2]) / 2, 1.0)
        if moving.sum() < 0.15 * 4 * half[0] * half[1]:
            middle = (box[:2] + box[2:]) / 2
            moving = own & (np.hypot((x - middle[0]) / half[0], (y - middle[1]) / half[1]) <= 0.9)
        out[moving] = 255
    others = owner.astype(np.float32)  # a seam is where another box's pixels are among the neighbours
    highest = cv2.dilate(others, np.ones((3, 3), np.uint8))
    out[(owner > 0) & (highest > others)] = 0
    return out


def suppress(boxes: np.ndarray, scores: np.ndarray, most_overlap: float = MOST_OVERLAP) -> np.ndarray:
    """Numbers of the boxes (N, 4) that are no doubles of a better one, best first."""
    order = list(np.argsort(-scores, kind="stable"))
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    kept: list[int] = []
    while order:
        best, rest = order[0], np.array(order[1:], int)
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        both = (high - low).clip(0).prod(1)
        order = list(rest[both <= most_overlap * (areas[best] + areas[rest] - both)])
    return np.array(kept, int)


def _finish(
    boxes: np.ndarray, scores: np.ndarray, least: float, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Drop weak boxes, doubles and what lies outside the picture."""
    height, width = shape[:2]
    boxes = np.clip(boxes, 0, np.array([width, height, width, height])).astype(np.float32)
    good = (scores >= least) & ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(1)
    boxes, scores = boxes[good], scores[good].astype(np.float32)
    kept = suppress(boxes, scores)
    return (boxes[kept], scores[kept]) if len(kept) else _nothing()


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def _num_classes(name: str, state: dict[str, Any]) -> int:
    """How many classes weights are for, the background included."""
    if "roi_heads.box_predictor.cls_score.weight" in state:
        return int(state["roi_heads.box_predictor.cls_score.weight"].shape[0])
    if "head.classification_head.cls_logits.weight" in state:  # one output an anchor and class
        anchors = 9 if name.startswith("retinanet") else 1
        return int(state["head.classification_head.cls_logits.weight"].shape[0]) // anchors
    return 91  # COCO with a background class


def _compiled() -> bool:
    """Whether torchvision's compiled operators are there."""
    from torchvision.extension import _has_ops

    return bool(_has_ops())


def _torch_nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    import torch

    kept = suppress(boxes.detach().cpu().numpy(), scores.detach().cpu().numpy(), iou_threshold)
    return torch.as_tensor(kept, dtype=torch.int64, device=boxes.device)


TORCHVISION = {  # name of the model -> its weights' names and addresses
    "fasterrcnn_resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights",
    "fasterrcnn_resnet50_fpn_v2": "FasterRCNN_ResNet50_FPN_V2_Weights",
    "fasterrcnn_mobilenet_v3_large_fpn": "FasterRCNN_MobileNet_V3_Large_FPN_Weights",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights",
    "fcos_resnet50_fpn": "FCOS_ResNet50_FPN_Weights",
    "retinanet_resnet50_fpn": "RetinaNet_ResNet50_FPN_Weights",
    "retinanet_resnet50_fpn_v2": "RetinaNet_ResNet50_FPN_V2_Weights",
    "ssd300_vgg16": "SSD300_VGG16_Weights",
    "ssdlite320_mobilenet_v3_large": "SSDLite320_MobileNet_V3_Large_Weights",
}

DETECTORS: dict[str, Callable[[str, Sequence[int] | None, float], Detect]] = {
    "hog": open_hog,
    "torchvision": open_torchvision,
    "onnx": open_onnx,
}
