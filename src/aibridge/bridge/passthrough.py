"""A request on a passthrough route: proxied, and not looked into."""

from __future__ import annotations

import logging
from contextlib import suppress

from aibridge.bridge.asgi import INTERCEPTION_ID, Receive, Send, refuse
from aibridge.bridge.headers import for_client
from aibridge.bridge.watch import Interrupted, Watch, Why
from aibridge.errors import Fault, Kind
from aibridge.observe.spans import NO_SPANS, Spans
from aibridge.upstream.upstream import Upstream, UpstreamRequest
from aibridge.wire.dialect import Dialect

_log = logging.getLogger("aibridge.bridge")


class Proxied:
    """Carries one request there and back."""

    def __init__(
        self,
        exchange_id: str,
        dialect: Dialect,
        sending: UpstreamRequest,
        upstream: Upstream,
        receive: Receive,
        send: Send,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._id, self._dialect, self._sending, self._upstream = exchange_id, dialect, sending, upstream
        self._send, self._spans = send, spans
        self.watch = Watch(receive)
        self._begun = False

    async def carry(self) -> None:
        """Send the request, and relay the answer; one that breaks off is left unfinished."""
        try:
            await self._carry()
        finally:
            self._spans.close()

    async def _carry(self) -> None:
        fault: Fault
        try:
            with self.watch:
                await self._relay()
            return
        except Interrupted as interrupted:
            if interrupted.why is Why.CLIENT_LEFT:
                self._spans.close(interrupted)
                return
            fault = Fault(Kind.SHUTTING_DOWN, "the gateway is stopping", retry_after=1)
        except OSError as error:
            self._spans.close(error)
            return
        except Fault as raised:
            fault = raised
        self._spans.close(fault)
        _log.warning("passthrough %s failed: %s", self._id, fault.message)
        if not self._begun:
            with suppress(OSError):
                await refuse(self._send, fault, self._dialect.error_body(fault, self._id), self._id)

    async def _relay(self) -> None:
        answer = await self._upstream.send(self._sending.with_headers(self._spans.asking()))
        self._spans.answered(answer.status)
        try:
            headers = [*for_client(answer.headers), (INTERCEPTION_ID, self._id.encode())]
            self._begun = True
            await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
            last = False
            while not last:
                data = await answer.read()
                last = answer.at_end
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        finally:
            answer.close()
