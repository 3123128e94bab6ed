"""What the simulated upstream says next, whatever the dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from aibridge.server.simulated.script import Call, Step, steps

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request says, as far as the answer depends on it."""

    prompt: str
    """The user's last prompt."""
    results: tuple[str, ...] = ()
    """What the tools answered, where the request's last message holds that and not the prompt."""
    rounds: int = 0
    """How many times since the prompt the model has called tools."""
    continued: bool = False
    """Whether the model has spoken before, so that a cache holds the most of the request."""
    tools: frozenset[str] = frozenset()
    """The names of the tools that may be called now."""
    parallel: bool = True
    thinks: bool = False
    """Whether the client asked for the model's thoughts."""
    schema: dict[str, Any] | None = None
    """The JSON schema that the answer must follow."""
    limit: int | None = None
    """The most tokens that the answer may have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, and what goes wrong while it is said."""

    text: str
    thought: str = ""
    calls: tuple[Call, ...] = ()
    truncated: bool = False
    """The answer was longer than the client allowed."""
    step: Step = field(default_factory=Step)
    """What the prompt asked for; here for its faults."""


def answer(conversation: Conversation) -> Answer:
    """The next answer: tool calls, where the prompt asks for them and the tools are there, else a short text."""
    rounds = _rounds(conversation)
    step = rounds[conversation.rounds] if conversation.rounds < len(rounds) else Step()
    if conversation.schema is not None:
        return Answer(msgspec.json.encode(_instance(conversation.schema)).decode(), step=step)
    calls = tuple(call for call in step.calls if call.name in conversation.tools)
    missing = [call.name for call in step.calls if call.name not in conversation.tools]
    thought = step.thought
    if calls and conversation.thinks and not thought:
        thought = f"The user wants me to use {_names(calls)}."
    text = _text(conversation, rounds[0], calls, missing)
    if conversation.limit is not None and len(text) > conversation.limit * CHARACTERS_PER_TOKEN:
        return Answer(text[: conversation.limit * CHARACTERS_PER_TOKEN], truncated=True, step=step)
    return Answer(text, thought, calls, step=step)


def _rounds(conversation: Conversation) -> list[Step]:
    """The prompt's rounds; where calls may not be parallel, each has a round of its own."""
    rounds = steps(conversation.prompt)
    if conversation.parallel:
        return rounds
    return list(chain.from_iterable(_one_by_one(step) for step in rounds))


def _one_by_one(step: Step) -> list[Step]:
    if len(step.calls) < 2:
        return [step]
    first, *others = step.calls
    step.calls = [first]
    return [step, *(Step(calls=[call]) for call in others)]


def _text(conversation: Conversation, first: Step, calls: tuple[Call, ...], missing: list[str]) -> str:
    if calls:
        return f"I will use {_names(calls)}."
    if missing:
        return f"I have no tool named {' or '.join(missing)}."
    if conversation.results:
        return "The tool answered: " + " | ".join(conversation.results)
    said = f'"{first.text}"' if first.text else "nothing but directives"
    return f"You said {said}. This answer comes from the simulated upstream."


def _names(calls: tuple[Call, ...]) -> str:
    return " and ".join(call.name for call in calls)


def _instance(schema: dict[str, Any]) -> Any:
    """A value that follows the JSON schema, as far as models' structured outputs go."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: _instance(inner) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return []
        case "boolean":
            return False
        case "integer" | "number":
            return 0
        case "string":
            return "Simulated answer"
        case _:
            return None
