"""`POST /v1/pose`: poses of pictures and videos, and a clear refusal of all that is malformed."""

from __future__ import annotations

import io
import json
import struct
import zlib

import av
import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import streampose
from streampose.runtime.predictor import load_predictor
from streampose.server import uploads
from streampose.server.app import create_app
from streampose.server.guard import Limits
from streampose.server.messages import PoseMessage
from streampose.server.stage import Stage
from streampose.video.encode import VideoWriter
from streampose.video.walker import draw_walker

BOX = "box=180,120,460,470"


@pytest.fixture
def make_client(make_session, source, walker_bundle):
    made = []

    def make(**options) -> TestClient:
        session = make_session(source)
        session.start()
        private = options.pop("private", False)
        stage = Stage(session, models=lambda: {"walker": walker_bundle}, model="walker", private=private)
        app = create_app(stage, load_predictor=lambda path: load_predictor(path, "onnx", threads=1), **options)
        made.append(TestClient(app, base_url="http://localhost:8765", raise_server_exceptions=False))
        made[-1].__enter__()
        return made[-1]

    yield make
    for client in made:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> bytes:
    """Two seconds of the drawn walker as an mp4."""
    path = tmp_path_factory.mktemp("walk") / "walk.mp4"
    with VideoWriter(path, 25.0, size=(320, 240)) as writer:
        for n in range(50):
            writer.write(cv2.resize(draw_walker(n / 25), (320, 240)))
    return path.read_bytes()


def picture(form: str = "PNG", seconds: float = 1.0, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_walker(seconds)).save(file, form, **options)
    return file.getvalue()


def shirt(seconds: float) -> float:
    """Mean x of the walker's red shirt."""
    image = draw_walker(seconds).astype(int)
    return np.nonzero(image[..., 0] - (image[..., 1] + image[..., 2]) / 2 > 80)[1].mean()


def post(client: TestClient, data: bytes, query: str = ""):
    return client.post(f"/v1/pose?{query}", content=data, headers={"content-type": "application/octet-stream"})


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_the_poses_of_a_picture(client, form):
    answer = post(client, picture(form))
    assert answer.status_code == 200, answer.text
    pose = PoseMessage.model_validate(answer.json())
    assert (pose.kind, pose.model, pose.verdict) == ("image", "walker", "ok")
    (frame,) = pose.frames
    (subject,) = frame.subjects
    assert len(subject.keypoints) == len(pose.joints) == 17
    assert abs(np.mean([point[0] for point in subject.keypoints]) - shirt(1.0)) < 0.04 * pose.size[0]


def test_an_upload_gives_what_a_loaded_model_gives(client, walker_bundle):
    (poses,) = streampose.load(walker_bundle, runtime="onnx")([draw_walker(1.0)])
    (subject,) = post(client, picture()).json()["frames"][0]["subjects"]
    expected = np.concatenate([poses.xy[0], poses.z[0][:, None], poses.confidence[0][:, None]], -1)
    np.testing.assert_allclose(subject["keypoints"], expected, atol=0.006)


def test_boxes_say_where_the_subjects_are(client):
    x = shirt(1.0)
    here, elsewhere = f"box={x - 110},80,{x + 110},470", "box=0,0,60,60"
    pose = post(client, picture(), f"{here}&{elsewhere}").json()
    first, second = pose["frames"][0]["subjects"]
    assert (first["id"], second["id"]) == (0, 1)
    assert abs(np.mean([point[0] for point in first["keypoints"]]) - x) < 25
    assert max(point[3] for point in second["keypoints"]) == 0  # nothing red there


def test_a_photo_is_turned_upright(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to be upright
    file = io.BytesIO()
    Image.fromarray(np.rot90(draw_walker(1.0))).save(file, "JPEG", exif=exif, quality=95)
    pose = post(client, file.getvalue()).json()
    assert pose["size"] == list(draw_walker(1.0).shape[1::-1])
    x = np.mean([point[0] for point in pose["frames"][0]["subjects"][0]["keypoints"]])
    assert abs(x - shirt(1.0)) < 0.05 * pose["size"][0]


def test_the_poses_of_a_video_follow_the_person(client, walk):
    answer = post(client, walk)
    assert answer.status_code == 200, answer.text
    pose = answer.json()
    assert (pose["kind"], pose["size"], len(pose["frames"])) == ("video", [320, 240], 50)
    errors = []
    for frame in pose["frames"]:
        assert frame["pts_seconds"] == pytest.approx(frame["index"] / 25, abs=0.001)
        x = shirt(frame["pts_seconds"]) * 320 / draw_walker(0).shape[1]
        errors += [abs(np.mean([point[0] for point in s["keypoints"]]) - x) for s in frame["subjects"]]
    assert len(errors) > 40 and np.median(errors) < 12


def test_a_private_server_answers_as_well(make_client, walk):
    client = make_client(private=True)
    assert post(client, picture()).status_code == 200
    assert post(client, walk).status_code in (200, 415)  # 415 where the system has no files in memory


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("box=1,2,3", 422, "four numbers"),
        ("box=1,2,3,x", 422, "four numbers"),
        ("box=9,2,3,8", 422, "x1 must be greater"),
        ("box=1,8,9,2", 422, "y1 must be greater"),
        ("box=nan,nan,nan,nan", 422, "x1"),
        ("box=0,0,1e30,1e30", 422, "x1"),
        ("&".join(["box=1,1,9,9"] * 17), 422, "16"),
        ("model=nobody", 404, "no model is listed as 'nobody'"),
        ("model=../../etc", 404, "no model is listed"),
        ("model=%00", 404, "no model is listed"),
    ],
)
def test_options_that_make_no_sense(client, query, status, text):
    answer = post(client, picture(), query)
    assert answer.status_code == status and text in answer.json()["detail"]


