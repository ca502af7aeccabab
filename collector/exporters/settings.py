"""Keys that exporters share, under the Collector's names wherever it has one.

An exporter's own settings are a frozen dataclass that inherits `ExporterSettings` and declares more fields with `setting`
and `section` of collector/declaration.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from collector.declaration import section, setting
from collector.errors import Malformed
from collector.otlp.signals import SIGNALS
from collector.security.suites import CIPHER_SUITES
from collector.security.watched import read_bytes

KIB: Final = 1024
MIB: Final = 1024 * KIB
HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class RetryOnFailure:
    """retry_on_failure"""

    enabled: bool = setting(
        True, "switch", "Repeat what failed and may succeed later; false: it goes to the dead letters at once."
    )
    initial_interval: float = setting(
        5.0, "duration", "How long to wait after the first failure.", low=0.001, high=HOUR_S
    )
    randomization_factor: float = setting(
        0.5, "number", "Each wait is longer or shorter by a random share, up to this.", low=0, high=1
    )
    multiplier: float = setting(1.5, "number", "Each wait is so many times as long as the last one.", low=1, high=100)
    max_interval: float = setting(
        30.0, "duration", "No wait is longer, but for what a destination asks.", low=0.001, high=DAY_S
    )
    max_elapsed_time: float = setting(
        0.0,
        "duration",
        "After so long a batch goes to the dead letters. 0, the default, is never: the log keeps what waits. (The Collector, "
        "whose queue is in memory, drops after 5m.)",
        low=0,
        high=365 * DAY_S,
    )


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """sending_queue.batch"""

    flush_timeout: float = setting(
        0.2, "duration", "How long a record waits for others to be sent with.", low=0, high=HOUR_S
    )
    min_size: int = setting(8192, "count", "Records that are worth a batch before that.", low=1, high=10_000_000)
    max_size: int = setting(
        16_384,
        "count",
        "Records of one batch, at most; what was received as one request may be divided.",
        low=1,
        high=10_000_000,
    )
    max_bytes: int = setting(
        3 * MIB + 512 * KIB,
        "size",
        "Bytes of one batch, at most, as protobuf and before compression: the Collector takes 4 MiB by gRPC. One record may "
        "be larger.",
        low=64 * KIB,
        high=256 * MIB,
    )


@dataclass(frozen=True, slots=True)
class SendingQueue:
    """sending_queue"""

    num_consumers: int = setting(
        1,
        "count",
        "Batches of one signal under way at once, where the exporter can do that; with 1 they arrive in order.",
        low=1,
        high=32,
    )
    batch: BatchSettings = section(BatchSettings, "What is sent at once.")


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """dead_letters"""

    max_bytes: int = setting(
        64 * MIB,
        "size",
        "Bytes of each signal's log of records that were refused; the oldest go first.",
        low=1 * MIB,
        high=1024 * 1024 * MIB,
    )


@dataclass(frozen=True, slots=True)
class ExporterSettings:
    """exporters.NAME"""

    signals: tuple[str, ...] = setting(
        tuple(one.name for one in SIGNALS),
        "choice",
        "What is sent there.",
        choices=tuple(one.name for one in SIGNALS),
        many=True,
    )
    start_at: Literal["beginning", "end"] = setting(
        "beginning",
        "choice",
        "Where an exporter begins that has not run before: with what the log has, or with what comes.",
        choices=("beginning", "end"),
    )
    timeout: float = setting(5.0, "duration", "How long one attempt to send a batch may take.", low=0.01, high=HOUR_S)
    retry_on_failure: RetryOnFailure = section(RetryOnFailure, "How failures are repeated.")
    sending_queue: SendingQueue = section(
        SendingQueue, "How batches are made. The queue itself is the log: wal.retention says how much waits."
    )
    dead_letters: DeadLetters = section(DeadLetters, "Where records go that are refused for good.")


@dataclass(frozen=True, slots=True)
class ClientTls:
    """tls of an exporter"""

    insecure: bool = setting(False, "switch", "Plaintext: no TLS at all.")
    ca_file: str | None = setting(
        None, "path", "Certificates of the authorities, in PEM, that sign servers; null: the system's."
    )
    cert_file: str | None = setting(None, "path", "This client's certificate and its chain, in PEM, for mutual TLS.")
    key_file: str | None = setting(None, "path", "That certificate's private key, in PEM, without a password.")
    server_name_override: str | None = setting(
        None, "host", "The name that the server's certificate must be for; null: the endpoint's host."
    )
    min_version: Literal["1.2", "1.3"] = setting(
        "1.2", "choice", "The oldest version of TLS that is spoken.", choices=("1.2", "1.3")
    )
    cipher_suites: tuple[str, ...] = setting(
        (), "choice", "Cipher suites of TLS 1.2; none: OpenSSL's choice.", choices=tuple(CIPHER_SUITES), many=True
    )
    reload_interval: float = setting(
        10.0,
        "duration",
        "How often the files are looked at; new connections get what has changed.",
        low=0.1,
        high=DAY_S,
    )


def unreadable(tls: ClientTls, **others: str | None) -> Iterator[tuple[str, str]]:
    """Yield the keys of files that cannot be read, those of TLS and others by their keys, each with why."""
    paths = {f"tls.{key}": getattr(tls, key) for key in ("ca_file", "cert_file", "key_file")} | others
    for key, path in paths.items():
        if path is not None:
            try:
                read_bytes(path)
            except Malformed as error:
                yield key, str(error)
