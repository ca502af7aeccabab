"""A wall clock that jumps under a daemon, and records from times that no clock shows: R8.

The daemon's clock is set, not the machine's: collector/clock.py is the only place that reads one, which a test of the
house holds.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from collector.otlp.signals import SIGNALS, TRACES
from tests.crash.journal import Request
from tests.crash.orders import Orders
from tests.crash.reading import ask
from tests.crash.test_faults import command
from tests.crash.writers import payload
from tests.daemon import Daemon
from tests.effort import Effort

HOUR, DAY = 3600.0, 86400.0
PADDING = 30_000
SETTINGS = ("wal.segment_bytes=64KiB", "wal.retention.max_age=2h")
NO_AGE = "wal.retention.max_age=0s"


def jumps(effort: Effort) -> list[float]:
    """How far ahead of the true time the clock is set, one after the other; the epoch, and 2106, among them."""
    chance = effort.chance()
    anywhere = [chance.uniform(-time.time(), 80 * 365 * DAY) for _ in range(effort.times(2, 40))]
    return [HOUR, -HOUR, 400 * DAY, -400 * DAY, -time.time(), 80 * 365 * DAY, *anywhere, 0.0]


def test_a_clock_that_jumps_expires_nothing(tmp_path: Path, effort: Effort) -> None:
    orders = Orders(tmp_path)
    sent: list[Request] = []
    daemon = Daemon(tmp_path, *SETTINGS, command=command())
    with daemon:
        for ahead in (0.0, *jumps(effort)):
            orders.set_clock(ahead)
            for number in range(12):
                request = Request(SIGNALS[number % 3], len(sent) + 1, 4)
                assert daemon.export(request.signal.http_path, payload(request, PADDING)).code == 200
                sent.append(request)
            assert daemon.get("/readyz").code == 200
        assert all(told["log"]["segments"] > 5 for told in daemon.stats().values())
        assert [told["log"]["first_offset"] for told in daemon.stats().values()] == [0, 0, 0]
        assert [request for request in sent if ask(daemon, request) != list(request.ids)] == []
    for ahead in (-time.time(), 80 * 365 * DAY):
        # A start believes the clock that it finds: with a limit on age it would remove what is that old.
        orders.set_clock(ahead)
        with Daemon(tmp_path, *SETTINGS, NO_AGE, command=command()) as daemon:
            assert [request for request in sent if ask(daemon, request) != list(request.ids)] == []
            sent.append(Request(TRACES, len(sent) + 1, 4))
            assert daemon.export(TRACES.http_path, payload(sent[-1])).code == 200
    effort.report("R8", jumps=len(jumps(effort)), requests=len(sent))


def test_a_limit_on_age_is_kept_when_the_clock_goes_on(tmp_path: Path) -> None:
    """The canary of the test above: with a clock that a start finds to be three hours later, segments do expire."""
    orders = Orders(tmp_path)
    with Daemon(tmp_path, *SETTINGS, command=command()) as daemon:
        for number in range(8):
            assert daemon.export(TRACES.http_path, payload(Request(TRACES, number + 1, 4), PADDING)).code == 200
    orders.set_clock(3 * HOUR)
    with Daemon(tmp_path, *SETTINGS, command=command()) as daemon:
        later = Request(TRACES, 100, 4)
        assert daemon.export(TRACES.http_path, payload(later)).code == 200
        assert daemon.wait_for("segment removed")
        assert ask(daemon, later) == list(later.ids)


@pytest.mark.parametrize("when", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_records_from_any_time_are_accepted_or_refused_as_wrong(tmp_path: Path, when: int) -> None:
    message = TRACES.request_type()
    for place, (start, end) in enumerate(((when, when), (0, when), (when, 0)), 1):
        span = message.resource_spans.add().scope_spans.add().spans.add(name="any time")
        span.trace_id, span.span_id = place.to_bytes(16, "big"), place.to_bytes(8, "big")
        span.start_time_unix_nano, span.end_time_unix_nano = start, end
    with Daemon(tmp_path, "stores.traces.capacity=1") as daemon:
        code = daemon.export(TRACES.http_path, message.SerializeToString()).code
        assert code in (200, 400)
    with Daemon(tmp_path) as daemon:
        found = [daemon.get(f"/api/traces/{place:032x}").code for place in (1, 2, 3)]
        assert found == [200 if code == 200 else 404] * 3
        assert daemon.get("/api/search").code == 200