def test_videos_take_no_boxes(client, walk):
    assert post(client, walk, BOX).status_code == 422


def test_what_is_too_large_is_refused_before_it_is_decoded(make_client, walk, monkeypatch):
    client = make_client(limits=Limits(upload_bytes=200_000))
    assert post(client, bytes(200_001)).status_code == 413
    chunks = (bytes(50_000) for _ in range(5))  # of a length that nobody told
    assert client.post("/v1/pose", content=chunks).status_code == 413
    bomb = png_header(60_000, 60_000) + png_chunk(b"IDAT", zlib.compress(bytes(1_000_000), 9))
    assert post(client, bomb).status_code == 413
    answer = post(client, png_header(8000, 8000) + png_chunk(b"IDAT", b""))
    assert answer.status_code == 413 and "8000 x 8000" in answer.json()["detail"]
    monkeypatch.setattr(uploads, "MAX_FRAMES", 20)
    assert post(client, walk).status_code == 413
    monkeypatch.setattr(uploads, "MAX_VIDEO_PIXELS", 100 * 100)
    assert "320 x 240" in post(client, walk).json()["detail"]


def test_uploads_wait_for_no_more_than_their_places(make_client):
    client = make_client(limits=Limits(uploads=0))
    answer = post(client, picture())
    assert answer.status_code == 503 and answer.headers["retry-after"]


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def encode(form: str, codec: str) -> bytes:
    """A few frames in another container."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuv420p" if codec != "gif" else "rgb8"
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * n, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def malformed(walk: bytes) -> list[tuple[str, bytes]]:
    """A hundred files that nobody can read a pose from."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, 5000, np.uint8).tobytes()
    pictures = {form: picture(form) for form in ("PNG", "JPEG", "WEBP", "BMP")}
    cases = [("empty", b""), ("audio only", sound())]
    for form, data in pictures.items():
        cases += [(f"{form} cut at {n}", data[:n]) for n in (16, 30, 60, 200, 1000, len(data) // 2)]
        cases += [(f"{form} head, then noise {n}", data[:n] + noise) for n in (16, 20, 24)]
        cases.append((f"{form} turned around", data[::-1]))
    texts = (
        "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "ffconcat version 1.0\nfile '/etc/passwd'\n", "<html></html>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n", "<svg xmlns='x'><image href='/etc/passwd'/></svg>",
        "<?xml version='1.0'?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>", "{}", "/etc/passwd", "import os",
        "http://127.0.0.1:1/x.mp4", " " * 1000, "cos\nsystem\n(S'true'\ntR.", "%!PS-Adobe-3.0 EPSF-3.0\n",
        "YUV4MPEG2 W4096 H4096 F25:1\nFRAME\n",
    )  # fmt: skip
    cases += [(text[:20], text.encode()) for text in texts]
    heads = (
        b"PK\3\4", b"\x1f\x8b\x08", b"%PDF-1.7", b"\x7fELF", b"II*\0", b"\0\0\1\0", b"8BPS", bytes(128) + b"DICM",
        b"\x93NUMPY", b"RIFF\0\1\0\0WAVE", b"ID3\4", bytes(64), b"\xff" * 64, b"\0\0\0\x18ftypisom",
        b"\x1a\x45\xdf\xa3", b"RIFF\0\1\0\0AVI ", b"GIF89a", b"\0\0\1\xba", b"\0\0\0\x20moov", b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\1\0\0WEBP",
    )  # fmt: skip
    for head in heads:
        cases += [(repr(head[:12]), head), (f"{head[:12]!r}, then noise", head + noise)]
    moov = walk.index(b"moov")
    cases += [(f"mp4 cut at {n}", walk[:n]) for n in (8, 40, 100, min(moov - 8, len(walk) // 2))]
    cases.append(("mp4 of 2^31 frames", walk.replace(b"stsz", b"stsz\0\0\0\0\0\0\0\0\x7f\xff\xff\xff"[:16], 1)))
    for name, data in {
        "mkv": encode("matroska", "mpeg4"),
        "avi": encode("avi", "mpeg4"),
        "gif": encode("gif", "gif"),
    }.items():
        cases += [(f"{name} cut at {n}", data[:n]) for n in (6, 12, 40)]
    return cases


def test_a_hundred_malformed_files_are_refused_clearly(client, walk):
    cases = malformed(walk)
    assert len(cases) >= 100
    wrong = {}
    for name, data in cases:
        answer = post(client, data)
        detail = (
            answer.json().get("detail", "") if answer.headers["content-type"].startswith("application/json") else ""
        )
        if not (400 <= answer.status_code < 500 and detail and "/proc/" not in detail and "\n" not in detail):
            wrong[name] = (answer.status_code, detail[:200])
    assert not wrong
    assert post(client, picture()).status_code == 200  # and the server is as well as before


def test_damaged_files_are_read_or_refused_but_break_nothing(client, walk):
    random = np.random.default_rng(1)
    statuses = set()
    for data in (
        picture("PNG"),
        picture("JPEG"),
        picture("WEBP"),
        walk,
        encode("matroska", "mpeg4"),
        encode("gif", "gif"),
    ):
        for _ in range(6):
            damaged = np.frombuffer(data, np.uint8).copy()
            at = random.integers(8, len(damaged), 1 + len(damaged) // 2000)
            damaged[at] = random.integers(0, 256, len(at))
            answer = post(client, damaged.tobytes())
            statuses.add(answer.status_code)
            json.loads(answer.text)
    assert statuses <= {200, 413, 415, 422}
