"""Who is welcome: Host and Origin headers, tokens, cookies, rates and bodies."""

from __future__ import annotations

import time

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from streampose.server.app import create_app
from streampose.server.guard import Guard, Limits, Rates, is_loopback
from streampose.server.stage import Stage

TOKEN = "a-token-of-many-characters"
STREAM = "ws://localhost:8765/v1/stream"


@pytest.fixture
def make_client(make_session, source):
    made = []

    def make(**options) -> TestClient:
        session = make_session(source)
        session.start()
        scheme = "https" if options.get("secure") else "http"
        made.append(TestClient(create_app(Stage(session), **options), base_url=f"{scheme}://localhost:8765"))
        made[-1].__enter__()
        return made[-1]

    yield make
    for client in made:
        client.__exit__(None, None, None)


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


def test_without_the_token_nothing_is_told(make_client):
    client = make_client(token=TOKEN)
    for path in ("/v1/status", "/v1/models", "/v1/recordings", "/metrics", "/openapi.json", "/nothing"):
        answer = client.get(path)
        assert answer.status_code == 401 and "token" in answer.json()["detail"], path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/pose", content=b"x").status_code == 401
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect(STREAM):
        pass
    assert closed.value.code == 1008
    page = client.get("/")
    assert page.status_code == 401 and "password" in page.text and "video" not in page.text
    for path in ("/healthz", "/static/style.css"):
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("given", [TOKEN[:-1], TOKEN + "x", "", "Bearer", "ü" * 30, TOKEN.upper()])
def test_a_wrong_token_is_refused(make_client, given):
    client = make_client(token=TOKEN)
    assert client.get("/v1/status", headers={"authorization": f"Bearer {given}".encode("latin-1")}).status_code == 401
    assert client.get("/", params={"token": given}, follow_redirects=False).status_code == 401
    assert client.post("/login", data={"token": given}, follow_redirects=False).status_code == 401
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{STREAM}?token={given}"):
        pass


def test_a_forged_cookie_is_refused(make_client):
    client = make_client(token=TOKEN)
    name, _, value = (
        client.get("/", params={"token": TOKEN}, follow_redirects=False).headers["set-cookie"].partition("=")
    )
    client.cookies.clear()
    for forged in ("", TOKEN, value.partition(";")[0][:-1] + "g", "x" * 5000):
        assert client.get("/v1/status", headers={"cookie": f"{name}={forged}"}).status_code == 401
    assert client.get("/v1/status", headers={"cookie": f"{name}={value.partition(';')[0]}"}).status_code == 200


def test_the_token_opens_as_header_and_for_the_stream_as_query(make_client):
    client = make_client(token=TOKEN)
    assert client.get("/v1/status", headers={"authorization": f"bearer {TOKEN}"}).status_code == 200
    assert client.get("/v1/status", params={"token": TOKEN}).status_code == 401  # addresses are seen and kept
    with client.websocket_connect(f"{STREAM}?token={TOKEN}") as socket:
        assert "hello" in socket.receive_text()


@pytest.mark.parametrize("secure", [False, True])
def test_the_page_turns_the_token_into_a_cookie(make_client, secure):
    client = make_client(token=TOKEN, secure=secure)
    answer = client.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "./"
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert ("Secure" in cookie) == secure
    assert "<canvas" in client.get("/").text
    assert client.get("/v1/status").status_code == 200
    with client.websocket_connect(STREAM.replace("ws:", "wss:") if secure else STREAM) as socket:
        assert "hello" in socket.receive_text()


def test_the_form_takes_the_token_too(make_client):
    client = make_client(token=TOKEN)
    assert "not the token" in client.post("/login", data={"token": "guess"}).text
    assert client.post("/login", data={"token": f" {TOKEN} "}, follow_redirects=False).status_code == 303
    assert client.get("/v1/status").status_code == 200


def test_no_other_site_is_let_in(make_client):
    client = make_client()
    headers = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    answer = client.options("/v1/status", headers=headers)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert not any(name.startswith("access-control") for name in client.get("/v1/status").headers)


def test_who_asks_too_often_is_told_to_wait(make_client):
    client = make_client(limits=Limits(requests_per_second=0.001, burst=3))
    statuses = [client.get("/healthz").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert client.get("/healthz").headers["retry-after"] == "1"


def test_rates_are_kept_for_each_address_and_recover():
    rates = Rates(per_second=50.0, burst=2)
    assert [rates.allow("a"), rates.allow("a"), rates.allow("a")] == [True, True, False]
    assert rates.allow("b")
    time.sleep(0.05)
    assert rates.allow("a")
    for n in range(10_000):
        rates.allow(str(n))
    assert len(rates._buckets) <= 4096


def test_bodies_are_bounded(make_client):
    client = make_client(limits=Limits(body_bytes=100))
    assert client.put("/v1/session", content=b"x" * 101).status_code == 413
    assert client.put("/v1/session", content=(b"x" * 60 for _ in range(2))).status_code in (400, 413)
    assert client.put("/v1/session", json={"model": "none"}).status_code == 404
    assert client.put("/v1/session", content=b"{}", headers={"content-length": "-1"}).status_code == 400
