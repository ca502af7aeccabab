"""TLS of a listener: contexts that follow their files, and an account of handshakes.

A listener is given one `ServerTls` for its whole life. It is an `ssl.SSLContext` that holds no certificate itself: each
new connection is wrapped by the newest context that was made of the files. So a new certificate needs neither a restart
nor a connection's end: those that are open keep the context that they began with. Contexts are made whole and
then swapped, because one that is changed in place can be left with a certificate and no key to it, and never forgets
an authority.

Files that do not fit (half-written, a key of another certificate) change nothing: the context in use stays, the reason
is logged and counted, and the next change is tried again.

Handshakes end in `HANDSHAKE_TIMEOUT_S`, and there are at most `HANDSHAKES_MAX` at a time: before its end a connection
is not the listener's yet, so its limits do not hold there. Each is counted by what came of it:

    success       it is a connection
    plaintext     the client does not speak TLS
    certificate   the client's certificate is missing, or not one of the authorities'
    protocol      no common version, cipher or application protocol, or bytes that make no sense
    incomplete    the client has gone, or was silent until the time was over
    overloaded    there were too many at once

Left out: revocation lists, renegotiation, passwords of keys, and more than one certificate for a listener.
"""

from __future__ import annotations

import math
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from prometheus_client import Counter, Gauge

from collector.errors import InvalidConfig, Malformed
from collector.security.suites import CIPHER_SUITES
from collector.security.validity import expiry, outdated
from collector.security.watched import Watched, read_bytes

if TYPE_CHECKING:
    import asyncio

    from prometheus_client import CollectorRegistry

    from collector.clock import Clock

HANDSHAKE_TIMEOUT_S: Final = 10.0
SHUTDOWN_TIMEOUT_S: Final = 0.5
"""How long a client may take to confirm a connection's end, which many never do."""
HANDSHAKES_MAX: Final = 512
"""Handshakes of one listener at a time; further connections are cut."""
LOGGED_EVERY_S: Final = 1.0
"""A listener logs one failed handshake in this time."""
OUTCOMES: Final = ("success", "plaintext", "certificate", "protocol", "incomplete", "overloaded")

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_PLAINTEXT: Final = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL"})
_CERTIFICATE: Final = frozenset({"PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"})
_NAME_KINDS: Final = frozenset({"DNS", "URI", "email", "IP Address"})


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a context is made of. Paths are of PEM files."""

    key: str
    """The configuration's name of this group, for messages."""
    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    min_version: str = "1.2"
    max_version: str = "1.3"
    cipher_suites: tuple[str, ...] = ()


class TlsMetrics:
    """What all listeners count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.handshakes = Counter(
            "ringtail_tls_handshakes",
            f"TLS handshakes, by outcome: {', '.join(OUTCOMES)}.",
            ("listener", "outcome"),
            registry=registry,
        )
        self.reloads = Counter(
            "ringtail_tls_reloads",
            "Changes of certificate files: success took effect, failure left the old ones in use.",
            ("listener", "outcome"),
            registry=registry,
        )

        self.expiry = Gauge(
            "ringtail_tls_certificate_expiry_seconds",
            "When the first of a listener's certificates expires, in Unix time.",
            ("listener",),
            registry=registry,
        )


class _Refused(ssl.SSLError):
    """A handshake that TLS allows and this listener does not."""


class _Handshake(ssl.SSLObject):
    """A connection's TLS, which tells how its handshake ends."""

    server: ServerTls | None = None
    number = 0

    def __del__(self) -> None:
        # The connection is gone, which nobody else is told of before the handshake's end.
        if self.server is not None:
            self.server.abandoned(self.number)

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        server = self.server
        assert server is not None
        try:
            super().do_handshake()
            if server.protocol_required and self.selected_alpn_protocol() != server.application_protocol:
                raise _Refused(1, f"the client did not agree to {server.application_protocol} (ALPN)")
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            server.failed(self.number, error)
            raise
        server.succeeded(self.number)


class _Context(ssl.SSLContext):
    """A context made of files; connections keep the one that they began with."""

    sslobject_class = _Handshake


