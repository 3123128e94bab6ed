"""What merging turns has in common in every dialect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from operator import itemgetter
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from aibridge.wire import json_bytes, sse
from aibridge.wire.dialect import Reader, Request, ToolCall, Turn
from aibridge.wire.document import DocumentReader
from aibridge.wire.merged.choice import ANY, demanded, forbids_others
from aibridge.wire.sse import EventTooLarge
from aibridge.wire.stream import StreamReader
from aibridge.wire.tools import OfferedTool, OfferedTools, ToolResult

E = TypeVar("E")
H = TypeVar("H")

_any = msgspec.json.Decoder()


def is_hidden(part: msgspec.Raw) -> bool:
    """The part of a remembered message is one that the client does not have."""
    return bytes(part).startswith(b"{")


def recalled(decoder: msgspec.json.Decoder[H], remembered: Mapping[str, bytes], keys: Sequence[str]) -> H | None:
    """What is remembered under one of the keys; None also where another version of the gateway wrote it."""
    for key in keys:
        if key in remembered:
            with suppress(msgspec.DecodeError, RecursionError):
                return json_bytes.decode(decoder, remembered[key])
    return None


class Answered(NamedTuple):
    """A call that the gateway ran, and what it gave."""

    call: ToolCall
    result: ToolResult


class Remembered(NamedTuple):
    """What the client was not shown of a message, for when it comes back in a later request of the conversation."""

    keys: list[str]
    """By which the message is known again: ids of the client's own calls in it, or else its place (see `Trail`)."""
    hidden: bytes
    """The hidden parts and their places, as JSON."""


class Trail:
    """Follows what is said in a conversation, and names each place in it: by that a message without calls is known.

    The name depends on all that was said up to there, for the same may be said twice, or in two conversations.
    """

    def __init__(self) -> None:
        self._said = sha256()

    def copy(self) -> Trail:
        """Another, from here on."""
        other = Trail()
        other._said = self._said.copy()
        return other

    def add(self, role: str, texts: Iterable[str]) -> None:
        """Go on by one message; `texts` without what clients add and drop as they like."""
        for text in texts:
            if told := text.strip():
                for part in (role, told):
                    self._said.update(part.encode("utf-8", "surrogatepass"))
                    self._said.update(b"\0")

    @property
    def place(self) -> str:
        """The name of the place."""
        return "said:" + self._said.hexdigest()


class Conversation(NamedTuple):
    """What a request tells of a conversation: by which keys each element of it may be remembered, and its trail."""

    keys: list[list[str]]
    trail: Trail


class Edit(NamedTuple):
    """Text in place of what stands between two offsets of a request."""

    begin: int
    end: int
    text: bytes


_begin = itemgetter(0)


