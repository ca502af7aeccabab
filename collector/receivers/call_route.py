"""What the header block of a gRPC call decides by itself: its method, the message's encoding, and why it may not be served.

As with the heads of HTTP/1 (route.py), nothing here depends on who calls, nor on what changes while the daemon runs:
a decision is made once for equal blocks (http2/fields.py). What speaks against a call is kept as an exception that was
never raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from collector.errors import RingtailError, Unsupported
from collector.receivers.encoding import GRPC_ENCODINGS
from collector.receivers.http2.frames import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.receivers.call import Call
    from collector.receivers.export import Receiver
    from collector.receivers.http2.stream import Fields

_MEDIA_TYPE: Final = b"application/grpc"
_FORMS: Final = (b"", b"+proto")


class Method(Protocol):
    """What a path leads to."""

    receiver: Receiver | None
    """Whose metrics count what is refused."""
    right: int
    """What a client must have the right to, where that is asked; NOBODY if anybody may."""

    def serve(self, call: Call, message: bytes) -> None:
        """Answer a call with this message, now or later: `succeed` or `fail`. What it raises is an answer, too."""
        ...


@dataclass(frozen=True, slots=True)
class CallRoute:
    """The decision on one header block."""

    method: Method | None
    """What serves the call; None when there is a fault."""
    receiver: Receiver | None
    """The method's."""
    encoding: str
    """How the message is compressed, if it is; empty for not."""
    authorization: bytes
    """The Authorization header; of several, the values joined as HTTP says."""
    tenant: str
    """What X-Scope-OrgID says; empty when absent."""
    refusal: bytes
    """The header block that answers what is no gRPC; empty for a call."""
    fault: RingtailError | None
    """Why the call is refused: by `refusal`, or as gRPC to who may call."""


def decide(fields: Fields, methods: Mapping[bytes, Method]) -> CallRoute:
    """Return the route of a call with these header fields."""
    verb = path = content_type = encoding = authorization = tenant = b""
    for name, value in fields:
        if name == b":path":
            path = value
        elif name == b":method":
            verb = value
        elif name == b"content-type":
            content_type = value
        elif name == b"grpc-encoding":
            encoding = value
        elif name == b"authorization":
            authorization = value if not authorization else authorization + b", " + value
        elif name == b"x-scope-orgid":
            tenant = value
    size = len(_MEDIA_TYPE)
    refusal = b""
    method = methods.get(path)
    coding = encoding.decode("latin-1")
    fault = None
    if verb != b"POST":
        refusal = _http_block(405, literal(b"allow", b"POST"))
        fault = Unsupported(f"gRPC calls are POST, not {verb[:20].decode('latin-1')!r}")
    elif content_type[:size] != _MEDIA_TYPE or content_type[size:] not in _FORMS:
        refusal = _http_block(415, b"")
        fault = Unsupported(f"gRPC has the content type application/grpc, not {content_type[:100].decode('latin-1')!r}")
    elif method is None:
        fault = Unsupported(f"there is no method {path[:200].decode('latin-1')!r} here")
    elif coding and coding not in GRPC_ENCODINGS:
        fault = Unsupported(f"grpc-encoding {coding[:100]!r} is not supported")
    return CallRoute(
        method=method,
        receiver=method.receiver if method is not None else None,
        encoding=coding if coding != "identity" else "",
        authorization=authorization,
        tenant=tenant.decode("latin-1"),
        refusal=refusal,
        fault=fault,
    )


def _http_block(code: int, fields: bytes) -> bytes:
    """Return the header block of an answer to what is no gRPC: HTTP's status, by the name's index, 8."""
    return b"\x08\x03" + str(code).encode() + fields
