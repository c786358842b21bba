"""A server that is told to end while it records and collects."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from streampose.runtime.bundle import default_bundle
from streampose.store.reader import StoreReader
from streampose.video.decode import open_video


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once there")
def test_sigterm_finishes_the_recording_and_the_store(tmp_path):
    if not (default_bundle() / "bundle.json").is_file():
        pytest.skip("no default model is shipped")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streampose.cli", "serve", "--source", "test", "--port", str(port), "--json"]
    command += ["--recordings", str(tmp_path / "recordings"), "--collect", str(tmp_path / "hard.zarr")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        ask(address + "/readyz", until=lambda status, _: status == 200)
        ask(address + "/v1/recording", method="POST", until=lambda status, _: status < 300)
        ask(address + "/v1/status", until=lambda _, answer: answer["recording"]["frames"] > 20)
        process.send_signal(signal.SIGTERM)
        output, messages = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0, messages
    assert json.loads(output)["published"] > 20
    (video,) = (tmp_path / "recordings").glob("*.mp4")
    with open_video(video) as opened:
        assert len(list(opened.frames())) > 20
    StoreReader(tmp_path / "hard.zarr")
    assert not list((tmp_path / "recordings").glob(".*"))


def ask(url: str, until, method: str = "GET"):
    """Ask until the answer (status, JSON) is as wanted."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
                if until(answer.status, json.loads(answer.read())):
                    return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url}: not as wanted within a minute")
