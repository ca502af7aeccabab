"""The keys of the exporter `clickhouse`, as the Collector names them where it has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from collector.declaration import headers, section, setting
from collector.errors import Malformed
from collector.exporters.outbound import Endpoint, literal, parse_endpoint, refused
from collector.exporters.settings import (
    DAY_S,
    HOUR_S,
    MIB,
    BatchSettings,
    ClientTls,
    ExporterSettings,
    SendingQueue,
    unreadable,
)
from collector.security.secret import Secret

ENDPOINTS_MAX: Final = 64
SCHEMES: Final = ("http", "https")
PORTS: Final = {"http": 8123, "https": 8443}
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class LargeBatches(BatchSettings):
    """sending_queue.batch of clickhouse: few large inserts."""

    flush_timeout: float = setting(
        1.0, "duration", "How long a record waits for others to be sent with.", low=0, high=HOUR_S
    )
    min_size: int = setting(50_000, "count", "Records that are worth a batch before that.", low=1, high=10_000_000)
    max_size: int = setting(100_000, "count", "Records of one batch, at most.", low=1, high=10_000_000)
    max_bytes: int = setting(
        32 * MIB,
        "size",
        "Bytes of one batch, at most, as protobuf. One record may be larger.",
        low=64 * 1024,
        high=256 * MIB,
    )


@dataclass(frozen=True, slots=True)
class LargeBatchQueue(SendingQueue):
    """sending_queue of clickhouse"""

    batch: BatchSettings = section(LargeBatches, "What is inserted at once: each insert makes a part, or one a day.")


@dataclass(frozen=True, slots=True)
class ClickHouseSettings(ExporterSettings):
    """exporters.clickhouse"""

    endpoint: tuple[str, ...] = setting(
        (),
        "text",
        "http(s)://host:port of ClickHouse's HTTP interface; of several, the next one when one does not answer.",
        many=True,
    )
    username: str = setting("default", "text", "The user.")
    password: Secret | None = setting(None, "password", "The user's password.")
    headers: Mapping[str, Secret] = headers("Sent with every request, for what stands between.")
    tls: ClientTls = section(ClientTls, "How TLS is spoken.")
    allow_link_local: bool = setting(
        False,
        "switch",
        "Connect to link-local addresses, too, and to those where clouds tell machines about themselves.",
    )
    database: str = setting("default", "text", "Where the tables are.")
    traces_table_name: str = setting("otel_traces", "text", "The table of spans.")
    logs_table_name: str = setting("otel_logs", "text", "The table of log records.")
    metrics_table_name: str = setting(
        "otel_metrics", "text", "The tables of data points begin with it: otel_metrics_gauge, …"
    )
    create_schema: bool = setting(
        True, "switch", "Create the database and the tables that are missing. What is there is never altered."
    )
    cluster_name: str = setting(
        "", "text", "The cluster whose servers have the tables (ON CLUSTER); empty for one server."
    )
    table_engine: Literal["MergeTree", "ReplicatedMergeTree", "SharedMergeTree"] = setting(
        "MergeTree",
        "choice",
        "The engine of tables that are created here.",
        choices=("MergeTree", "ReplicatedMergeTree", "SharedMergeTree"),
    )
    distributed: bool = setting(
        False,
        "switch",
        "With cluster_name: the tables are Distributed ones, over NAME_local on each server; traces stay together.",
    )
    ttl: float = setting(
        0.0, "duration", "Tables that are created here forget rows of this age; 0: never.", low=0, high=36500 * DAY_S
    )
    keep_records: bool = setting(
        True,
        "switch",
        "Tables that are created here keep each record's own bytes in two more columns, so that it can be read back as it was "
        "sent. Otherwise attributes come back as texts.",
    )
    compress: Literal["lz4", "zstd", "none"] = setting(
        "lz4", "choice", "Of what is inserted, on its way.", choices=("lz4", "zstd", "none")
    )
    async_insert: bool = setting(
        False, "switch", "Have the server collect inserts of many senders; each is still waited for."
    )
    read_timeout: float = setting(30.0, "duration", "How long a query may be silent.", low=0.1, high=HOUR_S)
    timeout: float = setting(
        60.0, "duration", "How long one attempt to insert a batch may take.", low=0.01, high=HOUR_S
    )
    sending_queue: SendingQueue = section(
        LargeBatchQueue, "How batches are made. The queue itself is the log: wal.retention says how much waits."
    )


def endpoints(settings: ClickHouseSettings) -> list[Endpoint]:
    """Return the endpoints. Raises Malformed."""
    return [parse_endpoint(one, SCHEMES, PORTS) for one in settings.endpoint]


def problems(settings: ClickHouseSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.problems`."""
    if not settings.endpoint:
        yield "endpoint", "is missing: http(s)://host:port of ClickHouse's HTTP interface"
    if len(settings.endpoint) > ENDPOINTS_MAX:
        yield "endpoint", f"there are more than {ENDPOINTS_MAX}"
    for text in settings.endpoint:
        try:
            found = parse_endpoint(text, SCHEMES, PORTS)
        except Malformed as error:
            yield "endpoint", str(error)
            continue
        if literal(found.host) and (reason := refused(found.host, allow_link_local=settings.allow_link_local)):
            yield "endpoint", reason
    names = ("database", "traces_table_name", "logs_table_name", "metrics_table_name")
    for key in (*names, "cluster_name"):
        value = getattr(settings, key)
        if not _IDENTIFIER.fullmatch(value) and (value or key != "cluster_name"):
            yield key, "has letters, digits and underscores, and does not begin with a digit"
    if settings.distributed and not settings.cluster_name:
        yield "distributed", "needs cluster_name"
    if settings.tls.insecure:
        yield "tls.insecure", "is for otlp; here the endpoint says http:// or https://"
    if (settings.tls.cert_file is None) != (settings.tls.key_file is None):
        yield "tls.cert_file", "cert_file and key_file belong together"
    password = "" if settings.password is None else settings.password.reveal()
    if not settings.username.isprintable() or not password.isprintable():
        yield "username", "and password are printable: they are sent as headers"


def obstacles(settings: ClickHouseSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.obstacles`."""
    yield from unreadable(settings.tls)
