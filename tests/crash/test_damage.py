"""Files damaged under a stopped daemon: it starts, answers with all that is left, and tells what is not, by offsets.

What the query APIs do not answer any more, what the metrics count, and what the daemon's log names are the same records.
tests/wal/test_damage.py has each cut and each bit; here are some of them, and files that are missing, end to end.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.otlp.signals import SIGNALS, Signal
from collector.wal.files import OperatingSystemFiles
from collector.wal.frame import MAGIC_BYTES
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.accounts import accounts
from tests.crash.journal import Request
from tests.crash.reading import ask
from tests.crash.writers import payload
from tests.daemon import Daemon
from tests.effort import Effort
from tests.wal.logs import RecordingLogger
from tests.wal.test_compact import compact_all

REQUESTS = 36
RECORDS = 5
PADDING = 6000
SETTINGS = ("wal.segment_bytes=64KiB", "wal.retention.max_bytes=0")
ALLOWED = frozenset(
    {"records damaged", "torn tail cut", "index rebuilt", "key index not used", "segment not compacted"}
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with three logs of several segments, of which one is compacted; `requests` are in it."""
    directory = tmp_path_factory.mktemp("written")
    with Daemon(directory, *SETTINGS, "wal.compaction.enabled=false") as daemon:
        for request in requests():
            assert daemon.export(request.signal.http_path, payload(request, PADDING)).code == 200
    compacted = Log.open(
        directory / "data",
        SIGNALS[0],
        files=OperatingSystemFiles(),
        clock=SystemClock(),
        metrics=LogMetrics(CollectorRegistry()),
        logger=RecordingLogger(),
        segment_bytes=64 * 1024,
    )
    assert compact_all(OperatingSystemFiles(), compacted) > 1
    compacted.close()
    return directory / "data"


def requests() -> list[Request]:
    return [Request(SIGNALS[number % 3], number, RECORDS) for number in range(1, 3 * REQUESTS + 1)]


def harm(data: Path, chance: random.Random) -> str:
    """Damage one file, and say how."""
    target = chance.choice(sorted(path for path in data.rglob("0*") if path.suffix in (".log", ".index", ".keys")))
    content = bytearray(target.read_bytes())
    at = chance.randrange(len(content))
    how = chance.choice(["cut", "flip", "zeros", "noise", "missing"])
    if how == "missing" and target.name != "00000000000000000000.log":  # that is what retention does
        target.unlink()
    elif how == "cut":
        target.write_bytes(content[:at])
    else:
        length = chance.choice([512, 4096])
        part = {"flip": bytes([content[at] ^ 1 << chance.randrange(8)]), "zeros": bytes(length)}
        changed = part.get(how, chance.randbytes(length))
        content[at : at + len(changed)] = changed[: len(content) - at]
        target.write_bytes(content)
    return f"{how} at byte {at} of {target.relative_to(data)}"


def missing(daemon: Daemon) -> Counter[Signal]:
    """Ask for everything; return how many records are not answered. None may be answered that was not written."""
    found: Counter[Signal] = Counter()
    for request in requests():
        answered = ask(daemon, request)
        assert answered in (list(request.ids), []), (request, answered)
        found[request.signal] += request.count - len(answered)
    return found


def named(daemon: Daemon, signal: Signal) -> set[int]:
    """The offsets that the daemon's log calls damaged."""
    return {
        offset
        for event in daemon.events
        if event["event"] == "records damaged"
        and (event.get("signal") == signal.name or f"/{signal.name}/" in event.get("path", ""))
        for offset in range(event["first_offset"], event["end_offset"])
    }


def judge(daemon: Daemon) -> Counter[str]:
    """Find what is not answered counted and named; return what there was."""
    done: Counter[str] = Counter()
    lost = missing(daemon)
    counted = accounts(daemon.get("/metrics").body.decode())
    for signal, told in daemon.stats().items():
        one = next(one for one in SIGNALS if one.name == signal)
        # Behind the last good frame nothing tells how many records there were: it is a torn tail, in bytes.
        behind = REQUESTS * RECORDS - told["log"]["next_offset"]
        assert counted[one]["damaged"] == len(named(daemon, one)) == lost[one] - behind, signal
        done.update(damaged=lost[one] - behind, torn=behind)
    return done