class ServerTls(ssl.SSLContext):
    """What the event loop is given as a listener's context; see the module. Owned by the event loop's thread."""

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Self:
        """Make one; what it takes is for `__init__`."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(
        self,
        listener: str,
        files: TlsFiles,
        clock: Clock,
        logger: Any,
        metrics: TlsMetrics,
        *,
        protocol: str,
        protocol_required: bool = False,
    ) -> None:
        """Load the files; raise InvalidConfig when they do not fit. `protocol` is the one that ALPN offers."""
        self.listener = listener
        self.files = files
        self.application_protocol = protocol
        self.protocol_required = protocol_required
        self._clock = clock
        self._logger = logger
        self._handshakes = {outcome: metrics.handshakes.labels(listener, outcome) for outcome in OUTCOMES}
        self._expiry = metrics.expiry.labels(listener)
        self._reloads = {outcome: metrics.reloads.labels(listener, outcome) for outcome in ("success", "failure")}
        self._pending: set[int] = set()  # handshakes under way
        self._begun = 0
        self._logged_at = float("-inf")
        self._watched = Watched([one for one in (files.cert_file, files.key_file, files.client_ca_file) if one])
        self._watched.changed()
        self._current = load_context(files, protocol)
        self._tell_dates()

    def reload(self) -> None:
        """Make a new context if the files have changed; the old one stays when that fails."""
        if not self._watched.changed():
            return
        try:
            self._current = load_context(self.files, self.application_protocol)
        except InvalidConfig as error:
            self._reloads["failure"].inc()
            self._logger.error("certificate not reloaded, the old one stays", listener=self.listener, reason=str(error))
        else:
            self._reloads["success"].inc()
            self._logger.info("certificate reloaded", listener=self.listener, path=self.files.cert_file)
            self._tell_dates()

    def _tell_dates(self) -> None:
        self._expiry.set(expiry(self.files.cert_file))
        for one in outdated_files(self.files, self._clock):
            self._logger.warning("certificate is not valid now", listener=self.listener, reason=one)

    # The arguments are those of ssl.SSLContext.
    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **keywords: Any
    ) -> ssl.SSLObject:
        """Wrap a new connection by the newest context; raise ConnectionRefusedError when there are too many."""
        if len(self._pending) >= HANDSHAKES_MAX:
            self._handshakes["overloaded"].inc()
            raise ConnectionRefusedError(f"there are {HANDSHAKES_MAX} handshakes, which is the limit")
        made = self._current.wrap_bio(incoming, outgoing, *arguments, **keywords)
        assert isinstance(made, _Handshake)
        self._begun += 1
        made.server, made.number = self, self._begun
        self._pending.add(self._begun)
        return made

    def succeeded(self, number: int) -> None:
        """A handshake has ended as it should."""
        self._pending.discard(number)
        self._handshakes["success"].inc()

    def abandoned(self, number: int) -> None:
        """A connection is gone; before the end of its handshake, if that is still under way."""
        if number in self._pending:
            self._pending.discard(number)
            self._handshakes["incomplete"].inc()

    def failed(self, number: int, error: ssl.SSLError) -> None:
        """A handshake has failed."""
        self._pending.discard(number)
        reason = getattr(error, "reason", None) or ""
        outcome = "plaintext" if reason in _PLAINTEXT else "certificate" if reason in _CERTIFICATE else "protocol"
        self._handshakes[outcome].inc()
        now = self._clock.monotonic()
        if now >= self._logged_at + LOGGED_EVERY_S:
            self._logged_at = now
            detail = getattr(error, "verify_message", None) or reason.replace("_", " ").lower() or str(error.args[-1])
            self._logger.info("TLS handshake failed", listener=self.listener, outcome=outcome, reason=detail)


def load_context(files: TlsFiles, protocol: str = "") -> _Context:
    """Make a context of files; raise InvalidConfig when they cannot be read or do not fit each other.

    `protocol` is what ALPN offers, if anything.
    """
    made = _Context(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = _VERSIONS[files.min_version]
    made.maximum_version = _VERSIONS[files.max_version]
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if protocol:
        made.set_alpn_protocols([protocol])
    if files.cipher_suites:
        made.set_ciphers(":".join(CIPHER_SUITES[one] for one in files.cipher_suites))
    # OpenSSL does not tell which file it could not read.
    paths = {"cert_file": files.cert_file, "key_file": files.key_file, "client_ca_file": files.client_ca_file}
    unreadable = {name: reason for name, path in paths.items() if (reason := _unreadable(path))}
    problems = [f"{files.key}.{name}: {reason}" for name, reason in unreadable.items()]
    try:
        if not unreadable.keys() & {"cert_file", "key_file"}:
            made.load_cert_chain(files.cert_file, files.key_file, _no_password)
    except OSError as error:
        problems.append(f"{files.key}.cert_file, key_file: {files.cert_file}, {files.key_file}: {_cause(error)}")
    if files.client_ca_file and "client_ca_file" not in unreadable:
        try:
            made.load_verify_locations(files.client_ca_file)
        except OSError as error:
            problems.append(f"{files.key}.client_ca_file: {files.client_ca_file}: {_cause(error)}")
        made.verify_mode = ssl.CERT_REQUIRED
    if problems:
        raise InvalidConfig(problems)
    return made


def outdated_files(files: TlsFiles, clock: Clock) -> list[str]:
    """Say which of a listener's certificates have expired, or are not valid yet: clients refuse those."""
    now_s = clock.now_ns() / 1e9
    named = (("cert_file", files.cert_file), ("client_ca_file", files.client_ca_file))
    found = [(name, outdated(path, now_s)) for name, path in named if path]
    return [f"{files.key}.{name}: {text}" for name, text in found if text]


def _unreadable(path: str | None) -> str:
    """Say why a file, if there is to be one, cannot be read; empty when it can."""
    try:
        if path is not None:
            read_bytes(path)
    except Malformed as error:
        return str(error)
    return ""


def _no_password() -> str:
    # Without this, OpenSSL would ask for it at the terminal.
    raise PermissionError(0, "the key has a password, which Ringtail cannot enter")


def _cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        known = {
            "KEY_VALUES_MISMATCH": "the key is not the certificate's",
            "NO_CERTIFICATE_OR_CRL_FOUND": "holds no certificate in PEM",
            "NO_START_LINE": "holds nothing in PEM",
        }
        return known.get(reason, f"not valid PEM ({reason.replace('_', ' ').lower() or 'OpenSSL cannot read it'})")
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


class Peer(frozenset[str]):
    """The names in a client's verified certificate; empty without one."""

    ends_s = math.inf
    """When the certificate ends, in Unix seconds."""


def peer_names(transport: asyncio.BaseTransport) -> Peer:
    """Return the names in a client's certificate: common names and alternative names."""
    connection: Any = transport.get_extra_info("ssl_object")
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return Peer()
    names = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    names |= {value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAME_KINDS}
    peer = Peer(names)
    peer.ends_s = ssl.cert_time_to_seconds(certificate["notAfter"])
    return peer
