import json

import numpy as np
import pytest

from streampose.config import load_skeleton
from streampose.errors import StreamposeError
from streampose.formats.coco import open_coco, read_coco
from streampose.structures import Keypoints

SKELETON = load_skeleton("human17")


def some(count, seed=0):
    random = np.random.default_rng(seed)
    xy, confidence = random.uniform(0, 100, (count, 17, 2)), random.uniform(0.1, 1, (count, 17))
    return Keypoints(xy, confidence), np.tile([10.0, 20.0, 60.0, 90.0], (count, 1))


def test_round_trip(tmp_path):
    path = tmp_path / "a.json"
    two, boxes = some(2)
    two.xy[1, 4] = np.nan
    with open_coco(path, SKELETON, source="videos/a.mp4", size=(320, 240)) as writer:
        writer.write(0, 0.0, two, [7, 9], boxes)
        writer.write(1, 0.04, *_nobody())
        writer.write(2, 0.08, some(1, 1)[0], [9], boxes[:1])
    read = read_coco(path)
    assert read["joints"] == list(SKELETON.joints)
    assert read["image_id"].tolist() == [0, 0, 2] and read["track_id"].tolist() == [7, 9, 9]
    np.testing.assert_allclose(read["xy"][:2], two.xy, atol=0.006)
    np.testing.assert_allclose(read["boxes"][:2], boxes)
    assert read["visibility"][1, 4] == 0 and np.isnan(read["xy"][1, 4]).all()
    np.testing.assert_array_equal(read["visibility"][0] == 2, two.confidence[0] >= 0.5)


def _nobody():
    return Keypoints(np.zeros((0, 17, 2)), np.zeros((0, 17))), [], np.zeros((0, 4))


def test_is_what_coco_tools_expect(tmp_path):
    path = tmp_path / "a.json"
    keypoints, boxes = some(1)
    keypoints.xy[0, 0] = np.nan
    with open_coco(path, SKELETON, source="a.mp4", size=(320, 240)) as writer:
        writer.write(5, 0.2, keypoints, [0], boxes)
    content = json.loads(path.read_text())
    (image,), (annotation,), (category,) = content["images"], content["annotations"], content["categories"]
    assert (image["id"], image["width"], image["height"], image["pts_seconds"]) == (5, 320, 240, 0.2)
    assert annotation["keypoints"][:3] == [0, 0, 0] and len(annotation["keypoints"]) == 51
    assert annotation["num_keypoints"] == 16 and annotation["bbox"] == [10, 20, 50, 70]
    assert category["id"] == annotation["category_id"] and category["keypoints"] == list(SKELETON.joints)
    first = SKELETON.bones[0]
    assert category["skeleton"][0] == [first.parent + 1, first.child + 1]


def test_a_failure_leaves_nothing(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(RuntimeError), open_coco(path, SKELETON, source="a.mp4", size=(320, 240)) as writer:
        writer.write(0, 0.0, some(1)[0], [0], some(1)[1])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_no_annotations_is_valid(tmp_path):
    with open_coco(tmp_path / "a.json", SKELETON, source="a.mp4", size=(320, 240)):
        pass
    assert read_coco(tmp_path / "a.json")["xy"].shape == (0, 17, 2)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"categories": [], "images": [], "annotations": []}'])
def test_not_coco(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StreamposeError, match="not a COCO"):
        read_coco(tmp_path / "a.json")
