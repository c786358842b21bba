"""The page in a real browser: the overlay sits on the person, the 3D view turns, a lost server is found again."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import pytest
from websockets.sync.client import connect

from streampose.server.app import WEB
from streampose.video.encode import VideoWriter
from streampose.video.walker import draw_walker

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-watchdog"]
NO_WEBGL = ["--disable-gpu", "--disable-3d-apis"]
SERVE = """
import pathlib, sys
import streampose.server.app, streampose.server.session, onnx, onnxruntime, uvicorn
from streampose.serve import serve
sys.stdin.readline()
serve(source='test', model=pathlib.Path(sys.argv[1]), runtime='onnx', port=int(sys.argv[2]), offer=sys.argv[3:],
      recordings=pathlib.Path('recordings'))
"""
# Mean x of the pixels of the red shirt and of the skeleton on the very canvas that the user sees.
CENTROIDS = """(() => {
  const canvas = document.getElementById('video');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const sums = { shirt: [0, 0], skeleton: [0, 0] };
  for (let n = 0; n < data.length; n += 4) {
    const [r, g, b] = [data[n], data[n + 1], data[n + 2]];
    const name = r - (g + b) / 2 > 90 && g < 90 ? 'shirt' : (b > 220 && g > 170 && r < 110) || (g > 220 && r < 160 && b < 160) ? 'skeleton' : null;
    if (name) { sums[name][0] += (n / 4) % canvas.width; sums[name][1] += 1; }
  }
  return { shirt: sums.shirt[0] / sums.shirt[1], skeleton: sums.skeleton[0] / sums.skeleton[1] };
})()"""  # noqa: E501

# How many pixels of a plot are neither empty nor grey.
COLOURFUL = """((id) => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let n = 0; n < data.length; n += 4) {
    const spread = Math.max(data[n], data[n + 1], data[n + 2]) - Math.min(data[n], data[n + 1], data[n + 2]);
    count += data[n + 3] > 100 && spread > 80;
  }
  return count;
})"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to look at the page")


class Page:
    """One tab, spoken to by the DevTools protocol."""

    def __init__(self, connection):
        self._connection, self._ids = connection, itertools.count(1)
        self.requests: list[str] = []
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            elif message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 90.0) -> None:
        """Until an expression holds; it is asked after each drawn frame, or now and then where none is drawn."""
        end = time.monotonic() + seconds
        ask = f"new Promise(r => {{ requestAnimationFrame(() => r(Boolean({condition}))); setTimeout(r, 1000); }})"
        while not self.evaluate(ask):
            assert time.monotonic() < end, f"{condition} did not come true; problems: {self.problems}"

    def picture(self, selector: str) -> bytes:
        box = self.evaluate(f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
                            f"(document.querySelector('{selector}').getBoundingClientRect())")  # fmt: skip
        return base64.b64decode(self.call("Page.captureScreenshot", clip={**box, "scale": 1})["data"])


class Browser:
    """Chromium with an empty tab; made, it starts up while the test goes on."""

    def __init__(self, profile: Path, flags: list[str]):
        self._profile = profile
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-extensions",
            f"--user-data-dir={profile}", "--remote-debugging-port=0", "--window-size=1200,760", *flags, "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    @contextlib.contextmanager
    def open(self, url: str):
        port_file, end = self._profile / "DevToolsActivePort", time.monotonic() + 30
        while not (port_file.is_file() and port_file.read_text().strip()):
            assert self._process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.02)
        debugger = f"http://127.0.0.1:{port_file.read_text().split()[0]}"
        tabs = json.load(urllib.request.urlopen(f"{debugger}/json/list"))
        target = next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"]
        with connect(target, max_size=1 << 26, proxy=None) as connection:
            page = Page(connection)
            page.call("Page.navigate", url=url)
            yield page

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)


class Server:
    """`streampose serve` in a process of its own; made, it gets ready, and begins to listen when it is told to."""

    def __init__(self, bundle: Path, port: int, folder: Path, *offer: str):
        self._port = port
        command = [sys.executable, "-c", SERVE, str(bundle), str(port), *offer]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=folder)

    @contextlib.contextmanager
    def run(self):
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        end = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5).close()
                break
            except OSError:
                assert self._process.poll() is None and time.monotonic() < end, "the server did not start"
                time.sleep(0.02)
        yield
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(timeout=20) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_page_shows_follows_turns_and_reconnects(walker_bundle, port, tmp_path):
    url = f"http://127.0.0.1:{port}/"
    state = "document.getElementById('connection').dataset.state"
    with (
        contextlib.closing(Server(walker_bundle, port, tmp_path)) as server,
        contextlib.closing(Browser(tmp_path / "profile", WEBGL)) as browser,
        contextlib.closing(Server(walker_bundle, port, tmp_path)) as next_server,
        contextlib.ExitStack() as stack,
        contextlib.ExitStack() as serving,
    ):
        serving.enter_context(server.run())
        page = stack.enter_context(browser.open(url))
        page.wait_for(f"document.getElementById('connection') && {state} === 'following'")
        page.wait_for("parseFloat(document.getElementById('p95').textContent) > 0")
        page.wait_for("parseFloat(document.getElementById('shown-fps').textContent) > 0")
        assert page.evaluate("document.getElementById('source').textContent") == "test"
        assert page.evaluate("document.getElementById('space-notice').hidden")

        seen = []
        while len(seen) < 2 or max(seen) - min(seen) < 60:  # the person walks on, and the overlay with it
            at = page.evaluate(CENTROIDS)
            if at["shirt"] is None or at["skeleton"] is None:
                continue
            assert abs(at["shirt"] - at["skeleton"]) < 45
            seen.append(at["skeleton"])

        serving.close()  # the server goes
        page.wait_for(f"{state} === 'offline'")
        assert "does not answer" in page.evaluate("document.getElementById('notice').textContent")
        first = page.picture("#space")
        page.wait_for(f"performance.now() > {page.evaluate('performance.now()')} + 500")
        assert page.picture("#space") != first  # the last pose still turns

        serving.enter_context(next_server.run())  # and comes again
        page.wait_for(f"{state} === 'following'")
        assert page.evaluate("document.getElementById('notice').hidden")
        assert page.problems == []
        assert all(request.startswith((url, url.replace("http", "ws"), "blob:", "data:")) for request in page.requests)


