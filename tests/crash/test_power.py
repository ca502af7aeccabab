"""Real power cuts: a daemon writes to an ext4 file system in a file, and that loses what was not on the disk.

The machine goes on, so this is the file system's word for what a power cut leaves, not a drive's: FS_IOC_SHUTDOWN drops
the page cache and the journal in memory, and refuses every later call. tests/wal/test_power_cut.py has every call and
every order of unsynced sectors, in a model; here are the kernel, ext4's journal, and direct writes.

In the long form only. Needs root, mkfs.ext4 and loop devices.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from collector.otlp.signals import SIGNALS
from tests.crash.disks import Disk
from tests.crash.journal import Journal
from tests.crash.reading import read_ids, read_log, verify_log
from tests.crash.test_kill import variant
from tests.crash.torture import SETTINGS, Torture
from tests.crash.writers import Fleet
from tests.daemon import COMMAND, Daemon
from tests.effort import Effort

DISK_BYTES = 512 * 1024 * 1024
CUTS_PER_DISK = 10
COMMITS = ("commit=1", "commit=5", "commit=1000")
"""How often ext4 writes its journal by itself, in seconds: what is not synced survives often, or hardly ever."""
EXPECTED = frozenset(
    {"log failed", "log not closed", "index not written", "segment not compacted", "segment not removed"}
)
INTERVAL_S = 0.2


class PowerTorture(Torture):
    """A data directory on a disk that loses power each time the daemon is killed."""

    def __init__(
        self, directory: Path, seed: int, disk: Disk, settings: Sequence[str] = (), command: Sequence[str] = COMMAND
    ) -> None:
        super().__init__(directory, seed, settings, command)
        self._disk = disk

    def _kill(self, daemon: Daemon) -> None:
        self._disk.cut()
        super()._kill(daemon)
        self._disk.power_up()


def cut(directory: Path, effort: Effort, cuts: int, command: Sequence[str] = COMMAND) -> Counter[str]:
    """Cut the power so often, on one disk after the other, and find all well; return what happened how often."""
    done: Counter[str] = Counter(cuts=0)
    while done["cuts"] < cuts:
        inside = directory / str(done["cuts"])
        inside.mkdir()
        option = COMMITS[done["cuts"] // CUTS_PER_DISK % len(COMMITS)]
        with Disk(inside / "image", inside / "data", DISK_BYTES, option) as disk:
            # small segments: cuts meet the making, sealing, compacting and recycling of them
            torture = PowerTorture(inside, effort.seed + done["cuts"], disk, ["wal.segment_bytes=128KiB"], command)
            assert torture.run(min(CUTS_PER_DISK, cuts - done["cuts"])) == [], option
            verify_log(inside / "data")
            acknowledged = torture.acknowledged()
            assert min(acknowledged.values()) > 10
            done.update(cuts=torture.kills, starts=torture.starts, torn_tails=torture.torn, compacted=torture.compacted)
            done.update(acknowledged_records=sum(acknowledged.values()))
        (inside / "image").unlink()
    return done


def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path, effort: Effort) -> None:
    effort.only_long()
    effort.report("R2", sync="always", **cut(tmp_path, effort, effort.times(10, 200)))


def test_cuts_in_the_middle_of_writes(tmp_path: Path, effort: Effort) -> None:
    effort.only_long()
    effort.report(
        "R2", sync="always, in small steps", **cut(tmp_path, effort, effort.times(10, 60), variant("stepwise"))
    )


def test_an_early_acknowledgement_is_caught(tmp_path: Path, effort: Effort) -> None:
    """The canary: a daemon that does not sync loses what was acknowledged, when the file system does not by itself."""
    effort.only_long()
    with Disk(tmp_path / "image", tmp_path / "data", DISK_BYTES, "commit=1000") as disk:
        torture = PowerTorture(tmp_path, effort.seed, disk, ["wal.sync=never"])
        findings = torture.run(4)
    assert any("acknowledged and lost" in finding for finding in findings)


def test_what_a_power_cut_costs_with_an_interval(tmp_path: Path, effort: Effort) -> None:
    """No more than what was acknowledged within the interval before the cut; and what is there is the log's beginning."""
    effort.only_long()
    chance = effort.chance()
    cuts = effort.times(1, 30)
    lost = kept = 0
    for number in range(cuts):
        inside = tmp_path / str(number)
        inside.mkdir()
        journal = Journal(inside / "journal")
        fleet = Fleet(journal, effort.seed + number)
        with Disk(inside / "image", inside / "data", DISK_BYTES, "commit=1000") as disk:
            settings = (*SETTINGS, "wal.sync=interval", f"wal.sync_interval={int(INTERVAL_S * 1000)}ms")
            daemon = Daemon(inside, *settings, allow=EXPECTED)
            fleet.write_to(daemon.grpc, daemon.http)
            time.sleep(chance.uniform(0.3, 0.8))
            safe = {signal: journal.acknowledged(signal) for signal in SIGNALS}
            # The interval, and the time that a sync takes on a machine with other work.
            time.sleep(INTERVAL_S + 0.5)
            disk.cut()
            daemon.kill()
            fleet.rest()
            fleet.end()
            disk.power_up()
            with Daemon(inside, *settings, allow={"torn tail cut", "index rebuilt", "records damaged"}):
                pass
            found = read_log(inside / "data")
            for signal in SIGNALS:
                assert safe[signal]
                assert {one for request in safe[signal] for one in request.ids} <= set(found[signal]), signal
                lost += sum(one.count for one in journal.acknowledged(signal) if one.ids[0] not in found[signal])
                kept += len(found[signal])
            others = [one for one in journal.judge(found) if "acknowledged and lost" not in one]
            assert others == []
            read_ids(inside / "data")  # AssertionError when an offset is missing between others
        journal.close()
        (inside / "image").unlink()
    effort.report("R2", sync="interval", cuts=cuts, records_kept=kept, acknowledged_in_the_interval_and_lost=lost)
