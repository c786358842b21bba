"""Which Host and Origin headers are welcome."""

import pytest

from streampose.server.guard import Guard, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org", "::"])
def test_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("bound", "host", "origin", "welcome"),
    [
        ("127.0.0.1", "localhost:8765", None, True),
        ("127.0.0.1", "127.0.0.1:8765", "http://127.0.0.1:8765", True),
        ("127.0.0.1", "[::1]:8765", None, True),
        ("127.0.0.1", "evil.example:8765", None, False),
        ("127.0.0.1", "evil.example:8765", "http://evil.example:8765", False),
        ("127.0.0.1", "192.168.1.5:8765", None, False),
        ("127.0.0.1", "", None, False),
        ("127.0.0.1", "[::1", None, False),
        ("127.0.0.1", "localhost:8765", "https://evil.example", False),
        ("127.0.0.1", "localhost:8765", "http://localhost:9999", False),
        ("127.0.0.1", "localhost:8765", "null", False),
        ("0.0.0.0", "192.168.1.5:8765", "http://192.168.1.5:8765", True),
        ("0.0.0.0", "evil.example:8765", None, False),
        ("camera.lab", "camera.lab:8765", None, True),
    ],
)
def test_who_is_welcome(bound, host, origin, welcome):
    assert (Guard(None, bound).problem(host, origin) is None) == welcome
