"""The OpenTelemetry SDK for Python, unmodified: all three signals by gRPC and by HTTP, with and without gzip."""

from __future__ import annotations

import pytest

from tests.daemon import Daemon
from tests.e2e.answers import accounted, assert_everything
from tests.e2e.python_sdk import exporters, send


@pytest.mark.parametrize("gzip", [False, True], ids=["identity", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_the_sdk_sends_is_found(daemon: Daemon, protocol: str, gzip: bool) -> None:
    service = f"python-{protocol}-{'gzip' if gzip else 'identity'}"
    sent: list[dict[str, object]] = []
    with accounted(daemon, protocol, sent):
        sent.append(send(exporters(protocol, daemon.grpc, daemon.http, gzip), service))
    assert_everything(daemon, sent[0])
