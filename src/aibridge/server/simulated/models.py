"""The models that the simulated upstream lists, as each provider lists its own."""

from __future__ import annotations

from typing import Any

ANTHROPIC_MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")
OPENAI_MODELS = ("gpt-5.5", "gpt-5.5-codex", "gpt-5.5-mini")
"""Those that are listed; a request may name any other."""

_CREATED = 1767225600
"""In seconds since the epoch: 2026-01-01."""


def anthropic_model(model: str) -> dict[str, Any]:
    """A model as Anthropic describes it."""
    name = model.replace("-", " ").title()
    return {"type": "model", "id": model, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def anthropic_models() -> dict[str, Any]:
    """Anthropic's list, which has one page."""
    models = [anthropic_model(model) for model in ANTHROPIC_MODELS]
    return {"data": models, "has_more": False, "first_id": ANTHROPIC_MODELS[0], "last_id": ANTHROPIC_MODELS[-1]}


def openai_model(model: str) -> dict[str, Any]:
    """A model as OpenAI describes it."""
    return {"id": model, "object": "model", "created": _CREATED, "owned_by": "openai"}


def openai_models() -> dict[str, Any]:
    """OpenAI's list; `models` is what Codex expects when it is logged in with ChatGPT, and may be empty."""
    return {"object": "list", "data": [openai_model(model) for model in OPENAI_MODELS], "models": []}
