"""Settings of all tests.

Hypothesis runs under a profile, chosen by HYPOTHESIS_PROFILE: `dev` (default) is quick and tries other examples each
time; `ci` tries more, and the same ones each time; `deep` is for a night. A failure prints the line that reproduces it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.effort import SEED, Effort, effort_of, seed_of_the_run

# Modules of the tests that assert for others; before anything imports them.
pytest.register_assert_rewrite("tests.daemon", "tests.e2e.answers", "tests.e2e.records")

# Two shared cores: how long an example takes says nothing about the code.
_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=50, **_ANY_SPEED)
settings.register_profile("ci", max_examples=100, derandomize=True, **_ANY_SPEED)
settings.register_profile("deep", max_examples=20_000, print_blob=True, **_ANY_SPEED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


SEED_OF_THE_RUN = f"{SEED}={seed_of_the_run()}"


def pytest_report_header() -> str:
    """The seed that repeats this run."""
    return SEED_OF_THE_RUN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seed again, for who sees only the end."""
    terminalreporter.write_line(SEED_OF_THE_RUN)


@pytest.fixture
def effort(request: pytest.FixtureRequest) -> Effort:
    """How much the test does: see tests/effort.py."""
    return effort_of(request.node.nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what has a long form: `make torture` runs it."""
    for item in items:
        if "effort" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.torture)
