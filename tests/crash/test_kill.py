"""SIGKILL, at random moments, under load: what was acknowledged is there after the next start, each record once.

`RINGTAIL_TEST_KILLS` is how often (20), `RINGTAIL_TEST_SEED` repeats a run. What is random is when the daemon dies and
what clients send; how threads and processes interleave is not in the seed.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from tests.crash.journal import Journal
from tests.crash.reading import as_text, ids_of, read_log, verify_log
from tests.crash.torture import Torture
from tests.crash.writers import payload
from tests.daemon import COMMAND

KILLS = int(os.environ.get("RINGTAIL_TEST_KILLS", "20"))
KILLS_PER_DIRECTORY = 25


@pytest.fixture
def seed() -> int:
    """The run's seed; shown with a failure."""
    chosen = int(os.environ.get("RINGTAIL_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"RINGTAIL_TEST_SEED={chosen}")
    return chosen


def variant(name: str) -> tuple[str, ...]:
    """Return the command of a daemon of variants.py."""
    return (sys.executable, "-m", "tests.crash.variants", name)


def tortured(directory: Path, seed: int, kills: int, *command: str) -> tuple[int, int]:
    """Kill a daemon so often, and find all well; return how many kills and torn tails there were.

    Each directory has some of the kills: all of it is read after each one.
    """
    done = torn = 0
    while done < kills:
        inside = directory / str(done)
        inside.mkdir()
        torture = Torture(inside, seed + done, command=command or COMMAND)
        assert torture.run(min(KILLS_PER_DIRECTORY, kills - done)) == []
        verify_log(inside / "data")
        acknowledged = torture.acknowledged()
        print(f"{torture.kills} kills, {torture.torn} torn tails, found {as_text(read_log(inside / 'data'))}", end=", ")
        print(f"acknowledged { {signal.name: count for signal, count in acknowledged.items()} }")
        # a run in which nothing was at stake proves nothing
        assert min(acknowledged.values()) > 100
        done += torture.kills
        torn += torture.torn
        shutil.rmtree(inside)
    return done, torn


@pytest.mark.slow
def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, seed: int) -> None:
    kills, _ = tortured(tmp_path, seed, KILLS)
    assert kills >= KILLS


@pytest.mark.slow
def test_it_survives_kills_in_the_middle_of_writes(tmp_path: Path, seed: int) -> None:
    kills, torn = tortured(tmp_path, seed, KILLS // 2, *variant("stepwise"))
    assert kills >= KILLS // 2
    assert torn > 0, "no kill came in the middle of a write"


# --- the canaries: a harness that cannot fail is a defect ---------------------------------------------------------


def test_a_daemon_without_a_log_is_caught(tmp_path: Path, seed: int) -> None:
    (tmp_path / "data").mkdir()
    for signal in SIGNALS:
        (tmp_path / "data" / signal.name).mkdir()
    findings = Torture(tmp_path, seed, ["wal.enabled=false", "wal.sync=never"]).run(1)
    assert any("acknowledged and lost" in finding for finding in findings)
    assert any("is answered with []" in finding for finding in findings)
    assert f"seed {seed}" in findings[-1]


def test_a_daemon_that_acknowledges_too_early_is_caught(tmp_path: Path, seed: int) -> None:
    findings = Torture(tmp_path, seed, command=variant("early")).run(5)
    assert any("acknowledged and lost" in finding for finding in findings)


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


@pytest.mark.parametrize("signal", SIGNALS)
def test_ids_are_read_as_they_were_written(tmp_path: Path, signal: object) -> None:
    journal = Journal(tmp_path / "journal")
    request = journal.send(signal, 5)  # type: ignore[arg-type]
    journal.close()
    assert ids_of(request.signal, payload(request, 1000)) == list(request.ids)
