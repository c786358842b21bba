"""Addresses, tokens and certificates: what is not safe is refused before anything listens."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from streampose.client import ServerError, connect
from streampose.errors import StreamposeError
from streampose.serve import serve
from streampose.server.listen import bind, check_access, page_address

TOKEN = "a-token-of-many-characters"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) that this machine made for itself."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out",
               "cert.pem"]  # fmt: skip
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("token", ["", "short", "fifteen-letters", "täglich-neue-zeichen", "with\na-new-line-in-it"])
def test_tokens_that_can_be_guessed_or_not_sent_are_refused(token):
    with pytest.raises(StreamposeError, match=r"--token: at least 16"):
        check_access("127.0.0.1", token, None, None)


def test_another_address_gets_a_token_of_its_own():
    first, second = (check_access("0.0.0.0", None, None, None).token for _ in range(2))
    assert first != second and len(first) >= 32
    assert check_access("0.0.0.0", TOKEN, None, None).token == TOKEN
    assert check_access("127.0.0.1", None, None, None).token is None


def test_certificates_are_checked_before_anything_starts(certificate, tmp_path):
    assert check_access("127.0.0.1", None, *certificate).secure
    (tmp_path / "no.pem").write_text("not a certificate")
    for wrong in ((tmp_path / "no.pem", None), (tmp_path / "missing.pem", None), (certificate[0], None),
                  (certificate[0], tmp_path / "no.pem")):  # fmt: skip
        with pytest.raises(StreamposeError, match="not a certificate with its key"):
            check_access("127.0.0.1", None, *wrong)
    with pytest.raises(StreamposeError, match="--key needs --certificate"):
        check_access("127.0.0.1", None, None, certificate[1])


def test_addresses_of_the_page():
    assert page_address(check_access("127.0.0.1", None, None, None), 80) == "http://127.0.0.1:80/"
    assert page_address(check_access("::1", None, None, None), 80) == "http://[::1]:80/"
    assert page_address(check_access("0.0.0.0", TOKEN, None, None), 80) == f"http://{socket.gethostname()}:80/"


def test_tls_and_token_all_the_way(walker_bundle, certificate, caplog):
    """A server on all addresses, with TLS and a token, seen by a client that trusts its certificate."""
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    arguments = {
        "source": "test", "model": walker_bundle, "host": "0.0.0.0", "port": port, "seconds": 6.0, "token": TOKEN,
        "certificate": certificate[0], "key": certificate[1], "runtime": "onnx", "private": True,
    }  # fmt: skip
    result = {}
    thread = threading.Thread(target=lambda: result.update(serve(**arguments)))
    thread.start()
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    url, end = f"https://127.0.0.1:{port}", time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", context=trust, timeout=5) as answer:
                assert json.load(answer) == {"status": "ready"}
                break
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < end and thread.is_alive()
            time.sleep(0.05)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/v1/status", context=trust)
    assert refused.value.code == 401
    with pytest.raises(ServerError, match="give its token"):
        connect(url, certificate=certificate[0])
    with pytest.raises(ServerError, match="cannot be reached"):
        connect(url, token=TOKEN)  # trusts the certificates of the system only
    with connect(url, token=TOKEN, certificate=certificate[0], pictures=True) as stream:
        frame = next(iter(stream))
        assert frame.jpeg == b"" and stream.hello["pictures"] is False and len(frame.ids) == 1  # private
    thread.join(20)
    assert result["url"].startswith("https://")
    assert TOKEN not in caplog.text
