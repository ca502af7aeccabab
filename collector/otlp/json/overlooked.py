"""What a request in JSON may have meant that has nothing in it which OTLP knows.

Unknown fields are to be ignored, so `{"resource_spans": […]}` is a valid request of nothing, and its sender would never learn
that nothing was kept. It is answered with a warning that names the keys instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collector.otlp.signals import Signal

TEXT_BYTES_MAX: Final = 1024 * 1024
"""Longer requests are not looked at: what their keys would take is not bounded by the budget."""
_KEYS_SHOWN, _CHARACTERS_SHOWN = 3, 40


def overlooked(signal: Signal, text: bytes | bytearray) -> str:
    """Return a warning about a request that became an empty one; empty when it is one."""
    if len(text) > TEXT_BYTES_MAX:
        return ""
    try:
        keys = list(msgspec.json.decode(text, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, RecursionError):
        return ""
    known = signal.request_type.DESCRIPTOR.fields[0].json_name
    others = [repr(key[:_CHARACTERS_SHOWN]) for key in keys if key != known]
    if not others or known in keys:
        return ""
    shown = ", ".join(others[:_KEYS_SHOWN]) + (", …" if len(others) > _KEYS_SHOWN else "")
    return f"no {signal.noun} were received: the request has {shown}, which OTLP ignores, and not {known!r}"
