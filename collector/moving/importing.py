"""Sending what files hold: requests that follow each other are sent as one, up to `BATCH_BYTES`, and count when acknowledged.

A batch that is refused for good is sent again request by request, so that what is refused costs itself; its numbers are
told. A state file says how many requests of the file have been dealt with; whoever goes on reads past them. What was under way when
an import ended is sent again: OTLP knows no repeated request.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zstandard

from collector.errors import Malformed, Permanent, Unavailable
from collector.moving.into import Found, requests, signal_of_name
from collector.moving.out import State, load_state
from collector.moving.streams import FileStream, decompressed
from collector.otlp.scan import BlockBuilder
from collector.wal.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.exporters.base import Rejected
    from collector.otlp.signals import Signal
    from collector.wal.files import Files

    Send = Callable[[Signal, bytes], Rejected | None]

BATCH_BYTES: Final = 1024 * 1024
STATE_EVERY: Final = 16
"""Batches after which the state is written."""
UNREADABLE: Final = (OSError, EOFError, zstandard.ZstdError, zlib.error)
"""What reading a compressed file raises."""


class Counts(msgspec.Struct):
    """What an import has done."""

    records: int = 0
    """Records that were acknowledged."""
    rejected: int = 0
    """Records that the daemon has rejected of requests that it took."""
    bad: int = 0
    """Requests that cannot be read, or were refused."""


class Import:
    """The import of one file."""

    def __init__(
        self,
        path: str,
        signal: Signal | None,
        send: Send,
        files: Files,
        *,
        state_path: str | None = None,
        target: str = "",
        told: Callable[[int, str], None] = lambda _, __: None,
        progress: Callable[[int, int, Counts], None] = lambda _, __, ___: None,
    ) -> None:
        """`told` is given the number of what is bad, and why; `progress` bytes read, bytes of the file, and counts."""
        self.counts = Counts()
        self.resumed = 0
        """Requests that an earlier run has dealt with."""
        self._path = path
        self._signal = signal or signal_of_name(path)
        self._send = send
        self._files = files
        self._state_path = state_path
        self._told = told
        self._progress = progress
        self._request: dict[str, Any] = {"file": path, "target": target}
        self._pending: list[Found] = []
        self._size = 0
        self._batches = 0
        self._dealt = 0

    def run(self) -> Counts:
        """Import it. Raises Malformed, TooLarge, Unwelcome, and Unavailable; then it can be gone on with."""
        try:
            with FileStream(self._files, self._path) as raw:
                self._request["bytes"] = raw.size
                self.resumed = self._dealt = self._begin()
                self._save()
                try:
                    self._all(raw)
                except BaseException:
                    self._save()
                    raise
        except UNREADABLE as error:
            raise Unavailable(f"{self._path} cannot be read: {error}") from error
        return self.counts

    def _all(self, raw: FileStream) -> None:
        at = 0
        try:
            for at, one in enumerate(requests(decompressed(raw), self._signal), 1):
                if at > self.resumed:
                    self._take(one, at)
                    self._progress(raw.position, raw.size, self.counts)
        except UNREADABLE:
            self._sent(at)  # What came before the place where the file breaks off.
            raise
        self._sent(at)
        if self._state_path is not None:
            try:
                self._files.unlink(self._state_path)
            except FileNotFoundError:
                pass  # It was done before there was one.

    def _begin(self) -> int:
        if self._state_path is None:
            return 0
        state = load_state(self._state_path, self._files)
        if state is None:
            return 0
        if state.request != self._request:
            raise Unavailable(f"{self._state_path} is of another import ({state.request}); remove it to begin anew")
        return state.at

    def _save(self) -> None:
        if self._state_path is None:
            return
        try:
            content = msgspec.json.encode(State(self._request, 0, self._dealt, self.counts.records))
            replace_file(self._files, self._state_path, content)
        except OSError as error:
            raise Unavailable(f"{self._state_path} cannot be written: {error}; --state names another place") from error

    def _take(self, one: Found, at: int) -> None:
        if one.signal is None:
            self._bad(one, one.reason)
            return
        if self._pending and (self._pending[0].signal is not one.signal or self._size + len(one.payload) > BATCH_BYTES):
            self._sent(at - 1)
        self._pending.append(one)
        self._size += len(one.payload)

    def _bad(self, one: Found, reason: str) -> None:
        self.counts.bad += 1
        self._told(one.number, reason)

    def _sent(self, at: int) -> None:
        """Send what waits; with it, `at` requests of the file are dealt with."""
        pending, self._pending, self._size = self._pending, [], 0
        if pending:
            try:
                self._one(pending)
            except (Permanent, Malformed):
                for one in pending:
                    try:
                        self._one([one])
                    except (Permanent, Malformed) as error:
                        self._bad(one, str(error))
        self._dealt = at
        self._batches += 1
        if self._batches % STATE_EVERY == 0:
            self._save()

    def _one(self, some: list[Found]) -> None:
        signal = some[0].signal
        assert signal is not None
        payload = b"".join(one.payload for one in some)
        builder = BlockBuilder(signal)
        added = builder.add(payload)
        rejected = self._send(signal, payload)
        refused = rejected.records if rejected is not None else 0
        if rejected is not None and refused:
            self._told(some[0].number, f"{refused} records from here to {some[-1].number}: {rejected.reason}")
        self.counts.rejected += refused
        self.counts.records += added.records + len(added.rejected or ()) - refused
