"""What PostgreSQL's errors mean for a batch.

The five characters of SQLSTATE decide (PostgreSQL's documentation, appendix A). A message that goes on to logs and
`/api/stats` is the server's primary one: its details and contexts repeat rows.
"""

from __future__ import annotations

from typing import Final

import psycopg

from collector.errors import Permanent, Retryable, RingtailError, Unwelcome

MESSAGE_CHARACTERS_MAX: Final = 300

_PERMANENT: Final = ("22", "23", "21", "54")
"""Data that the server cannot hold, and rows that are larger than it can hold."""
_UNWELCOME: Final = ("0A", "0L", "0P", "26", "28", "2F", "34", "3D", "3F", "42", "44", "P0")
"""Rights, missing databases, schemas and tables, features that this server has not."""
_RETRYABLE: Final = ("23505", "42P06", "42P07", "42710")
"""Exceptions of these: a race with another instance over a name or a key, after which the next attempt finds it there."""

_REFUSALS: Final = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "does not exist",
    "permission denied",
    "certificate",
    "server does not support SSL",
    "is not permitted to log in",
)
"""What libpq tells in words only: a connection that is refused for good has no SQLSTATE there."""


def cause_of(error: psycopg.Error) -> RingtailError:
    """Return the cause that an error of psycopg stands for."""
    state = error.sqlstate
    if state is None:
        return _without_state(error)
    message = f"{state}: {_told(error.diag.message_primary or type(error).__name__)}"
    if state in _RETRYABLE:
        return Retryable(message)
    if state.startswith(_PERMANENT):
        return Permanent(message)
    if state.startswith(_UNWELCOME):
        return Unwelcome(message)
    return Retryable(message)


def _without_state(error: psycopg.Error) -> RingtailError:
    text = str(error)
    if isinstance(error, psycopg.OperationalError) and any(one in text for one in _REFUSALS):
        return Unwelcome(_told(text))
    return Retryable(_told(text) or type(error).__name__)


def _told(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_CHARACTERS_MAX]
