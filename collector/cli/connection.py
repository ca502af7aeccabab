"""One HTTP request to a running daemon, over the standard library."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import click

TIMEOUT_S: Final = 10.0
"""How long a daemon may take to connect, and to answer."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read."""
_PORTS: Final = 65535


def base_url(endpoint: str) -> str:
    """Return `http://host:port[/prefix]` of a URL or a bare `host:port`; raise BadParameter for anything else."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme == "http" and parts.hostname and 0 < (parts.port or 80) <= _PORTS
    except ValueError:
        valid = None
    if not valid:
        raise click.BadParameter(f"{endpoint!r} is not a URL like http://127.0.0.1:8888", param_hint="--endpoint")
    return url.rstrip("/")


def request(
    method: str, endpoint: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Return status and body of the answer to one request; raise ClickException when there is none."""
    url = base_url(endpoint)
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_S)
    try:
        connection.request(method, f"{parts.path}{path}", body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(
            f"no daemon answers at {url}: {reason}; `ringtail run` starts one, --endpoint names another place"
        ) from error
    except http.client.HTTPException as error:
        raise click.ClickException(
            f"{url} does not speak HTTP; it may be the port of OTLP/gRPC ({type(error).__name__})"
        ) from error
    finally:
        connection.close()
