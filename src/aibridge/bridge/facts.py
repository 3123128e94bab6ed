"""What is told of one interception: records, metrics, spans and a log line, each fact once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, TypeAlias

import msgspec

from aibridge.actor import Actor
from aibridge.bridge.watch import Watch
from aibridge.clients import Client
from aibridge.errors import Fault, Kind
from aibridge.mcp.toolbox import InjectedTool, Outcome
from aibridge.observe import log
from aibridge.observe.metrics import Metrics
from aibridge.observe.spans import NO_SPANS, Spans
from aibridge.providers import Credential, Provider
from aibridge.recording.recorder import RecordAll
from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    Status,
    TokenUsage,
    ToolUsage,
    new_id,
)
from aibridge.upstream.attempts import Tried
from aibridge.wire.dialect import ProviderError, Request, ToolCall, Turn, Usage

_log = logging.getLogger("aibridge.interceptions")

Injected: TypeAlias = Callable[[ToolCall], InjectedTool | None]
"""Gives the tool of a call that the gateway is to run; None where that is for the client."""

_NO_USAGE = Usage()

_NOT_RUN = "the answer was cut before the call"

RETRY_AFTER = 5  # seconds, for a client that was refused because nothing can be recorded


class _End(msgspec.Struct, frozen=True, gc=False):
    """How an interception ended, how long it took, and how much of that the gateway itself; in seconds."""

    record: InterceptionEnded
    took: float
    overhead: float


class Facts:
    """Hands the facts of one interception to the recorder, the metrics, the tracer and the log."""

    ended = False
    waited = 0.0
    """Seconds spent waiting for the client, the upstream or a tool."""
    waited_for_upstream = 0.0
    """Seconds from sending the request upstream to the head of the answer."""
    watch: Watch | None = None
    """Lets nothing interrupt the writing of records."""
    _end: _End | None = None
    _usage = _NO_USAGE
    _asked_last: dict[str, Any] | None = None

    def __init__(
        self,
        interception_id: str,
        provider: Provider,
        route: str,
        method: str,
        actor: Actor,
        request: Request,
        client: Client,
        credential: Credential,
        record: RecordAll,
        metrics: Metrics,
        spans: Spans = NO_SPANS,
    ) -> None:
        self.id = interception_id
        self.spans = spans
        self.began = perf_counter()
        self._provider, self._route = provider, route
        self._actor, self._request, self._client, self._credential = actor, request, client, credential
        self._record, self._metrics = record, metrics
        self._labels = (request.model, route, method, actor.id, client.name)
        self._series = metrics.series(provider.name, *self._labels)
        self._begun = self._series
        self._retries: list[str] = []
        self._tried: list[dict[str, str]] = []
        self._credentials = [credential]
        self._pending: list[Record] = []

    async def begin(self, user_agent: str | None, via: str | None = None) -> None:
        """Tell that the interception begins, `via` a route of several providers or none.

        Raises `Fault` (NOT_RECORDED) where that can not be kept.
        """
        request, credential = self._request, self._credential
        metadata: dict[str, Any] = {
            **self._actor.metadata,
            **self._client.metadata,
            **self._provider.metadata(request.model),
        }
        if credential.secret:
            metadata["credential_length"] = len(credential.secret)
        if credential.subscription:
            metadata["subscription"] = credential.subscription
        if via is not None:
            metadata["route"] = via
        now = datetime.now(UTC)
        records: list[Record] = [
            Interception(
                id=self.id,
                initiator_id=self._actor.id,
                provider=self._provider.type,
                provider_name=self._provider.name,
                model=request.model,
                started_at=now,
                route=self._route,
                streaming=request.streaming,
                client=self._client.name,
                client_session_id=self._client.session_id,
                user_agent=user_agent,
                correlating_tool_call_id=request.correlating_tool_call_id,
                credential_kind=credential.kind,
                credential_hint=credential.hint,
                metadata=metadata,
            )
        ]
        if request.prompt is not None:
            records.append(PromptUsage(id=new_id(), interception_id=self.id, prompt=request.prompt, created_at=now))
        self.spans.recording(records)
        try:
            await self._record(records)
        except Exception as error:
            self.spans.recorded(error)
            _log.error("refused an exchange that can not be recorded: %s", error)
            self._metrics.unrecorded.inc(len(records))
            cause = "the exchange can not be recorded at the moment, and is therefore refused"
            raise Fault(Kind.NOT_RECORDED, cause, retry_after=RETRY_AFTER) from error
        self.spans.recorded()
        self._begun.begun(prompted=request.prompt is not None)

    def retried(self, provider: str, why: str) -> None:
        """Tell that the request is sent to a provider once more."""
        self._retries.append(why)
        self.spans.retried(why)
        self._metrics.retries.labels(provider, why).inc()

    def left(self, tried: Sequence[Tried], asked: tuple[Provider, Credential] | None) -> None:
        """Tell what was tried in vain, and who was asked last, with which credential; None for nobody."""
        for each in tried:
            self._metrics.left.labels(each.provider, each.why).inc()
            self._tried.append({name: value for name, value in each._asdict().items() if value is not None})
        self.spans.left([(each.provider, each.why) for each in tried], asked and asked[0])
        if asked is None:
            return
        provider, credential = asked
        self._asked_last = {
            "asked_last": provider.name,
            "credential_hint": credential.hint,
            "credential_length": len(credential.secret),
        }
        if provider is not self._provider:
            self._series = self._metrics.series(provider.name, *self._labels)
        self._provider = provider
        self._credentials.append(credential)

    def turn(self, turn: Turn, *, cut: bool, injected: Injected | None = None, runs: bool = False) -> datetime:
        """Tell what one turn showed, to be kept by the next `keep` or `end`; where it was cut, its counts are partial.

        Returns the time at which it was told.

        Calls of injected tools are told of by `injected_call` once they have run, if the turn `runs` them; else here.
        """
        self.spans.turn(turn, cut=cut)
        now = datetime.now(UTC)
        if turn.usage:
            self._tokens(turn, turn.usage, now, partial=cut and not turn.counted)
        for call in turn.tool_calls:
            if (tool := injected and injected(call)) is None:
                self._call(call, call.name, turn, {} if call.complete else {"partial": True})
                self._series.selected(call.name)
            elif not runs:
                self._call(call, tool.name, turn, {}, injected=True, server_url=tool.server_url, error=_NOT_RUN)
        for thought in turn.thoughts:
            self._pending.append(
                ModelThought(
                    id=new_id(),
                    interception_id=self.id,
                    provider_response_id=turn.response_id,
                    content=thought.content,
                    metadata={"source": thought.source},
                    created_at=now,
                )
            )
        return now

    def injected_call(self, call: ToolCall, tool: InjectedTool, outcome: Outcome, turn: Turn) -> None:
        """Tell of a call that the gateway ran, to be kept by the next `keep` or `end`."""
        self.spans.called(call, outcome.result, outcome.error)
        took = {"duration_ms": round(outcome.duration * 1000, 1)}
        self._call(call, tool.name, turn, took, injected=True, server_url=tool.server_url, error=outcome.error)
        self._series.invoked(tool.server, tool.name)

    def _call(
        self,
        call: ToolCall,
        tool: str,
        turn: Turn,
        metadata: dict[str, Any],
        *,
        injected: bool = False,
        server_url: str | None = None,
        error: str | None = None,
    ) -> None:
        self._pending.append(
            ToolUsage(
                id=new_id(),
                interception_id=self.id,
                provider_response_id=turn.response_id,
                provider_tool_call_id=call.id,
                tool=tool,
                input=call.arguments,
                injected=injected,
                server_url=server_url,
                invocation_error=error,
                metadata=metadata,
                created_at=datetime.now(UTC),
            )
        )

    async def keep(self) -> None:
        """Record what was told since the last time. The exchange goes on where that fails."""
        records, self._pending = self._pending, []
        if not records:
            return
        self.spans.recording(records)
        watch = self.watch
        if watch:
            watch.hold()
        try:
            await self._record(records)
            self.spans.recorded()
        except Exception as error:  # noqa: BLE001  # a host may bring any recorder
            self.spans.recorded(error)
            _log.error("lost records of interception %s: %s", self.id, error)
            self._metrics.unrecorded.inc(len(records))
        finally:
            if watch:
                watch.let_go()

    async def end(
        self,
        status: Status,
        http_status: int | None,
        error: ProviderError | Fault | None = None,
        at: datetime | None = None,
    ) -> None:
        """Record how the interception ended, now or `at` a time; only the first end counts. `close` tells others."""
        if self.ended:
            return
        self.ended = True
        own = False
        if isinstance(error, Fault):
            own = error.provider_type is None
            error = ProviderError(error.kind.name.lower(), error.message)
        record = InterceptionEnded(
            interception_id=self.id,
            ended_at=at or datetime.now(UTC),
            status=status,
            http_status=http_status,
            error_type=self._safe(error.type) if error else None,
            error_message=self._safe(error.message) if error else None,
            metadata=self._outcome(),
        )
        self.spans.outcome(record, own=own)
        self._pending.append(record)
        await self.keep()
        took = perf_counter() - self.began
        self._end = _End(record, took, took - self.waited)

    def close(self) -> None:
        """Tell of the end what the client did not have to wait for: it has had its last byte."""
        self.spans.close()
        if self._end is None:
            return
        self._series.ended(self._end.record.status, self._end.took, self._end.overhead, begun=self._begun)
        if _log.isEnabledFor(logging.INFO):
            self._write_line(self._end)

    def first_byte(self) -> bytes:
        """The answer begins: tell what the gateway added to the time until then; as a `Server-Timing` header's value.

        Source: https://www.w3.org/TR/server-timing/, in milliseconds.
        """
        added = perf_counter() - self.began - self.waited
        self._series.answered(added)
        return b"aibridge;dur=%.2f, upstream;dur=%.1f" % (added * 1000, self.waited_for_upstream * 1000)

    def _tokens(self, turn: Turn, usage: Usage, now: datetime, *, partial: bool) -> None:
        self._pending.append(
            TokenUsage(
                id=new_id(),
                interception_id=self.id,
                provider_response_id=turn.response_id,
                input_tokens=usage.input,
                output_tokens=usage.output,
                cache_read_input_tokens=usage.cache_read,
                cache_write_input_tokens=usage.cache_write,
                metadata={**usage.extra, "partial": True} if partial else usage.extra,
                provider_usage=turn.provider_usage,
                created_at=now,
            )
        )
        self._usage = usage if self._usage is _NO_USAGE else _sum(self._usage, usage)
        self._series.used(usage)

    def _safe(self, text: str | None) -> str | None:
        """A provider's words, without the credentials that it may quote."""
        for credential in self._credentials:
            text = text.replace(credential.secret, credential.hint) if text and credential.secret else text
        return text

    def _outcome(self) -> dict[str, Any]:
        """What is known at the end only."""
        metadata: dict[str, Any] = {"retries": self._retries} if self._retries else {}
        if self._tried:
            metadata |= {"tried": self._tried, **(self._asked_last or {})}
        return metadata

    def _write_line(self, ended: _End) -> None:
        end, usage = ended.record, self._usage
        log.tell(
            log.InterceptionFacts(  # not all by keyword: for more than fifteen, Python makes a dict first
                self.id,
                self._actor.id,
                self._client.name,
                self._client.session_id,
                self._provider.name,
                self._route,
                model=self._request.model,
                streaming=self._request.streaming,
                status=end.status,
                http_status=end.http_status,
                error_type=end.error_type,
                retries=len(self._retries),
                input_tokens=usage.input,
                output_tokens=usage.output,
                cache_read_input_tokens=usage.cache_read,
                cache_write_input_tokens=usage.cache_write,
                duration_ms=round(ended.took * 10_000) / 10,  # round(…, 1) goes by way of decimal text
                overhead_ms=round(ended.overhead * 100_000) / 100,
            ),
            end.ended_at,
        )


def _sum(one: Usage, other: Usage) -> Usage:
    """What two turns used, as far as every provider counts it."""
    return Usage(
        one.input + other.input,
        one.output + other.output,
        one.cache_read + other.cache_read,
        one.cache_write + other.cache_write,
    )
