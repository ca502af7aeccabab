"""The shop under test, and its telemetry on the way to the fixture's server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import shop
from flask.testing import FlaskClient


@pytest.fixture(scope="session")
def instrumented(otlp_server) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """OpenTelemetry's providers belong to the process, so they are set up once, for the server of the session."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in otlp_server.environment.items():
            patch.setenv(name, value)
        shop.instrument()
        yield


@pytest.fixture
def client(instrumented: None) -> FlaskClient:
    """A client of the application."""
    return shop.create_app().test_client()
