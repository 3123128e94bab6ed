"""Which headers pass, and which do not (RFC 9110, 7.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from aibridge.actor import Actor
from aibridge.providers.credential import CREDENTIAL_HEADERS, Credential

RawHeaders = Sequence[tuple[bytes, bytes]]

TextHeaders = Sequence[tuple[str, str]]
"""Names in lower case."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

NOT_FORWARDED = HOP_BY_HOP | CREDENTIAL_HEADERS | {"host", "content-length", "accept-encoding", "expect"}

_NAMES_NO_HEADER = frozenset({"keep-alive", "close"})
"""The usual values of `Connection`."""

_ACTOR_ID = "X-AI-Bridge-Actor-ID"
_ACTOR_METADATA = "X-AI-Bridge-Actor-Metadata-"
_ACTOR_PREFIX = "x-ai-bridge-actor-"


def as_text(headers: RawHeaders) -> list[tuple[str, str]]:
    """Headers as text, names in lower case."""
    try:
        return [(name.decode().lower(), value.decode()) for name, value in headers]
    except UnicodeDecodeError:
        return [(name.decode("latin-1").lower(), _text(value)) for name, value in headers]


def by_name(headers: TextHeaders) -> dict[str, str]:
    """Headers by their names; of those sent more than once, the first."""
    return dict(reversed(headers))


def for_upstream(
    headers: TextHeaders,
    credential: Credential,
    actor: Actor | None,
    not_forwarded: frozenset[str] = NOT_FORWARDED,
    more: TextHeaders = (),
) -> list[tuple[str, str]]:
    """What the provider gets of a client's headers, with its credential; and who the actor is, where one is given.

    `more` stands in place of what the client sent under these names. No coding is asked for, since the answer goes to
    the client as it comes, and the client may read none.
    """
    dropped, names = not_forwarded, dict(headers)
    if "connection" in names:
        named = (value for name, value in headers if name == "connection" and value not in _NAMES_NO_HEADER)
        dropped = dropped.union(part.strip().lower() for value in named for part in value.split(","))
    if more:
        dropped = dropped.union(name for name, _ in more)
    if _ACTOR_PREFIX in "\n".join(names):
        dropped = dropped.union(name for name in names if name.startswith(_ACTOR_PREFIX))
    passed = [field for field in headers if field[0] not in dropped]
    passed.append(("Accept-Encoding", "identity"))
    passed += more
    if credential.header:
        passed.append(credential.header)
    if actor:
        passed += _of_actor(actor)
    return passed


def for_client(headers: RawHeaders, without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """What the client gets of a provider's headers."""
    dropped = _DROPPED_ON_THE_WAY_BACK.union(without) if without else _DROPPED_ON_THE_WAY_BACK
    lowered = [(name.lower(), value) for name, value in headers]
    passed = [field for field in lowered if field[0] not in dropped]
    if b"connection" in dict(passed):
        named = b",".join(value for name, value in passed if name == b"connection").split(b",")
        hop = {b"connection", *(name.strip().lower() for name in named)}
        passed = [field for field in passed if field[0] not in hop]
    return passed


_DROPPED_ON_THE_WAY_BACK = frozenset(name.encode() for name in HOP_BY_HOP - {"connection"})
"""And what `Connection` names, with itself."""


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
