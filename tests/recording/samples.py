"""Records to test with: ready-made ones, and strategies for any whatever."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def interception(name: str = "", *, second: float = 0, **fields: Any) -> Interception:
    usual: dict[str, Any] = {
        "id": name or f"interception-{next(_numbers)}",
        "initiator_id": "alice",
        "provider": "anthropic",
        "provider_name": "anthropic-eu",
        "model": "claude-sonnet-4-5",
        "started_at": at(second),
        "route": "/v1/messages",
        "streaming": True,
        "client": "Claude Code",
    }
    return Interception(**(usual | fields))


def end_of(interception_id: str, *, second: float = 1, **fields: Any) -> InterceptionEnded:
    usual: dict[str, Any] = {"ended_at": at(second), "status": "completed", "http_status": 200}
    return InterceptionEnded(interception_id=interception_id, **(usual | fields))


def prompt(interception_id: str, text: str = "Fix the parser.") -> PromptUsage:
    return PromptUsage(id=f"prompt-{next(_numbers)}", interception_id=interception_id, prompt=text, created_at=NOON)


def tokens(interception_id: str, **fields: Any) -> TokenUsage:
    usual: dict[str, Any] = {
        "id": f"tokens-{next(_numbers)}",
        "input_tokens": 3,
        "output_tokens": 5,
        "created_at": NOON,
    }
    return TokenUsage(interception_id=interception_id, provider_response_id="msg_1", **(usual | fields))


def tool(interception_id: str, call: str, *, second: float = 0, **fields: Any) -> ToolUsage:
    usual: dict[str, Any] = {"id": f"tool-{next(_numbers)}", "tool": "bash", "input": "{}", "created_at": at(second)}
    return ToolUsage(
        interception_id=interception_id, provider_response_id="msg_1", provider_tool_call_id=call, **(usual | fields)
    )


texts = st.text(st.characters(exclude_categories=[]))
"""Any text that a Python string can hold: NUL characters and lone surrogates too."""

times = st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC))
_counts = st.integers(0, 2**63 - 1)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
_metadata = st.dictionaries(texts, _json, max_size=3)
_optional = st.none() | texts


def _any(record: type[Any], **fields: Any) -> st.SearchStrategy[Record]:
    return st.builds(record, **{"metadata": _metadata, **fields})


_child = {"id": texts, "interception_id": texts, "provider_response_id": _optional, "created_at": times}
records: st.SearchStrategy[Record] = st.one_of(
    _any(
        Interception,
        **dict.fromkeys(["id", "initiator_id", "provider", "provider_name", "model", "route", "client"], texts),
        **dict.fromkeys(["client_session_id", "user_agent", "correlating_tool_call_id"], _optional),
        started_at=times,
        streaming=st.booleans(),
        credential_kind=st.sampled_from(["centralized", "byok"]),
        credential_hint=texts,
    ),
    _any(
        InterceptionEnded,
        interception_id=texts,
        ended_at=times,
        status=st.sampled_from(["completed", "failed", "cancelled"]),
        http_status=st.none() | st.integers(100, 599),
        error_type=_optional,
        error_message=_optional,
    ),
    _any(
        TokenUsage,
        **_child,
        input_tokens=_counts,
        output_tokens=_counts,
        cache_read_input_tokens=_counts,
        cache_write_input_tokens=_counts,
        provider_usage=st.none() | _metadata.map(json.dumps),
    ),
    _any(PromptUsage, **_child, prompt=texts),
    _any(
        ToolUsage,
        **_child,
        **dict.fromkeys(["provider_tool_call_id", "tool", "input"], texts),
        injected=st.booleans(),
        server_url=_optional,
        invocation_error=_optional,
    ),
    _any(ModelThought, **_child, content=texts),
)


def rows(database: Path, query: str, *values: Any) -> list[Any]:
    """What another program sees in the database."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query, values).fetchall()


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def until(true: Callable[[], object], limit: float = 20.0) -> None:
    """Wait for something to become true; for use in another thread than the event loop's."""
    give_up = time.monotonic() + limit
    while not true():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.005)
