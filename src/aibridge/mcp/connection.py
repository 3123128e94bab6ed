"""The connection to one server, which is kept for as long as the gateway runs."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
from mcp import Client, MCPError
from mcp.client.auth import OAuthFlowError
from mcp.client.client import ConnectMode
from mcp.client.subscriptions import SubscriptionLost
from mcp.types import Implementation

from aibridge.http_client.connecting import Connecting
from aibridge.mcp.config import ServerConfig, Timing
from aibridge.mcp.faults import ConnectionEnded, Unavailable, reason
from aibridge.mcp.listing import ListedTool, list_tools
from aibridge.mcp.spans import Starting
from aibridge.mcp.streamable import SESSION_ENDED
from aibridge.mcp.transports import Channel

if TYPE_CHECKING:
    from mcp.client.session import IncomingMessage
    from mcp.shared.dispatcher import Dispatcher
    from mcp.types import CallToolResult

_log = logging.getLogger("aibridge.mcp")

_LONGEST_GOODBYE = 10.0
"""Seconds; longer than it takes to stop a program that does not want to."""

_LEFT = "the gateway has left the server"

_BETWEEN_LISTINGS = 1.0
"""Seconds; a server whose tools change all the time is not listened to more often."""


class Connection:
    """One server: connects, connects again when that fails or ends, knows the tools, makes calls.

    The task groups of the `mcp` package have to be left in the task that entered them, so a task of its own holds the
    session from its beginning to its end; calls are made in tasks that this object owns. A request of the gateway
    only ever waits for those, so it can be cancelled at any moment without being in their way.

    `on_change` is called when `tools` is another; `starting` is told of attempts to connect. `max_answer_size` is in
    bytes.
    """

    def __init__(
        self,
        config: ServerConfig,
        on_change: Callable[[], None],
        starting: Starting,
        *,
        connecting: Connecting,
        timing: Timing,
        max_answer_size: int,
    ) -> None:
        self.tools: tuple[ListedTool, ...] = ()
        """What the server offers now; nothing while it is down."""
        self.error: str | None = None
        """Why the last attempt to connect failed, or the last connection ended; None while connected."""
        self._config = config
        self._on_change = on_change
        self._starting = starting
        self._connecting = connecting
        self._timing = timing
        self._max_answer_size = max_answer_size
        self._keeper: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._client: asyncio.Future[Client] | None = None
        self._closing = False
        self._ended = asyncio.Event()
        self._to_list = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return bool(self._client and self._client.done() and not self._client.exception())

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._await_client()
        self._keeper = asyncio.create_task(self._keep(), name=f"MCP server {self._config.name}")

    async def aclose(self) -> None:
        """End the session and all calls."""
        self._closing = True
        running = {*self._calls, *filter(None, [self._keeper])}
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=_LONGEST_GOODBYE)
        self._refuse_calls(_LEFT)

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool, waiting for a connection that is being made.

        Raises `MCPError` (an error as the server's answer, or no answer), `Unavailable` (there is no connection), and
        whatever the `mcp` package says about an answer that is none. After a fault the server is looked at anew.
        """
        task = asyncio.create_task(self._call(tool, arguments))
        self._calls.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait((task,))
        finally:
            if not task.done():
                task.cancel()
        if task.cancelled():
            raise Unavailable(_LEFT)
        return task.result()

    def look_again(self) -> None:
        """List the tools anew, which also shows whether the server is still there."""
        self._to_list.set()

    async def _call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        try:
            try:
                return await (await self._connected()).call_tool(tool, arguments)
            except MCPError as fault:
                if fault.code != SESSION_ENDED:
                    raise
            # A server that does not know the session has not looked at the call.
            return await (await self._connected()).call_tool(tool, arguments)
        except (aiohttp.ClientError, OAuthFlowError) as fault:
            raise Unavailable(reason(fault)) from fault

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and task.exception():
            self.look_again()

    async def _connected(self) -> Client:
        if self._client is None:
            raise Unavailable("the server has not been started")
        return await asyncio.shield(self._client)

    def _await_client(self) -> None:
        self._client = asyncio.get_running_loop().create_future()

    def _refuse_calls(self, error: str) -> None:
        if self._client is None or self._client.done():
            self._await_client()
        assert self._client
        self._client.set_exception(Unavailable(error))
        self._client.exception()  # it is no fault that nobody waits for it

    async def _keep(self) -> None:
        failures = 0
        mode: ConnectMode = "auto"
        while True:
            channel = self._channel()
            attempt = self._starting.attempt(self._config)
            began = math.inf
            try:
                with anyio.fail_after(self._timing.connect) as limit:
                    async with self._session(channel, mode) as client:
                        attempt.fetching()
                        await self._list(client)
                        attempt.connected(len(self.tools))
                        limit.deadline = math.inf
                        began = anyio.current_time()
                        self._connect(client)
                        await self._live(client)
            except Exception as fault:  # noqa: BLE001  # whatever happens to a server, it is tried again
                error = reason(fault, channel.refused_with)
            attempt.ended(error)
            if self._closing:  # a fault at the same moment takes the place of the cancellation
                return
            if anyio.current_time() - began >= self._timing.stable:
                failures = 0
                self._lost(error)
            else:
                failures += 1
                # A server from before protocol negotiation may hang up on a question that it does not know.
                mode = "auto" if mode == "legacy" or began < math.inf else "legacy"
                await self._rest(error, failures)

    def _session(self, channel: Channel, mode: ConnectMode) -> Client:
        async def connect(resources: AsyncExitStack, *_: object) -> Dispatcher[Any]:
            return await resources.enter_async_context(channel.open())

        client = Client(
            "",
            mode=mode,
            cache=None,
            client_info=Implementation(name="aibridge", version=version("aibridge")),
            message_handler=self._hear,
        )
        client._connect = connect  # it has no parameter for a dispatcher, which it makes of whatever it is given
        return client

    def _channel(self) -> Channel:
        self._ended.clear()
        self._to_list.clear()
        return Channel(
            self._config,
            self._connecting,
            max_answer_size=self._max_answer_size,
            patience=self._timing.list,
            on_end=self._end,
            on_doubt=self.look_again,
        )

    def _end(self) -> None:
        """There is nothing more to come from this session."""
        if not self._ended.is_set():
            self._ended.set()
            self.look_again()
            if self.connected:
                self._await_client()

    def _connect(self, client: Client) -> None:
        assert self._client
        if not self._ended.is_set():
            self._client.set_result(client)
            self.error = None
            _log.info("MCP server %s: connected, %d tools", self._config.name, len(self.tools))

    def _lost(self, error: str) -> None:
        """The connection has ended; the next attempt follows at once, so the tools stay."""
        self.error = error
        if self.connected:
            self._await_client()
        _log.warning("MCP server %s: %s; connecting again", self._config.name, error)

    async def _rest(self, error: str, failures: int) -> None:
        """Wait before the next attempt; in the meantime calls fail, and no tools are offered."""
        longest = min(self._timing.first_retry * 2 ** min(failures - 1, 32), self._timing.longest_retry)
        delay = longest * random.uniform(0.5, 1)  # noqa: S311  # nothing secret
        log = _log.warning if error != self.error else _log.debug
        log("MCP server %s: %s; next attempt in %.1f s", self._config.name, error, delay)
        self.error = error
        self._refuse_calls(error)
        self._publish(())
        await asyncio.sleep(delay)
        self._await_client()

    # While connected

    async def _live(self, client: Client) -> None:
        """Keep the list of tools as the server has it, until the connection ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, client)
            while True:
                with anyio.move_on_after(self._timing.refresh):
                    await self._to_list.wait()
                if self._ended.is_set():
                    raise ConnectionEnded
                self._to_list.clear()
                with anyio.fail_after(self._timing.list):
                    await self._list(client)
                with anyio.move_on_after(_BETWEEN_LISTINGS):
                    await self._ended.wait()

    async def _list(self, client: Client) -> None:
        self._publish(await list_tools(client))

    def _publish(self, tools: tuple[ListedTool, ...]) -> None:
        if tools != self.tools:
            self.tools = tools
            self._on_change()

    async def _hear(self, message: IncomingMessage) -> None:
        """What a server of before protocol version 2026-07-28 says unasked."""
        if getattr(message, "method", None) == "notifications/tools/list_changed":
            self.look_again()

    async def _listen(self, client: Client) -> None:
        """Subscribe to changes, which the protocol wants since version 2026-07-28."""
        tools = client.server_capabilities.tools
        if client.session.discover_result is None or not (tools and tools.list_changed):
            return
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self.look_again()
            except SubscriptionLost:
                pass
            except MCPError:
                return
            self.look_again()
            await anyio.sleep(self._timing.first_retry)
