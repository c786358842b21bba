import av
import numpy as np
import pytest

from streampose.errors import ConfigError, VideoError
from streampose.synth import synth
from streampose.video.decode import open_video
from streampose.video.encode import VideoWriter
from streampose.video.synchronise import (
    SURE,
    describe_offsets,
    find_offsets,
    match_motion,
    read_clock,
    read_motion,
    solve_offsets,
)

RATE = 48000


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two scenes of five seconds, three cameras each."""
    folder = tmp_path_factory.mktemp("films")
    synth(out=folder, videos=2, seconds=5, cameras=3, size=(96, 96), seed=1)
    return folder


def cut(source, target, drop, every=1, gain=1.0):
    """The film without its first frames: its time 0 is `drop / 25` s of the original."""
    with open_video(source) as video, VideoWriter(target, 25 / every, (96, 96)) as writer:
        for frame in video.frames():
            if frame.index >= drop and (frame.index - drop) % every == 0:
                image = np.clip(frame.image * gain, 0, 255).astype(np.uint8)
                writer.write(image, frame.pts_seconds - drop / 25)
    return target


def test_motion_finds_known_shifts_of_three_cameras_to_a_frame(films, tmp_path):
    for scene in range(2):
        drops = [12, 0, 41]
        shifted = [
            cut(films / f"video_00{scene}_cam{v}.mp4", tmp_path / f"{scene}{v}.mp4", d) for v, d in enumerate(drops)
        ]
        offsets = find_offsets(shifted, "motion")
        assert [offset.seconds for offset in offsets] == pytest.approx([0, -12 / 25, 29 / 25], abs=0.75 / 25)
        assert all(offset.confidence > SURE and offset.contradiction_seconds < 1 / 25 for offset in offsets)


def test_motion_of_cameras_with_other_rates_and_exposures(films, tmp_path):
    slow = cut(films / "video_000_cam1.mp4", tmp_path / "slow.mp4", 10, every=2, gain=0.6)
    offsets = find_offsets([films / "video_000_cam0.mp4", slow], "motion")
    assert offsets[1].seconds == pytest.approx(10 / 25, abs=1 / 25) and offsets[1].confidence > SURE


def test_films_of_different_scenes_are_not_believed(films):
    offsets = find_offsets([films / "video_000_cam0.mp4", films / "video_001_cam0.mp4"], "motion")
    assert offsets[1].confidence < SURE
    assert "NOT SURE" in describe_offsets(["a", "b"], offsets)[1]


def test_offsets_beyond_a_limit_are_not_looked_for(films, tmp_path):
    late = cut(films / "video_000_cam1.mp4", tmp_path / "late.mp4", 50)
    assert find_offsets([films / "video_000_cam0.mp4", late], "motion")[1].seconds == pytest.approx(2, abs=0.04)
    assert abs(find_offsets([films / "video_000_cam0.mp4", late], "motion", max_offset_seconds=1)[1].seconds) <= 1.01


def sound(seconds, seed=0):
    """Something like speech: bursts of coloured noise, with gaps."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    noise = np.convolve(rng.normal(size=n), np.hanning(12), "same")
    loudness = np.repeat(rng.random(int(seconds * 10) + 1) ** 3, RATE // 10)[:n]
    return noise * loudness


def film_with_sound(path, samples, codec="aac", pictures=True):
    samples = (samples / np.abs(samples).max() * 0.7).astype(np.float32)
    with av.open(str(path), "w") as container:
        if pictures:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
        track = container.add_stream(codec, rate=RATE, layout="mono")
        if pictures:
            for _ in range(int(len(samples) / RATE * 25)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8))))
            container.mux(stream.encode())
        for start in range(0, len(samples) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "pcm_s16le")])
def test_sound_finds_known_shifts_to_milliseconds(tmp_path, suffix, codec):
    played, rng = sound(9), np.random.default_rng(5)
    shifts, films = [0.0, 0.4321, 1.7], []
    for number, shift in enumerate(shifts):  # each microphone: echoes, noise and a loudness of its own
        start = int((0.3 + shift) * RATE)
        heard = played[start : start + 5 * RATE]
        echo = np.zeros_like(heard)
        echo[500 * (number + 1) :] = 0.4 * heard[: -500 * (number + 1)]
        heard = heard + echo + 0.15 * heard.std() * rng.normal(size=len(heard))
        films.append(film_with_sound(tmp_path / f"{number}.{suffix}", heard, codec))
    for method in ("audio", "auto"):
        offsets = find_offsets(films, method)
        assert [offset.seconds for offset in offsets] == pytest.approx(shifts, abs=0.005)
        assert all(o.confidence > SURE and o.contradiction_seconds < 0.005 and o.method == "audio" for o in offsets)


