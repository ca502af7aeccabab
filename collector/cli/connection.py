"""How commands reach a running daemon: the options for TLS and authentication, and one HTTP request."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import click

TIMEOUT_S: Final = 10.0
"""How long a daemon may take to connect, and to answer."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read."""
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
)


@dataclass(frozen=True, slots=True)
class Client:
    """What a command shows a daemon of itself, and by what it knows the daemon."""

    token: str | None = field(default=None, repr=False)
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Self:
        """Take the options of `as_client` out of a command's; raise BadParameter when they do not go together."""
        made = cls(*(options.pop(name) for name in ("token", "cacert", "cert", "key")))
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
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


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


def request(
    client: Client,
    method: str,
    endpoint: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Return status and body of the answer to one request; raise ClickException when there is none."""
    url = base_url(endpoint)
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=client.context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request(method, f"{parts.path}{path}", body, {**client.headers(), **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or (error.reason or str(error)).replace("_", " ").lower()
        raise click.ClickException(f"no TLS with {url}: {reason}; see --cacert, --cert and --key") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(
            f"no daemon answers at {url}: {reason}; `ringtail run` starts one, --endpoint names another place"
        ) from error
    except http.client.HTTPException as error:
        hint = "OTLP/gRPC, or one that speaks TLS (https://)" if parts.scheme == "http" else "OTLP/gRPC"
        raise click.ClickException(
            f"{url} does not speak HTTP; it may be the port of {hint} ({type(error).__name__})"
        ) from error
    except ValueError as error:
        raise click.ClickException("the token of --token holds characters that no header may have") from error
    finally:
        connection.close()


def refusal(status: int) -> str:
    """Say what an answer of 401 or 403 asks for; empty for any other."""
    if status == 401:
        return "the daemon does not know who asks; see --token (RINGTAIL_TOKEN), or --cert and --key"
    return "these credentials do not include the right to do that" if status == 403 else ""
