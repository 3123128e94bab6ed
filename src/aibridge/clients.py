"""Which client a request came from, and which of the client's sessions it belongs to.

Clients do not identify themselves in one way, and some take another's name. So the rules are data, and the first that
matches decides: to add a client, add a row to `CLIENTS`, and where it names its session, one to `SESSIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from aibridge.wire.dialect import SessionHints

Headers = Mapping[str, str]
"""Headers of a request by their lower-case names; of those sent more than once, the first."""

UNKNOWN = "Unknown"


class Client(msgspec.Struct, frozen=True):
    """Who asks, and in which session; `metadata` marks what a sub-agent asked."""

    name: str
    session_id: str | None
    metadata: dict[str, str]


class _Marks(NamedTuple):
    """All of a request that the table looks at."""

    agent: str
    title: str
    originator: str
    claude_session: bool
    cursor: bool


def _agent(*prefixes: str) -> Callable[[_Marks], bool]:
    return lambda marks: marks.agent.startswith(prefixes)


CLIENTS: tuple[tuple[str, Callable[[_Marks], bool]], ...] = (
    ("Kilo Code", lambda marks: marks.title == "kilo code" or marks.originator == "kilo-code"),
    ("Kilo Code", _agent("kilo-code/", "kilo/")),
    ("Roo Code", lambda marks: marks.originator == "roo-code" or marks.agent.startswith("roo-code/")),
    ("Claude Code", lambda marks: marks.agent.startswith("claude") and marks.claude_session),
    ("Qwen Code", _agent("claude-cli/0.", "qwencode/")),  # with Anthropic's protocol it calls itself claude-cli
    ("Codex", _agent("codex")),
    ("OpenCode", _agent("opencode/")),
    ("Zed", _agent("zed/")),
    ("GitHub Copilot (VS Code)", _agent("githubcopilotchat/")),
    ("GitHub Copilot (CLI)", _agent("copilot/")),
    ("Charm Crush", _agent("charm crush/")),
    ("Mux", _agent("mux/")),
    ("Coder Agents", _agent("coder-agents/")),
    ("Gemini CLI", _agent("geminicli")),
    ("LiteLLM", _agent("litellm/")),
    ("OpenAI Agents SDK", _agent("agents/python")),
    ("Cursor", lambda marks: marks.cursor),
    ("Anthropic SDK", _agent("anthropic/", "asyncanthropic/")),
    ("OpenAI SDK", _agent("openai/", "asyncopenai/")),
    ("AI SDK", _agent("ai-sdk/")),
    ("Claude Code", _agent("claude")),
)


KEEPS_ONE_ID = frozenset({"OpenAI SDK"})
"""Clients that give up on a streamed response whose id at the end is not that of its beginning (openai 3.54)."""


def _user_id_session(headers: Headers, hints: SessionHints) -> str | None:
    """Claude Code's `metadata.user_id`: a JSON text with `session_id`, or (older) `user_…_session_<id>`."""
    user_id = hints.user_id or ""
    return _member(user_id, "session_id") or user_id.partition("_session_")[2]


def _turn_metadata_session(headers: Headers, hints: SessionHints) -> str | None:
    return _member(headers.get("x-codex-turn-metadata", ""), "session_id")


def _cache_key(headers: Headers, hints: SessionHints) -> str | None:
    return hints.prompt_cache_key


_Source = str | Callable[[Headers, SessionHints], str | None]

_OPENCODE: tuple[_Source, ...] = ("x-parent-session-id", "x-session-id", "x-session-affinity")

SESSIONS: dict[str, tuple[_Source, ...]] = {
    "Claude Code": ("x-claude-code-session-id", _user_id_session),
    "Codex": (
        "session-id",
        "session_id",
        _turn_metadata_session,
        lambda headers, hints: hints.client_session_id,
        _cache_key,
    ),
    "OpenCode": _OPENCODE,
    "Kilo Code": (*_OPENCODE, "x-kilocode-taskid"),
    "GitHub Copilot (VS Code)": ("x-interaction-id",),
    "GitHub Copilot (CLI)": ("x-client-session-id",),
    "Mux": ("x-mux-workspace-id",),
    "Coder Agents": ("x-coder-chat-id",),
}
"""Where each client names its session: headers and other places, in the order in which they are tried."""

_ANY_OTHER: tuple[_Source, ...] = (_cache_key,)

SUB_AGENT_HEADERS = frozenset(
    {"x-claude-code-agent-id", "x-codex-parent-thread-id", "x-openai-subagent", "x-parent-session-id"}
)
"""Headers that only a sub-agent sends; it keeps the session of its parent."""


def identify(headers: Headers, hints: SessionHints) -> Client:
    """The client and the session of a request."""
    name = _client(
        headers.get("user-agent", ""),
        headers.get("x-title", ""),
        headers.get("originator", ""),
        "x-claude-code-session-id" in headers or hints.user_id is not None,
        "x-cursor-client-version" in headers,
    )
    metadata: dict[str, str] = {}
    if not SUB_AGENT_HEADERS.isdisjoint(headers):
        metadata = {header: headers[header] for header in sorted(SUB_AGENT_HEADERS.intersection(headers))}
    return Client(name, _session(name, headers, hints), metadata)


@lru_cache(maxsize=1024)
def _client(agent: str, title: str, originator: str, claude_session: bool, cursor: bool) -> str:
    marks = _Marks(agent.lower(), title.lower(), originator.lower(), claude_session, cursor)
    return next((name for name, matches in CLIENTS if matches(marks)), UNKNOWN)


def _session(client: str, headers: Headers, hints: SessionHints) -> str | None:
    for source in SESSIONS.get(client, _ANY_OTHER):
        told = headers.get(source) if isinstance(source, str) else source(headers, hints)
        if told and (session := told.strip()):
            return session
    return None


def _member(text: str, name: str) -> str | None:
    """A text member of a JSON object; None where there is none."""
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text).get(name)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None
