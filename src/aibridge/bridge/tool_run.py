"""Running injected tools between the turns of one interception."""

from __future__ import annotations

import asyncio
from time import perf_counter

from aibridge.actor import Actor
from aibridge.bridge.facts import Facts
from aibridge.bridge.response_ids import remember_id
from aibridge.mcp.toolbox import Catalogue, InjectedTool, Outcome, Toolbox
from aibridge.recording.memory import TurnMemory
from aibridge.wire.dialect import ToolCall, Turn
from aibridge.wire.merged.merge import Answered, Merge
from aibridge.wire.tools import ToolResult, failure


class ToolRun:
    """The inner loop's tools: which there are for this request, how often the model may ask, and running its calls."""

    def __init__(
        self,
        merge: Merge,
        catalogue: Catalogue,
        toolbox: Toolbox,
        memory: TurnMemory | None,
        actor: Actor,
        facts: Facts,
        max_turns: int,
        *,
        keeps_id: bool = False,
    ) -> None:
        self.merge = merge
        merge.keeps_id = keeps_id and memory is not None
        self.turn = 0
        """Which turn runs, counted from 1."""
        self.goes_on = True
        """Another turn follows the calls that ran last."""
        self._catalogue = catalogue
        self._toolbox, self._memory = toolbox, memory
        self._actor, self._facts = actor, facts
        self._max_turns = max_turns

    def tool_of(self, call: ToolCall) -> InjectedTool | None:
        """The tool of a call that the gateway is to run; None where that is for the client."""
        return self._catalogue.tools[call.name] if self.merge.is_injected(call) else None

    async def recall(self) -> None:
        """Put back into the request what its client was not shown of earlier messages."""
        if self._memory and (keys := self.merge.keys()):
            self.merge.restore(await self._memory.recall(self._actor.id, keys))

    async def remember(self) -> None:
        """The message is at its end: keep what the client is not shown of it."""
        if self._memory and (hidden := self.merge.remembered()):
            await self._memory.remember(self._actor.id, hidden.keys, hidden.hidden)
        if self._memory and self.merge.renamed:
            await remember_id(self._memory, self._actor, *self.merge.renamed)

    def begin_turn(self) -> bytes:
        """The body of the next turn's request. In the last turn that there may be, no tool is offered."""
        self.turn += 1
        if self.turn >= self._max_turns:
            self.merge.stop_offering()
        return self.merge.body

    async def run(self, turn: Turn) -> None:
        """Run the calls that wait, side by side; their results become part of the conversation."""
        calls = self.merge.waiting
        self.goes_on = self.merge.goes_on and self.turn < self._max_turns
        if len(calls) == 1:  # most often, and then there is nothing to run beside it
            results = [await self._call(calls[0], turn)]
        else:
            async with asyncio.TaskGroup() as running:
                tasks = [running.create_task(self._call(call, turn)) for call in calls]
            results = [task.result() for task in tasks]
        await self._facts.keep()
        self.merge.add_results([Answered(call, result) for call, result in zip(calls, results, strict=True)])

    async def _call(self, call: ToolCall, turn: Turn) -> ToolResult:
        tool = self._catalogue.tools[call.name]
        self._facts.spans.calling(call, tool)
        began = perf_counter()
        try:
            outcome = await self._toolbox.call(tool, call.arguments, self._actor)
        except asyncio.CancelledError:
            cut = Outcome(failure("the call was cancelled"), "cancelled", perf_counter() - began)
            self._facts.injected_call(call, tool, cut, turn)
            raise
        self._facts.injected_call(call, tool, outcome, turn)
        return outcome.result
