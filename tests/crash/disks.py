"""Small disks for tests that run as root: one that is full, one that is read-only, one that loses power.

A test that cannot have one is skipped, and says why; where the machine may not mount, that is all of them.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

FS_IOC_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32), as ext4, xfs and f2fs take it."""
NO_LOG_FLUSH = 2
"""What is in memory is lost, the journal's included, as when the power goes."""


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


def _mount(at: Path, *options: str | Path) -> None:
    """Mount, or skip the test."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    at.mkdir(exist_ok=True)
    try:
        _run("mount", *options, at)
    except OSError as error:
        pytest.skip(f"this machine does not mount: {error}")


@contextmanager
def memory_disk(at: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes, in memory."""
    _mount(at, "-t", "tmpfs", "-o", f"size={size}", "none")
    try:
        yield
    finally:
        _run("umount", at)


class Disk:
    """An ext4 file system in a file, mounted at a directory. A context manager."""

    def __init__(self, image: Path, at: Path, size: int, *options: str) -> None:
        self.at = at
        self._image = image
        self._options = ("-o", ",".join(("loop", *options)))
        with image.open("wb") as file:
            file.truncate(size)
        try:
            _run("mkfs.ext4", "-q", "-m", "0", image)
        except OSError as error:
            pytest.skip(f"no file system can be made: {error}")

    def __enter__(self) -> Self:
        _mount(self.at, *self._options, self._image)
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", self.at)

    def cut(self) -> None:
        """The power goes: nothing that is not on the disk will be, and every call fails from now on."""
        directory = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            pytest.skip(f"this kernel does not cut the power of a file system: {error}")
        finally:
            os.close(directory)

    def power_up(self) -> None:
        """Mount again what a power cut has left; the file system's journal is replayed."""
        _run("umount", self.at)
        _run("mount", *self._options, self._image, self.at)

    def remount(self, mode: str) -> None:
        """Make it `ro` or `rw`."""
        _run("mount", "-o", f"remount,{mode}", self.at)
