"""ClickHouse's HTTP interface: statements with parameters, inserts, answers as they come, and what its errors mean.

Values of a statement travel as parameters (`{name:Type}`), never within it.

| means | codes |
| --- | --- |
| never, these records | texts, numbers or arrays that the table cannot have, constraints |
| never, so many | limits of rows and bytes |
| nothing, as we are configured | rights, passwords, tables, columns and functions that are missing, read-only users, settings |
| again | all else: too many parts, memory, replicas that are read-only, Keeper, timeouts, and codes that are new |
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from collector.errors import Permanent, Retryable, RingtailError, Unwelcome
from collector.exporters.clickhouse.settings import endpoints
from collector.exporters.otlp.http import HttpClient
from collector.security.watched import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

    from collector.clock import Clock
    from collector.exporters.clickhouse.settings import ClickHouseSettings

MESSAGE_CHARACTERS_MAX: Final = 300
"""Of what a server says that is repeated in logs and figures."""
_ERROR_BYTES_MAX: Final = 16 * 1024
_PERMANENT: Final = frozenset(
    {6, 26, 27, 33, 38, 41, 69, 70, 72, 117, 128, 131, 190, 321, 349, 407, 469}
)  # CANNOT_PARSE_…, CANNOT_READ_ALL_DATA, …OUT_OF_BOUND, CANNOT_CONVERT_TYPE, INCORRECT_DATA, TOO_LARGE_…, VIOLATED_CONSTRAINT
_TOO_LARGE: Final = frozenset({158, 290, 307, 396})  # TOO_MANY_ROWS, LIMIT_EXCEEDED, TOO_MANY_BYTES, …_ROWS_OR_BYTES
_SCHEMA: Final = frozenset({8, 10, 16, 36, 43, 44, 46, 47, 48, 50, 53, 57, 60, 62, 73, 81, 115, 170, 344, 452})
_RIGHTS: Final = frozenset({164, 192, 193, 194, 195, 291, 492, 497, 516})
_CODE: Final = re.compile(r"Code: (\d{1,5})\b")
_STATUS_UNWELCOME: Final = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 407, 415, 501})


class SchemaUnwelcome(Unwelcome):
    """What is missing may be a table or a column: they should be looked at again."""


def cause(status: int, code: str | None, told: str) -> RingtailError:
    """Return what an answer other than 200 means: its status, its X-ClickHouse-Exception-Code, and its beginning."""
    if code is None and (found := _CODE.search(told)):
        code = found[1]
    plain = " ".join(told.split())
    short = plain if len(plain) <= MESSAGE_CHARACTERS_MAX else f"{plain[: MESSAGE_CHARACTERS_MAX - 1]}…"
    if code is not None and code.isdecimal() and len(code) <= 5:
        number = int(code)
        if number in _PERMANENT:
            return Permanent(short)
        if number in _TOO_LARGE:
            return Permanent(short, too_large=True)
        if number in _SCHEMA:
            return SchemaUnwelcome(short)
        return Unwelcome(short) if number in _RIGHTS else Retryable(short)
    if status == 413:
        return Permanent(f"{status}: {short}", too_large=True)
    return Unwelcome(f"{status}: {short}") if status in _STATUS_UNWELCOME else Retryable(f"{status}: {short}")


def escaped(value: str) -> str:
    """Return a String parameter as its text is read."""
    for character, written in _ESCAPES:
        value = value.replace(character, written)
    return value


_ESCAPES: Final = (
    ("\\", "\\\\"),
    ("\t", "\\t"),
    ("\n", "\\n"),
    ("\r", "\\r"),
    ("\0", "\\0"),
    ("\b", "\\b"),
    ("\f", "\\f"),
)


class Client:
    """One exporter's connections to its endpoints: the one that answered last is asked first. Owner: the event loop."""

    def __init__(self, settings: ClickHouseSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        tls = settings.tls
        files = [one for one in (tls.ca_file, tls.cert_file, tls.key_file) if one]
        self._watched = Watched(files) if files else None
        self._look_at = 0.0
        self._http = HttpClient(settings)
        self._bases = [f"{one.scheme}://{one.authority}{one.path}/" for one in endpoints(settings)]
        self._at = 0
        self._headers = {name: value.reveal() for name, value in settings.headers.items()}
        self._headers["X-ClickHouse-User"] = settings.username
        if settings.password is not None:
            self._headers["X-ClickHouse-Key"] = settings.password.reveal()

    async def ask(self, statement: str, parameters: Mapping[str, str], settings: Mapping[str, str]) -> bytes:
        """Run a statement, and return its answer. Raises Retryable, Permanent or Unwelcome."""
        fields = {**settings, **{f"param_{name}": escaped(value) for name, value in parameters.items()}}
        return await self._post(fields, statement.encode(), {})

    async def insert(self, statement: str, body: bytes, encoding: str, settings: Mapping[str, str]) -> None:
        """Run an INSERT whose rows are the body. Raises as `ask`."""
        await self._post({"query": statement, **settings}, body, {"Content-Encoding": encoding} if encoding else {})

    async def _renewed(self) -> None:
        """Have other connections when the files of TLS have changed."""
        now = self._clock.monotonic()
        if self._watched is None or now < self._look_at:
            return
        self._look_at = now + self._settings.tls.reload_interval
        if self._watched.changed():
            await self._http.renew()

    async def _post(self, fields: Mapping[str, str], body: bytes, headers: Mapping[str, str]) -> bytes:
        await self._renewed()
        try:
            status, answered, data = await self._http.post(self._url(fields), body, {**self._headers, **headers})
        except Retryable:
            self._turn()
            raise
        code = answered.get("X-ClickHouse-Exception-Code")
        if status != 200 or code is not None:
            raise cause(status, code, data[:_ERROR_BYTES_MAX].decode("utf-8", "replace"))
        return data

    def _turn(self) -> None:
        self._at = (self._at + 1) % len(self._bases)

    def _url(self, fields: Mapping[str, str]) -> str:
        return f"{self._bases[self._at]}?{urlencode(fields, quote_via=quote, errors='surrogateescape')}"

    @asynccontextmanager
    async def opened(
        self, statement: str, parameters: Mapping[str, str], settings: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Run a statement, and give its answer to read as it comes. Raises as `ask`; what fails on the server meanwhile
        breaks the answer off, which is Retryable."""
        await self._renewed()
        fields = {**settings, **{f"param_{name}": escaped(value) for name, value in parameters.items()}}
        async with self._http.asked(
            self._url(fields), statement.encode(), self._headers, silence_s=self._settings.read_timeout
        ) as answer:
            code = answer.headers.get("X-ClickHouse-Exception-Code")
            if answer.status != 200 or code is not None:
                told = await answer.content.read(_ERROR_BYTES_MAX)
                raise cause(answer.status, code, told.decode("utf-8", "replace"))
            yield answer.content

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()
