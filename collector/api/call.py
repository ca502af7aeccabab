"""A gRPC call that is answered with a stream of messages, as fast as its client takes them.

The next message is made when the one before has left: the client has opened its windows for all of it, and the socket's
buffer has room. So a call holds one message, whatever the answer's size. A client that takes nothing at all is given up
by the connection (`idle_timeout_s`), and one that takes an answer which has an end too slowly after `ANSWER_S`.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from collector.api.standing import Standing
from collector.api.status import grpc_answer
from collector.errors import QueryTimeout, Unavailable
from collector.receivers.call import HEAD_BLOCK, OK_BLOCK, Call, error_block, message
from collector.security.rights import READ

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ANSWER_S: Final = 300.0
"""How long a client may take over an answer that has an end."""


class QueryCall(Call):
    """A call of the query service."""

    __slots__ = ("_begun", "_drained", "_task", "_until")

    def __init__(self, *begun: Any) -> None:
        """Take what a call takes."""
        super().__init__(*begun)
        self._begun = False
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._until = math.inf

    @property
    def tenant(self) -> str:
        """What the client says in X-Scope-OrgID."""
        return self._route.tenant

    @property
    def standing(self) -> Standing:
        """Whether the client may still have an answer that lasts."""
        gate = self._listener.gate
        return Standing(None if gate is None else self._judge, self._connection.peer, self._listener.clock)

    async def _judge(self) -> None:
        """Ask again who sends this; raise what speaks against it."""
        gate, route = self._listener.gate, self._route
        if gate is not None:
            checking = gate.admit(route.authorization, self._connection.peer, READ, route.tenant)
            if checking is not None:
                gate.require(await asyncio.shield(checking), READ, route.tenant)

    @property
    def is_stuck(self) -> bool:
        """Whether something waits for the client to take it."""
        return bool(self.out) or self._connection.blocked

    def answer_with(self, messages: AsyncGenerator[bytes], *, endless: bool = False) -> None:
        """Answer with these messages; what making them raises ends the answer. An endless one ends when the listener
        stops."""
        self.release()
        if not endless:
            self._until = self._listener.clock.monotonic() + ANSWER_S
        self._task = asyncio.ensure_future(self._pump(messages))

    async def _pump(self, messages: AsyncGenerator[bytes]) -> None:
        try:
            async for one in messages:
                await self._put(one)
            self._end(OK_BLOCK)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self._end_as(error)
        finally:
            await messages.aclose()

    async def _put(self, payload: bytes) -> None:
        """Send a message, and wait until it has left."""
        if self._gone:
            return
        self._begin()
        self._connection.send(self, message(payload))
        while self.is_stuck:
            self._drained.clear()
            left = self._until - self._listener.clock.monotonic()
            try:
                async with asyncio.timeout(None if left == math.inf else max(0.0, left)):
                    await self._drained.wait()
            except TimeoutError:
                raise QueryTimeout(f"the answer was not taken within {ANSWER_S:g} s") from None

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._connection.begin(self, HEAD_BLOCK)

    def _end(self, trailers: bytes) -> None:
        if not self._gone:
            self._begin()
            self._gone = True
            self._connection.send(self, b"", trailers)

    def _end_as(self, error: Exception) -> None:
        """End with an error, before or behind messages."""
        found = grpc_answer(error)
        if not self._begun:
            self.fail(found, error)
            return
        if found.outcome == "failed":
            self._listener.logger.error("request failed", transport="grpc", error=repr(error))
        self._end(error_block(found))

    def drained(self) -> None:
        """See `Stream.drained`."""
        self._drained.set()

    def gone(self) -> None:
        """Nobody waits for the answer any more: make no more of it."""
        super().gone()
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        """The listener stops: end what has no end."""
        super().stop()
        if self._task is not None and self._until == math.inf:
            self._task.cancel()
            self._end_as(Unavailable("the daemon is shutting down"))
