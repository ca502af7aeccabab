"""A secret value of a setting: it is compared and revealed, and never printed.

`str`, `repr`, `format` and everything built on them (logs, tracebacks, f-strings, dataclasses) show `REDACTED`. So does
`ringtail print-config`, unless the secret was written as a reference to an environment variable, which says no more
than the file does.
"""

from __future__ import annotations

import hmac
from typing import Final

REDACTED: Final = "[REDACTED]"


class Secret:
    """A text that only `reveal` tells."""

    __slots__ = ("_reference", "_value")

    def __init__(self, value: str, reference: str = "") -> None:
        """Hide `value`; `reference` is the `${env:NAME}` that it was written as, if it was."""
        self._value = value
        self._reference = reference

    def reveal(self) -> str:
        """Return the secret itself, to compare something with or to hash."""
        return self._value

    @property
    def shown(self) -> str:
        """What a configuration file that is shown to people has in its place."""
        return self._reference or REDACTED

    def __repr__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
