"""Where a tenant's records come from: its stores, and what is kept beside their logs for exporters.

In the data directory, or a tenant's: `INSTANCE` (instance.py), `cursors/NAME/SIGNAL.cursor`, `dead-letters/NAME/SIGNAL/`;
a `/` in the name of an exporter becomes `+`. They stay when an exporter is removed from the configuration: should it come
back, it goes on where it was. Without a log there is none of these.

All of it is read and written in threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collector.errors import Unavailable
from collector.exporters import instance
from collector.exporters.dead_letters import DeadLetters, place
from collector.otlp.signals import BY_NAME
from collector.wal.cursor import Cursor, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from collector.clock import Clock
    from collector.exporters.settings import ExporterSettings
    from collector.store import Store
    from collector.wal.files import Files

CURSORS: Final = "cursors"
CURSOR_SUFFIX: Final = ".cursor"


@dataclass(slots=True, eq=False)
class Place:
    """See the module."""

    tenant: str
    directory: str | None
    """None without a log."""
    stores: Mapping[str, Store]
    files: Files
    logger: Any
    instance: str = ""
    """Empty as long as nothing was exported from here: `identify` sets it."""

    def identify(self) -> None:
        """Find out the identity of the place. Where a cursor is ahead of its log, offsets that were exported are going to be
        given out again: then that is a new one, and the cursor is set back to the log's end."""
        if self.instance:
            return
        if self.directory is None:
            self.instance = os.urandom(16).hex()
            return
        identity = instance.read_or_make(self.directory, self.files)
        for path, name in self._cursor_files(self.directory):
            log = self.stores[name].log
            if log is None:
                continue
            opened = Cursor.open(path, BY_NAME[name], start=0, oldest=0, files=self.files, logger=self.logger)
            try:
                if opened.state.position > log.next_offset:
                    self.logger.warning(
                        "the log is older than its cursor",
                        path=path,
                        position=opened.state.position,
                        end=log.next_offset,
                    )
                    identity = instance.renew(self.directory, self.files)
                    opened.put(State(log.next_offset), sync=True)
            finally:
                opened.close()
        self.instance = identity

    def _cursor_files(self, directory: str) -> Iterator[tuple[str, str]]:
        """Yield (path, signal) of all cursors, also of exporters that are not configured now."""
        cursors = os.path.join(directory, CURSORS)
        try:
            for exporter in self.files.listdir(cursors):
                for file in self.files.listdir(os.path.join(cursors, exporter)):
                    name, suffix = os.path.splitext(file)
                    if suffix == CURSOR_SUFFIX and name in BY_NAME:
                        yield os.path.join(cursors, exporter, file), name
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"{cursors} cannot be read: {error}") from error

    def cursor(self, exporter: str, settings: ExporterSettings, signal: str) -> Cursor | None:
        """Open an exporter's cursor; None without a log."""
        log = self.stores[signal].log
        if self.directory is None or log is None:
            return None
        path = os.path.join(self.directory, CURSORS, file_name(exporter), signal + CURSOR_SUFFIX)
        start = log.first_offset if settings.start_at == "beginning" else log.next_offset
        return Cursor.open(
            path, BY_NAME[signal], start=start, oldest=log.first_offset, files=self.files, logger=self.logger
        )

    def dead_letters(self, exporter: str, settings: ExporterSettings, signal: str, clock: Clock) -> DeadLetters | None:
        """Return where records go that an exporter's destination refuses; None without a log."""
        if self.directory is None:
            return None
        return DeadLetters(
            place(self.directory, exporter),
            BY_NAME[signal],
            settings.dead_letters.max_bytes,
            exporter=exporter,
            files=self.files,
            clock=clock,
            logger=self.logger.bind(dead_letters_of=exporter),
        )


def file_name(exporter: str) -> str:
    """Return the name that an exporter's files and directories have."""
    return exporter.replace("/", "+")
