"""The wire format."""

import json

import pytest

from streampose.config import load_skeleton
from streampose.server.messages import MESSAGE_SCHEMA, FrameMessage, describe_skeleton
from streampose.server.packing import pack_frame, unpack_frame


def test_a_frame_survives_packing():
    header = FrameMessage(
        number=3, pts_seconds=0.12, latency_ms=4.5, size=(640, 480), state="following",
        subjects=[{"id": 1, "box": (0, 1, 2, 3), "keypoints": [(1, 2, 3, 0.5)]}],
    ).model_dump_json(exclude_none=True)  # fmt: skip
    packed = pack_frame(header, b"\xff\xd8jpeg")
    assert packed[:4] == len(header).to_bytes(4, "big")
    message, jpeg = unpack_frame(packed)
    assert jpeg == b"\xff\xd8jpeg"
    assert message["type"] == "frame" and message["schema_version"] == MESSAGE_SCHEMA
    assert message["subjects"] == [{"id": 1, "box": [0, 1, 2, 3], "keypoints": [[1, 2, 3, 0.5]]}]


@pytest.mark.parametrize("message", [b"", b"\0\0\0", b"\0\0\0\x05{}"])
def test_a_message_that_is_too_short_is_refused(message):
    with pytest.raises(ValueError, match="shorter than its header"):
        unpack_frame(message)


def test_the_skeleton_is_described_by_indices():
    described = json.loads(describe_skeleton(load_skeleton("human17")).model_dump_json())
    assert len(described["joints"]) == 17 and len(described["bones"]) == 16
    joints = described["joints"]
    assert [joints.index("left_hip"), joints.index("right_hip")] in described["flip_pairs"]
