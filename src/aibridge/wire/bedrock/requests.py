"""Putting a Messages request into the form that Amazon Bedrock takes: model, version and flags stand elsewhere.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html and
.../API_runtime_CountTokens.html.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec

from aibridge.wire import json_bytes
from aibridge.wire.bedrock.models import (
    DEFAULT_EFFORT,
    EFFORT,
    GATED,
    LEAST_BUDGET,
    REMOVED,
    UNGATED,
    betas_for,
    thinks_adaptively,
)
from aibridge.wire.body import read_body

_VERSION = b'"bedrock-2023-05-31"'


class Asked(msgspec.Struct):
    """What of a request decides how it is put."""

    model: str
    stream: Any = None
    max_tokens: Any = None
    thinking: Any = None
    output_config: Any = None
    anthropic_beta: Any = None


_asked = msgspec.json.Decoder(Asked)


def asked(body: bytes) -> Asked:
    """Read a request. Raises `Fault` (INVALID_REQUEST)."""
    return read_body(_asked, body)


def invocation(body: bytes, request: Asked, model: str, betas: Iterable[str]) -> bytes:
    """The body of a request to `model`, as Bedrock takes it; no byte of what it keeps is changed.

    `request` is what was read of `body`, and `betas` are the flags that the client asks for in its headers.
    """
    # An inference profile of one's own may have any name: then the one that the client knows it by has to tell.
    name = model if "claude" in model else request.model
    own = request.anthropic_beta if isinstance(request.anthropic_beta, list) else []
    allowed = betas_for(name, [*betas, *(beta for beta in own if isinstance(beta, str))])
    adaptive = thinks_adaptively(name)
    changes: dict[str, bytes | None] = dict.fromkeys(("model", "stream", *REMOVED))
    changes |= {
        member: None for member, beta in GATED.items() if beta not in allowed and not (adaptive and member in UNGATED)
    }
    changes["anthropic_version"] = _VERSION
    changes["anthropic_beta"] = json_bytes.encode(allowed) if allowed else None
    if not adaptive and _member(request.thinking, "type") == "adaptive" and (budget := _budget(request)):
        changes["thinking"] = budget
    return json_bytes.edit(body, changes)


def counting(body: bytes, request: Asked, model: str, betas: Iterable[str]) -> bytes:
    """The body of a request to count the tokens of what Messages' `count_tokens` was asked with."""
    if request.max_tokens is None:  # an invocation must have it; it says nothing of how much is counted
        budget = _member(request.thinking, "budget_tokens")
        request = msgspec.structs.replace(request, max_tokens=1 + (budget if isinstance(budget, int) else 0))
        body = json_bytes.set_member(body, "max_tokens", json_bytes.encode(request.max_tokens))
    inner = base64.b64encode(invocation(body, request, model, betas))
    return b'{"input":{"invokeModel":{"body":"%b"}}}' % inner


def _budget(request: Asked) -> bytes | None:
    """The `thinking` that stands for an adaptive one; None where there is nothing to make it of."""
    if not isinstance(request.max_tokens, int):
        return None
    effort = _member(request.output_config, "effort")
    share = EFFORT.get(effort, DEFAULT_EFFORT) if isinstance(effort, str) else DEFAULT_EFFORT
    budget = request.max_tokens * share // 100
    if budget < LEAST_BUDGET:
        return b'{"type":"disabled"}'
    return b'{"type":"enabled","budget_tokens":%d}' % budget


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
