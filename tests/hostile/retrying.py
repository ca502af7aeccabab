"""Exporters that try again, as applications and Collectors have them, each with log records that carry a number.

They send small batches at a steady rate and note which of them they were told are exported. `python_sdk` are the official
exporters for Python, `go_style` keeps to the rules of the Collector's otlphttp and otlp exporters; the ones for Node are
in tests/e2e/node/retry.mjs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from collector.otlp.signals import LOGS
from tests.hostile.actor import Target, ready
from tests.hostile.exporters import Exporter, GrpcExporter, HttpExporter, nap
from tests.hostile.wire import LOST

BATCH = 20
INTERVAL_S = 0.5
"""Records of a batch, and from the begin of one to the begin of the next."""
FIRST_BACKOFF_S, BACKOFF_TIMES, BACKOFF_MAX_S, SPREAD = 5.0, 1.5, 30.0, 0.5
"""The Collector's retry_on_failure, by its defaults."""
GRPC_RETRYABLE = {1, 4, 10, 11, 14, 15}
"""CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS; RESOURCE_EXHAUSTED with RetryInfo only."""


async def python_sdk(target: Target, protocol: str = "http", service: str = "python") -> dict[str, Any]:
    """Export through the official Python exporters."""
    logging.disable(logging.CRITICAL)
    made: Any = (
        GrpcLogs(endpoint=target.grpc, insecure=True)
        if protocol == "grpc"
        else HttpLogs(endpoint=f"http://{target.http}/v1/logs")
    )
    seen = InMemoryLogRecordExporter()
    provider = LoggerProvider(Resource({"service.name": service}), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(seen))
    logger = provider.get_logger("hostile")
    exported: list[int] = []
    given_up: list[float] = []
    sent = 0
    ready()
    while not target.until.is_set():
        begun = time.monotonic()
        seen.clear()
        for i in range(BATCH):
            logger.emit(body=str(sent + i), timestamp=time.time_ns())
        result = await asyncio.to_thread(made.export, seen.get_finished_logs())
        if result is LogRecordExportResult.SUCCESS:
            exported += range(sent, sent + BATCH)
        else:
            given_up.append(round(time.monotonic() - begun, 1))
        sent += BATCH
        await nap(target.until, max(0.0, begun + INTERVAL_S - time.monotonic()))
    made.shutdown()
    return _result(service, sent, exported, given_up)


async def go_style(
    target: Target, protocol: str = "http", service: str = "go", first_backoff_s: float = FIRST_BACKOFF_S
) -> dict[str, Any]:
    """Export by the rules of the Collector's exporters: each batch until it is taken, or its time is over."""
    exporter: Exporter = GrpcExporter(target.grpc) if protocol == "grpc" else HttpExporter(target.http)
    exported: list[int] = []
    given_up: list[float] = []
    tries: Counter[str] = Counter()
    under_way: set[asyncio.Task[None]] = set()

    async def deliver(numbers: range) -> None:
        payload = _request(service, numbers)
        backoff = first_backoff_s
        begun = time.monotonic()
        while True:
            reply = await exporter.export(LOGS, payload)
            tries[reply.code] += 1
            if reply.ok:
                exported.extend(numbers)
                return
            kind, _, number = reply.code.rpartition(" ")
            retryable = reply.code == LOST or reply.code.startswith("reset ")
            if not retryable and kind == "grpc":
                retryable = int(number) in GRPC_RETRYABLE or (int(number) == 8 and reply.retry_after_s is not None)
            elif not retryable:
                retryable = int(number) in (429, 502, 503, 504)
            if not retryable:
                given_up.append(round(time.monotonic() - begun, 1))
                return
            wait = backoff * random.uniform(1 - SPREAD, 1 + SPREAD)
            await asyncio.sleep(max(wait, reply.retry_after_s or 0.0))
            backoff = min(backoff * BACKOFF_TIMES, BACKOFF_MAX_S)

    ready()
    sent = 0
    while not target.until.is_set():
        begun = time.monotonic()
        if protocol == "grpc" or not under_way:
            task = asyncio.create_task(deliver(range(sent, sent + BATCH)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += BATCH
        await nap(target.until, max(0.0, begun + INTERVAL_S - time.monotonic()))
    # The overload is over: what waits may still be sent, within its own retry time.
    if under_way:
        await asyncio.wait(under_way, timeout=45)
    return _result(service, sent, exported, given_up) | {"tries": dict(tries), "waiting": len(under_way)}


def _request(service: str, numbers: range) -> bytes:
    request = ExportLogsServiceRequest()
    envelope = request.resource_logs.add()
    envelope.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
    records = envelope.scope_logs.add().log_records
    for number in numbers:
        records.add(time_unix_nano=time.time_ns(), body=AnyValue(string_value=str(number)))
    return request.SerializeToString()


def _result(service: str, sent: int, exported: list[int], given_up: list[float]) -> dict[str, Any]:
    return {
        "service": service,
        "sent": sent,
        "exported": exported,
        "given_up_after_s": given_up,
        "records": {LOGS.name: len(exported)},
        "unread": {LOGS.name: sent - len(exported)},
    }
