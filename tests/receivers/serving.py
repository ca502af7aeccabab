"""Both receivers on real sockets, on an event loop in a thread of its own, so that tests are plain clients."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import uvloop

from collector.receivers.grpc import GrpcReceiver
from tests.receivers.doubles import FakeStore, Receiving

T = TypeVar("T")
MESSAGE_BYTES_MAX = 1 << 20
WAIT_S = 30.0


class Serving:
    """A served process. `receiving` belongs to its loop: touch it through `call` and `wait`."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop) -> None:
        self.loop = new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.receiving = self.call(lambda: Receiving(self.loop))
        self.grpc: GrpcReceiver | None = None
        self.http_port = self.wait(lambda: self.receiving.http.start("127.0.0.1", 0))
        self.grpc_port = 0

    def serve_grpc(self, port: int = 0) -> None:
        """Serve gRPC as well."""
        self.grpc = grpc = self.receiving.grpc
        self.grpc_port = self.wait(lambda: grpc.start("127.0.0.1", port))

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the loop and return its result."""

        async def run() -> T:
            return function()

        return self.wait(run)

    def wait(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Await on the loop and return the result."""

        async def run() -> T:
            return await begin()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(WAIT_S)

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds, which is looked at on the loop."""
        holds: concurrent.futures.Future[None] = concurrent.futures.Future()

        def look() -> None:
            if condition():
                holds.set_result(None)
            else:
                self.loop.call_later(0.001, look)

        self.loop.call_soon_threadsafe(look)
        holds.result(WAIT_S)

    def store(self, name: str = "traces") -> FakeStore:
        """Return a store, with its behaviour reset."""
        store = self.receiving.stores[name]

        def reset() -> None:
            store.holds, store.error, store.rejected, store.message = False, None, 0, ""
            store.payloads.clear()
            store.waiting.clear()

        self.call(reset)
        return store

    def close(self) -> None:
        """Stop everything."""
        self.wait(lambda: self.receiving.http.stop(grace_s=1.0))
        if self.grpc is not None:
            grpc = self.grpc
            self.wait(lambda: grpc.stop(1.0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()
