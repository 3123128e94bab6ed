"""The redactor that comes with the gateway: it masks secrets of known shapes, and e-mail addresses.

Its patterns are matched by RE2, whose time is linear in the text's length whatever the pattern
(https://github.com/google/re2/wiki/Syntax), so that neither a text nor a pattern of an operator's can stall it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import re2

from aibridge.errors import SettingsError

# In the arguments of a tool call, which are JSON, an escape may stand right before a secret: `\nAKIA…`.
_START = r"(\\u[0-9a-fA-F]{4}|\\[nrtbf]|\b)"

_KEYS = (
    r"sk-[A-Za-z0-9_-]{20,}",  # Anthropic, OpenAI and many that came after them
    r"(?:xai|pplx|gsk|hf|r8|aib|npm|nvapi|tvly)[-_][A-Za-z0-9_-]{20,}",
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # AWS
    r"ABSK[A-Za-z0-9+/]{40,}=*",  # Amazon Bedrock, for long; and for short
    r"bedrock-api-key-[A-Za-z0-9+/_-]{20,}=*",
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"GOCSPX-[A-Za-z0-9_-]{20,}",
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"gl(?:pat|dt|rt|cbt|ptt|agent|oas|soat)-[A-Za-z0-9_.-]{20,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"xapp-[A-Za-z0-9-]{10,}",
    r"(?:[rs]k|whsec)_(?:(?:live|test)_)?[A-Za-z0-9]{16,}",  # Stripe
    r"pypi-[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",  # a JSON web token
)

_PATTERNS = {
    "private key": (
        # one that breaks off is masked as far as it goes
        r"()-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?s:.)*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\\\s:,-]*)"
    ),
    "key": rf"{_START}(?:{'|'.join(_KEYS)})",
    "AWS secret": (
        r"(?i)((?:secret_?(?:access)?_?key|session_?token)[\\\"']{0,4}\s{0,4}[=:]{1,2}\s{0,4}[\\\"']{0,4})"
        r"(?:[A-Za-z0-9+=]|\\?/){40,}"
    ),
    "token": r"(?i)(\b(?:bearer|authorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:basic|token))\s+)[A-Za-z0-9._~+/=-]{12,}",
    "password": r"([A-Za-z][A-Za-z0-9+.-]*:\\?/\\?/[^\s:@/\"'\\]*:)[^\s:@/\"'\\]+@",
    "e-mail address": r"(\\u[0-9a-fA-F]{4}|\\[nrtbf])?[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)*\.\pL{2,24}",
}
"""By what they are masked as; the first group of each is what stays of a match."""

_REPLACEMENTS = {"password": r"\1[redacted: password]@"}


class KnownSecrets:
    """A redactor for secrets of known shapes, e-mail addresses, and what further patterns match.

    Secrets are the keys of providers and of other services, AWS secrets, private keys, tokens, and passwords in URLs;
    masked, they read `[redacted: key]`. Of `patterns`, in the syntax of RE2, the whole match is masked; `SettingsError`
    is raised for one that RE2 does not take.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._masks: list[tuple[Any, str]] = [
            (_compiled(pattern), _REPLACEMENTS.get(name, rf"\1[redacted: {name}]"))
            for name, pattern in _PATTERNS.items()
        ]
        self._masks += [(_compiled(pattern), "[redacted]") for pattern in patterns]

    def __call__(self, text: str) -> str:
        """The text with its secrets masked."""
        try:
            text.encode()
        except UnicodeEncodeError:  # RE2 can not look at lone surrogates, which no secret has
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for pattern, mask in self._masks:
            text = pattern.sub(mask, text)
        return text


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise SettingsError(f"the pattern {pattern!r} is not one that RE2 takes: {reason}") from error
