"""The language by which a user's prompt tells the simulated upstream what to do.

A directive may stand anywhere in the prompt; the rest of the prompt is plain text.

    [[call NAME JSON]]         ask for the tool NAME; JSON is an object, or a string for a tool that takes free text
    use tool NAME with JSON    the same, on a line of its own
    [[think TEXT]]             think TEXT aloud before answering
    [[fail STATUS]]            answer with this HTTP status
    [[error]]                  begin the answer, then report an error inside of it
    [[cut]]                    begin the answer, then break the connection
    [[stall SECONDS]]          begin the answer, then say nothing for so long
    [[then]]                   what follows is for the next round, once the tools called until here have answered

Several calls in one round are parallel calls. A directive that can not be read is plain text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to be called. `arguments` is the JSON text, exactly as it stands in the prompt."""

    name: str
    arguments: str = "{}"

    @property
    def free_text(self) -> str | None:
        """What a tool that takes free text is given; None where the arguments are an object."""
        value = json.loads(self.arguments)
        return value if isinstance(value, str) else None


@dataclass(slots=True)
class Step:
    """What the prompt asks for in one round."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    thought: str = ""
    status: int | None = None
    error: bool = False
    cut: bool = False
    stall: float = 0
    """In seconds."""


_CALL = re.compile(r"\[\[call (?P<bracketed>[\w.-]+) *|^[ \t]*use tool (?P<line>[\w.-]+)(?: with +)?", re.MULTILINE)
_OTHER = re.compile(
    r"\[\[(?:think (?P<think>.*?)|fail (?P<fail>[45]\d\d)|stall (?P<stall>\d+(?:\.\d+)?)|(?P<word>error|cut))\]\]",
    re.DOTALL,
)
_THEN = "[[then]]"


def steps(prompt: str) -> list[Step]:
    """What the prompt asks for, round by round; there is always a first one."""
    found = [Step()]
    at = 0
    while at < len(prompt):
        at = _directive(prompt, at, found)
    for step in found:
        step.text = step.text.strip()
    return found


def _directive(prompt: str, at: int, found: list[Step]) -> int:
    """Take the directive at this place, or one character of plain text; the place behind it."""
    step = found[-1]
    if prompt.startswith(_THEN, at):
        found.append(Step())
        return at + len(_THEN)
    if (match := _CALL.match(prompt, at)) and (end := _call(prompt, match, step)):
        return end
    if match := _OTHER.match(prompt, at):
        _note(match, step)
        return match.end()
    step.text += prompt[at]
    return at + 1


def _call(prompt: str, match: re.Match[str], step: Step) -> int | None:
    """Take a call; None where its arguments are neither an object nor a string."""
    start = end = match.end()
    if prompt[start : start + 1] in ("{", '"'):
        try:
            _, end = json.JSONDecoder().raw_decode(prompt, start)
        except json.JSONDecodeError:
            return None
    name = match["bracketed"] or match["line"]
    if match["bracketed"]:
        if not prompt.startswith("]]", end):
            return None
        step.calls.append(Call(name, prompt[start:end] or "{}"))
        return end + 2
    step.calls.append(Call(name, prompt[start:end] or "{}"))
    return end


def _note(match: re.Match[str], step: Step) -> None:
    if match["think"]:
        step.thought = match["think"]
    if match["fail"]:
        step.status = int(match["fail"])
    if match["stall"]:
        step.stall = float(match["stall"])
    step.error = step.error or match["word"] == "error"
    step.cut = step.cut or match["word"] == "cut"
