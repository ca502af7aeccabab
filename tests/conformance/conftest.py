"""One Ringtail for all tests of the kit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector.clock import SystemClock
from collector.conformance.target import Target


@pytest.fixture(scope="session")
def ringtail() -> Iterator[Target]:
    with Target.start(SystemClock()) as made:
        yield made
