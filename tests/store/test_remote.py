import subprocess
import sys
from pathlib import Path

import pytest

from streampose.errors import StoreError
from streampose.store.remote import Remote, url_of


def test_urls_and_folders_are_told_apart():
    assert url_of("s3://bucket/a/store.zarr") == "s3://bucket/a/store.zarr"
    assert url_of(Path("s3://bucket/a/store.zarr")) == "s3://bucket/a/store.zarr"  # Path folds the slashes
    assert url_of("S3://Bucket/store.zarr/") == "s3://Bucket/store.zarr"
    assert url_of("memory://store.zarr") == "memory://store.zarr"
    assert url_of("file:///data/store.zarr") == url_of(Path("file:///data/store.zarr")) == "file:///data/store.zarr"
    for folder in ("store.zarr", "/data/store.zarr", "C:/data/store.zarr", "a:b/store.zarr", "../s3/store.zarr"):
        assert url_of(folder) is None
        assert url_of(Path(folder)) is None


@pytest.fixture(params=["s3", "memory", "file"])
def remote(request, tmp_path):
    if request.param == "s3":
        return Remote(request.getfixturevalue("s3"))
    return Remote({"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/there"}[request.param])


def test_files_are_written_read_listed_and_removed(remote, tmp_path):
    assert remote.read(["a/x"]) == {} and remote.folders("a") == [] and remote.sizes() == {}
    remote.write("a/x", b"one")
    remote.write("a/x", b"two!")
    remote.write("a/deep/er/y", b"")
    assert remote.read(["a/x", "a/none", "a/deep/er/y"]) == {"a/x": b"two!", "a/deep/er/y": b""}
    (tmp_path / "here" / "c").mkdir(parents=True)
    for n in range(70):  # more than go at once
        (tmp_path / "here" / "c" / f"{n}.bin").write_bytes(bytes([n]))
    remote.upload(tmp_path / "here", "b")
    assert remote.sizes("b") == {f"c/{n}.bin": 1 for n in range(70)}
    assert remote.read(f"b/c/{n}.bin" for n in range(70))["b/c/69.bin"] == b"E"
    assert remote.folders("") == ["a", "b"] and remote.folders("a") == ["deep"]
    assert 0 <= remote.age_seconds("a/x") < 60 and remote.age_seconds("a/none") is None
    remote.remove("a")
    remote.remove("a")
    remote.remove("b/c/5.bin")
    assert remote.folders("") == ["b"] and len(remote.sizes()) == 69


def test_only_one_creates_a_file(remote):
    assert remote.create("sources/a/zarr.json", b"first")
    assert not remote.create("sources/a/zarr.json", b"second")
    assert remote.read(["sources/a/zarr.json"]) == {"sources/a/zarr.json": b"first"}


def test_a_missing_backend_is_named_with_what_to_install():
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "sys.argv = ['streampose', 'inspect', 's3://bucket/store.zarr']; from streampose.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == (
        "streampose: s3://bucket/store.zarr: what reaches s3:// is not installed; "
        "install it with `pip install 'streampose[remote]'`\n"
    )
    with pytest.raises(StoreError, match="fsspec knows no nonsense://"):
        Remote("nonsense://bucket/store.zarr")


def test_what_a_place_refuses_is_said_in_one_line(s3, monkeypatch):
    with pytest.raises(StoreError, match=r"s3://nowhere/store.zarr: no such place.*make the bucket") as missing:
        Remote("s3://nowhere/store.zarr").write("x", b"")
    assert "\n" not in str(missing.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match=r"cannot be reached .*AWS_ENDPOINT_URL"):
        Remote("s3://lab/store.zarr").read(["x"])
    s3fs.S3FileSystem.clear_instance_cache()