class Merge(ABC):
    """The turns of one interception on their way to becoming one message.

    For each turn, its answer is read with a reader made here, which passes on what the client may see at once and
    holds back the rest: the calls of injected tools, and, where there are such, the end of the turn. Those calls are
    then in `waiting`. Once they are run, `add_results` keeps them; then either `goes_on`, and `body` is the next turn's
    request, or the client has calls of its own to run, and `end` is what it gets.
    """

    history: str
    """The member of a request that holds the conversation."""
    tools_first: bool
    """The tools that are offered stand before the client's own, which the provider's cache then still holds."""
    broken_off: frozenset[str]
    """Stop reasons of a turn that the provider broke off: its calls may not be whole, and none is run."""

    keeps_id = False
    """The client wants a stream to end with the id that it began with; `renamed` is then remembered."""
    renamed: tuple[str, str] | None = None
    """The id by which the client knows the message, and the provider's own, where a later request may go on from it."""

    @classmethod
    def offering(cls, request: Request, tools: Sequence[OfferedTool]) -> Self | None:
        """What makes one message of the turns, where tools may be offered; None where the request forbids that."""
        try:
            merge = cls(request, tools)
            return merge if merge._may_offer() else None
        except msgspec.DecodeError:  # the provider will say what is wrong with it
            return None

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        self.request = request
        self._given = request.body
        offered = tools if isinstance(tools, OfferedTools) else OfferedTools(tools)
        self._taken = self._names_taken()
        if taken := offered.names & self._taken:
            offered = OfferedTools(tool for tool in offered if tool.name not in taken)
        self.tools, self.names = offered, offered.names
        self.waiting: list[ToolCall] = []
        self.goes_on = False
        self.turns = 0
        self.answered_last = False
        """The calls of the last turn have run, and their results are part of the conversation."""
        self.held: Callable[[], bytes] = bytes
        """Makes the end of the message that is held back while calls are waiting; most often it is none after all."""
        self._offering = True
        self._said: list[bytes] = []  # what the turns added to the conversation, as JSON
        self._last_said: list[bytes] = []
        self._own_calls: list[ToolCall] = []
        """Those of the last turn that the client is to run."""
        self._counted: list[dict[str, Any]] = []

    @property
    def body(self) -> bytes:
        """The request of the next turn: the client's own, with the tools and with what was said since."""
        edits = []
        if self._offering and self.tools:
            edits.append(self._added("tools", self._fragment, first=self.tools_first))
        if self._said:
            edits.append(self._with_history(b",".join(self._said)))
        body = self._edited(edits)
        return json_bytes.without_member(body, "tool_choice") if self._said and self._has_its_choice else body

    @property
    def _has_its_choice(self) -> bool:
        """The tool that the request demands was an injected one, and has been called; or there is none to choose now.

        To demand it again would be to go on for ever.
        """
        called = demanded(self._value("tool_choice"))
        if called or self._has_own_tools:
            return called in self.names
        return called == ANY or not self._offering

    @property
    def _has_own_tools(self) -> bool:
        """The client has brought tools."""
        return bool(self._taken) or self._member("tools").strip(b" \t\r\n[]") not in (b"", b"null")

    def stop_offering(self) -> None:
        """The next turn is the last: no tool is offered any more."""
        self._offering = False

    @abstractmethod
    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""

    @abstractmethod
    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""

    def end(self) -> bytes:
        """The end of the message, which was held back while calls were waiting."""
        return self.held()

    @abstractmethod
    def keep_alive(self) -> bytes:
        """A sign of life for the client of a stream, fit to stand at this place of it."""

    def add_results(self, answered: Sequence[Answered]) -> None:
        """The waiting calls have run: what the model said, and what they gave, becomes part of the conversation."""
        self._said += self._last_said
        self._said += self._results(answered)
        self.waiting = []
        self.answered_last = True

    def is_injected(self, call: ToolCall) -> bool:
        """The call is for the gateway to run, not for the client."""
        return call.name in self.names and not call.namespace

    def is_broken_off(self, turn: Turn) -> bool:
        """The provider did not let the turn come to its natural end: no call of it is run, and the message ends."""
        return turn.stop_reason in self.broken_off

    def took(
        self, turn: Turn, said: list[bytes], usage: dict[str, Any] | None, settled: Collection[str | None] = ()
    ) -> None:
        """A turn has come to its end (for readers): what it said for the conversation, and its raw usage.

        Of a turn that was broken off, nothing that is hidden belongs into `said`. `settled` are ids of calls that the
        provider has answered itself.
        """
        self.turns += 1
        self.answered_last = False
        self._own_calls = [call for call in turn.tool_calls if not self.is_injected(call) and call.id not in settled]
        injected = [call for call in turn.tool_calls if self.is_injected(call)]
        self.waiting = [] if self.is_broken_off(turn) else injected
        self.goes_on = bool(self.waiting) and not self._own_calls
        self._last_said = said
        if usage:
            self._counted.append(usage)

    def usage(self) -> dict[str, Any]:
        """The counters of all turns together."""
        total: dict[str, Any] = {}
        for usage in self._counted:
            total = added(total, usage)
        return total

    def keys(self) -> list[str]:
        """By which messages of the request may be remembered."""
        return [key for keys in self._conversation.keys for key in keys]

    @cached_property
    def _conversation(self) -> Conversation:
        """What the client's request tells of the conversation."""
        trail = Trail()
        try:
            return Conversation(self._read_history(trail), trail)
        except (msgspec.DecodeError, RecursionError):
            return Conversation([], trail)

    @abstractmethod
    def _read_history(self, trail: Trail) -> list[list[str]]:
        """Follow the request's history; the keys of each element. May raise `msgspec.DecodeError`."""

    @abstractmethod
    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Put what the client was not shown back into its request, for each of `keys` that something is remembered of.

        What does not fit exactly is left as it is.
        """

    @abstractmethod
    def remembered(self) -> Remembered | None:
        """What is to be remembered of this message, once it is at its end; None where nothing was hidden."""

    def _may_offer(self) -> bool:
        """The request does not forbid tools. May raise `msgspec.DecodeError`."""
        return not forbids_others(self._value("tool_choice"))

    @abstractmethod
    def _names_taken(self) -> frozenset[str]:
        """Names of the client's own tools."""

    @property
    @abstractmethod
    def _fragment(self) -> bytes:
        """The tools that are offered, as elements of the request's `tools`."""

    @abstractmethod
    def _results(self, answered: Sequence[Answered]) -> list[bytes]:
        """The results as elements of the conversation."""

    def _with_history(self, elements: bytes) -> Edit:
        """Elements (comma-separated JSON) after those of the history as it was given."""
        return self._added(self.history, elements)

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """Where the members of the client's request are."""
        return json_bytes.member_spans(self._given)

    def _member(self, name: str) -> bytes:
        """A member of the client's request; empty where it is missing."""
        return self._given[slice(*self._spans.get(name, (0, 0)))]

    def _value(self, name: str) -> Any:
        """A short member of the client's request, decoded; None where it is missing."""
        return json_bytes.decode(_any, self._member(name) or b"null")

    def _set(self, name: str, value: bytes) -> Edit:
        """A member of the client's request set, or a new one."""
        if span := self._spans.get(name):
            return Edit(*span, value)
        at = self._given.index(b"{") + 1
        return Edit(at, at, b"%b:%b," % (json_bytes.encode(name), value))

    def _added(self, name: str, elements: bytes, *, first: bool = False) -> Edit:
        """Elements (comma-separated JSON) added to a member that is an array; where it is none, it becomes one."""
        begin, end = self._spans.get(name, (0, 0))
        if not self._given.startswith(b"[", begin, end):
            return self._set(name, b"[%b]" % elements)
        place = json_bytes.first_place if first else json_bytes.last_place
        at, added = place(self._given, begin, end, elements)
        return Edit(at, at, added)

    def _edited(self, edits: Iterable[Edit]) -> bytes:
        """The client's request with some edits, and no other byte changed. It may be long, so it is copied once."""
        given, at = memoryview(self._given), 0
        pieces: list[bytes | memoryview] = []
        for begin, end, text in sorted(edits, key=_begin):
            pieces += [given[at:begin], text]
            at = end
        return b"".join([*pieces, given[at:]])

    def _elements(self) -> list[bytes]:
        """The history of the client's request, element by element."""
        array = self._member(self.history)
        return [array[slice(*span)] for span in json_bytes.element_spans(array)]

    def _replace(self, elements: Mapping[int, bytes]) -> None:
        """Put others (comma-separated JSON) in place of some elements of the history; no other byte changes."""
        start, _ = self._spans[self.history]
        spans = json_bytes.element_spans(self._member(self.history))
        self._given = self._edited(
            Edit(start + spans[place][0], start + spans[place][1], text) for place, text in elements.items()
        )
        del self._spans


