"""Running checks one after the other, and turning whatever happens into a result."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from collector.conformance import (
    data_model,
    exporters,
    grpc_calls,
    http_connections,
    http_errors,
    http_requests,
    http_responses,
    json_mapping,
    open_points,
    transport,
)
from collector.conformance.check import Check, Failed, Result, Section, Skipped, Verdict
from collector.conformance.target import Target

SECTIONS: tuple[Section, ...] = (
    transport.SECTION,
    grpc_calls.SECTION,
    http_requests.SECTION,
    Section(http_responses.SECTION.title, http_responses.SECTION, http_errors.SECTION, http_connections.SECTION),
    json_mapping.SECTION,
    data_model.SECTION,
    open_points.SECTION,
    exporters.SECTION,
)
"""The parts of the list in their order."""

_MISSING = {
    "grpc": "no gRPC endpoint was given",
    "http": "no HTTP endpoint was given",
    "query": "no query API was given (--query), so what was stored cannot be seen",
    "server": "needs a server with settings of its own; the kit can start only Ringtail so",
}


def chosen(only: Collection[str]) -> list[tuple[Section, list[Check]]]:
    """Return the sections with those checks whose number or line is among `only`; all for none."""
    found = []
    for section in SECTIONS:
        checks = [one for one in section.checks if not only or one.number in only or one.line in only]
        if checks:
            found.append((section, checks))
    return found


def run(target: Target, checks: Collection[Check]) -> Iterator[Result]:
    """Make checks; yields each result when it is there."""
    for check in checks:
        yield run_one(target, check)


def run_one(target: Target, check: Check) -> Result:
    """Make one check. A server that breaks a connection, or answers nonsense, fails it."""
    for need in check.needs:
        if need not in target.has:
            return Result(check, Verdict.SKIP, _MISSING[need])
    try:
        return Result(check, Verdict.PASS, check.run(target))
    except Skipped as why:
        return Result(check, Verdict.SKIP, str(why))
    except Failed as error:
        return Result(check, Verdict.FAIL, str(error))
    except (OSError, ValueError, LookupError) as error:
        return Result(check, Verdict.FAIL, f"the answer cannot be read: {error!r}")
