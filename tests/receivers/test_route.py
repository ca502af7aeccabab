"""What a head decides, and what is kept of it."""

from __future__ import annotations

import pytest

from collector.receivers.head import Head
from collector.receivers.route import HEAD_BYTES_KEPT, ROUTES_KEPT, Route, Routes
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.wire import JSON, Client, post

SPANS = otlp.traces(3)


def decided(routes: Routes, data: bytes) -> Route:
    head = Head()
    head.feed(data, 0)
    return routes.decide(head.request())


def test_what_a_good_head_decides(receiving: Receiving) -> None:
    routes = receiving.http.routes
    route = decided(routes, post(SPANS, media_type=JSON, content_encoding="identity"))
    assert (route.receiver, route.fault, route.foreign) == (routes.receivers[b"/v1/traces"], None, None)
    assert (route.is_json, route.encoding, route.unread) == (True, "", len(SPANS))


def test_a_head_is_decided_once(receiving: Receiving) -> None:
    routes = receiving.http.routes
    client = Client(receiving)
    request = post(SPANS)
    head = request[: -len(SPANS)]
    assert routes.find(request, 0) == (None, 0)
    client.send(request)
    route, end = routes.find(b"xx" + request, 2)
    assert end == len(head) + 2
    client.send(request)
    assert routes.find(request, 0)[0] is route


def test_a_head_in_pieces_and_a_large_one_are_not_kept(receiving: Receiving) -> None:
    client = Client(receiving)
    pieces, large = post(SPANS, x="1"), post(SPANS, x="1" * HEAD_BYTES_KEPT)
    client.send(pieces, step=20)
    client.send(large)
    assert [one.code for one in client.responses] == [200, 200]
    assert receiving.http.routes.find(pieces, 0) == receiving.http.routes.find(large, 0) == (None, 0)


def test_few_heads_are_kept(receiving: Receiving) -> None:
    routes = receiving.http.routes
    route = decided(routes, post(SPANS))
    heads = [b"%d\r\n\r\n" % number for number in range(3 * ROUTES_KEPT)]
    for head in heads:
        routes.keep(head, route)
        assert routes.find(head, 0) == (route, len(head))
    assert sum(routes.find(head, 0)[0] is not None for head in heads) <= ROUTES_KEPT


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (post(SPANS, path="/v1/other"), 404),
        (post(SPANS).replace(b"POST", b"PUT", 1), 405),
        (post(SPANS, media_type="text/plain"), 415),
        (post(SPANS, content_encoding="br"), 415),
    ],
)
def test_a_kept_refusal_refers_to_no_frame(receiving: Receiving, request_: bytes, code: int) -> None:
    client = Client(receiving)
    for _ in range(3):
        client.send(request_)
    assert [one.code for one in client.responses] == [code] * 3
    route, _ = receiving.http.routes.find(request_, 0)
    assert route is not None
    assert route.fault is not None
    assert route.fault.__traceback__ is None
    assert route.fault.__context__ is None
