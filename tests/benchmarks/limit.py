"""The distance to the limit: a program that only receives, checksums, writes and syncs OTLP/HTTP requests.

`python -m tests.benchmarks.limit FILE` listens on a port of the operating system's choice, prints it, and answers every
POST when its body is on the disk. It parses no body, indexes nothing and bounds nothing: what a collector in Python
cannot go below. What it does do, it does as well as Ringtail: bodies are read straight into aligned memory, those that
are complete at the same moment share one write, past the page cache over blocks that are there already, which is the
sync, too.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import sys

import google_crc32c

FILE_BYTES = 256 * 1024 * 1024
STAGE_BYTES = 16 * 1024 * 1024
BLOCK_BYTES = 4096
HEAD_BYTES_MAX = 4096
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


class Client:
    """One connection: what came of its request."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.head = b""
        self.body = bytearray()
        self.filled = 0

    def receive(self) -> bool | None:
        """Read what is there; tell whether a body is complete, or None when the client has gone."""
        try:
            if self.body:
                count = self.socket.recv_into(memoryview(self.body)[self.filled :])
                if not count:
                    return None
                self.filled += count
            else:
                data = self.socket.recv(HEAD_BYTES_MAX)
                if not data:
                    return None
                head, end, rest = (self.head + data).partition(b"\r\n\r\n")
                if not end:
                    self.head = head
                    return False
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                self.head = b""
                self.body = bytearray(length)
                self.body[: len(rest)] = rest
                self.filled = len(rest)
        except BlockingIOError:
            return False
        return self.filled == len(self.body)


def main() -> None:
    """Serve until the process is ended."""
    handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    stage = mmap.mmap(-1, STAGE_BYTES)
    room = memoryview(stage)
    for position in range(0, FILE_BYTES, STAGE_BYTES):
        os.pwrite(handle, room, position)
    os.fsync(handle)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    clients: dict[int, Client] = {}
    print(listening.getsockname()[1], flush=True)
    position = 0
    while True:
        complete: list[Client] = []
        at = 0
        for number, _ in poll.poll():
            if number == listening.fileno():
                connection, _ = listening.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[connection.fileno()] = Client(connection)
                poll.register(connection, select.EPOLLIN)
                continue
            client = clients[number]
            came = client.receive()
            if came is None:
                poll.unregister(client.socket)
                clients.pop(number).socket.close()
            elif came:
                body = bytes(client.body)
                google_crc32c.value(body)
                room[at : at + len(body)] = body
                at += len(body)
                client.body = bytearray()
                complete.append(client)
        if complete:
            length = -(-at // BLOCK_BYTES) * BLOCK_BYTES
            if position + length > FILE_BYTES:
                position = 0
            os.pwritev(handle, [room[:length]], position, os.RWF_DSYNC)
            position += length
            for client in complete:
                client.socket.sendall(ANSWER)


if __name__ == "__main__":
    main()
