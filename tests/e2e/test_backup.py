"""Backups of a real daemon under load: whole at any moment, also when some are killed; with tenants; and what starts on one."""

from __future__ import annotations

import random
import subprocess
import threading
from pathlib import Path

from collector.otlp.signals import SIGNALS, TRACES
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import cat
from tests.daemon import COMMAND, Daemon, environment
from tests.e2e.test_tenants import TENANTS, scope, write

SMALL = ("wal.segment_bytes=64KiB", "wal.retention.max_bytes=640KiB", "metrics_generator.enabled=false")


def ringtail(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*COMMAND, *arguments], env=environment(), capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout if check else done.stdout + done.stderr


def payloads(directory: Path) -> dict[int, bytes]:
    """Return the records of spans that lie in a data directory, by offset, as frames."""
    return {one.base_offset: one.payload for one in cat(directory, TRACES, 0, 10**6, OperatingSystemFiles())}


def test_backups_under_load(tmp_path: Path) -> None:
    chance = random.Random(7)
    (tmp_path / "backups").mkdir()
    with Daemon(tmp_path, *SMALL) as daemon:
        stop = threading.Event()

        def load() -> None:
            seed = 0
            while not stop.is_set():
                seed += 1
                for signal in SIGNALS:
                    assert daemon.export(signal.http_path, otlp.BUILDERS[signal](40, seed=seed)).code == 200

        writer = threading.Thread(target=load)
        writer.start()
        made: list[Path] = []
        try:
            for number in range(4):
                to = tmp_path / f"backups/{number}"
                arguments = [*COMMAND, "backup", str(to), "--set", f"wal.directory={daemon.data}"]
                arguments += ["--earlier", str(made[-1])] if made else []
                if number % 2:
                    killed = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL)
                    while not to.exists() and killed.poll() is None:
                        threading.Event().wait(0.005)
                    threading.Event().wait(chance.random() * 0.05)
                    killed.kill()
                    killed.wait()
                if not (to / "MANIFEST.json").exists():
                    assert (
                        "MANIFEST.json is missing" in ringtail("backup", "verify", str(to), check=False)
                        or number % 2 == 0
                    )
                    subprocess.run(arguments, env=environment(), check=True, capture_output=True, timeout=60)
                made.append(to)
        finally:
            stop.set()
            writer.join()
    for number, to in enumerate(made):
        assert "all is well" in ringtail("backup", "verify", str(to))
        if number in (0, 3):
            restored = tmp_path / f"restored{number}"
            ringtail("restore", str(to), "--set", f"wal.directory={restored / 'data'}")
            before = payloads(to)
            cut = max(before)
            with Daemon(restored, *SMALL) as again:
                log = again.stats()["traces"]["log"]
                assert log["first_offset"] == min(before)
                assert log["next_offset"] > cut
                ended = log["next_offset"]
                assert again.export(TRACES.http_path, otlp.traces(5)).code == 200
                assert again.stats()["traces"]["log"]["next_offset"] == ended + 5
            assert "all is well" in ringtail("backup", "verify", str(to))


def test_tenants(tmp_path: Path) -> None:
    with Daemon(tmp_path, *TENANTS) as daemon:
        for name in ("red", "blue"):
            write(daemon, name)
        out = ringtail("backup", str(tmp_path / "backup"), "--set", f"wal.directory={daemon.data}")
        assert "tenants/red/logs: offsets 0 to 10, 10 records" in out
        write(daemon, "red")
    ringtail("restore", str(tmp_path / "backup"), "--set", f"wal.directory={tmp_path / 'new/data'}")
    assert "not empty" in ringtail(
        "restore", str(tmp_path / "backup"), "--set", f"wal.directory={tmp_path / 'new/data'}", check=False
    )
    with Daemon(tmp_path / "new", *TENANTS) as again:
        for name in ("red", "blue"):
            found = again.get("/api/stats", scope(name)).json()["signals"]
            assert found["logs"]["log"]["next_offset"] == 10
