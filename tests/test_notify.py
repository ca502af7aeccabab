"""The service manager is told when the daemon is ready and when it stops; where there is none, nothing happens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from collector.notify import ENVIRONMENT, READY, notify
from tests.daemon import Daemon


def test_systemd_hears_of_start_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(address))
        manager.settimeout(30)
        monkeypatch.setenv(ENVIRONMENT, os.fspath(address))
        with Daemon(tmp_path):
            assert manager.recv(1000).startswith(b"READY=1\n")
        assert manager.recv(1000).startswith(b"STOPPING=1\n")


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # one that the system chooses
        name = manager.getsockname()
        assert notify(READY, f"@{name[1:].decode()}")
        assert manager.recv(1000) == READY.encode()


@pytest.mark.parametrize("address", ["", "nothing", "vsock:2:1234", "/no/such/socket"])
def test_nobody_to_tell(address: str) -> None:
    assert not notify(READY, address)
