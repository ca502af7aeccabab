"""Causes of failure, in the words of the rooms that meet them.

Nothing here knows a status code: `otlp/status.py` and `api/app.py` each hold the one table that turns a
cause into gRPC's or HTTP's code. A message is written for the person who reads it at the client: what was
wrong, where, and what would be accepted.
"""

from __future__ import annotations


class RingtailError(Exception):
    """Base of every cause that Ringtail raises on purpose."""


class Malformed(RingtailError):
    """The bytes are not what they claim to be; resending them cannot help."""


class TooLarge(RingtailError):
    """A request is over a size limit; the message names the limit and the key that sets it."""


class Unsupported(RingtailError):
    """A media type, a content encoding, a method or a signal that is not served here."""


class Unauthenticated(RingtailError):
    """The request does not say, or prove, whose it is. `challenges` say what would be accepted, in the form of HTTP's WWW-Authenticate."""

    def __init__(self, message: str, challenges: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.challenges = challenges


class Forbidden(RingtailError):
    """Who asks is known, and may not do this."""


class ForeignHost(RingtailError):
    """The request is for another host, or from a page of another one."""


class Overloaded(RingtailError):
    """No room in the budget now; the same request may succeed after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(RingtailError):
    """The daemon drains, or a log has failed: nothing is acknowledged, the client should resend."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Corrupt(RingtailError):
    """Bytes on disk fail their check. `path` and `position` (bytes) say where, `reason` what."""

    def __init__(self, path: str, position: int, reason: str) -> None:
        super().__init__(f"{path}: at byte {position}: {reason}")
        self.path = path
        self.position = position
        self.reason = reason


class UnsupportedFormat(RingtailError):
    """A file on disk was written by a newer version of the format."""


class Locked(RingtailError):
    """Another daemon owns the directory."""


class InvalidConfig(RingtailError):
    """Configuration mistakes, all of them: `problems` holds one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvalidQuery(RingtailError):
    """A query that cannot be run. `position` is the 0-based character where it goes wrong, if known."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class QueryTimeout(RingtailError):
    """A query reached its time limit before its answer was complete."""


class QueryLimit(RingtailError):
    """A query would exceed a limit on rows, series, samples or bytes; the message names the limit."""


class NotFound(RingtailError):
    """What was asked for is not held, in ring or log."""


class Retryable(RingtailError):
    """A destination did not take a batch, and may take the same one later: it is away, busy, or did not answer in time.

    Whether it has taken some of it is not known. `after_s` is what it asked to wait for, if it did.
    """

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class Permanent(RingtailError):
    """A destination will never take a batch as it is, because of what is in it, and has taken nothing of it.

    `offsets` names the records that are to blame, where that is known. `too_large`: smaller batches may do.
    """

    def __init__(self, message: str, offsets: tuple[int, ...] = (), *, too_large: bool = False) -> None:
        super().__init__(message)
        self.offsets = offsets
        self.too_large = too_large


class Unwelcome(RingtailError):
    """A destination takes nothing at all from us as we are configured: credentials, rights, path, version, schema.

    No batch is to blame, so none is given up: they wait until somebody has changed something there or here.
    """
