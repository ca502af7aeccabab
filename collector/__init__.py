"""Ringtail: an OTLP-compatible collector daemon that remembers.

The data's way is the architecture: bytes → block → log → ring → query → answer. Each room imports only
from rooms below it; `docs/architecture.md` walks one request and one query through these files.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ringtail-collector")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
