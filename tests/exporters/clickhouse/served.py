"""A ClickHouse server of a test's own in another process, which can be killed and started again: server.py on its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.benchmarks.process import cpu_time_ns
from tests.daemon import environment


class Served:
    """Started when made; keeps its files in a directory, and its port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = ""
        self._process: subprocess.Popen[str] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "tests.exporters.clickhouse.server", str(self._directory), port]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the server has not started"

    def kill(self) -> None:
        """Kill it, as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def post(self, statement: str) -> bytes:
        """Run a statement, and return the answer."""
        with urllib.request.urlopen(urllib.request.Request(self.url, statement.encode()), timeout=60) as answer:
            return bytes(answer.read())

    def rows(self, statement: str) -> list[list[Any]]:
        """Return the answer to a SELECT."""
        return [json.loads(line) for line in self.post(f"{statement} FORMAT JSONCompactEachRow").splitlines()]

    def cpu_s(self) -> float:
        """CPU time so far, in seconds."""
        return 0.0 if self._process is None else cpu_time_ns(self._process.pid) / 1e9
