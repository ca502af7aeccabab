"""The daemon: the only place that builds the parts, starts them in order, and stops them in reverse.

Start: lock the data directory, open the logs (which repairs torn tails), refill the rings, then listen. Nothing
listens before everything acknowledged can be read. Stop, on SIGTERM or Ctrl-C: refuse new requests as
unavailable, answer those in flight, sync and close the logs. A second signal exits at once; what was
acknowledged is on the disk all the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from collector import __version__, telemetry
from collector.api.admin import statistics
from collector.api.app import create_app
from collector.clock import SystemClock
from collector.errors import InvalidConfig, Locked, RingtailError, Unavailable
from collector.otlp.signals import SIGNALS, Signal
from collector.query.engine import Engine
from collector.receivers.admission import Admission
from collector.receivers.export import ReceiverMetrics, Receiver
from collector.receivers.grpc import GrpcReceiver
from collector.receivers.http import HttpReceiver
from collector.ring.ring import Ring
from collector.store import Store
from collector.wal.commit import Committer
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.clock import Clock
    from collector.config import Config
