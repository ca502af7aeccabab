"""Requests from web pages, paths and encodings that are configured."""

from __future__ import annotations

import asyncio
import gzip

import pytest
import zstandard

from collector.receivers.cors import Cors
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.wire import Client, Response, post

SPANS = otlp.traces(3)
ORIGIN = "https://app.example"


def client_of(loop: asyncio.AbstractEventLoop, *origins: str, headers: tuple[str, ...] = (), **more: object) -> Client:
    return Client(Receiving(loop, cors=Cors(origins, headers, 60), **more))


def preflight(path: str = "/v1/traces", origin: str = ORIGIN, asked: str = "content-type") -> bytes:
    return (
        f"OPTIONS {path} HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n"
        f"Access-Control-Request-Headers: {asked}\r\n\r\n"
    ).encode()


def allowed(response: Response) -> str | None:
    return response.headers.get("access-control-allow-origin")


def test_a_preflight_request_is_answered(loop: asyncio.AbstractEventLoop) -> None:
    client = client_of(loop, ORIGIN, headers=("authorization",))
    client.send(preflight() + post(SPANS, Origin=ORIGIN))
    asked, sent = client.responses
    assert asked.code == 204
    assert "content-length" not in asked.headers
    assert allowed(asked) == ORIGIN
    assert asked.headers["vary"] == "Origin"
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["access-control-allow-headers"] == "content-type, content-encoding, authorization"
    assert asked.headers["access-control-max-age"] == "60"
    assert (sent.code, allowed(sent)) == (200, ORIGIN)
    for answer in (asked, sent):
        assert "access-control-allow-credentials" not in answer.headers, "cookies are nobody's here"


def test_errors_can_be_read_too(loop: asyncio.AbstractEventLoop) -> None:
    client = client_of(loop, ORIGIN)
    client.send(post(b"\xff", Origin=ORIGIN) + post(b"", "/x", Origin=ORIGIN) + post(SPANS, Origin=ORIGIN))
    assert [(one.code, allowed(one)) for one in client.responses] == [(400, ORIGIN), (404, ORIGIN), (200, ORIGIN)]


def test_headers_do_not_stay_for_the_next_request(loop: asyncio.AbstractEventLoop) -> None:
    client = client_of(loop, ORIGIN)
    client.send(post(SPANS, Origin=ORIGIN) + post(SPANS) + post(SPANS, Origin="https://other.example"))
    assert [allowed(one) for one in client.responses] == [ORIGIN, None, None]


def test_other_origins_get_no_leave(loop: asyncio.AbstractEventLoop) -> None:
    client = client_of(loop, ORIGIN)
    client.send(preflight(origin="https://other.example"))
    (asked,) = client.responses
    assert (asked.code, allowed(asked)) == (204, None)
    assert "access-control-allow-methods" not in asked.headers


@pytest.mark.parametrize(
    ("pattern", "origin", "fits"),
    [
        ("https://*.example", "https://app.example", True),
        ("https://*.example", "https://APP.example", True),
        ("https://*.example", "https://app.example.org", False),
        ("https://*.example", "http://app.example", False),
        ("https://app.example", "https://appxexample", False),
        ("http://localhost:*", "http://localhost:3000", True),
        ("null", "null", True),
        ("*", "anything", True),
        ("*", "", False),
    ],
)
def test_patterns_of_origins(pattern: str, origin: str, fits: bool) -> None:
    assert Cors((pattern,), (), 0).allows(origin) == fits


def test_any_origin_and_any_header(loop: asyncio.AbstractEventLoop) -> None:
    client = client_of(loop, "*", headers=("*",))
    client.send(preflight(asked="x-one, x-two"))
    (asked,) = client.responses
    assert allowed(asked) == "*"
    assert "vary" not in asked.headers
    assert asked.headers["access-control-allow-headers"] == "x-one, x-two"


def test_without_origins_nothing_of_this_is_served(receiving: Receiving) -> None:
    client = Client(receiving)
    client.send(preflight() + post(SPANS, Origin=ORIGIN))
    asked, sent = client.responses
    assert (asked.code, asked.headers["allow"]) == (405, "POST")
    assert (sent.code, allowed(sent)) == (200, None)


def test_paths_that_are_configured(loop: asyncio.AbstractEventLoop) -> None:
    client = Client(Receiving(loop, paths={"traces": "/custom"}))
    client.send(post(SPANS, "/custom") + post(otlp.logs(1), "/v1/logs") + post(SPANS, "/v1/traces"))
    assert [one.code for one in client.responses] == [200, 200, 404]
    assert "/custom" in client.responses[2].status.message


def test_encodings_that_are_configured(loop: asyncio.AbstractEventLoop) -> None:
    client = Client(Receiving(loop, compressions=("zstd",)))
    client.send(post(SPANS) + post(zstandard.compress(SPANS), Content_Encoding="zstd"))
    client.send(post(gzip.compress(SPANS), Content_Encoding="gzip"))
    assert [one.code for one in client.responses] == [200, 200, 415]
