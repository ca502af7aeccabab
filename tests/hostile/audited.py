"""`python -m tests.hostile.audited run …`: Ringtail, with every path that it opens or changes written to a file.

The file is named by RINGTAIL_TEST_PATHS. Python's audit events stand for system calls: everything here goes through os.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_EVENTS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.listdir",
    "os.scandir",
)

_READS = ("open", "os.listdir", "os.scandir")


def _install(path: str) -> None:
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            changes = event not in _READS or bool(
                event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            names = [one for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
            if event == "open":
                names = names[:1]
            for name in names:
                line = f"{'w' if changes else 'r'} {os.fsdecode(name)!r}\n"
                os.write(out, line.encode(errors="replace"))

    sys.addaudithook(hook)


if __name__ == "__main__":
    _install(os.environ["RINGTAIL_TEST_PATHS"])
    from collector.cli import main

    main()
