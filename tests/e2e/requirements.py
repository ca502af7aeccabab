"""Programs that some tests need and a machine may not have. CI has them all: there a missing one is a failure."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "RINGTAIL_TEST_REQUIRE_SERVERS"


def require(*programs: str) -> None:
    """Skip the test when a program is missing; fail it when RINGTAIL_TEST_REQUIRE_SERVERS=1."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        do_without(f"{', '.join(missing)} not installed")


def do_without(what: str) -> NoReturn:
    """Skip the test for this reason; fail it when RINGTAIL_TEST_REQUIRE_SERVERS=1."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{what}, and {REQUIRED}=1")
    pytest.skip(what)
