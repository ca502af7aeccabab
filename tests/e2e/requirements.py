"""Programs that some tests need and a machine may not have. CI has them all: there a missing one is a failure."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "RINGTAIL_TEST_REQUIRE_SERVERS"


def require(*programs: str) -> None:
    """Skip the test when a program is missing; fail it when RINGTAIL_TEST_REQUIRE_SERVERS=1."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    message = f"{', '.join(missing)} not installed"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{message}, and {REQUIRED}=1")
    pytest.skip(message)
