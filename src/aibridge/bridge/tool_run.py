"""Running injected tools between the turns of one interception."""

from __future__ import annotations

import asyncio
from time import perf_counter

from aibridge.actor import Actor
from aibridge.bridge.facts import Facts
from aibridge.mcp.toolbox import Catalogue, Outcome, Toolbox
from aibridge.wire.dialect import ToolCall, Turn
from aibridge.wire.merged.merge import Answered, Merge
from aibridge.wire.tools import ToolResult, failure


class ToolRun:
    """The inner loop's tools: which there are for this request, how often the model may ask, and running its calls."""

    def __init__(
        self, merge: Merge, catalogue: Catalogue, toolbox: Toolbox, actor: Actor, facts: Facts, max_turns: int
    ) -> None:
        self.merge = merge
        self.goes_on = True
        """Another turn follows the calls that ran last."""
        self._catalogue, self._toolbox, self._actor, self._facts = catalogue, toolbox, actor, facts
        self._turns_left = max_turns

    def begin_turn(self) -> bytes:
        """The body of the next turn's request. In the last turn that there may be, no tool is offered."""
        self._turns_left -= 1
        if self._turns_left <= 0:
            self.merge.stop_offering()
        return self.merge.body

    async def run(self, turn: Turn) -> None:
        """Run the calls that wait, side by side; their results become part of the conversation."""
        calls = self.merge.waiting
        self.goes_on = self.merge.goes_on and self._turns_left > 0
        async with asyncio.TaskGroup() as running:
            tasks = [running.create_task(self._call(call, turn)) for call in calls]
        self.merge.add_results([Answered(call, task.result()) for call, task in zip(calls, tasks, strict=True)])

    async def _call(self, call: ToolCall, turn: Turn) -> ToolResult:
        tool = self._catalogue.tools[call.name]
        began = perf_counter()
        try:
            outcome = await self._toolbox.call(tool, call.arguments, self._actor)
        except asyncio.CancelledError:
            cut = Outcome(failure("the call was cancelled"), "cancelled", perf_counter() - began)
            await self._facts.injected_call(call, tool, cut, turn)
            raise
        await self._facts.injected_call(call, tool, outcome, turn)
        return outcome.result
