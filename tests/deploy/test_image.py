"""What `docker build` and `docker run` would do, done without an engine.

The builder stage of deploy/Dockerfile is carried out, instruction by instruction, on a clean tree: only the files of
the build's context, a virtual environment of its own, and /opt/ringtail and /src as directories of that tree. Then the
image's own command is started as its unprivileged user (when the tests run as root), on a tree that this user cannot write to,
with an exporter of every kind, and asked for its health by the image's own health check; a span is sent to it, and must
arrive in a PostgreSQL server; SIGTERM must end it in order.

Not shown by this: the Debian packages of the base image (`apt-get` is left out), the image's Python version, and compiled
modules that are optimised: that takes minutes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from collector.exporters.kinds import BUILT_IN
from tests.daemon import ANY_PORT
from tests.deploy.dockerfile import Stage, context_files, stages
from tests.exporters.postgres_server import Server

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
USER = 10001
PATIENCE_S = 900
ARRIVAL_PATIENCE_S = 30.0
FILES = {"LOCK", "RESERVE", "INSTANCE", "cursors", "ringtail.sqlite", "traces", "logs", "metrics"}


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory that every user may look into, as pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="ringtail-image-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def python() -> tuple[str, bool]:
    """Return a Python to build with, and whether every user may run it (one in a home directory is not for all)."""
    can_build = (
        "import os, sys, sysconfig, venv, ensurepip\n"
        "sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
    )
    for path in ("/usr/local/bin/python3", "/usr/bin/python3"):
        if Path(path).exists() and all(parent.stat().st_mode & 0o001 for parent in Path(path).resolve().parents):
            done = subprocess.run([path, "-c", can_build], capture_output=True, check=False)
            if done.returncode == 0:
                return path, True
    return sys.executable, False


def build(stage: Stage, context: list[str], tree: Path, interpreter: str) -> list[str]:
    """Carry out a stage's instructions below `tree`; return the commands that were left out."""
    left_out = []
    here = tree
    compiler = tree / "cc"
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    for one in stage.instructions:
        if one.name == "WORKDIR":
            here = tree / one.text.lstrip("/")
            here.mkdir(parents=True)
        elif one.name == "COPY":
            *sources, target = one.words
            place = tree / target.lstrip("/") if target.startswith("/") else here / target
            for name in context:
                for source in sources:
                    if name == source:
                        inside = place if not target.endswith("/") else place / Path(name).name
                    elif name.startswith(f"{source}/"):
                        inside = place / name.removeprefix(f"{source}/")
                    else:
                        continue
                    inside.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / name, inside)
        elif one.name == "RUN" and one.text.startswith("apt-get"):
            left_out.append(one.text)
        elif one.name == "RUN":
            words = [str(tree) + word if word.startswith("/") else word for word in shlex.split(one.text)]
            words[0] = interpreter if words[0] == "python3" else words[0]
            clean = {key: os.environ[key] for key in os.environ if key in ("PATH", "HOME", "LANG") or key[:4] == "PIP_"}
            clean["CC"] = str(compiler)
            done = subprocess.run(
                words, cwd=here, env=clean, capture_output=True, text=True, check=False, timeout=PATIENCE_S
            )
            assert done.returncode == 0, f"{one.text}\n{done.stdout}{done.stderr}"
        else:
            raise AssertionError(f"{one.name} is not understood here")
    return left_out


def snapshot(path: Path) -> dict[str, tuple[float, int]]:
    """Every file below a path, with its time of change and size."""
    return {str(one): (one.lstat().st_mtime, one.lstat().st_size) for one in path.rglob("*") if not one.is_dir()}


@pytest.fixture
def database() -> Iterator[Server]:
    """A server that the image's PostgreSQL backend writes to."""
    server = Server()
    yield server
    server.stop()


