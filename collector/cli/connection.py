"""How commands reach a running daemon: where it is, the options for TLS and authentication, and HTTP requests."""

from __future__ import annotations

import errno
import http.client
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import click

from collector.cli.terminal import escaped

TIMEOUT_S: Final = 10.0
"""How long a daemon may take to connect, and to answer."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read."""
NONSENSE: Final = (ValueError, OverflowError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading an answer raises that is no JSON, too deep, or not of the shape that was expected."""
_PORTS: Final = 65535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OPTIONS: Final = (
    click.option(
        "--token",
        metavar="TOKEN",
        envvar="RINGTAIL_TOKEN",
        help="A bearer token; better by RINGTAIL_TOKEN, because other users see command lines.",
    ),
    click.option(
        "--cacert",
        metavar="FILE",
        envvar="RINGTAIL_CACERT",
        type=click.Path(exists=True, dir_okay=False),
        help="Authorities (PEM) of the daemon's certificate; also by RINGTAIL_CACERT. Without it, the system's.",
    ),
    click.option(
        "--cert",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="This client's certificate (PEM), for mutual TLS.",
    ),
    click.option(
        "--key", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="That certificate's key (PEM)."
    ),
    click.option(
        "--tenant",
        metavar="NAME",
        envvar="RINGTAIL_TENANT",
        help="The tenant, where the daemon keeps several apart; also by RINGTAIL_TENANT.",
    ),
)

at_endpoint = click.option(
    "--endpoint",
    metavar="URL",
    default="http://127.0.0.1:8888",
    show_default=True,
    envvar="RINGTAIL_ENDPOINT",
    help="Where the daemon answers queries; also by RINGTAIL_ENDPOINT.",
)
"""Give a command the option that says where queries are answered."""


class Unreached(click.ClickException):
    """Nobody answered, or not to the end."""


@dataclass(frozen=True, slots=True)
class Client:
    """What a command shows a daemon of itself, and by what it knows the daemon."""

    token: str | None = field(default=None, repr=False)
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    tenant: str | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Self:
        """Take the options of `as_client` out of a command's; raise BadParameter when they do not go together."""
        made = cls(*(options.pop(name) for name in ("token", "cacert", "cert", "key", "tenant")))
        if (made.cert is None) != (made.key is None):
            raise click.BadParameter("--cert and --key belong together", param_hint="--cert")
        return made

    def context(self) -> ssl.SSLContext:
        """Return how TLS is spoken with the daemon; raise ClickException for files that cannot be used."""
        try:
            made = ssl.create_default_context(cafile=self.cacert)
            if self.cert is not None:
                made.load_cert_chain(self.cert, self.key)
        except OSError as error:
            raise click.ClickException(
                f"the files of --cacert, --cert and --key cannot be used: {error.strerror or error}"
            ) from error
        return made

    def headers(self) -> dict[str, str]:
        """Return what goes into every request."""
        found = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return found | ({"X-Scope-OrgID": self.tenant} if self.tenant else {})


def as_client(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a command the options for TLS and authentication; it takes them as one `Client`, its first argument."""

    def run(**options: Any) -> None:
        command(Client.of(options), **options)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    made: Callable[..., Any] = run
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def base_url(endpoint: str) -> str:
    """Return `http[s]://host:port[/prefix]` of a URL or a bare `host:port`; raise BadParameter for anything else."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    try:
        parts = urlsplit(url)
        port = parts.port
        valid = parts.scheme in _DEFAULT_PORTS and parts.hostname and (port is None or 0 < port <= _PORTS)
    except ValueError:
        valid = None
    if not valid:
        raise click.BadParameter(f"{endpoint!r} is not a URL like http://127.0.0.1:8888", param_hint="--endpoint")
    return url.rstrip("/")


@contextmanager
def answer(
    client: Client,
    method: str,
    endpoint: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[http.client.HTTPResponse]:
    """Give the answer to one request, to be read inside; raise Unreached when there is none, or not to its end."""
    url = base_url(endpoint)
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout_s, context=client.context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, f"{parts.path}{path}", body, {**client.headers(), **(headers or {})})
        yield connection.getresponse()
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or (error.reason or str(error)).replace("_", " ").lower()
        raise click.ClickException(f"no TLS with {url}: {reason}; see --cacert, --cert and --key") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unreached(
            f"no daemon answers at {url}: {reason}; `ringtail run` starts one, --endpoint names another place"
        ) from error
    except http.client.HTTPException as error:
        hint = "OTLP/gRPC, or one that speaks TLS (https://)" if parts.scheme == "http" else "OTLP/gRPC"
        raise Unreached(f"{url} does not speak HTTP; it may be the port of {hint} ({type(error).__name__})") from error
    except ValueError as error:
        raise click.ClickException("--token or --tenant holds characters that no header may have") from error
    finally:
        connection.close()


def request(
    client: Client,
    method: str,
    endpoint: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Return status and body of the answer to one request; raise ClickException when there is none."""
    with answer(client, method, endpoint, path, body, headers) as response:
        return response.status, response.read(ANSWER_BYTES_MAX)


def asked(client: Client, endpoint: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the body of the answer to a query; raise ClickException for any answer but 200, with what it says."""
    return _whole(endpoint, *request(client, "GET", endpoint, path, headers=headers))


def asked_if_held(client: Client, endpoint: str, path: str, headers: Mapping[str, str] | None = None) -> bytes | None:
    """Return the same as `asked`; None when the answer is that nothing is held (404)."""
    status, body = request(client, "GET", endpoint, path, headers=headers)
    return None if status == 404 else _whole(endpoint, status, body)


def _whole(endpoint: str, status: int, body: bytes) -> bytes:
    if status != 200:
        raise click.ClickException(told(endpoint, status, body))
    if len(body) == ANSWER_BYTES_MAX:
        raise click.ClickException(f"the answer is larger than {ANSWER_BYTES_MAX} bytes; ask for less")
    return body


@contextmanager
def understood(endpoint: str, path: str, *more: type[Exception]) -> Iterator[None]:
    """Read an answer inside: raise the same ClickException for every kind of nonsense, and for `more` kinds of it."""
    kinds: tuple[type[Exception], ...] = (*NONSENSE, *more, OSError)
    try:
        yield
    except kinds as error:
        # Of a time that no calendar has, datetime says so; all other causes of OSError are the output's.
        if isinstance(error, OSError) and error.errno != errno.EOVERFLOW:
            raise
        where = path.partition("?")[0]
        raise click.ClickException(f"{endpoint} is no Ringtail: it answers {where} with something else") from error


def decoded(endpoint: str, path: str, body: bytes | str) -> Any:
    """Return the JSON of an answer; raise ClickException, as `understood` does, when it is none."""
    with understood(endpoint, path):
        return json.loads(body)


def told(endpoint: str, status: int, body: bytes) -> str:
    """Say on one line what a daemon has answered instead of what was asked for."""
    said = escaped(_reason(body)[:1000].strip()) or "nothing"
    hint = refusal(status)
    return f"{endpoint} answers {status}: {said}" + (f" ({hint})" if hint else "")


def _reason(body: bytes) -> str:
    """Return the text of an error: of Prometheus' envelope what went wrong, of anything else all of it."""
    try:
        error = json.loads(body)["error"]
        if isinstance(error, str):
            return error
    except NONSENSE:
        pass
    return body[:1000].decode("utf-8", "replace")


def refusal(status: int) -> str:
    """Say what an answer of 401 or 403 asks for; empty for any other."""
    if status == 401:
        return "the daemon does not know who asks; see --token (RINGTAIL_TOKEN), or --cert and --key"
    return "these credentials do not include the right to do that" if status == 403 else ""
