"""A PostgreSQL server of a test's own: in a temporary directory, on loopback, of a user that is not root, which it refuses.

It is tuned for being killed, not for speed: fsync stays on.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.requirements import do_without

PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql")
USERS = ("postgres", "nobody")
PATIENCE_S = 60.0
_BECOME = """import os, sys
uid, gid, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
"""
"""Becomes another user, and then the command. Popen could do that itself, but by fork, not vfork: gRPC's handlers of forks
then run while its threads do, and the child crashes, or answers in its parent's place."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "unix_socket_directories": "",
    "max_wal_size": "256MB",
    "log_min_messages": "fatal",
    "autovacuum_naptime": "1h",
}


def _found(name: str) -> list[str]:
    found = [str(path) for place in PLACES for path in sorted(Path(place).glob(f"*/bin/{name}"), reverse=True)]
    on_path = shutil.which(name)
    return found if on_path is None else [*found, on_path]


def installed() -> bool:
    """Whether there is a server to start."""
    return bool(_found("postgres"))


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs; skips or fails the test when there is none."""
    found = _found(name)
    if not found:
        do_without(f"PostgreSQL's {name} is not installed")
    return found[0]


class Server:
    """Started when made."""

    user = "ringtail"
    password = "a password"
    database = "ringtail"

    def __init__(self, certificate: tuple[Path, Path] | None = None, **settings: str) -> None:
        """Start it; with a certificate and its key it speaks TLS, too."""
        self._postgres, initdb = program("postgres"), program("initdb")
        self.directory = Path(tempfile.mkdtemp(prefix="ringtail-postgres-"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            owner = next(one for one in (_user(name) for name in USERS) if one is not None)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            self._as = [sys.executable, "-I", "-S", "-c", _BECOME, str(owner.pw_uid), str(owner.pw_gid)]
        self.data = self.directory / "data"
        secret = self.directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        command = [initdb, "-D", str(self.data), "-U", self.user, "-E", "UTF8", "--locale=C", "-A", "scram-sha-256"]
        self._run([*command, f"--pwfile={secret}", "--no-sync", "--no-instructions"])
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self._settings = SETTINGS | settings
        if certificate is not None:
            self._settings["ssl"] = "on"
            for key, path in zip(("ssl_cert_file", "ssl_key_file"), certificate, strict=True):
                own = self.directory / key
                shutil.copy(path, own)
                own.chmod(0o600)
                if os.geteuid() == 0:
                    os.chown(own, owner.pw_uid, owner.pw_gid)
                self._settings[key] = str(own)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        with self.connect("postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.database}")

    def _run(self, command: list[str]) -> None:
        subprocess.run([*self._as, *command], cwd="/", check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._postgres, "-D", str(self.data), "-p", str(self.port)]
        for key, value in self._settings.items():
            command += ["-c", f"{key}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as, *command], cwd="/", stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    def connect(self, database: str = "", **more: object) -> psycopg.Connection[tuple[object, ...]]:
        """Connect as the owner of everything."""
        return psycopg.connect(**(self.parameters() | ({"dbname": database} if database else {}) | more))

    def parameters(self) -> dict[str, Any]:
        """What libpq is told for that."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
        }

    def cpu_s(self) -> float:
        """CPU time so far, in seconds, of the server's processes, and of those that have ended."""
        assert self._process is not None
        pids = [self._process.pid, *_children(self._process.pid)]
        # Of the server itself also what it has collected of children that ended.
        ticks = sum(int(one) for pid in pids for one in _fields(pid)[11 : 15 if pid == pids[0] else 13])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Kill -9 all of it at once, as a power cut would end it but for the page cache."""
        assert self._process is not None
        processes = self._signal(signal.SIGSTOP)
        for pid in processes:
            _send(pid, signal.SIGKILL)
        self._process.wait()
        end = time.monotonic() + PATIENCE_S
        while any(_alive(pid) for pid in processes) and time.monotonic() < end:
            time.sleep(0.005)

    def pause(self) -> None:
        """Have it answer nobody; connections stay."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> list[int]:
        """Send a signal to the server, and then to its processes, which are in sessions of their own."""
        assert self._process is not None
        _send(self._process.pid, number)
        children = _children(self._process.pid)
        for pid in children:
            _send(pid, number)
        return [self._process.pid, *children]

    def stop(self) -> None:
        """End it, and remove everything."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _fields(pid: int) -> list[str]:
    """What /proc says of a process from its state on; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children(parent: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if _fields(pid)[1:2] == [str(parent)]]


def _alive(pid: int) -> bool:
    return _fields(pid)[:1] not in ([], ["Z"])
