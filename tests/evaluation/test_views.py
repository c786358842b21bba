"""Views of a session that agree, and views that do not: two cameras that see one person from the front and the back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.evaluation.free import measure_label_free
from streampose.evaluation.predicted import Predicted
from streampose.evaluation.views import measure_views
from streampose.geometry.crop import square_box
from streampose.geometry.project import project_points
from streampose.store.reader import StoreReader
from streampose.store.schema import create_store
from streampose.store.sessions import write_session
from streampose.store.writer import ClipWriter, publish_source, write_pairs
from streampose.structures import Camera, Session, View

HUMAN = load_skeleton("human17")
T, FPS, SIZE = 8, 25, (640, 480)
K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])


def poses() -> np.ndarray:
    """(T, 17, 3) metres around the origin: a person that raises an arm."""
    out = np.zeros((T, 17, 3))
    for frame in range(T):
        for bone in HUMAN.bones:
            direction = np.array(bone.direction)
            if bone.arm and HUMAN.joints[bone.child].startswith("left"):
                direction = direction + np.array([0, -0.2 * frame, 0])
            out[frame, bone.child] = out[frame, bone.parent] + 1.7 * bone.length * direction / np.linalg.norm(direction)
    return out


def camera(angle: float) -> Camera:
    R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return Camera(K, R, np.array([0.0, 0, 5]), SIZE)


CAMERAS = [camera(0.0), camera(2.5), camera(-1.2)]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    path = folder / "store.zarr"
    create_store(path, HUMAN, crop_size=32, margin=0.1)
    for view, item in enumerate(found()):
        writer = ClipWriter(path, item.track, source=item.source, fps=FPS)
        for frame in range(T):
            crop = np.zeros((32, 32), np.uint8)
            writer.append(np.zeros((32, 32, 3), np.uint8), crop, item.boxes[frame], frame / FPS, frame)
        writer.finish()
        probe = {"width": SIZE[0], "height": SIZE[1]}
        entry = {"path": item.source, "verdict": "ok", "reason": "", "clips": [item.track], "probe": probe}
        publish_source(path, f"cam{view}", entry)
    views = tuple(View(f"cam{v}", Path(f"cam{v}.mp4"), item) for v, item in enumerate(CAMERAS))
    write_session(path, Session("room", views), [f"cam{v}" for v in range(len(CAMERAS))])
    empty = np.zeros(0)
    write_pairs(path, {"clip": np.zeros(0, "U1"), "i": empty, "j": empty, "seconds": empty, "motion": empty})
    return path


def found(swapped: tuple[int, ...] = (), noise_px: float = 0.0) -> list[Predicted]:
    """What a model finds that knows the truth, but calls left right in some views."""
    out = []
    rng = np.random.default_rng(0)
    for view, item in enumerate(CAMERAS):
        stacked = (np.tile(m, (T, *[1] * m.ndim)) for m in (item.K, item.R, item.t))
        xy = project_points(poses(), *stacked)
        box = square_box(np.concatenate([xy.min(1) - 10, xy.max(1) + 10], -1), 0.1)
        xy = xy[:, HUMAN.flip_index] if view in swapped else xy
        xy = xy + rng.normal(0, noise_px, xy.shape)
        out.append(
            Predicted(
                f"cam{view}-0", f"cam{view}.mp4", 0, np.arange(T), np.arange(T) / FPS, box, xy, np.zeros((T, 17)),
                np.ones((T, 17)), np.full(T, 270.0), np.full(T, 0.8), np.ones((T, 17)), np.zeros((T, 17)),
            )
        )  # fmt: skip
    return out


def distance(items: list[Predicted], store: Path) -> float:
    metrics, _ = measure_label_free(measure_views(items, StoreReader(store)), HUMAN)
    return metrics["free/view_distance"]


def test_views_that_agree(store):
    assert distance(found(), store) < 1e-4
    assert distance(found((0, 1, 2)), store) < 0.3  # all swapped: another body, but nearly one


def test_a_view_that_swaps_left_and_right_is_seen(store):
    assert distance(found((1,)), store) > 0.02


def test_it_grows_with_the_error(store):
    found_distances = [distance(found(noise_px=noise), store) for noise in (0, 2, 8, 30)]
    assert found_distances == sorted(found_distances) and found_distances[1] > 0


def test_the_score_falls_where_views_disagree(store):
    reader = StoreReader(store)
    scores = [measure_label_free(measure_views(found(s), reader), HUMAN)[0]["free/score"] for s in ((), (1,))]
    assert scores[1] < 0.97 * scores[0]


def test_without_sessions_nothing_is_added(tmp_path):
    create_store(tmp_path / "store.zarr", HUMAN, crop_size=32)
    items = found()
    assert measure_views(items, StoreReader(tmp_path / "store.zarr")) == items
    metrics, _ = measure_label_free(items, HUMAN)
    assert "free/view_distance" not in metrics
