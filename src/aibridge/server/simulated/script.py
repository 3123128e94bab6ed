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


_DIRECTIVE = re.compile(
    r"""
      \[\[call[ ](?P<call>[\w.-]+)[ ]*
    | ^[ \t]*use[ ]tool[ ](?P<use>[\w.-]+)(?:[ ]with[ ]+)?
    | \[\[think[ ](?P<think>.*?)\]\]
    | \[\[fail[ ](?P<fail>[45]\d\d)\]\]
    | \[\[stall[ ](?P<stall>\d+(?:\.\d+)?)\]\]
    | \[\[(?P<word>error|cut|then)\]\]
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


def steps(prompt: str) -> list[Step]:
    """What the prompt asks for, round by round; there is always a first one."""
    found = [Step()]
    at = 0
    while match := _DIRECTIVE.search(prompt, at):
        found[-1].text += prompt[at : match.start()]
        if match["call"] or match["use"]:
            at = _call(match, found[-1])
        else:
            _note(match, found)
            at = match.end()
    found[-1].text += prompt[at:]
    for step in found:
        step.text = step.text.strip()
    return found


def _call(match: re.Match[str], step: Step) -> int:
    """Take a call, or its beginning as plain text where the rest can not be read; the place behind what was taken."""
    prompt = match.string
    start = end = match.end()
    bracket = "]]" if match["call"] else ""
    try:
        if prompt.startswith(("{", '"'), start):
            _, end = json.JSONDecoder().raw_decode(prompt, start)
        readable = prompt.startswith(bracket, end)
    except json.JSONDecodeError:
        readable = False
    if not readable:
        step.text += match.group()
        return start
    step.calls.append(Call(match["call"] or match["use"], prompt[start:end] or "{}"))
    return end + len(bracket)


def _note(match: re.Match[str], found: list[Step]) -> None:
    step = found[-1]
    if match["think"]:
        step.thought = match["think"]
    elif match["fail"]:
        step.status = int(match["fail"])
    elif match["stall"]:
        step.stall = float(match["stall"])
    elif match["word"] == "error":
        step.error = True
    elif match["word"] == "cut":
        step.cut = True
    else:
        found.append(Step())
