"""SIGKILL, at random moments, under load: what was acknowledged is there after the next start, each record once.

`RINGTAIL_TEST_KILLS` is how often, if it is not to be as tests/effort.py says. What is random is when the daemon dies and
what clients send; how threads and processes interleave is not in the seed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from tests.crash.journal import Journal, Request
from tests.crash.reading import disagreements, ids_of, read_ids, verify_log
from tests.crash.torture import SETTINGS, Torture
from tests.crash.writers import payload
from tests.daemon import COMMAND, Daemon, environment
from tests.effort import Effort

KILLS_PER_DIRECTORY = 10
PATIENCE = 6
"""How many times as many kills to make, at most, when those asked for have not met what they were to meet."""


def kills(effort: Effort, short: int, long: int) -> int:
    """How often to kill."""
    return int(os.environ.get("RINGTAIL_TEST_KILLS", "0")) or effort.times(short, long)


def variant(name: str) -> tuple[str, ...]:
    """Return the command of a daemon of variants.py."""
    return (sys.executable, "-m", "tests.crash.variants", name)


def tortured(
    directory: Path,
    effort: Effort,
    kills: int,
    settings: Sequence[str] = (),
    command: Sequence[str] = COMMAND,
    to_meet: Sequence[str] = (),
) -> Counter[str]:
    """Kill a daemon so often, and on until the kills have met what they are `to_meet`; find all well, and report it.

    Returns what happened how often. Each directory has some of the kills: all of it is read after each one.
    """
    done: Counter[str] = Counter(kills=0)
    acknowledged: Counter[str] = Counter()
    while done["kills"] < kills or (done["kills"] < PATIENCE * kills and not all(done[what] for what in to_meet)):
        inside = directory / str(done["kills"])
        inside.mkdir()
        torture = Torture(inside, effort.seed + done["kills"], settings, command)
        assert torture.run(min(KILLS_PER_DIRECTORY, kills)) == []
        verify_log(inside / "data")
        counts = torture.acknowledged()
        # a run in which nothing was at stake proves nothing
        assert min(counts.values()) > 100
        acknowledged.update({signal.name: count for signal, count in counts.items()})
        done.update(kills=torture.kills, starts=torture.starts, torn_tails=torture.torn, compacted=torture.compacted)
        shutil.rmtree(inside)
    effort.report("R1", **done, acknowledged_records=dict(acknowledged))
    return done


@pytest.mark.slow
def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, effort: Effort) -> None:
    tortured(tmp_path, effort, kills(effort, 20, 1000))


@pytest.mark.slow
def test_it_survives_kills_in_the_middle_of_writes(tmp_path: Path, effort: Effort) -> None:
    small = ("wal.segment_bytes=64KiB",)
    done = tortured(tmp_path, effort, kills(effort, 10, 300), small, variant("stepwise"), ("torn_tails", "compacted"))
    assert done["torn_tails"] > 0, "no kill came in the middle of a write"
    assert done["compacted"] > 0


def killed_writers(directory: Path, seed: int, kills: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run killed_writer.py, which forks, and so wants a process of its own."""
    command = [sys.executable, "-m", "tests.crash.killed_writer", str(directory), str(seed), str(kills), *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_logs_writer_is_killed_at_any_moment(tmp_path: Path, effort: Effort) -> None:
    run = killed_writers(tmp_path, effort.seed, effort.times(100, 10_000))
    assert run.returncode == 0, run.stderr
    done = json.loads(run.stdout)
    assert done["in_opening"] > 0 < done["compacted"]
    assert done["forgotten_records"] > 0
    effort.report("R1", **done)


# --- the canaries: a harness that cannot fail is a defect ---------------------------------------------------------


def test_a_daemon_without_a_log_is_caught(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for signal in SIGNALS:
        (tmp_path / "data" / signal.name).mkdir()
    findings = Torture(tmp_path, 7, ["wal.enabled=false", "wal.sync=never"]).run(1)
    assert any("acknowledged and lost" in finding for finding in findings)
    assert any("is answered with []" in finding for finding in findings)
    assert "seed 7" in findings[-1]


def test_a_daemon_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    findings = Torture(tmp_path, 7, command=variant("early")).run(5)
    assert any("acknowledged and lost" in finding for finding in findings)


def test_a_writer_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    run = killed_writers(tmp_path, 7, 50, "early")
    assert run.returncode == 1
    assert re.search(r"AssertionError: .* \d+ acknowledged, found 0 to \d+", run.stderr)


def test_the_judge_sees_every_kind_of_wrong(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    acknowledged = journal.send(TRACES, 3)
    journal.acknowledge(acknowledged)
    open_one = journal.send(LOGS, 2)
    good = {TRACES: Counter(acknowledged.ids), LOGS: Counter[int](), METRICS: Counter[int]()}
    assert journal.judge(good) == []
    assert journal.judge(good | {LOGS: Counter(open_one.ids)}) == []

    first, second, third = acknowledged.ids
    assert journal.judge(good | {TRACES: Counter[int]()}) == [
        f"traces: 3 acknowledged and lost: {first}, {second}, {third}"
    ]
    assert journal.judge(good | {TRACES: Counter([first, second])}) == [
        f"traces: 1 acknowledged and lost: {third}",
        f"traces: 1 found in part: requests: {acknowledged.number}",
    ]
    assert journal.judge(good | {TRACES: Counter([*acknowledged.ids, second])}) == [f"traces: 1 found twice: {second}"]
    assert journal.judge(good | {LOGS: Counter(list(open_one.ids)[:1])}) == [
        f"logs: 1 found in part: requests: {open_one.number}"
    ]
    assert journal.judge(good | {METRICS: Counter([first])}) == [f"metrics: 1 found and never sent: {first}"]
    beyond = open_one.ids[-1] + 1
    assert journal.judge(good | {LOGS: Counter([*open_one.ids, beyond])}) == [f"logs: 1 found and never sent: {beyond}"]
    journal.close()
    assert (tmp_path / "journal").read_text() == "sent traces 1 3\nacknowledged traces 1 3\nsent logs 2 2\n"


def test_rings_and_indexes_that_do_not_agree_with_the_log_are_seen(tmp_path: Path) -> None:
    requests = [Request(signal, number, 4) for number, signal in enumerate((*SIGNALS, *SIGNALS), 1)]
    with Daemon(tmp_path, *SETTINGS) as daemon:
        for request in requests:
            assert daemon.export(request.signal.http_path, payload(request)).code == 200
    with Daemon(tmp_path, *SETTINGS) as daemon:
        held = read_ids(daemon.data)
        assert disagreements(daemon, held) == []
        assert disagreements(daemon, held | {LOGS: held[LOGS][:-1]}) == [
            "logs: log.next_offset is 8, not 7",
            "logs: records is 8, not 7",
            "logs: indexes.trace_id.postings is 8, not 7",
            "logs: indexes.severity.postings is 8, not 7",
            "logs: indexes.service.postings is 8, not 7",
        ]
        assert disagreements(daemon, held | {TRACES: [*held[TRACES][:-1], Request(TRACES, 99, 1).ids[0]]}) == [
            "traces: indexes.trace_id.keys is 2, not 3"
        ]


@pytest.mark.parametrize("signal", SIGNALS)
def test_ids_are_read_as_they_were_written(tmp_path: Path, signal: object) -> None:
    journal = Journal(tmp_path / "journal")
    request = journal.send(signal, 5)  # type: ignore[arg-type]
    journal.close()
    assert ids_of(request.signal, payload(request, 1000)) == list(request.ids)