class MergedStream(StreamReader[E]):
    """What the readers of streams have in common here: each event passes as it came, or changed, or not at all.

    A subclass reads the event `_event` in `_read`, and puts what the client gets instead into `_passed`. What follows
    the end of a turn is nothing to the client: its message may go on, or have ended.
    """

    rewrites = True
    between_events = True  # for the client gets whole events only

    _event = b""
    _passed = b""
    _closing = False

    def feed(self, data: bytes) -> bytes:
        """Read what came; events are for the client once they are whole."""
        return b"".join([self._pass(event) for event in self._splitter.feed(data)])

    def close(self) -> bytes:
        """Read an event that nothing ended; the client is spared the piece of one that was cut."""
        self._closing = True
        rest = self._splitter.rest()
        passed = self._pass(rest.rstrip(b"\r\n") + b"\n\n") if rest.strip() else b""
        self._finish()
        return passed

    def _pass(self, event: bytes) -> bytes:
        if self.ended:
            return b""
        self._event, self._passed = event, event
        self._take(event)
        return self._passed

    def _read_other(self, data: bytes) -> None:
        super()._read_other(data)
        if self._closing:
            self._passed = b""


def data_of(event: bytes) -> bytes:
    """The data of an event in one line, as it can be written again; JSON may come in several."""
    return sse.data_of(event).replace(b"\n", b" ")


class MergedDocument(DocumentReader):
    """What the readers of documents have in common here: one is held until it is known whether it is the last.

    A subclass puts what the client gets into `_passed`.
    """

    rewrites = True

    _passed = b""

    def feed(self, data: bytes) -> bytes:
        """Keep a piece of the document. Raises `EventTooLarge` where it is too long to be kept."""
        super().feed(data)
        if self._size > self._limit:
            raise EventTooLarge(f"the document is longer than {self._limit} bytes")
        return b""

    def close(self) -> bytes:
        """Read the document; one that can not be read is relayed as it came."""
        self._passed = b"".join(self._pieces)
        super().close()
        return self._passed


def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Counters added up, name by name, within objects too; of what is no number, the later stands."""
    total = dict(one)
    for name, value in other.items():
        before = total.get(name)
        if isinstance(value, dict):
            total[name] = added(before if isinstance(before, dict) else {}, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            total[name] = value + (before if isinstance(before, int | float) else 0)
        elif value is not None or name not in total:
            total[name] = value
    return total
