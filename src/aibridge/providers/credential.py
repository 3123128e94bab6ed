"""With which credential a request goes upstream, and how much of it may be told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from aibridge.records import CredentialKind

GATEWAY_KEY_PREFIX = "aib_"
"""What the gateway's own keys begin with; such a key is never sent to a provider."""

GATEWAY_TOKEN_HEADER = "x-aibridge-token"  # noqa: S105  # its name
"""By which clients whose `Authorization` is the provider's tell the gateway who they are."""

BEARER = "Authorization"
"""The header whose credentials are bearer tokens."""

CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "proxy-authorization", GATEWAY_TOKEN_HEADER})
"""Headers by which clients send credentials: none of them is forwarded, the provider sets its own."""


class Credential(msgspec.Struct, frozen=True, dict=True):
    """A secret, whose it is, and the header that carries it upstream."""

    kind: CredentialKind
    secret: str
    header: tuple[str, str] | None
    subscription: str | None = None
    """The kind of subscription that it belongs to, where that can be told."""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Credential({self.kind!r}, {self.hint!r})"

    @cached_property
    def hint(self) -> str:
        """A few characters of the secret, by which its owner knows it."""
        return masked(self.secret)


NO_CREDENTIAL = Credential("centralized", "", None)


def masked(secret: str) -> str:
    """`sk-a...wxyz`: 4 characters at each end where there are 20 or more, 2 of 10, 1 of 5, none of fewer."""
    size = len(secret)
    shown = 4 if size >= 20 else 2 if size >= 10 else 1 if size >= 5 else 0
    return f"{secret[:shown]}...{secret[size - shown :]}" if secret else ""


def own_key(headers: Mapping[str, str], name: str) -> str | None:
    """The client's own key in a header (lower-case name); None for none, and for a key of the gateway."""
    return _own(headers[name].strip()) if name in headers else None


def own_bearer(headers: Mapping[str, str]) -> str | None:
    """The client's own token in `Authorization: Bearer`; None for none, and for a key of the gateway."""
    if "authorization" not in headers:
        return None
    scheme, _, token = headers["authorization"].partition(" ")
    return _own(token.strip()) if scheme.lower() == "bearer" else None


def _own(secret: str) -> str | None:
    return secret if secret and not secret.startswith(GATEWAY_KEY_PREFIX) else None
