"""Fixtures: an event loop that nothing runs on, for what needs futures but no I/O, and the parts on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.receivers.doubles import Receiving


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def receiving(loop: asyncio.AbstractEventLoop) -> Receiving:
    return Receiving(loop)
