"""One daemon for each module of end-to-end tests, and the Node SDK installed once."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.e2e.requirements import do_without, require

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon on its defaults. When the module is done it is stopped, and must end in order."""
    with Daemon(tmp_path_factory.mktemp("ringtail")) as running:
        yield running


@pytest.fixture(scope="session")
def node_directory() -> Path:
    """Where `node send.mjs` runs; the packages of the lock file are installed when they are missing."""
    require("node", "npm")
    installed = NODE / "node_modules" / ".package-lock.json"
    with (NODE / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait for the first one's packages
        if not installed.exists():
            npm = subprocess.run(["npm", "ci", "--no-progress"], cwd=NODE, capture_output=True, text=True, check=False)
            if npm.returncode:
                do_without(f"npm ci failed: {npm.stderr[-500:]}")
    return NODE
