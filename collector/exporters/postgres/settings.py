"""The keys of the exporter `postgres`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from collector.declaration import section, setting
from collector.errors import Malformed
from collector.exporters.outbound import Endpoint, literal, parse_endpoint, refused
from collector.exporters.settings import DAY_S, HOUR_S, ClientTls, ExporterSettings, unreadable
from collector.security.secret import Secret

PORT: Final = 5432
NAME_BYTES_MAX: Final = 63
"""Bytes of an identifier; PostgreSQL cuts longer ones."""


@dataclass(frozen=True, slots=True)
class PostgresSettings(ExporterSettings):
    """exporters.postgres"""

    endpoint: str = setting(
        "",
        "text",
        "host:port (5432 where none is given), or the directory of the server's Unix socket: /run/postgresql.",
    )
    database: str = setting("ringtail", "text", "The database, which exists, in UTF-8.")
    schema: str = setting(
        "ringtail",
        "text",
        "The schema that the tables are in; it is made if it is not there, and used by nothing else.",
    )
    username: str = setting("ringtail", "text", "The role; it needs CREATE on the database, or owns the schema.")
    password: Secret | None = setting(None, "password", "The role's password.")
    password_file: str | None = setting(
        None, "path", "A file with the password, instead; read again for each new connection."
    )
    tls: ClientTls = section(ClientTls, "How TLS is spoken; the server's certificate and name are always verified.")
    allow_link_local: bool = setting(
        False,
        "switch",
        "Connect to link-local addresses, too, and to those where clouds tell machines about themselves.",
    )
    timeout: float = setting(30.0, "duration", "How long one attempt to write a batch may take.", low=0.01, high=HOUR_S)
    query_timeout: float = setting(
        60.0, "duration", "How long the server may work on one statement of a read.", low=0.01, high=HOUR_S
    )
    max_open_conns: int = setting(
        8, "count", "Connections at once: half of them for writing, half for reading.", low=2, high=256
    )
    conn_max_idle_time: float = setting(
        300.0, "duration", "How long a connection without work is kept.", low=0.1, high=DAY_S
    )
    partitions_ahead: int = setting(
        3, "count", "Days after today whose partitions are made before they are needed.", low=0, high=31
    )
    retention: float = setting(
        0.0,
        "duration",
        "Days older than this are dropped, whole partitions at a time; 0 keeps everything.",
        low=0,
        high=36_500 * DAY_S,
    )


def endpoint_of(settings: PostgresSettings) -> Endpoint | None:
    """Return where the server listens; None for a Unix socket. Raises Malformed."""
    if settings.endpoint.startswith("/"):
        return None
    text = settings.endpoint
    found = parse_endpoint(
        text if _has_port(text) else f"{text}:{PORT}", ("", "postgresql", "postgres"), {"postgresql": PORT}
    )
    if found.path:
        raise Malformed(f"{text!r} is no endpoint: the database has a key of its own")
    return found


def _has_port(text: str) -> bool:
    return "://" in text or text.rpartition("]")[2].count(":") == 1


def postgres_problems(settings: PostgresSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.problems`."""
    if not settings.endpoint:
        yield "endpoint", "is missing: host:port of a PostgreSQL server, or the directory of its socket"
    else:
        try:
            found = endpoint_of(settings)
        except Malformed as error:
            yield "endpoint", str(error)
        else:
            if found is not None and literal(found.host):
                if reason := refused(found.host, allow_link_local=settings.allow_link_local):
                    yield "endpoint", reason
    for key in ("database", "schema", "username"):
        name = getattr(settings, key)
        if not name or "\0" in name or len(name.encode(errors="replace")) > NAME_BYTES_MAX:
            yield key, f"a name has 1 to {NAME_BYTES_MAX} bytes"
    if settings.schema.startswith("pg_") or settings.schema == "information_schema":
        yield "schema", "is PostgreSQL's own"
    if "%" in settings.schema:
        yield "schema", "has no %, which psycopg takes for a place of a parameter, also in a quoted name"
    if settings.password is not None and settings.password_file is not None:
        yield "password_file", "password is set, too"
    if (settings.tls.cert_file is None) != (settings.tls.key_file is None):
        yield "tls.cert_file", "cert_file and key_file belong together"
    if settings.tls.cipher_suites:
        yield "tls.cipher_suites", "are the PostgreSQL library's own"


def postgres_obstacles(settings: PostgresSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.obstacles`."""
    yield from unreadable(settings.tls, password_file=settings.password_file)
