"""Whether a call is allowed: the host application's say, asked before each one."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

from aibridge.actor import Actor
from aibridge.mcp.toolbox import InjectedTool

_log = logging.getLogger("aibridge.mcp")

Ask: TypeAlias = Callable[[Actor, InjectedTool, Mapping[str, Any]], "bool | str | Awaitable[bool | str]"]
"""Called with who asks, the tool and its arguments. `True` allows; `False`, or a text that says why, denies."""

Rule: TypeAlias = Literal["allow", "deny"] | Ask

Policy: TypeAlias = Rule | Mapping[str, Rule]
"""One rule for all tools, or one for each by the name under which it is offered; `"*"` is for those without their own.

A tool that has no rule is denied.
"""

DENIED = "the gateway's policy does not allow this call"


class Gatekeeper:
    """Applies a policy. It fails closed: what it can not learn in time, or at all, is denied.

    `time_limit` is in seconds. A callable that is not a coroutine function runs in a thread, as it may block.
    """

    def __init__(self, policy: Policy, time_limit: float = 5.0) -> None:
        self._policy = policy
        self._time_limit = time_limit
        self._threads: ThreadPoolExecutor | None = None

    async def refusal(self, actor: Actor, tool: InjectedTool, arguments: Mapping[str, Any]) -> str | None:
        """Why a call is denied; None where it is allowed."""
        rule = self._rule(tool.offered.name)
        if not callable(rule):
            return None if rule == "allow" else DENIED
        try:
            async with asyncio.timeout(self._time_limit):
                said = await self._ask(rule, actor, tool, arguments)
        except TimeoutError:
            fault: str = f"no answer within {self._time_limit:g} s"
        except Exception as error:  # noqa: BLE001  # it is the host's code, and any fault of it denies
            fault = type(error).__name__
        else:
            return None if said is True else f"{DENIED}: {said}" if isinstance(said, str) and said else DENIED
        _log.error("the policy for the tool %s of the MCP server %s failed: %s", tool.name, tool.server, fault)
        return "the gateway could not decide whether this call is allowed"

    def close(self) -> None:
        """Stop the threads that have nothing to do."""
        if self._threads:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _rule(self, name: str) -> Rule:
        if isinstance(self._policy, Mapping):
            return self._policy.get(name, self._policy.get("*", "deny"))
        return self._policy

    async def _ask(self, ask: Ask, actor: Actor, tool: InjectedTool, arguments: Mapping[str, Any]) -> object:
        if inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(type(ask).__call__):
            said: object = ask(actor, tool, arguments)
        else:
            self._threads = self._threads or ThreadPoolExecutor(4, "aibridge-policy")
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            said = await loop.run_in_executor(self._threads, context.run, ask, actor, tool, arguments)
        return await said if inspect.isawaitable(said) else said
