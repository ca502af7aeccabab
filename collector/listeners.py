"""Every door of the daemon: the ports that receive, and those that answer queries.

    otlp/grpc  otlp/http    receiving; open when the rings are filled
    api        api/grpc     queries; open before, because the logs answer already

What stands at a door is the same for all: TLS that follows its files, a gate that asks clients who they are, hosts that
may be named. Which doors there are, and what is missing at each for the network that it is open to, says exposure.py.

Order: `identify` before anything is opened; `unwatch`, `stop` and `close` at the end. Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from collector.api.access import AccessControl
from collector.api.grpc import QueryListener
from collector.api.server import ApiServer
from collector.exposure import Opening, known_credentials, openings
from collector.otlp.signals import SIGNALS
from collector.quantities import split_address
from collector.receivers.cors import Cors
from collector.receivers.export import Receiver
from collector.receivers.grpc import GrpcReceiver
from collector.receivers.http import HttpReceiver
from collector.receivers.http2.keepalive import Keepalive
from collector.security.gate import Authenticator, Gate
from collector.security.gate import read as read_credentials
from collector.security.hosts import HostGuard
from collector.security.tls import ServerTls, TlsMetrics
from collector.security.watched import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry
    from starlette.types import ASGIApp

    from collector.api.grpc import Served
    from collector.clock import Clock
    from collector.config import Api, Config, Grpc, Http, Protocols
    from collector.config import Keepalive as GrpcKeepalive
    from collector.otlp.signals import Signal
    from collector.query.tails import Tails
    from collector.receivers.admission import Admission
    from collector.receivers.export import Destination, ReceiverMetrics
    from collector.security.credentials import Credential, Known

FIRST_BYTES_TIMEOUT_S: Final = 10.0
"""How long a new gRPC connection may take to begin, and a header block to be whole."""
GRPC_IDLE_TIMEOUT_S: Final = 60.0
"""How long a gRPC message may bring next to nothing, and answers may be left unread."""
MIB: Final = 1024 * 1024


class Listeners:
    """The doors of one daemon."""

    def __init__(
        self, config: Config, admission: Admission, clock: Clock, logger: Any, registry: CollectorRegistry
    ) -> None:
        """Nothing is open yet."""
        self._config = config
        self._admission = admission
        self._clock = clock
        self._logger = logger
        self._registry = registry
        self._openings: dict[str, Opening] = {one.name: one for one in openings(config)}
        self._tls_metrics = TlsMetrics(registry)
        self._authenticator: Authenticator | None = None
        self._intervals: list[Interval] = []
        self._grpc: GrpcReceiver | None = None
        self._http: HttpReceiver | None = None
        self._api: ApiServer | None = None
        self._queries: QueryListener | None = None

    def stats(self) -> dict[str, Any]:
        """Return the listeners' part of `/api/stats`."""
        return {name: one.stats() for name, one in self._openings.items()}

    # Who is asked

    def identify(self) -> None:
        """Read who is known; raise InvalidConfig for what cannot be used."""
        self._authenticator = Authenticator(known_credentials(self._config), self._logger, self._registry)
        self._intervals.append(Interval(self._config.auth.reload_interval, self._authenticator.reload))

    def identified(self, config: Config) -> tuple[list[Credential], Known] | None:
        """Return who would be known by another configuration, for `adopt`; None where clients are asked by one of the
        two configurations only, which takes a restart. Raises InvalidConfig for what cannot be used.
        """
        if not (config.auth.credentials and self._config.auth.credentials):
            return None
        credentials = known_credentials(config)
        return credentials, read_credentials(credentials)

    def adopt(self, credentials: list[Credential], known: Known) -> None:
        """Know from now on who `identified` has returned."""
        if self._authenticator is not None:
            self._authenticator.adopt(credentials, known)

    def limit(self, protocols: Protocols) -> None:
        """Change the limits of the receiving doors that are open, as far as they change while the daemon runs."""
        if self._http is not None and protocols.http is not None:
            self._http.body_bytes_max = protocols.http.max_request_body_size
            self._http.read_header_timeout_s = protocols.http.read_header_timeout
            self._http.idle_timeout_s = protocols.http.idle_timeout
        if self._grpc is not None and protocols.grpc is not None:
            self._grpc.message_bytes_max = protocols.grpc.max_recv_msg_size_mib * MIB

    # Opening; all raise a RingtailError that says why a door cannot be opened

    async def answer(self, api: Api, app: ASGIApp, served: Callable[[str], Served], tails: Tails) -> None:
        """Open the doors for queries: `app` answers over HTTP; over gRPC, what `served` returns for a tenant."""
        guarded = AccessControl(app, self._gate("api"), self._hosts("api", api.allowed_hosts))
        self._api = ApiServer(guarded, self._tls("api", "http/1.1"))
        self._opened("api", await self._api.start(*split_address(api.endpoint)))
        if api.grpc is None:
            return
        self._queries = QueryListener(
            served,
            tails,
            self._admission,
            self._clock,
            self._logger,
            tls=self._tls("api/grpc", "h2", required=True),
            gate=self._gate("api/grpc"),
        )
        self._opened("api/grpc", await self._queries.start(*split_address(api.grpc.endpoint)))

    async def receive(
        self,
        protocols: Protocols,
        finder: Callable[[Signal], Callable[[str], Destination]],
        metrics: ReceiverMetrics,
    ) -> None:
        """Open the doors for records; `finder` returns what finds a signal's destinations by their tenant."""
        if protocols.grpc is not None:
            self._grpc = self._grpc_receiver(
                protocols.grpc, [Receiver(one, "grpc", finder(one), metrics) for one in SIGNALS]
            )
        if protocols.http is not None:
            self._http = self._http_receiver(
                protocols.http, [Receiver(one, "http", finder(one), metrics) for one in SIGNALS]
            )
        if self._grpc is not None and protocols.grpc is not None:
            self._opened("otlp/grpc", await self._grpc.start(*split_address(protocols.grpc.endpoint)))
        if self._http is not None and protocols.http is not None:
            self._opened("otlp/http", await self._http.start(*split_address(protocols.http.endpoint)))

    def _grpc_receiver(self, settings: Grpc, receivers: list[Receiver]) -> GrpcReceiver:
        return GrpcReceiver(
            receivers,
            self._admission,
            self._clock,
            self._logger,
            message_bytes_max=settings.max_recv_msg_size_mib * MIB,
            first_bytes_timeout_s=FIRST_BYTES_TIMEOUT_S,
            idle_timeout_s=GRPC_IDLE_TIMEOUT_S,
            connections_max=settings.max_connections,
            streams_max=settings.max_concurrent_streams,
            keepalive=keepalive(settings.keepalive),
            tls=self._tls("otlp/grpc", "h2", required=True),
            gate=self._gate("otlp/grpc"),
        )

    def _http_receiver(self, settings: Http, receivers: list[Receiver]) -> HttpReceiver:
        return HttpReceiver(
            receivers,
            self._admission,
            self._clock,
            self._logger,
            body_bytes_max=settings.max_request_body_size,
            read_header_timeout_s=settings.read_header_timeout,
            idle_timeout_s=settings.idle_timeout,
            connections_max=settings.max_connections,
            paths={one.name: getattr(settings, f"{one.name}_url_path") for one in SIGNALS},
            compressions=settings.compression_algorithms,
            cors=Cors(settings.cors.allowed_origins, settings.cors.allowed_headers, settings.cors.max_age),
            tls=self._tls("otlp/http", "http/1.1"),
            gate=self._gate("otlp/http"),
            hosts=self._hosts("otlp/http", settings.allowed_hosts),
        )

    def _tls(self, name: str, protocol: str, *, required: bool = False) -> ServerTls | None:
        """Return a listener's TLS, which follows its files."""
        opening = self._openings[name]
        if opening.files is None:
            return None
        made = ServerTls(
            name,
            opening.files,
            self._clock,
            self._logger,
            self._tls_metrics,
            protocol=protocol,
            protocol_required=required,
        )
        self._intervals.append(Interval(opening.tls.reload_interval, made.reload))
        return made

    def _gate(self, name: str) -> Gate | None:
        """Return what asks a listener's clients who they are."""
        opening = self._openings[name]
        if self._authenticator is None or not opening.asked:
            return None
        return self._authenticator.gate(name, opening.access.credentials)

    def _hosts(self, name: str, allowed: tuple[str, ...]) -> HostGuard:
        opening = self._openings[name]
        return HostGuard(allowed, f"{opening.key}.allowed_hosts", is_local=opening.is_local)

    def _opened(self, name: str, port: int) -> None:
        """Tell that a listener is open, and loudly what it lacks for the network that it is open to."""
        opening = self._openings[name]
        address = f"{opening.host}:{port}"
        tls = "mutual" if opening.files and opening.files.client_ca_file else "on" if opening.files else "off"
        auth = "on" if opening.asked else "off"
        self._logger.info("listening", what=name, address=address, tls=tls, authentication=auth)
        for missing in opening.warnings():
            self._logger.warning("open to the network", what=name, address=address, missing=missing)

    # Closing; all safe after a start that failed half-way

    def unwatch(self) -> None:
        """Look at files no more."""
        for interval in self._intervals:
            interval.stop()

    async def stop(self, grace_s: float) -> None:
        """Close the doors; connections without a request in flight may take `grace_s` seconds to end."""
        found = (self._queries, self._http, self._grpc)
        await asyncio.gather(
            *(one.stop(grace_s) for one in found if one is not None),
            *([self._api.stop()] if self._api is not None else []),
        )

    def close(self) -> None:
        """Check nobody any more."""
        if self._authenticator is not None:
            self._authenticator.close()


def keepalive(settings: GrpcKeepalive) -> Keepalive:
    """Return the rules that the settings of a gRPC door's connections mean."""
    server, policy = settings.server_parameters, settings.enforcement_policy
    return Keepalive(
        idle_s=server.max_connection_idle or math.inf,
        age_s=server.max_connection_age or math.inf,
        age_grace_s=server.max_connection_age_grace or math.inf,
        time_s=server.time,
        timeout_s=server.timeout,
        ping_interval_s=policy.min_time,
        idle_pings=policy.permit_without_stream,
    )
