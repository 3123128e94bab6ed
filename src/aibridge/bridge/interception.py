"""One interception: a request on a bridged route, carried upstream and back, understood and recorded on the way."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import perf_counter

from msgspec.structs import replace

from aibridge.bridge.asgi import INTERCEPTION_ID, Message, Receive, Send, refuse
from aibridge.bridge.facts import Facts
from aibridge.bridge.headers import for_client
from aibridge.bridge.reading import Reading
from aibridge.bridge.regularly import Regularly
from aibridge.bridge.tool_run import ToolRun
from aibridge.bridge.watch import Interrupted, Watch, Why
from aibridge.errors import Fault, Kind
from aibridge.records import Status
from aibridge.upstream.upstream import Answer, Upstream, UpstreamRequest
from aibridge.wire.dialect import Dialect, ProviderError, Reader, Request, Turn
from aibridge.wire.sse import EventTooLarge

_log = logging.getLogger("aibridge.bridge")

_MODEL = b"openai-model"
_STOPPING = Fault(Kind.SHUTTING_DOWN, "the gateway is stopping", retry_after=1)


class Carrier:
    """Carries one request whose interception has begun; `carry` returns when the client has all that it will get.

    The order is what makes the records trustworthy: what a turn showed, and how it ended, is recorded before the client
    gets the last byte of it.
    """

    def __init__(
        self,
        dialect: Dialect,
        request: Request,
        sending: UpstreamRequest,
        facts: Facts,
        upstream: Upstream,
        receive: Receive,
        send: Send,
        tools: ToolRun | None = None,
    ) -> None:
        self._dialect, self._request, self._sending = dialect, request, sending
        self._facts, self._upstream, self._send = facts, upstream, send
        self._tools = tools
        self.watch = Watch(receive)
        facts.watch = self.watch
        self._status: int | None = None  # that the client was answered with, once it was
        self._answer: Answer | None = None  # the last one
        self._told = True  # what the turn showed is recorded
        self._streams = False
        self._reading: Reading | None = None

    async def carry(self) -> None:
        """Send the request, relay the answer, and record what it showed."""
        self._facts.spans.processing()
        try:
            with self.watch:
                await self._converse()
        except Interrupted as interrupted:
            if interrupted.why is Why.CLIENT_LEFT:
                await self._end_cut("cancelled", None, None)
            else:
                await self._fail(_STOPPING)
        except Fault as fault:
            await self._fail(fault)
        except asyncio.CancelledError:
            await self._fail(_STOPPING)  # the host does so when its own grace is over
            raise
        except Exception:  # noqa: BLE001  # whatever happened, it is recorded
            _log.exception("interception %s met a fault of the gateway's own", self._facts.id)
            await self._fail(Fault(Kind.INTERNAL, "the gateway met a fault of its own; its log tells more"))
        finally:
            self._facts.close()

    async def _converse(self) -> None:
        """The turns of the interception: one, but for those that end in calls of injected tools only."""
        tools = self._tools
        if tools is None:
            await self._take_turn(self._sending)
            return
        await tools.recall()
        while True:
            body = tools.begin_turn()
            turn = await self._take_turn(replace(self._sending, body=body, turn=tools.turn))
            if not tools.merge.waiting:
                return
            waiting = perf_counter()
            try:
                with self._staying_alive():
                    await tools.run(turn)
            finally:
                self._facts.waited += perf_counter() - waiting
            if not tools.goes_on:
                await self._finish(tools)
                return

    async def _take_turn(self, sending: UpstreamRequest) -> Turn:
        """One request upstream and its answer, which is relayed as far as it is for the client."""
        spans = self._facts.spans
        sending = sending.with_headers(spans.asking())
        asked = perf_counter()
        try:
            with self._staying_alive():
                answer = await self._upstream.send(sending, self._facts.retried)
        finally:
            self._facts.waited_for_upstream = perf_counter() - asked
            self._facts.waited += self._facts.waited_for_upstream
        spans.answered(answer.status)
        try:
            return await self._relay(answer)
        finally:
            answer.close()

    async def _relay(self, answer: Answer) -> Turn:
        """Let the client have the answer as it comes, and read it on the way."""
        streams = answer.status < 400 and answer.streams
        if self._status is not None and not streams:
            raise await self._late_error(answer)
        self._streams, self._answer = streams, answer
        reader = self._reader_for(answer)
        reading = self._reading = Reading(reader, answer.header(b"content-encoding"))
        if streams:
            if self._status is None and not answer.begun:
                await self._begin(answer)
            if reading.takes_insertions:
                answer.on_silence(self._keep_alive)
        facts, tools = self._facts, self._tools
        self._told = False
        while True:
            waiting = perf_counter()
            data = await answer.read()
            facts.waited += perf_counter() - waiting
            last = answer.at_end
            ahead = reading.ahead(data) if streams else 0
            try:
                if streams and self._status is None:  # the head and its first piece wake the client once
                    await self._begin(answer)
                if ahead:
                    await self._say({"type": "http.response.body", "body": data[:ahead], "more_body": True})
            finally:  # what has come is read and recorded, whether or not the client still takes it
                passed = reading.feed(data)[ahead:]
            if last:
                passed += reading.close()
            if (reader.ended or last) and not self._told:
                await self._settle(answer, passed)
            over = last and not (tools and tools.merge.waiting)
            if passed or over:
                if self._status is None:  # had it broken off before this, the client would get an error
                    await self._begin(answer)
                await self._say({"type": "http.response.body", "body": passed, "more_body": not over})
            if last:
                return reader.turn

    def _reader_for(self, answer: Answer) -> Reader:
        if self._tools and answer.status < 400:
            merge = self._tools.merge
            return merge.stream_reader() if self._streams else merge.document_reader()
        if self._streams:
            return self._dialect.stream_reader(self._request)
        return self._dialect.document_reader(self._request, answer.status)

    async def _late_error(self, answer: Answer) -> Fault:
        """A turn that can not be told by an error answer, since the client has had the beginning of a stream."""
        if answer.status < 400:
            return Fault(Kind.UPSTREAM_FAULT, f"{answer.request.provider} went on with what is no event stream")
        reader = self._dialect.document_reader(self._request, answer.status)
        reading = Reading(reader, answer.header(b"content-encoding"))
        while not answer.at_end:
            reading.feed(await answer.read())
        reading.close()
        error = reader.turn.error or ProviderError(None, None)
        said = f"{answer.request.provider} answered {answer.status}: {error.message}"
        return Fault(Kind.UPSTREAM_FAULT, said, provider_type=error.type or "")

    async def _finish(self, tools: ToolRun) -> None:
        """The message ends with calls for the client, or at the last turn: send what was held back of its end."""
        await tools.remember()
        await self._facts.end("completed", self._status or 200)
        if self._status is None and self._answer is not None:
            await self._begin(self._answer)
        await self._say({"type": "http.response.body", "body": tools.merge.end(), "more_body": False})

    def _staying_alive(self) -> Regularly:
        """While tools run, and the next turn's answer has not begun, tell the client of a stream that it is open."""
        return Regularly(self._upstream.limits.keep_alive if self._streams else 0, self._say_keep_alive)

    async def _begin(self, answer: Answer) -> None:
        """Send the head of the answer."""
        assert self._reading is not None
        without = [b"content-length"] if self._streams or self._reading.reader.rewrites else []
        if self._reading.unpacks:
            without.append(b"content-encoding")
        headers = for_client(answer.headers, without)
        if answer.request.model != self._request.model:  # Codex warns of a model that it has not asked for
            told = self._request.model.encode()
            headers = [(name, told if name == _MODEL else value) for name, value in headers]
        headers += [(INTERCEPTION_ID, self._facts.id.encode()), (b"server-timing", self._facts.first_byte())]
        self._status = answer.status
        await self._say({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _settle(self, answer: Answer, passed: bytes) -> None:
        """The answer has come to its end: record what it showed, and how it ended."""
        assert self._reading is not None
        turn = self._reading.reader.turn
        if not turn.complete and not turn.error:
            if passed:
                await self._say({"type": "http.response.body", "body": passed, "more_body": True})
            raise Fault(Kind.UPSTREAM_FAULT, f"the answer of {answer.request.provider} ended before it was complete")
        tools = self._tools
        self._told = True
        runs = tools is not None and bool(tools.merge.waiting)
        at = self._facts.turn(turn, cut=not turn.complete, injected=tools.tool_of if tools else None, runs=runs)
        if runs:
            await self._facts.keep()
            return
        if tools and turn.complete:
            await tools.remember()
        failed = turn.error is not None or answer.status >= 400
        await self._facts.end("failed" if failed else "completed", answer.status, turn.error, at)

    async def _fail(self, fault: Fault) -> None:
        """Tell the client of a fault: by an error answer, or, where an answer has begun, by an event and a cut.

        An answer that has begun is never ended cleanly then, since several clients take a clean end for success: it is
        left unfinished, and the server closes the connection.
        """
        if self._facts.ended:  # with the end of its dialect: what broke after that is nobody's loss
            await self._quietly({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await self._end_cut("failed", fault.said.status, fault)
        if self._status is None:
            with suppress(OSError):
                await refuse(self._send, fault, self._dialect.error_body(fault, self._facts.id), self._facts.id)
        elif self._streams and self._reading and self._reading.takes_insertions:
            event = self._dialect.error_event(fault, self._facts.id, self._reading.reader)
            await self._quietly({"type": "http.response.body", "body": event, "more_body": True})

    async def _end_cut(self, status: Status, http_status: int | None, fault: Fault | None) -> None:
        """Record the end of an exchange that was cut, and what was seen until then."""
        if self._facts.ended:
            return
        if self._reading and not self._told:
            with suppress(EventTooLarge):
                self._reading.close()
            injected = self._tools.tool_of if self._tools else None
            self._facts.turn(self._reading.reader.turn, cut=True, injected=injected)
        await self._facts.end(status, self._status or http_status, fault)

    async def _keep_alive(self) -> None:
        """Tell the client of a silent stream that it is still open."""
        assert self._reading is not None
        if self._reading.reader.between_events and not self._reading.reader.ended:
            await self._say_keep_alive()

    async def _say_keep_alive(self) -> None:
        keep_alive = self._tools.merge.keep_alive() if self._tools else self._dialect.keep_alive
        await self._quietly({"type": "http.response.body", "body": keep_alive, "more_body": True})

    async def _say(self, message: Message) -> None:
        """Send to the client, as fast as it reads."""
        waiting = perf_counter()
        try:
            await self._send(message)
        except OSError:
            raise Interrupted(Why.CLIENT_LEFT) from None
        finally:
            self._facts.waited += perf_counter() - waiting

    async def _quietly(self, message: Message) -> None:
        with suppress(OSError):
            await self._send(message)
