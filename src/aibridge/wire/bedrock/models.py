"""What Amazon Bedrock takes of a Messages request, by model.

All of it is data, to be added to as Bedrock learns more. A model is told by a piece of its name, which stands in the
names of its versions and regional profiles too: `claude-opus-4-5` is in `us.anthropic.claude-opus-4-5-20251101-v1:0`.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
for the members of a body and for the beta flags, .../claude-messages-adaptive-thinking.html for thinking.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

REMOVED = ("metadata", "service_tier", "container", "inference_geo")
"""Members that no model at Bedrock takes: "Extra inputs are not permitted"."""

GATED = {"output_config": "effort-2025-11-24", "context_management": "context-management-2025-06-27"}
"""Members that are taken with a beta flag only."""

UNGATED = ("output_config",)
"""Those of them that a model with adaptive thinking takes without the flag."""

EFFORT = {"low": 20, "medium": 50, "high": 80, "max": 95}
"""How much of `max_tokens` a budget of thinking is, in percent, by `output_config.effort`."""

DEFAULT_EFFORT = EFFORT["high"]

LEAST_BUDGET = 1024
"""Tokens of thinking that a model has to be given, if it is to think."""

REGIONAL = ("us.", "us-gov.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "global.")
"""What stands before the id of a model in those of its regional profiles."""

_CLAUDE_4 = ("claude-opus-4-", "claude-sonnet-4-", "claude-haiku-4-")
_WITHOUT_ADAPTIVE_THINKING = (
    "claude-v2",
    "claude-instant",
    "claude-3",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-2025",
    "claude-opus-4-5",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2025",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
)  # there will be no more of them


class Beta(NamedTuple):
    """A beta flag that Bedrock takes; any other makes it refuse the request."""

    name: str
    models: tuple[str, ...] = ()
    """Those that take it; none named stands for every model."""


BETAS = {
    "computer-use-2024-10-22": Beta("computer-use-2024-10-22", ("claude-3-5-sonnet",)),
    "computer-use-2025-01-24": Beta("computer-use-2025-01-24"),
    "computer-use-2025-11-24": Beta("computer-use-2025-11-24"),
    "token-efficient-tools-2025-02-19": Beta(
        "token-efficient-tools-2025-02-19", ("claude-3-7-sonnet", "claude-opus-4-", "claude-sonnet-4-")
    ),
    "interleaved-thinking-2025-05-14": Beta("interleaved-thinking-2025-05-14", _CLAUDE_4),
    "dev-full-thinking-2025-05-14": Beta("dev-full-thinking-2025-05-14", _CLAUDE_4),
    "output-128k-2025-02-19": Beta("output-128k-2025-02-19", ("claude-3-7-sonnet",)),
    "fine-grained-tool-streaming-2025-05-14": Beta("fine-grained-tool-streaming-2025-05-14"),
    "context-1m-2025-08-07": Beta("context-1m-2025-08-07"),
    "context-management-2025-06-27": Beta("context-management-2025-06-27", ("claude-sonnet-4-5", "claude-haiku-4-5")),
    "effort-2025-11-24": Beta("effort-2025-11-24", ("claude-opus-4-5",)),
    "tool-search-tool-2025-10-19": Beta("tool-search-tool-2025-10-19"),
    "advanced-tool-use-2025-11-20": Beta("tool-search-tool-2025-10-19"),  # Anthropic's own name for it
    "tool-examples-2025-10-29": Beta("tool-examples-2025-10-29", ("claude-opus-4-5",)),
    "compact-2026-01-12": Beta("compact-2026-01-12"),
}
"""By the names that clients use."""


def betas_for(model: str, asked: Iterable[str]) -> list[str]:
    """The flags for Bedrock, of those that a client asks for; each once, in its order."""
    known = [BETAS[name] for name in asked if name in BETAS]
    return list(dict.fromkeys(beta.name for beta in known if not beta.models or _is_one_of(model, beta.models)))


def thinks_adaptively(model: str) -> bool:
    """Whether a model takes `"thinking": {"type": "adaptive"}`; the ones that are not known are taken for new ones."""
    return not _is_one_of(model, _WITHOUT_ADAPTIVE_THINKING)


def base_model(model: str) -> str:
    """The model behind a regional profile."""
    return next((model.removeprefix(region) for region in REGIONAL if model.startswith(region)), model)


def _is_one_of(model: str, pieces: tuple[str, ...]) -> bool:
    return any(piece in model for piece in pieces)
