"""The OpenTelemetry SDK for Node, unmodified: all three signals by HTTP/JSON, HTTP/protobuf and gRPC."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.e2e.answers import accounted, assert_everything
from tests.e2e.conftest import NODE

PATIENCE_S = 60


@pytest.mark.parametrize(
    ("protocol", "compression"),
    [("http/json", "none"), ("http/protobuf", "none"), ("grpc", "none"), ("http/json", "gzip"), ("grpc", "gzip")],
)
def test_what_the_sdk_sends_is_found(daemon: Daemon, node_directory: Path, protocol: str, compression: str) -> None:
    transport = protocol.partition("/")[0]
    address = daemon.grpc if transport == "grpc" else daemon.http
    service = f"node-{protocol.replace('/', '-')}-{compression}"
    sent: list[dict[str, object]] = []
    with accounted(daemon, transport, sent):
        run = subprocess.run(
            ["node", "send.mjs", protocol, f"http://{address}", service, compression],
            cwd=node_directory,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert run.returncode == 0, run.stderr.decode()
        assert run.stderr == b""
        sent.append(json.loads(run.stdout))
    assert_everything(daemon, sent[0])


def test_the_lock_file_pins_packages_and_names_no_registry() -> None:
    text = (NODE / "package-lock.json").read_text()
    assert "registry" not in text
    lock = json.loads(text)
    packages = [package for path, package in lock["packages"].items() if path]
    assert len(packages) > 20
    for package in packages:
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