def exporters(database: Server, volume: Path) -> list[str]:
    """Settings of one exporter of every kind; where nothing answers, it is tried again."""
    found = {
        "clickhouse": {"endpoint": "http://127.0.0.1:1"},
        "otlp": {"endpoint": "127.0.0.1:1", "tls.insecure": "true"},
        "otlphttp": {"endpoint": "http://127.0.0.1:1"},
        "postgres": {
            "endpoint": f"127.0.0.1:{database.port}",
            "database": database.database,
            "username": database.user,
            "password": database.password,
            "tls.insecure": "true",
        },
        "sqlite": {"path": f"{volume}/ringtail.sqlite"},
    }
    assert found.keys() == BUILT_IN.keys()
    return [f"exporters.{kind}.{key}={value}" for kind, keys in found.items() for key, value in keys.items()]


def arrived(database: Server, spans: int) -> bool:
    """Whether so many spans come to be in the database."""
    end = time.monotonic() + ARRIVAL_PATIENCE_S
    with database.connect(autocommit=True) as connection:
        while time.monotonic() < end:
            if connection.execute("SELECT count(*) FROM ringtail.spans").fetchall() == [(spans,)]:
                return True
            time.sleep(0.02)
    return False


@contextmanager
def running(command: list[str], **how: Any) -> Iterator[Any]:
    """The image's process, which a test that fails does not leave behind."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


@pytest.mark.slow
def test_the_image_builds_runs_unprivileged_and_writes_to_its_volume_only(tree: Path, database: Server) -> None:
    builder, final = stages(DOCKERFILE)
    interpreter, for_everyone = python()
    context = context_files(ROOT, DOCKERFILE.with_name("Dockerfile.dockerignore"))
    left_out = build(builder, context, tree, interpreter)
    assert len(left_out) == 1
    installed = tree / "opt" / "ringtail"
    # The final stage takes over the installed tree and nothing else.
    assert [copy.words for copy in final.all("COPY")] == [["/opt/ringtail", "/opt/ringtail"]]
    shutil.rmtree(tree / "src")

    volume = tree / final.one("VOLUME").words[0].lstrip("/")
    volume.mkdir(parents=True)
    identity: dict[str, Any] = {}
    if os.geteuid() == 0 and for_everyone:
        os.chown(volume, USER, USER)
        identity = {"user": USER, "group": USER, "extra_groups": []}
    before = snapshot(installed)
    environment = {"PATH": f"{installed}/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
    command = [
        *final.one("ENTRYPOINT").words,
        *(word.replace("/opt/ringtail", str(installed)) for word in final.one("CMD").words),
        *(
            word
            for one in (f"wal.directory={volume}", *ANY_PORT, *exporters(database, volume))
            for word in ("--set", one)
        ),
    ]
    command[0] = str(installed / "bin" / command[0])
    with running(command, cwd=volume, env=environment, **identity) as daemon:
        events = []
        for line in daemon.stderr:
            events.append(json.loads(line))
            if events[-1]["event"] == "ready":
                break
        assert events, "it says why it cannot start"
        assert events[-1]["event"] == "ready", events[-1]
        listening = {one["what"]: one["address"] for one in events if one["event"] == "listening"}
        check = [*json.loads(final.one("HEALTHCHECK").text.partition("CMD ")[2]), "--endpoint", listening["api"]]
        check[0] = str(installed / "bin" / check[0])
        health = subprocess.run(check, env=environment, capture_output=True, text=True, check=False, **identity)
        # Behind that it tells which exporters fail.
        assert (health.returncode, health.stdout.splitlines()[0]) == (0, "ready")
        send = [check[0], "send", "--endpoint", f"http://{listening['otlp/http']}"]
        sent = subprocess.run(send, env=environment, capture_output=True, text=True, check=True, **identity)
        assert arrived(database, int(sent.stdout.split()[1]))
        daemon.send_signal(getattr(signal, final.one("STOPSIGNAL").text))
        rest = [json.loads(line) for line in daemon.stderr]
    assert daemon.returncode == 0
    assert rest[-1]["event"] == "stopped"
    assert snapshot(installed) == before
    assert {one.name for one in volume.iterdir()} == FILES
    if identity:
        assert {one.stat().st_uid for one in volume.rglob("*")} == {USER}
