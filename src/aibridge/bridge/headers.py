"""Which headers pass, and which do not (RFC 9110, 7.6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar
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

Name = TypeVar("Name", str, bytes)
Fact = TypeVar("Fact")


class _OfNames(dict[Name, Fact]):
    """A fact of each header's name, found once: the same few names come with every request.

    No peer can fill the memory with them: not all of many are kept, nor long ones.
    """

    def __init__(self, find: Callable[[Name], Fact]) -> None:
        self._find: Callable[[Name], Fact] = find

    def __missing__(self, name: Name) -> Fact:
        fact = self._find(name)
        if len(self) < 1000 and len(name) < 100:
            self[name] = fact
        return fact


class Forwarded(_OfNames[str, bool]):
    """Whether a client's header goes upstream, by its name in lower case; some are `dropped`."""

    def __init__(self, dropped: frozenset[str]) -> None:
        super().__init__(lambda name: name not in dropped and not name.startswith(_ACTOR_PREFIX))


def as_text(headers: RawHeaders) -> list[tuple[str, str]]:
    """Headers as text, names in lower case."""
    names = _AS_TEXT
    try:
        return [(names[name], value.decode()) for name, value in headers]
    except UnicodeDecodeError:
        return [(names[name], _text(value)) for name, value in headers]


def by_name(headers: TextHeaders) -> dict[str, str]:
    """Headers by their names; of those sent more than once, the first."""
    return dict(reversed(headers))


def end_to_end(headers: TextHeaders) -> TextHeaders:
    """Headers without those that `Connection` names."""
    told = [value for name, value in headers if name == "connection" and value not in _NAMES_NO_HEADER]
    named = {part.strip().lower() for value in told for part in value.split(",")}
    return [field for field in headers if field[0] not in named] if named else headers


def for_upstream(
    headers: TextHeaders, credential: Credential, actor: Actor | None, forwarded: Forwarded, more: TextHeaders = ()
) -> list[tuple[str, str]]:
    """What the provider gets of a client's headers, with its credential; and who the actor is, where one is given.

    `more` stands in place of what the client sent under these names. No coding is asked for, since the answer goes to
    the client as it comes, and the client may read none.
    """
    passed = [field for field in headers if forwarded[field[0]]]
    if more:
        replaced = {name for name, _ in more}
        passed = [field for field in passed if field[0] not in replaced]
    passed.append(("Accept-Encoding", "identity"))
    passed += more
    if credential.header:
        passed.append(credential.header)
    if actor:
        passed += _of_actor(actor)
    return passed


def for_client(headers: RawHeaders, without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """What the client gets of a provider's headers, whose names are in lower case."""
    dropped = _DROPPED_ON_THE_WAY_BACK.union(without) if without else _DROPPED_ON_THE_WAY_BACK
    passed = [field for field in headers if field[0] not in dropped]
    if len(passed) == len(headers):  # `Connection` is not among them
        return passed
    told = b",".join(value for name, value in headers if name == b"connection")
    named = {name.strip().lower() for name in told.split(b",")}
    return [field for field in passed if field[0] not in named] if told else passed


_DROPPED_ON_THE_WAY_BACK = frozenset(name.encode() for name in HOP_BY_HOP)


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


_AS_TEXT = _OfNames[bytes, str](lambda name: _text(name).lower())