def test_without_webgl_the_3d_view_is_drawn_flat_and_says_so(walker_bundle, port, tmp_path):
    with (
        contextlib.closing(Browser(tmp_path / "profile", NO_WEBGL)) as browser,
        contextlib.closing(Server(walker_bundle, port, tmp_path)) as server,
        server.run(),
        browser.open(f"http://127.0.0.1:{port}/") as page,
    ):
        page.wait_for("document.getElementById('connection')?.dataset.state === 'following'")
        assert "drawn in 2D" in page.evaluate("document.getElementById('space-notice').textContent")
        page.evaluate("document.getElementById('space-notice').hidden = true")
        first = page.picture("#space")
        page.wait_for(f"performance.now() > {page.evaluate('performance.now()')} + 500")
        assert page.picture("#space") != first
        assert page.problems == []


def test_the_plots_draw_the_switchers_switch_and_the_button_records(walker_bundle, port, tmp_path):
    with VideoWriter(tmp_path / "small.mp4", 25.0, size=(320, 240)) as writer:
        for n in range(50):
            writer.write(cv2.resize(draw_walker(n / 25), (320, 240)))
    shutil.copytree(walker_bundle, tmp_path / "models/other")
    state = "document.getElementById('connection').dataset.state"
    choose = """((id, name) => { const select = document.getElementById(id); select.value = name;
        select.dispatchEvent(new Event('change')); return select.value === name; })"""
    with (
        contextlib.closing(Browser(tmp_path / "profile", NO_WEBGL)) as browser,
        contextlib.closing(Server(walker_bundle, port, tmp_path, "small.mp4")) as server,
        server.run(),
        browser.open(f"http://127.0.0.1:{port}/") as page,
    ):
        page.wait_for(f"document.getElementById('connection') && {state} === 'following'")
        for plot in ("angles", "path", "histogram", "latency"):
            page.wait_for(f"{COLOURFUL}('{plot}') > 100")
        assert page.evaluate("document.getElementById('angle-joint').selectedOptions[0].textContent") == "knees"
        page.wait_for("/[0-9]+°.*[0-9]+°/.test(document.getElementById('angle-now').textContent)")

        page.wait_for("!document.getElementById('sources').hidden")
        assert page.evaluate(f"{choose}('sources', 'small.mp4')")
        page.wait_for("document.getElementById('video').width === 320")  # the other source's picture
        page.wait_for(f"{state} === 'following'")
        page.wait_for("!document.getElementById('models').disabled")
        assert page.evaluate(f"{choose}('models', 'other')")
        page.wait_for("fetch('v1/models').then((answer) => answer.json()).then(({ current }) => current === 'other')")
        page.wait_for(f"{state} === 'following' && document.getElementById('message').hidden")

        page.wait_for("!document.getElementById('record').disabled")
        page.evaluate("document.getElementById('record').click()")
        page.wait_for("document.getElementById('record').getAttribute('aria-pressed') === 'true'")
        page.wait_for("/stop 0:0[1-9]/.test(document.getElementById('record').textContent)")
        page.evaluate("document.getElementById('record').click()")
        page.wait_for("document.querySelectorAll('#message a').length === 2")
        links = page.evaluate("[...document.querySelectorAll('#message a')].map((link) => link.href)")
        names = sorted(link.rpartition("/")[2] for link in links)
        assert [path.name for path in sorted((tmp_path / "recordings").iterdir())] == names
        for link in links:
            size = (tmp_path / "recordings" / link.rpartition("/")[2]).stat().st_size
            assert page.evaluate(f"fetch('{link}').then((a) => a.blob()).then((b) => b.size)") == size > 0

        for width in (1280, 390):  # nothing sticks out, on a desk or on a phone
            page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500
            )
            page.wait_for(f"document.documentElement.clientWidth === {width}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.problems == []


def test_the_examples_of_the_documentation_run(walker_bundle, port, tmp_path):
    blocks = (WEB.parent / "README.md").read_text(encoding="utf-8").split("```js\n")[1:]
    examples = [block.partition("```")[0] for block in blocks]
    assert len(examples) == 2 and examples[0].count("\n") == 10
    with (
        contextlib.closing(Browser(tmp_path / "profile", NO_WEBGL)) as browser,
        contextlib.closing(Server(walker_bundle, port, tmp_path)) as server,
        server.run(),
        browser.open(f"http://127.0.0.1:{port}/v1/skeleton") as page,
    ):
        page.evaluate("window.said = []; console.log = (text) => window.said.push(text); true")
        for example in examples:
            page.evaluate(f"window.said.length = 0; (() => {{ {example.replace('8765', str(port))} }})(); true")
            page.wait_for("window.said.some((line) => /^frame [0-9]+: .* of subject 0 at [0-9.]+, [0-9.]+/.test(line))")
        assert page.problems == []
