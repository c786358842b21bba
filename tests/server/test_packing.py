"""The binary frames: what is packed comes out again, and what is not a frame is refused."""

import struct

import numpy as np
import pytest

from streampose.server import messages
from streampose.server.packing import HEADER, STATES, pack_compact, pack_frame, unpack_compact, unpack_frame


def example(N: int, K: int, M: int, **more):
    random = np.random.default_rng(N + K)
    return {
        "number": 7,
        "pts_seconds": 1.25,
        "latency_ms": 9.5,
        "size": (1280, 720),
        "state": "following",
        "camera": 1,
        "ids": tuple(range(3, 3 + N)),
        "boxes": random.normal(size=(N, 4)).astype(np.float32),
        "keypoints": random.normal(size=(N, K, 4)).astype(np.float32),
        "scene_ids": tuple(range(M)),
        "points": random.normal(size=(M, K, 3)).astype(np.float32),
        "errors_px": random.normal(size=(M, K)).astype(np.float32),
        **more,
    }


@pytest.mark.parametrize(("N", "K", "M"), [(0, 17, 0), (1, 17, 0), (3, 5, 2), (2, 4, 1)])
@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8jpeg"])
@pytest.mark.parametrize("judged", [False, True])
def test_a_compact_frame_comes_out_as_it_went_in(N, K, M, jpeg, judged):
    visibility = np.random.default_rng(0).integers(0, 3, (N, K)).astype(np.uint8) if judged else None
    frame = example(N, K, M, visibility=visibility)
    packed = pack_compact(**frame, jpeg=jpeg)
    assert len(packed) - len(jpeg) == HEADER.size + N * (20 + 16 * K + -(-K // 4) * 4) + M * (4 + 16 * K)
    found, picture = unpack_compact(packed)
    assert picture == jpeg and set(found) == set(frame)
    for name, value in frame.items():
        if value is None and N:
            assert found[name] is None
        elif value is not None:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_typed_arrays_fit():
    """What the documentation promises: blocks at multiples of four bytes, little-endian."""
    frame = example(2, 17, 0)
    packed = pack_compact(**frame)
    assert HEADER.size == 36
    first = np.frombuffer(packed, "<f4", 4 + 4 * 17, offset=40)
    np.testing.assert_array_equal(first[:4], frame["boxes"][0])
    np.testing.assert_array_equal(first[4:].reshape(17, 4), frame["keypoints"][0])
    assert struct.unpack_from("<I", packed, 4) == (7,) and packed[24] == STATES.index("following")


@pytest.mark.parametrize("cut", [0, 3, 35, 36, 100])
def test_a_cut_off_compact_frame_is_refused(cut):
    packed = pack_compact(**example(1, 17, 0))
    with pytest.raises(ValueError, match="compact frame"):
        unpack_compact(packed[:cut])
    with pytest.raises(ValueError, match="compact frame"):
        unpack_compact(packed + b"x")


def test_states_are_those_of_the_messages():
    assert set(STATES) == set(messages.State.__args__)


def test_json_with_a_picture():
    assert unpack_frame(pack_frame('{"ä": 1}', b"jpeg")) == ({"ä": 1}, b"jpeg")
    with pytest.raises(ValueError, match="shorter"):
        unpack_frame(b"\0\0\0\x09{}")
