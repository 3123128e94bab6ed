"""Which headers pass, and which do not (RFC 9110, 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from aibridge.actor import Actor
from aibridge.providers.credential import CREDENTIAL_HEADERS, Credential

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

_NOT_FORWARDED = (
    HOP_BY_HOP
    | {b"host", b"content-length", b"accept-encoding", b"expect"}
    | {name.encode() for name in CREDENTIAL_HEADERS}
)

_ACTOR_ID = "X-AI-Bridge-Actor-ID"
_ACTOR_METADATA = "X-AI-Bridge-Actor-Metadata-"
_ACTOR_PREFIX = b"x-ai-bridge-actor-"


def by_name(headers: RawHeaders) -> dict[str, str]:
    """Headers by their lower-case names; of those sent more than once, the first."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), _text(value))
    return found


def for_upstream(headers: RawHeaders, credential: Credential, actor: Actor | None) -> list[tuple[str, str]]:
    """What the provider gets of a client's headers, with its credential; and who the actor is, where one is given.

    No coding is asked for, since the answer goes to the client as it comes, and the client may read none.
    """
    dropped = _NOT_FORWARDED | _named_by_connection(headers)
    passed = [
        (name.decode("latin-1"), _text(value))
        for name, value in headers
        if name.lower() not in dropped and not name.lower().startswith(_ACTOR_PREFIX)
    ]
    passed.append(("Accept-Encoding", "identity"))
    if credential.header:
        passed.append(credential.header)
    if actor:
        passed += _of_actor(actor)
    return passed


def for_client(headers: RawHeaders, without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """What the client gets of a provider's headers."""
    dropped = HOP_BY_HOP | _named_by_connection(headers) | frozenset(without)
    return [(low, value) for name, value in headers if (low := name.lower()) not in dropped]


def _named_by_connection(headers: RawHeaders) -> frozenset[bytes]:
    values = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def _of_actor(actor: Actor) -> list[tuple[str, str]]:
    metadata: Mapping[str, str] = actor.metadata
    told = [
        (_ACTOR_ID, actor.id),
        *((_ACTOR_METADATA + quote(name, safe=""), str(metadata[name])) for name in metadata),
    ]
    return [(name, quote(value, safe=" !#$%&'()*+,/:;=?@[]\"<>^`{|}~")) for name, value in told]


def _text(value: bytes) -> str:
    """A header's value as text that is sent on as the same bytes, where it is UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
