"""Credentials of subscriptions: how one is known, and which kind of subscription it is.

Such a credential stands for a person's own plan. So it goes to a provider whose plan it is, and to no other, even where
a client was pointed at the wrong one. To add a kind, add a row to `MARKS`, and the kind to its provider's
`subscriptions`.

Sources: https://code.claude.com/docs/en/authentication, https://developers.openai.com/codex/auth,
https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github; and what
the clients were seen to send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

CLAUDE = "claude"
CHATGPT = "chatgpt"
COPILOT = "copilot"

MARKS: tuple[tuple[str, Callable[[str, Mapping[str, str]], bool]], ...] = (
    (CLAUDE, lambda secret, headers: secret.startswith("sk-ant-oat")),
    (COPILOT, lambda secret, headers: secret.startswith(("gho_", "ghu_", "ghp_", "github_pat_", "tid="))),
    (CHATGPT, lambda secret, headers: "chatgpt-account-id" in headers),
)
"""By what each kind is known, of the secret and the headers (lower-case names); the first that matches counts."""


def subscription_of(secret: str, headers: Mapping[str, str]) -> str | None:
    """The kind of subscription that a client's credential belongs to; None where it can not be told, or is none."""
    return next((kind for kind, matches in MARKS if matches(secret, headers)), None)
