"""Ending an exchange before its time: because the client has left, or the gateway stops."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from types import TracebackType

from aibridge.bridge.asgi import Receive

_PATIENCE = 0.05
"""Seconds until a client's leaving is watched for: most exchanges that are whole by then need no watch."""


class Why(Enum):
    """What interrupts an exchange."""

    CLIENT_LEFT = auto()
    SHUTDOWN = auto()


class Interrupted(Exception):
    """The exchange was interrupted."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.name)
        self.why = why


class Watch:
    """While it is entered, interrupts its task when the client leaves or somebody says so: `Interrupted` is raised.

    Its task is the one that makes it.
    """

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._receive = receive
        self._why: Why | None = None
        self._held = False
        self._listening: asyncio.Task[None] | None = None

    def __enter__(self) -> Watch:
        self._timer = self.task.get_loop().call_later(_PATIENCE, self._begin_to_listen)
        return self

    def interrupt(self, why: Why) -> None:
        """End the exchange; the first reason stands."""
        if self._why is None:
            self._why = why
            if not self._held:
                self.task.cancel()

    def hold(self) -> None:
        """Interrupt nothing from now on, while something is done such as writing a record."""
        self._held = True

    def let_go(self) -> None:
        """Interrupt again; also what was to be interrupted meanwhile."""
        self._held = False
        if self._why is not None:
            self.task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._listening:
            self._listening.cancel()
        if self._why is None:
            return
        others = self.task.uncancel()  # somebody else may have cancelled the task as well
        if kind is asyncio.CancelledError and others == 0:
            raise Interrupted(self._why) from None

    def _begin_to_listen(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.interrupt(Why.CLIENT_LEFT)
