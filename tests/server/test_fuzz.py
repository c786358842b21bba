"""Requests made from the server's own OpenAPI description, sound and unsound: never a 5xx, never an unknown answer."""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from streampose.runtime.predictor import load_predictor
from streampose.server.app import create_app
from streampose.server.guard import Limits
from streampose.server.stage import Stage

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi import checks as openapi_checks  # noqa: E402

# Answers fit their schemas because FastAPI makes them from it; schemathesis stumbles over its `prefixItems`.
CHECKS = [
    not_a_server_error, openapi_checks.status_code_conformance, openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
]  # fmt: skip
PATHS = ["/v1/session", "/v1/pose", "/v1/recording", "/v1/recordings/x", "/v1/status", "/", "/static/x"]
TAILS = ["", "/", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "%00", "?model=%ff&box=%ff", "?x=1" * 50]

QUICK = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture
def app(make_session, source, fakes, walker_bundle, tmp_path):
    """A server over fakes that may exchange its session, record and take uploads."""

    def build(spec, folder):
        return make_session(fakes.Source())

    session = make_session(source)
    session.start()
    slot = session.subscribe()
    source.push(fakes.dot(3, 4))
    assert slot.take(timeout=5) is not None
    stage = Stage(
        session, build=build, sources={"one": 1, "two": 2}, models=lambda: {"walker": walker_bundle}, source="one",
        model="walker", recordings=tmp_path,
    )  # fmt: skip
    limits = Limits(requests_per_second=1e6, burst=1e6, upload_bytes=100_000)
    yield create_app(stage, limits=limits, load_predictor=lambda path: load_predictor(path, "onnx", threads=1))
    stage.stop()


def test_what_the_description_allows_and_forbids(app):
    api = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "localhost"})
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) >= 14
    asked: Counter[tuple[str, int]] = Counter()
    for operation in operations:
        for mode in GenerationMode:

            @QUICK
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                answer = case.call(headers={"host": "localhost"})
                asked[f"{case.method} {case.path}", answer.status_code] += 1
                if answer.status_code != 503:  # "not ready" is no fault
                    case.validate_response(answer, checks=CHECKS)
                assert answer.status_code < 500 or case.path in ("/healthz", "/readyz"), answer.text

            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a request without parameters
                ask()
    assert sum(asked.values()) > 200
    assert {("PUT /v1/session", 200), ("PUT /v1/session", 404), ("PUT /v1/session", 422)} <= set(asked)


@QUICK
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=st.sampled_from(PATHS),
    tail=st.sampled_from(TAILS),
    body=st.binary(max_size=300) | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["source", "model", "x"]), inner),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from(["application/json", "text/plain", "multipart/form-data; boundary=x", "image/png", ""]),
)  # fmt: skip
def test_nonsense(app, method, path, tail, body, kind):
    client = TestClient(app, base_url="http://localhost:8765", raise_server_exceptions=False)
    answer = client.request(method, path + tail, content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code < 500, answer.text
    assert "root:" not in answer.text
