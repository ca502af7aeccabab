"""S1: bodies that inflate to much more than they are. Refused before they are inflated, inside the limit's memory."""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import grpc
import pytest
import zstandard

from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.daemon import Daemon
from tests.hostile.resident import growth

LIMIT = 8 << 20
SLACK = 8 << 20
HUGE = 256 << 20
CASES = 200
SEED = 20261121


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(
        tmp_path_factory.mktemp("bombs"),
        f"receivers.otlp.protocols.http.max_request_body_size={LIMIT}",
        f"receivers.otlp.protocols.grpc.max_recv_msg_size_mib={LIMIT >> 20}",
        "receivers.otlp.max_in_flight_bytes=24MiB",
        "wal.enabled=false",
    ) as made:
        yield made


def zeros(size: int, form: int) -> bytes:
    """Zeros, compressed without ever being whole."""
    packer = zlib.compressobj(9, zlib.DEFLATED, form)
    step = bytes(1 << 20)
    return b"".join(packer.compress(step) for _ in range(size >> 20)) + packer.flush()


def zstd_zeros(size: int, *, told: bool = True) -> bytes:
    """The same as zstd, with or without its length in front."""
    packer = zstandard.ZstdCompressor(level=3, write_content_size=told).compressobj(size if told else -1)
    step = bytes(1 << 20)
    return b"".join(packer.compress(step) for _ in range(size >> 20)) + packer.flush()


BIG = {"gzip": zeros(HUGE, 31), "deflate": zeros(HUGE, 15), "zstd": zstd_zeros(HUGE, told=False)}
OVER = {
    "gzip": zeros(LIMIT + (1 << 20), 31),
    "deflate": zeros(LIMIT + (1 << 20), 15),
    "zstd": zstd_zeros(LIMIT + (1 << 20)),
}
WIDE = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
).compress(bytes(64 << 20))
"""A zstd frame that wants a window of 128 MiB."""


def bomb(chance: Random) -> tuple[str, bytes]:
    """An encoding, and a body in it that is too large, or lies, or both."""
    encoding = chance.choice(("gzip", "gzip", "deflate", "zstd", "zstd"))
    body = chance.choice((BIG, BIG, OVER))[encoding]
    match chance.randrange(6):
        case 0 if encoding == "gzip":  # members that are small each
            body = zeros(1 << 20, 31) * chance.randint(9, 40)
        case 1 if encoding == "gzip":  # a body inside a body
            body = gzip.compress(body)
            return "gzip", body if len(body) > 100 else BIG["gzip"]
        case 2:  # the length at the end lies
            body = body[:-4] + chance.randbytes(4)
        case 3:  # cut short
            body = body[: chance.randint(len(body) // 2, len(body) - 1)]
        case 4:  # damaged inside
            at = chance.randrange(20, len(body))
            body = body[:at] + chance.randbytes(8) + body[at + 8 :]
        case 5 if encoding == "gzip":  # good records in front
            body = gzip.compress(otlp.traces(10)) + body
        case 0 | 1 if encoding == "zstd":
            body = chance.choice((WIDE, zstd_zeros(1 << 20) * 30, zstandard.compress(otlp.traces(10)) + BIG["zstd"]))
    return encoding, body


def test_200_bombs_are_refused_in_bounded_memory(daemon: Daemon) -> None:
    chance = Random(SEED)
    codes: list[int] = []
    for number in range(CASES):
        encoding, body = bomb(chance)
        with growth(daemon) as grown:
            answer = daemon.export("/v1/traces", body, {"Content-Encoding": encoding})
        codes.append(answer.code)
        assert answer.code in (400, 413), (number, answer)
        assert grown.bytes <= LIMIT + SLACK, (number, encoding, len(body))
    assert codes.count(413) > CASES // 2
    assert daemon.stats()["traces"]["records"] == 0


def test_grpc_bombs(daemon: Daemon) -> None:
    with grpc.insecure_channel(daemon.grpc) as channel:
        export = channel.unary_unary(f"/{TRACES.service}/Export")
        with growth(daemon) as grown, pytest.raises(grpc.RpcError) as caught:
            # grpcio inflates only what it sent itself: a message of zeros, over the limit
            export(bytes(LIMIT + 1), compression=grpc.Compression.Gzip, timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert grown.bytes <= LIMIT + SLACK


def test_many_at_once_stay_inside_the_budget(daemon: Daemon) -> None:
    def send(number: int) -> int:
        encoding = ("gzip", "deflate", "zstd")[number % 3]
        return daemon.export("/v1/traces", BIG[encoding], {"Content-Encoding": encoding}).code

    with growth(daemon) as grown, ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(send, range(100)))
    assert set(codes) <= {413, 429, 503}
    assert grown.bytes <= (24 << 20) + SLACK
    assert daemon.export("/v1/traces", otlp.traces(1)).code == 200, "others are served"


@pytest.mark.parametrize("announced", [10**9, 10**12, 2**63, 2**64, 10**30])
def test_gigabytes_that_are_announced_and_not_sent(daemon: Daemon, announced: int) -> None:
    host, _, port = daemon.http.rpartition(":")
    head = f"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: {announced}\r\n\r\n"
    with growth(daemon) as grown, socket.create_connection((host, int(port)), 30) as client:
        client.sendall(head.encode())
        answer = client.recv(4096)
    assert answer.split(b" ")[1] in (b"400", b"413")
    assert grown.bytes < SLACK


def test_a_length_inside_that_is_not_there(daemon: Daemon) -> None:
    """A string of 4 GiB - 1, announced inside a message."""
    body = b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 100
    with growth(daemon) as grown:
        answer = daemon.export("/v1/traces", body)
    assert answer.code == 400
    assert grown.bytes < SLACK
