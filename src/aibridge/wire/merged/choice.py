"""What a request says with `tool_choice`; the forms of the three dialects do not contradict each other."""

from __future__ import annotations

from typing import Any

ANY = ""
"""Stands for any tool, where one is demanded without a name."""


def forbids_others(choice: Any) -> bool:
    """No tool may be called, or none but those that are listed."""
    return choice == "none" or _type_of(choice) in ("none", "allowed_tools")


def demanded(choice: Any) -> str | None:
    """The name of the tool that has to be called, or `ANY`; None where the model is free."""
    if choice == "required" or _type_of(choice) == "any":
        return ANY
    if not isinstance(choice, dict):
        return None
    named = choice.get("function") or choice.get("custom") or choice
    return named.get("name") if isinstance(named, dict) else None


def _type_of(choice: Any) -> Any:
    return choice.get("type") if isinstance(choice, dict) else None
