"""Typed settings: every key, its default, its meaning and its range, in one place.

The dataclasses below are the single source: the loader (`settings.py`) accepts exactly their fields, `ringtail
print-config` prints them, docs/configuration.md is made from them, and a test compares config/collector.yaml.
Sizes are bytes and durations seconds; `quantities.py` reads and writes them.
Names are the OpenTelemetry Collector's wherever it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Literal

from collector.declaration import named, section, sections, setting
from collector.exporters.kinds import NAMING
from collector.exporters.settings import ExporterSettings
from collector.security.rights import RIGHTS
from collector.security.secret import Secret
from collector.security.suites import CIPHER_SUITES

MIB = 1024 * 1024
GIB = 1024 * MIB
TIB = 1024 * GIB
DAY_S = 86_400.0
INCLUDE_METADATA = (
    "As in the Collector: make the headers of requests available to later components. There is none that reads them, so "
    "true is refused."
)
ALLOWED_HOSTS = (
    "Hosts that a request may name, so that no web page reaches this port under a name of its own. Those of loopback "
    "are always allowed; none: only those when bound to loopback, and any when not. * is any."
)


@dataclass(frozen=True, slots=True)
class Tls:
    """receivers.otlp.protocols.{grpc,http}.tls, api.tls and api.grpc.tls"""

    cert_file: str | None = setting(
        None, "path", "The certificate and its chain, in PEM. With it, nothing but TLS is spoken here."
    )
    key_file: str | None = setting(None, "path", "The certificate's private key, in PEM, without a password.")
    client_ca_file: str | None = setting(
        None,
        "path",
        "Certificates of the authorities, in PEM, one of which must have signed each client's certificate.",
    )
    min_version: Literal["1.2", "1.3"] = setting(
        "1.2", "choice", "The oldest version of TLS that is spoken.", choices=("1.2", "1.3")
    )
    max_version: Literal["1.2", "1.3"] = setting(
        "1.3", "choice", "The newest version of TLS that is spoken.", choices=("1.2", "1.3")
    )
    cipher_suites: tuple[str, ...] = setting(
        (), "choice", "Cipher suites of TLS 1.2; none: OpenSSL's choice.", choices=tuple(CIPHER_SUITES), many=True
    )
    reload_interval: float = setting(
        10.0,
        "duration",
        "How often the files are looked at; new connections get what has changed.",
        low=0.1,
        high=86400,
    )


@dataclass(frozen=True, slots=True)
class Access:
    """receivers.otlp.protocols.{grpc,http}.auth, api.auth and api.grpc.auth"""

    enabled: bool = setting(True, "switch", "Ask clients who they are, if auth.credentials has any that count here.")
    credentials: tuple[str, ...] = setting(
        (), "name", "Names of the credentials that count here; none: all of them.", many=True
    )


@dataclass(frozen=True, slots=True)
class Credential:
    """auth.credentials[]: one way to be known, and what it lets do."""

    name: str = setting(MISSING, "name", "What it is called in auth.credentials of a listener, and in logs.")
    rights: tuple[str, ...] = setting(
        MISSING,
        "choice",
        "What its bearer may do: send telemetry, query it and see metrics, change the daemon.",
        choices=tuple(RIGHTS),
        many=True,
    )
    tenants: tuple[str, ...] = setting(
        (), "text", "The tenants that it is for, where tenants are kept apart; none: all of them.", many=True
    )
    tokens: tuple[Secret, ...] = setting((), "secret", "Bearer tokens; several during a rotation.", many=True)
    token_file: str | None = setting(None, "path", "A file with a bearer token a line, which may change.")
    htpasswd_file: str | None = setting(
        None, "path", "A file of users and their passwords for HTTP's basic authentication, by htpasswd -B (bcrypt)."
    )
    users: tuple[str, ...] = setting((), "name", "The users of that file who are meant; none: all of them.", many=True)
    subjects: tuple[str, ...] = setting(
        (),
        "text",
        "Clients' certificates, by common name or alternative name (DNS, URI, e-mail, IP); * is any.",
        many=True,
    )


@dataclass(frozen=True, slots=True)
class Auth:
    """auth"""

    credentials: tuple[Credential, ...] = sections(
        Credential, "Who may do what. As soon as there is one, every listener asks."
    )
    reload_interval: float = setting(
        10.0, "duration", "How often token and password files are looked at.", low=0.1, high=86400
    )


@dataclass(frozen=True, slots=True)
class ServerParameters:
    """receivers.otlp.protocols.grpc.keepalive.server_parameters"""

    max_connection_idle: float = setting(
        0.0,
        "duration",
        "A connection without calls for so long is closed; up to twice that. 0 is never.",
        low=0,
        high=30 * DAY_S,
    )
    max_connection_age: float = setting(
        0.0,
        "duration",
        "A connection so old is closed when its calls are answered, so that a load balancer may choose anew. 0 is never.",
        low=0,
        high=30 * DAY_S,
    )
    max_connection_age_grace: float = setting(
        0.0, "duration", "How long calls may take after that. 0 is as long as they want.", low=0, high=DAY_S
    )
    time: float = setting(
        7200.0, "duration", "A connection from which nothing came for so long is pinged.", low=1, high=30 * DAY_S
    )
    timeout: float = setting(
        20.0, "duration", "A connection that does not answer a ping within that is closed.", low=1, high=3600
    )


@dataclass(frozen=True, slots=True)
class EnforcementPolicy:
    """receivers.otlp.protocols.grpc.keepalive.enforcement_policy"""

    min_time: float = setting(
        10.0,
        "duration",
        "A client that pings more often between its calls is told GOAWAY (ENHANCE_YOUR_CALM). 0 lets all pings pass.",
        low=0,
        high=DAY_S,
    )
    permit_without_stream: bool = setting(True, "switch", "Whether a client may ping while it has no call open.")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """receivers.otlp.protocols.grpc.keepalive"""

    server_parameters: ServerParameters = section(ServerParameters, "When connections are looked after, and closed.")
    enforcement_policy: EnforcementPolicy = section(EnforcementPolicy, "How often clients may ping.")


@dataclass(frozen=True, slots=True)
class Grpc:
    """receivers.otlp.protocols.grpc"""

    endpoint: str = setting("127.0.0.1:4317", "address", "Where OTLP/gRPC is received.")
    max_recv_msg_size_mib: int = setting(
        64, "count", "Largest message, before and after decompression, in MiB.", low=1, high=1024
    )
    max_connections: int = setting(
        4096, "count", "Open connections; one more is told to come again.", low=1, high=1_000_000
    )
    max_concurrent_streams: int = setting(
        256, "count", "Calls at once on one connection; a client's further calls wait on its side.", low=1, high=65535
    )
    keepalive: Keepalive = section(Keepalive, "How long connections live.")
    include_metadata: bool = setting(False, "switch", INCLUDE_METADATA)
    tls: Tls = section(Tls, "TLS, when cert_file is set.")
    auth: Access = section(Access, "Who may send here.")


@dataclass(frozen=True, slots=True)
class Cors:
    """receivers.otlp.protocols.http.cors"""

    allowed_origins: tuple[str, ...] = setting(
        (),
        "origin",
        "Origins of web pages that may send: `https://app.example`, with `*` for any part. None: no page of another origin.",
        many=True,
    )
    allowed_headers: tuple[str, ...] = setting(
        (),
        "header",
        "Headers that such pages may send beside Content-Type and Content-Encoding. `*` is any.",
        many=True,
    )
    max_age: int = setting(
        7200, "count", "Seconds for which a browser may remember the answer to a preflight request.", low=0, high=86400
    )


@dataclass(frozen=True, slots=True)
class Http:
    """receivers.otlp.protocols.http"""

    endpoint: str = setting("127.0.0.1:4318", "address", "Where OTLP/HTTP is received.")
    max_request_body_size: int = setting(
        64 * MIB, "size", "Largest body, before and after decompression.", low=1024, high=1 * GIB
    )
    max_connections: int = setting(
        4096, "count", "Open connections; one more is told to come again.", low=1, high=1_000_000
    )
    read_header_timeout: float = setting(
        10.0, "duration", "How long the head of a request may take, from its first byte.", low=0.1, high=3600
    )
    idle_timeout: float = setting(
        60.0, "duration", "How long a connection may be idle, or a body stand still.", low=0.1, high=86400
    )
    compression_algorithms: tuple[str, ...] = setting(
        ("gzip", "zstd", "deflate", "zlib"),
        "choice",
        "Content encodings that are accepted beside none, which is always.",
        choices=("gzip", "zstd", "deflate", "zlib"),
        many=True,
    )
    cors: Cors = section(Cors, "Requests from web pages.")
    include_metadata: bool = setting(False, "switch", INCLUDE_METADATA)
    traces_url_path: str = setting("/v1/traces", "route", "Where spans are received.")
    metrics_url_path: str = setting("/v1/metrics", "route", "Where metrics are received.")
    logs_url_path: str = setting("/v1/logs", "route", "Where log records are received.")
    allowed_hosts: tuple[str, ...] = setting((), "host", ALLOWED_HOSTS, many=True)
    tls: Tls = section(Tls, "TLS, when cert_file is set.")
    auth: Access = section(Access, "Who may send here.")


@dataclass(frozen=True, slots=True)
class Protocols:
    """receivers.otlp.protocols"""

    grpc: Grpc | None = section(Grpc, "OTLP over gRPC; null switches it off.", optional=True)
    http: Http | None = section(Http, "OTLP over HTTP; null switches it off.", optional=True)


@dataclass(frozen=True, slots=True)
class Otlp:
    """receivers.otlp"""

    protocols: Protocols = section(Protocols, "The transports.")
    max_in_flight_bytes: int = setting(
        128 * MIB,
        "size",
        "Bytes of requests that are being received or made durable; beyond, clients are told to retry.",
        low=1 * MIB,
        high=1 * TIB,
    )


@dataclass(frozen=True, slots=True)
class Receivers:
    """receivers"""

    otlp: Otlp = section(Otlp, "The OTLP receiver.")


@dataclass(frozen=True, slots=True)
class Traces:
    """stores.traces"""

    capacity: int = setting(10_000, "count", "Spans that the ring holds.", low=1, high=100_000_000)
    max_bytes: int = setting(
        64 * MIB, "size", "Bytes that the ring may hold, columns and indexes included.", low=1 * MIB, high=1 * TIB
    )
    max_spans_per_trace: int = setting(
        0,
        "count",
        "Spans of one trace that the ring takes; further ones are rejected. 0 is no limit.",
        low=0,
        high=100_000_000,
    )


@dataclass(frozen=True, slots=True)
class Logs:
    """stores.logs"""

    capacity: int = setting(50_000, "count", "Log records that the ring holds.", low=1, high=100_000_000)
    max_bytes: int = setting(
        64 * MIB, "size", "Bytes that the ring may hold, columns and indexes included.", low=1 * MIB, high=1 * TIB
    )
    keyword_index: bool = setting(
        True,
        "switch",
        "Whether the ring has an index of the words in bodies and in string attributes. Without it, records cost less to "
        "receive and to hold, and a line filter looks at every line.",
    )


@dataclass(frozen=True, slots=True)
class Metrics:
    """stores.metrics"""

    capacity: int = setting(100_000, "count", "Data points that the ring holds.", low=1, high=100_000_000)
    max_bytes: int = setting(
        64 * MIB, "size", "Bytes that the ring may hold, columns and indexes included.", low=1 * MIB, high=1 * TIB
    )


@dataclass(frozen=True, slots=True)
class Stores:
    """stores"""

    traces: Traces = section(Traces, "The ring of spans.")
    logs: Logs = section(Logs, "The ring of log records.")
    metrics: Metrics = section(Metrics, "The ring of data points.")


@dataclass(frozen=True, slots=True)
class Retention:
    """wal.retention"""

    max_bytes: int = setting(
        1 * GIB,
        "size",
        "Bytes of each signal's log; the oldest segments go first. 0 is no limit.",
        low=0,
        high=1024 * TIB,
    )
    max_age: float = setting(
        0.0, "duration", "Age beyond which whole segments are removed. 0 is no limit.", low=0, high=3650 * DAY_S
    )


@dataclass(frozen=True, slots=True)
class Compaction:
    """wal.compaction"""

    enabled: bool = setting(
        True,
        "switch",
        "Rewrite sealed segments in the background, compressed and with key indexes. What was compacted stays so.",
    )


@dataclass(frozen=True, slots=True)
class Wal:
    """wal"""

    enabled: bool = setting(True, "switch", "Keep a write-ahead log; without it the rings are all there is.")
    directory: str = setting("./ringtail-data", "path", "Where the logs lie.")
    sync: Literal["always", "interval", "never"] = setting(
        "always",
        "choice",
        "always: acknowledged means fdatasync'ed. interval: synced every sync_interval; a power cut may cost what "
        "came since. never: synced by the operating system and at the end of a segment.",
        choices=("always", "interval", "never"),
    )
    sync_interval: float = setting(
        1.0, "duration", "How long data may wait for its sync when sync is interval.", low=0.001, high=3600
    )
    segment_bytes: int = setting(64 * MIB, "size", "Size at which a new segment begins.", low=64 * 1024, high=1 * GIB)
    retention: Retention = section(Retention, "When segments are removed.")
    compaction: Compaction = section(Compaction, "How segments become smaller.")


@dataclass(frozen=True, slots=True)
class Memory:
    """memory"""

    limit: str = setting(
        "auto",
        "memory",
        "Memory of the whole process: rings shrink and requests are put off so as to stay inside. A share is of what "
        "the container or the machine has; auto is half of that, at most 1GiB.",
    )


@dataclass(frozen=True, slots=True)
class Tenants:
    """tenants"""

    enabled: bool = setting(
        False,
        "switch",
        "Keep tenants apart, which requests name in X-Scope-OrgID: each has logs, rings and queries of its own.",
    )
    max: int = setting(
        16, "count", "How many tenants there may be; stores.* and wal.retention are for each.", low=1, high=1000
    )


@dataclass(frozen=True, slots=True)
class ApiGrpc:
    """api.grpc"""

    endpoint: str = setting("127.0.0.1:9095", "address", "Where ringtail.v1.QueryService is served.")
    tls: Tls = section(Tls, "TLS, when cert_file is set.")
    auth: Access = section(Access, "Who may ask here.")


@dataclass(frozen=True, slots=True)
class Api:
    """api"""

    endpoint: str = setting("127.0.0.1:8888", "address", "Where queries are answered, and metrics exposed.")
    max_response_size: int = setting(
        64 * MIB,
        "size",
        "Largest answer; a larger one becomes an error that says so. Of traces as JSON, an eighth of it in protobuf.",
        low=64 * 1024,
        high=1 * GIB,
    )
    allowed_hosts: tuple[str, ...] = setting((), "host", ALLOWED_HOSTS, many=True)
    tls: Tls = section(Tls, "TLS, when cert_file is set.")
    auth: Access = section(Access, "Who may ask here.")
    grpc: ApiGrpc | None = section(ApiGrpc, "Queries over gRPC; null switches it off.", optional=True)


@dataclass(frozen=True, slots=True)
class Query:
    """query"""

    timeout: float = setting(30.0, "duration", "How long one query may take.", low=0.01, high=3600)
    threads: int = setting(2, "count", "Queries that run at once.", low=1, high=64)
    backend: str | None = setting(
        None, "text", "The exporter that queries read from what ring and log no longer hold: a backend under exporters."
    )
    backend_timeout: float = setting(
        10.0,
        "duration",
        "How long a query waits for the backend; then it answers with what there is.",
        low=0.01,
        high=3600,
    )
    backend_shared: bool = setting(
        False,
        "switch",
        "Others write to the backend, too: ask it about every time, not only about what is gone from here.",
    )
    max_tails: int = setting(32, "count", "Live tails at a time; one more is told to come again.", low=1, high=256)


@dataclass(frozen=True, slots=True)
class MetricsGenerator:
    """metrics_generator"""

    enabled: bool = setting(
        True, "switch", "Make metrics of spans, by the names that Tempo gives them: Grafana's service map reads them."
    )
    collection_interval: float = setting(
        15.0, "duration", "How often their values are kept, for rates over time.", low=1, high=3600
    )
    max_bytes: int = setting(
        16 * MIB,
        "size",
        "Bytes that their values over time may hold; the oldest go first.",
        low=256 * 1024,
        high=1 * GIB,
    )


@dataclass(frozen=True, slots=True)
class OwnLogs:
    """telemetry.logs"""

    level: str = setting(
        "info", "choice", "The least severe event that is logged.", choices=("debug", "info", "warning", "error")
    )
    format: str = setting("console", "choice", "One line an event: for people, or JSON.", choices=("console", "json"))


@dataclass(frozen=True, slots=True)
class Telemetry:
    """telemetry"""

    logs: OwnLogs = section(OwnLogs, "Ringtail's own logs, on standard error.")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings."""

    receivers: Receivers = section(Receivers, "How data comes in.")
    stores: Stores = section(Stores, "What is kept in memory, for each signal.")
    wal: Wal = section(Wal, "What is kept on disk.")
    memory: Memory = section(Memory, "What the process may hold.")
    tenants: Tenants = section(Tenants, "Whose data is kept apart.")
    api: Api = section(Api, "How data is read.")
    query: Query = section(Query, "Limits of queries.")
    auth: Auth = section(Auth, "Who may do what.")
    exporters: Mapping[str, ExporterSettings] = named(
        NAMING, "Where records are sent on, each under a name: a kind, or KIND/ID."
    )
    telemetry: Telemetry = section(Telemetry, "What Ringtail tells of itself.")
    metrics_generator: MetricsGenerator = section(MetricsGenerator, "Metrics made of spans.")
