"""Connections to the server: how one is made, how many there are, and what happens to one that fails.

Half of `max_open_conns` is for writing and half for reading, so that neither waits for the other. One that did its work
goes back to the idle ones; one whose work was cancelled, or that the server has left, is closed, and with a lost one all
idle ones go, because they were lost as well. One that was lost while it was idle is replaced before anybody notices.

Names are resolved here, by the rules of outbound.py, and libpq is given the address beside the name, which it verifies the
certificate against. What libpq would take from the environment or from files of the user's is set here, or off.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.waiting import wait_async

from collector.errors import Malformed, Retryable, Unwelcome
from collector.exporters.outbound import CONNECT_S, resolve
from collector.exporters.postgres.answers import cause_of
from collector.exporters.postgres.settings import endpoint_of
from collector.security.watched import read_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor

    from collector.clock import Clock
    from collector.exporters.postgres.settings import PostgresSettings

VERSION_MIN: Final = 140_000
"""Multiranges came with PostgreSQL 14."""
KEEPALIVE: Final = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_SESSION: Final = sql.SQL(
    "SELECT set_config('statement_timeout', %s, false),"
    " set_config('idle_in_transaction_session_timeout', '0', false),"
    " set_config('jit', 'off', false),"
    " set_config('enable_seqscan', 'off', false),"
    " set_config('max_parallel_workers_per_gather', '0', false),"
    " set_config('timezone', 'UTC', false),"
    " set_config('client_connection_check_interval', CASE WHEN version() LIKE '%%linux%%' THEN '2s' ELSE '0' END, false),"
    " set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    "  WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false),"
    " current_setting('server_encoding')"
)
"""Nothing compiled and no workers, which take longer to start than a slice takes. Every search has an index that fits, which
a planner does not believe of BRIN before a partition was analyzed."""
_TLS_VERSIONS: Final = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """One that a cancelled wait closes at once.

    psycopg would ask the server to cancel, and wait up to ten seconds for that; a server that is silent has whoever stops
    or times out wait as long. This way the server finds out by itself: when it sends a
    row, or after two seconds.
    """

    _cancelled = False
    prepared_for = ""
    """The limit that the session has been given, in a transaction that was committed; empty before."""

    async def wait(
        self,
        gen: Any,
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's signature
    ) -> Any:
        """See `psycopg.AsyncConnection.wait`."""
        if self._cancelled:
            raise asyncio.CancelledError
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            self._cancelled = True
            self.pgconn.finish()
            raise


class Connections:
    """See the module."""

    def __init__(self, settings: PostgresSettings, clock: Clock, threads: Executor) -> None:
        self._settings = settings
        self._clock = clock
        self._threads = threads
        self._idle: deque[tuple[float, Connection]] = deque()
        self._open = 0
        self._closed = False
        half = settings.max_open_conns // 2
        self._writing = asyncio.Semaphore(settings.max_open_conns - half)
        self._reading = asyncio.Semaphore(half)
        self.version = 0
        """The server's, as libpq tells it: 150018; 0 before the first connection."""

    @property
    def opened(self) -> int:
        """How many there are."""
        return self._open

    @property
    def idle(self) -> int:
        """How many of them have nothing to do."""
        return len(self._idle)

    def writing(self) -> Any:
        """Return a context that has a connection for writing, in a transaction. Raises Retryable, Permanent, Unwelcome."""
        return self._lent(self._writing, self._settings.timeout)

    def reading(self) -> Any:
        """The same for reading."""
        return self._lent(self._reading, self._settings.query_timeout)

    @asynccontextmanager
    async def _lent(self, room: asyncio.Semaphore, timeout_s: float) -> AsyncIterator[Connection]:
        async with room:
            connection: Connection | None = None
            limit = f"{max(1, round(timeout_s * 1000))}ms"
            try:
                while connection is None:
                    kept = connection = self._kept()
                    if connection is None:
                        connection = await self._connect()
                    try:
                        await self._begin(connection, limit)
                    except psycopg.OperationalError:
                        if kept is None:
                            raise
                        self._finish(connection)  # the server has left it since; so it has the others
                        self._forget()
                        connection = None
                yield connection
                await connection.commit()
                connection.prepared_for = limit
            except psycopg.Error as error:
                await self._after(connection, error)
                raise cause_of(error) from error
            except Exception:
                await self._after(connection, None)
                raise
            except BaseException:  # cancelled, or nobody reads on: what the server is at, nobody knows
                if connection is not None:
                    self._finish(connection)
                raise
            self._keep(connection)

    async def _begin(self, connection: Connection, limit: str) -> None:
        await connection.execute("BEGIN")
        if connection.prepared_for == limit:
            return
        cursor = await connection.execute(_SESSION, (limit,))
        row = await cursor.fetchone()
        if row is None or row[-1] != "UTF8":
            raise Unwelcome(f"the database's encoding is {row[-1] if row else 'unknown'}, and must be UTF8")

    def _kept(self) -> Connection | None:
        """Return the newest of the idle ones, and close those that are too old."""
        now = self._clock.monotonic()
        while self._idle and now - self._idle[0][0] > self._settings.conn_max_idle_time:
            self._finish(self._idle.popleft()[1])
        while self._idle:
            connection = self._idle.pop()[1]
            if not connection.closed:
                return connection
            self._finish(connection)
        return None

    def _keep(self, connection: Connection) -> None:
        if self._closed or connection.closed:
            self._finish(connection)
        else:
            self._idle.append((self._clock.monotonic(), connection))

    async def _after(self, connection: Connection | None, error: psycopg.Error | None) -> None:
        """See to a connection on which something has failed; `error` is the server's, if it is."""
        if connection is None:
            return
        if not connection.closed and (error is None or error.sqlstate is not None):
            try:
                await connection.rollback()
            except psycopg.Error:
                pass
            else:
                connection.prepared_for = ""
                self._keep(connection)
                return
        self._finish(connection)
        self._forget()

    def _forget(self) -> None:
        """Close the idle ones."""
        while self._idle:
            self._finish(self._idle.pop()[1])

    def _finish(self, connection: Connection) -> None:
        self._open -= 1
        connection.pgconn.finish()

    def close(self) -> None:
        """Close the idle ones; those at work close when they are done."""
        self._closed = True
        self._forget()

    async def _connect(self) -> Connection:
        """Make one. Raises Retryable or Unwelcome."""
        if self._closed:
            raise Retryable("stopping")
        parameters = await asyncio.get_running_loop().run_in_executor(self._threads, self._parameters)
        endpoint = endpoint_of(self._settings)
        if endpoint is None:
            return await self._connected({**parameters, "host": self._settings.endpoint, "sslmode": "disable"})
        found = await resolve(endpoint.host, endpoint.port, allow_link_local=self._settings.allow_link_local)
        name = self._settings.tls.server_name_override or endpoint.host
        for number, (_, address) in enumerate(found, 1):
            try:
                return await self._connected(
                    {**parameters, **KEEPALIVE, "host": name, "hostaddr": address, "port": endpoint.port}
                )
            except Retryable:
                if number == len(found):
                    raise
        raise Retryable(f"{endpoint.authority} has no address")

    async def _connected(self, parameters: dict[str, Any]) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await Connection.connect("", prepare_threshold=None, autocommit=True, **parameters)
        except psycopg.Error as error:
            raise cause_of(error) from None  # its context names the password's file, and more
        except TimeoutError as error:
            raise Retryable(f"no connection within {CONNECT_S:g} s") from error
        self._open += 1
        self.version = connection.info.server_version
        if self.version < VERSION_MIN:
            self._finish(connection)
            raise Unwelcome(f"the server's version is {self.version // 10_000}, and must be {VERSION_MIN // 10_000}")
        return connection

    def _parameters(self) -> dict[str, Any]:
        """In a thread: what libpq is told. Raises Unwelcome for files that cannot be read."""
        settings, tls = self._settings, self._settings.tls
        found: dict[str, Any] = {
            "dbname": settings.database,
            "user": settings.username,
            "password": self._password(),
            "passfile": "/dev/null/none",
            "client_encoding": "UTF8",
            "application_name": "ringtail",
            "connect_timeout": round(CONNECT_S),
            "options": "",
            "gssencmode": "disable",
            "target_session_attrs": "any",
        }
        if tls.insecure:
            return {**found, "sslmode": "disable"}
        found |= {
            "sslmode": "verify-full",
            "sslrootcert": tls.ca_file or _system_authorities(),
            "ssl_min_protocol_version": _TLS_VERSIONS[tls.min_version],
        }
        if tls.cert_file is not None:
            return {**found, "sslcert": tls.cert_file, "sslkey": tls.key_file}
        return {**found, "sslcertmode": "disable"}

    def _password(self) -> str:
        settings = self._settings
        if settings.password_file is None:
            return settings.password.reveal() if settings.password is not None else ""
        try:
            return read_bytes(settings.password_file).decode().rstrip("\r\n")
        except (Malformed, UnicodeDecodeError) as error:
            raise Unwelcome(f"password_file: {error}") from error


def _system_authorities() -> str:
    """Return the file of the system's authorities.

    psycopg's wheel has an OpenSSL of its own, whose system is a directory that is nowhere; Python's is the system's.
    """
    return ssl.get_default_verify_paths().cafile or "system"