def test_other_sound_is_not_believed_and_auto_takes_motion(tmp_path, films):
    paths = [film_with_sound(tmp_path / f"{seed}.mp4", sound(4, seed)) for seed in (1, 2)]
    assert find_offsets(paths, "audio")[1].confidence < SURE
    mute = [films / "video_000_cam0.mp4", films / "video_000_cam1.mp4"]
    with pytest.raises(ConfigError, match="no sound to synchronise by"):
        find_offsets(mute, "audio")
    assert find_offsets(mute, "auto")[1].method == "motion"


def with_tags(path, **tags):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.metadata.update(tags)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode())
    return path


def test_clocks(tmp_path, films):
    a = with_tags(tmp_path / "a.mkv", timecode="23:59:58:05")
    b = with_tags(tmp_path / "b.mkv", timecode="00:00:01:10")
    assert read_clock(b) == (pytest.approx(1.4), pytest.approx(0.04))
    offsets = find_offsets([a, b], "timestamps")
    assert offsets[1].seconds == pytest.approx(3.2) and offsets[1].uncertainty_seconds == pytest.approx(0.04)
    c = with_tags(tmp_path / "c.mp4", creation_time="2026-03-01T10:00:00.000000Z")
    d = with_tags(tmp_path / "d.mp4", creation_time="2026-03-01T10:00:07.000000Z")
    offsets = find_offsets([c, d], "timestamps")
    assert offsets[1].seconds == pytest.approx(7) and offsets[1].uncertainty_seconds == 1.0
    with pytest.raises(ConfigError, match="holds no clock time"):
        read_clock(films / "video_000_cam0.mp4")


def test_one_wrong_pair_is_outvoted_and_shown():
    pairs = {
        (0, 1): (0.5, 0.9),
        (0, 2): (1.0, 0.9),
        (1, 2): (3.0, 0.6),
        (0, 3): (2.0, 0.9),
        (1, 3): (1.5, 0.9),
        (2, 3): (1.0, 0.9),
    }
    offsets = solve_offsets(4, pairs, "motion", 0.04)
    assert [offset.seconds for offset in offsets] == pytest.approx([0, 0.5, 1.0, 2.0], abs=0.02)
    assert offsets[1].contradiction_seconds == pytest.approx(2.5, abs=0.05) and offsets[3].contradiction_seconds < 0.04
    lines = describe_offsets("abcd", offsets)
    assert "contradicts" in lines[1] and "contradicts" not in lines[3]


def test_wrong_calls_are_said(tmp_path, films):
    with pytest.raises(ConfigError, match="'clap' is not known"):
        find_offsets([films / "video_000_cam0.mp4"], "clap")
    (tmp_path / "text.mp4").write_text("no video")
    for method in ("audio", "motion", "timestamps"):
        with pytest.raises(VideoError, match=r"text\.mp4"):
            find_offsets([tmp_path / "text.mp4"] * 2, method)
    with VideoWriter(tmp_path / "one.mp4", 25, (64, 64)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="too short"):
        read_motion(tmp_path / "one.mp4")


def test_nothing_moves_nothing_is_known(tmp_path):
    with VideoWriter(tmp_path / "still.mp4", 25, (64, 64)) as writer:
        for _ in range(50):
            writer.write(np.full((64, 64, 3), 77, np.uint8))
    signal = read_motion(tmp_path / "still.mp4")
    assert match_motion(signal, signal)[1] < SURE


def test_containers_whose_clock_starts_late(films, tmp_path):
    """A transport stream counts from its own moment; the offset brings its timestamps to those of the first."""
    with av.open(str(films / "video_000_cam1.mp4")) as source, av.open(str(tmp_path / "late.ts"), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = track
                packet.pts += int(1000 / packet.time_base)
                packet.dts += int(1000 / packet.time_base)
                target.mux(packet)
    offset = find_offsets([films / "video_000_cam0.mp4", tmp_path / "late.ts"], "motion", max_offset_seconds=2)[1]
    with open_video(tmp_path / "late.ts") as video:
        start = next(iter(video.frames())).pts_seconds
    assert start > 999 and offset.seconds == pytest.approx(-start, abs=1 / 25) and offset.confidence > SURE
