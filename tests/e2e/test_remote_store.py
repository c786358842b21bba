"""A store in an S3 bucket, by the commands as users call them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from streampose.store.reader import StoreReader
from streampose.store.remote import Remote
from streampose.synth import synth

STREAMPOSE = [sys.executable, "-m", "streampose.cli"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    synth(out=folder, videos=2, seconds=2, size=(128, 128))
    return folder


def start(*arguments, cache=None, cwd=None):
    environment = dict(os.environ) if cache is None else {**os.environ, "STREAMPOSE_CACHE": str(cache)}
    return subprocess.Popen(
        [*STREAMPOSE, *map(str, arguments)], env=environment, cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def content(url):
    """All clips and sources of a store, as arrays and attributes."""
    reader = StoreReader(url)
    sources = [{key: value for key, value in source.items() if key != "places"} for source in reader.sources()]
    return sources, {clip.id: reader.read(clip.id) for clip in reader.clips()}, reader.pairs()


def assert_same(one, two):
    assert one[0] == two[0] and one[1].keys() == two[1].keys()
    for clip, values in one[1].items():
        for name in ("frames", "masks", "boxes", "pts_seconds", "frame_index"):
            np.testing.assert_array_equal(getattr(values, name), getattr(two[1][clip], name))
    for name, column in one[2].items():
        np.testing.assert_array_equal(column, two[2][name])


def test_every_command_works_on_a_bucket(s3, videos, tmp_path):
    made = result(start("ingest", videos, "--store", s3, "--crop-size", 64, "--json", cwd=tmp_path))
    assert made["store"] == s3 and [source["verdict"] for source in made["sources"]] == ["ok", "ok"]
    result(start("ingest", videos, "--store", tmp_path / "local.zarr", "--crop-size", 64, "--json", cwd=tmp_path))
    assert_same(content(s3), content(tmp_path / "local.zarr"))  # a store elsewhere holds what one here does
    shutil.rmtree(tmp_path / "cache")
    seen = result(start("inspect", s3, "--json", cwd=tmp_path))
    assert seen["store"] == s3 and seen["bytes"] > 100_000 and len(seen["clips"]) == 2
    assert (tmp_path / seen["files"]["page"]).is_file()
    listed = result(start("inspect", s3, "--sources", "--json", cwd=tmp_path))
    assert [source["verdict"] for source in listed["sources"]] == ["ok", "ok"]
    measured = result(start("evaluate", "--store", s3, "--truth", videos, "--json", cwd=tmp_path))
    assert measured["samples"] > 20
    run = start("selftrain", "--store", s3, "--method", "mask", "--max-minutes", 0.02, "--json", cwd=tmp_path)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 1 and "no model: the time ended" in json.loads(out)["reason"]
    (config,) = tmp_path.glob("runs/*/config.yaml")
    assert f"store: {s3}" in config.read_text()
    assert not (tmp_path / "s3:").exists()


def test_killed_and_run_again_the_bucket_holds_what_an_uninterrupted_run_gives(s3, videos, tmp_path):
    result(start("ingest", videos, "--store", f"{s3}-whole", "--crop-size", 64, "--json", cwd=tmp_path))
    there = Remote(s3)
    for moment in ("clips", "sources"):  # when the first clip is there, and after the first source
        run = start("ingest", videos, "--store", s3, "--crop-size", 64, cwd=tmp_path)
        until = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < until and not there.folders(moment):
            time.sleep(0.01)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        StoreReader(s3)  # valid at every moment
    result(start("ingest", videos, "--store", s3, "--crop-size", 64, "--json", cwd=tmp_path))
    assert_same(content(s3), content(f"{s3}-whole"))
    assert len(there.folders("clips")) == 2 and sum("-" in name for name in there.folders("pairs")) == 1


def test_two_machines_ingest_into_one_bucket_at_once(s3, videos, tmp_path):
    both = [
        start("ingest", *chosen, "--store", s3, "--crop-size", 64, "--json", cache=tmp_path / name, cwd=tmp_path)
        for name, chosen in (("one", [videos]), ("two", sorted(videos.glob("*.mp4"), reverse=True)))
    ]
    for process in both:
        found = result(process)
        assert sorted(source["verdict"] for source in found["sources"]) == ["ok", "ok"]
    reader = StoreReader(s3)
    assert len(reader.sources()) == len(reader.clips()) == 2
    assert set(reader.pairs()["clip"]) == {clip.id for clip in reader.clips()}
    assert len(Remote(s3).folders("clips")) == 2


@pytest.mark.slow
def test_killed_thirty_times_the_bucket_holds_what_an_uninterrupted_run_gives(s3, videos, tmp_path):
    result(start("ingest", videos, "--store", f"{s3}-whole", "--crop-size", 64, "--json", cwd=tmp_path))
    whole, moments, kills, finished = content(f"{s3}-whole"), np.random.default_rng(0), 0, 0
    began = time.monotonic()
    result(start("ingest", videos, "--store", f"{s3}-timed", "--crop-size", 64, "--json", cwd=tmp_path))
    usual, there = time.monotonic() - began, Remote(s3)
    while kills < 30:
        run = start("ingest", videos, "--store", s3, "--crop-size", 64, cwd=tmp_path)
        try:
            run.communicate(timeout=moments.uniform(0.3, 1.0) * usual)
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.communicate()
            kills += 1
            if there.read(["zarr.json"]):
                StoreReader(s3)  # valid at every moment
            continue
        assert run.returncode == 0
        assert_same(content(s3), whole)
        assert len(there.folders("clips")) == 2 and sum("-" in name for name in there.folders("pairs")) == 1
        finished += 1
        there.remove("")
    assert finished > 0