def test_what_is_damaged_is_told_and_the_rest_is_served(written: Path, tmp_path: Path, effort: Effort) -> None:
    rounds = effort.times(2, 100)
    done: Counter[str] = Counter()
    for number in range(rounds):
        directory = tmp_path / str(number)
        shutil.copytree(written, directory / "data")
        what = harm(directory / "data", effort.chance(number))
        print(what)
        with Daemon(directory, *SETTINGS, allow=ALLOWED) as daemon:
            done += judge(daemon)
            after = Request(SIGNALS[number % 3], 3 * REQUESTS + 1, RECORDS)
            assert daemon.export(after.signal.http_path, payload(after)).code == 200
        with Daemon(directory, *SETTINGS, allow=ALLOWED) as daemon:
            assert ask(daemon, after) == list(after.ids)
        done.update({what.partition(" ")[0]: 1})
        shutil.rmtree(directory)
    effort.report("R3", starts=2 * rounds, **done)


def test_answers_of_every_api_tell_what_cannot_be_read(tmp_path: Path) -> None:
    """A payload byte of each log's third request is wrong; the trace that is asked for is whole all the same."""
    settings = (*SETTINGS, *(f"stores.{signal.name}.capacity=1" for signal in SIGNALS))
    whole = [Request(signal, number, RECORDS) for number in range(1, 5) for signal in SIGNALS]
    with Daemon(tmp_path, *settings) as daemon:
        for request in whole:
            assert daemon.export(request.signal.http_path, payload(request, PADDING)).code == 200
        trace = next(iter(json.loads(daemon.get("/api/search?q=%7B%7D&limit=50").body)["traces"]))["traceID"]
    for signal in SIGNALS:
        path = next((tmp_path / "data" / signal.name).glob("0*.log"))
        content = bytearray(path.read_bytes())
        places = [at for at in range(len(content)) if content.startswith(MAGIC_BYTES, at)]
        content[places[2] + 2000] ^= 1
        path.write_bytes(content)
    with Daemon(tmp_path, *settings, allow=ALLOWED) as daemon:

        def told(path: str) -> tuple[Any, str]:
            answer = daemon.get(path)
            body = json.loads(answer.body) if answer.headers["content-type"].startswith("application/json") else None
            return body, answer.headers.get("x-ringtail-partial", "")

        text = "5 {} cannot be read, from offset 10 on, and may be missing here: their place in the log is damaged"
        spans, lines, points = (text.format(signal.noun) for signal in SIGNALS)
        assert told("/api/stats")[1] == "", "it lacks nothing"
        body, header = told("/api/search?q=%7B%7D&limit=50")
        assert (body["metrics"]["partial"], body["metrics"]["message"], header) == (True, spans, spans)
        assert body["metrics"]["unreadable"] == [{"firstOffset": "10", "endOffset": "15"}]
        body, header = told(f"/api/v2/traces/{trace}")
        assert (body["status"], header) == ("PARTIAL", spans)
        assert spans in body["message"]
        body, header = told("/api/v2/search/tags")
        assert (body["metrics"]["partial"], body["metrics"]["message"], header) == (True, spans, spans)
        body, header = told("/jaeger/api/services")
        assert ([one["msg"] for one in body["errors"]], header) == ([spans], spans)
        body, header = told(f"/loki/api/v1/query_range?query={quote('{service_name=~`.+`}')}&start=0&end=9999999999")
        assert (body["warnings"], header) == ([lines], lines)
        body, header = told(
            f"/api/v1/query_range?query={quote('count({__name__=~`.+`})')}&start=0&end=9999999999&step=9999999"
        )
        assert (body["warnings"], header) == ([points], points)
        answer = daemon.get(f"/api/v2/traces/{'ab' * 16}")
        assert (answer.code, answer.headers.get("x-ringtail-partial")) == (404, spans), "asking again would not help"
        assert spans in answer.body.decode()


def test_without_damage_there_is_nothing_to_tell(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "data")
    with Daemon(tmp_path, *SETTINGS) as daemon:
        assert judge(daemon) == Counter(damaged=0, torn=0)


def test_a_daemon_that_hides_what_it_lost_is_caught(written: Path, tmp_path: Path) -> None:
    """The canary: the answers come from a log in which something is missing, the accounts from one that is whole."""
    shutil.copytree(written, tmp_path / "harmed" / "data")
    shutil.copytree(written, tmp_path / "whole" / "data")
    segments = sorted((tmp_path / "harmed" / "data" / "metrics").glob("0*.log"))
    segments[0].write_bytes(segments[0].read_bytes()[:5000])
    with Daemon(tmp_path / "harmed", *SETTINGS, allow=ALLOWED) as harmed, Daemon(tmp_path / "whole") as whole:
        harmed.stats = whole.stats  # type: ignore[method-assign]
        get = harmed.get
        harmed.get = lambda path, headers=None: (whole.get if path == "/metrics" else get)(path, headers)  # type: ignore[method-assign]
        with pytest.raises(AssertionError):
            judge(harmed)
